"""Training speed on a GPU, beside the time that the device needs at the very least.

    python -m benchmarks.gpu                      everything, into results/speed/
    python -m benchmarks.gpu --report-only        the page again, from gpu.jsonl
    python -m benchmarks.gpu --allow-cpu --resolution 32 --batches 8      does it work? On a CPU, written nowhere

The page says how the least time, or floor, is counted. Started again, it goes on: what gpu.jsonl holds is not measured
again.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import harness, report
from benchmarks.contest import make_faces
from benchmarks.harness import Row, tell
from ffem_jax.specs.architecture import NetworkSpec, resolve_network
from ffem_jax.specs.trial import RecipeSpec

# What a network computes in -> JAX's name of the precision of its products of matrices.
PRECISIONS = {"float32": "highest", "TF32": "tensorfloat32", "bfloat16": "default"}
# Of our convolutions' forms those that an accelerator can run.
FORMS = ("xla", "shifted")
TESTED = 64
NOT_RUN = "**Not run.** No GPU was at hand. On a machine with one, the command above fills this page."
HEAD = [
    *("", "precision", "pixels", "batch", "seeds", "training images/s", "ms per step"),
    *("floor, ms (set by)", "step / floor"),
]


# Of a device, by a part of JAX's name of it, as its maker gives them: dense TFLOPS in PRECISIONS, and GB/s of memory.
DEVICES = {"H100": (67.0, 495.0, 989.0, 3350.0), "H200": (67.0, 495.0, 989.0, 4800.0)}


class Cell(NamedTuple):
    """What is measured. form: of our convolutions, empty for PyTorch. seeds: trained at once as one program."""

    library: str
    form: str
    precision: str
    batch: int
    seeds: int
    resolution: int

    @property
    def network(self) -> NetworkSpec:
        """FFEM-AM, as it is built."""
        from ffem_jax.config.presets import PRESETS

        return resolve_network(PRESETS["ffem_am"])

    @property
    def recipe(self) -> RecipeSpec:
        """`modern`, at a rate that noise bears, and longer than anybody measures."""
        precision = "bfloat16" if self.precision == "bfloat16" else "float32"
        return RecipeSpec(epochs=1000, batch_size=self.batch, learning_rate=0.001, precision=precision)

    def make_faces(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Images, labels, those that train, which are whole batches, and those that are tested."""
        trained = max(count // self.batch, 1) * self.batch
        indices = np.arange(trained + TESTED)
        return *make_faces(self.resolution, len(indices)), indices[:trained], indices[trained:]


def count_activations(network: NetworkSpec, resolution: int) -> int:
    """Numbers that the convolutions of one image give, forward."""
    from ffem_jax.models import compute_map_sizes

    sizes = compute_map_sizes(network, resolution)
    maps = [(network.stem_channels, sizes[1]), (network.head_channels, sizes[-1])]
    for block, before, after in zip(network.blocks, sizes[1:], sizes[2:], strict=False):
        maps += [(block.hidden_channels, before)] if block.hidden_channels != block.in_channels else []
        maps += [(block.hidden_channels, after), (block.out_channels, after)]
    return sum(channels * size**2 for channels, size in maps)


def compute_floor(cell: Cell, device: Sequence[float]) -> tuple[float, str]:
    """Seconds that a step takes at the least, and what takes them: arithmetic or memory. The page says how."""
    from ffem_jax.cost.cost import compute_cost

    images = cell.batch * cell.seeds
    operations = 2 * 3 * compute_cost(cell.network, cell.resolution).macs * images
    size = 2 if cell.precision == "bfloat16" else 4
    transferred = 4 * size * count_activations(cell.network, cell.resolution) * images
    tflops, gbs = device[list(PRECISIONS).index(cell.precision)], device[-1]
    return max((operations / tflops / 1e12, "arithmetic"), (transferred / gbs / 1e9, "memory"))


def list_cells(options: argparse.Namespace, torch: bool) -> list[Cell]:
    """Every form, precision and batch with one seed; more seeds with the smallest batch, which fills a GPU least."""
    cells = []
    for precision in PRECISIONS:
        rows = [("ffem-jax", form, batch, 1) for form in FORMS for batch in options.batches]
        rows += [("ffem-jax", "xla", min(options.batches), seeds) for seeds in options.seeds if seeds > 1]
        rows += [("PyTorch", "", batch, 1) for batch in options.batches] if torch else []
        cells += [Cell(name, form, precision, batch, seeds, options.resolution) for name, form, batch, seeds in rows]
    return cells


def build_ours(cell: Cell, count: int) -> tuple[Callable[[], None], Row]:
    """What trains an epoch of ours, and the seconds that it took to compile."""
    import jax

    from ffem_jax.models.convolutions import use_convolution_form
    from ffem_jax.training.trainer import Trainer

    faces = cell.make_faces(count)
    with jax.default_matmul_precision(PRECISIONS[cell.precision]), use_convolution_form(cell.form):
        trainer = Trainer(cell.network, cell.recipe, range(cell.seeds), *faces)
    state, epochs = trainer.init(), itertools.cycle(range(cell.recipe.epochs))

    def train() -> None:
        nonlocal state
        state, metrics = trainer.run_steps(state, trainer.zero_metrics(), next(epochs), 0, trainer.steps_per_epoch)
        if np.any(jax.device_get(metrics).bad_step >= 0):
            raise SystemExit(f"{cell}: the loss is not finite")

    return train, {"compile_seconds": trainer.compile_seconds}


def build_torch(cell: Cell, count: int) -> tuple[Callable[[], None], Row]:
    """What trains an epoch of the peer."""
    import torch

    from benchmarks.peers.torch_trial import TorchTrainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cell.precision == "TF32"
    torch.backends.cudnn.benchmark = True
    images, labels, train_indices, _ = cell.make_faces(count)
    steps = len(train_indices) // cell.batch * cell.recipe.epochs
    trainer = TorchTrainer(cell.network, images, labels, cell.recipe, 0, steps, device)
    indices = torch.from_numpy(train_indices).to(device)

    def train() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=cell.precision == "bfloat16"):
            trainer.train_epoch(indices)
        if device == "cuda":
            torch.cuda.synchronize()

    return train, {}


def time_epochs(cell: Cell, options: argparse.Namespace) -> Row:
    """Training images per second, those of all seeds: whole epochs until the time is over."""
    train, facts = (build_torch if cell.library == "PyTorch" else build_ours)(cell, options.images)
    for limit in (options.seconds / 5, options.seconds):  # the first warms the device up
        started, epochs, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < limit:
            train()
            epochs, elapsed = epochs + 1, time.perf_counter() - started
    images = max(options.images // cell.batch, 1) * cell.batch * cell.seeds
    return {"images_per_second": epochs * images / elapsed, **facts}


def measure(cell: Cell, options: argparse.Namespace) -> Row:
    """What a cell gives, or that it does not fit into memory."""
    try:
        return time_epochs(cell, options)
    except RuntimeError as error:
        # JAX and PyTorch each have a class of their own for this, both RuntimeErrors.
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error):
            raise
        return {"failed": "out of memory"}
    finally:
        if cell.library == "PyTorch":
            import torch

            torch.cuda.empty_cache()


def run(options: argparse.Namespace, path: Path) -> None:
    """Measure the cells that the records lack."""
    import jax

    device, cells = jax.devices()[0].device_kind, {}
    for cell in list_cells(options, has_torch(options)):
        words = [cell.library, cell.form, cell.precision, f"batch {cell.batch}", f"seeds {cell.seeds}"]
        cells[", ".join(filter(None, words))] = {**cell._asdict(), "device": device}

    def measure_row(row: Row) -> Row:
        measured = measure(find_cell(row), options)
        tell(f"    {measured.get('failed') or format(measured['images_per_second'], '.0f') + ' images/s'}")
        return {**measured, **harness.describe_machine(("jax", "flax", "torch"))}

    harness.measure_missing(path, cells, lambda row: True, measure_row, options.fresh)


def find_cell(row: Row) -> Cell:
    """The cell of a record."""
    return Cell(*(row[name] for name in Cell._fields))


def has_torch(options: argparse.Namespace) -> bool:
    """Whether PyTorch can take part."""
    reason = 'no torch; pip install -e ".[bench]"'
    if not harness.find_missing(["torch"]):
        import torch

        reason = "" if torch.cuda.is_available() or options.allow_cpu else "this build of it sees no GPU"
    if reason:
        tell(f"PyTorch is left out: {reason}")
    return not reason


def write_report(path: Path, options: argparse.Namespace) -> str:
    """Write gpu.md beside the records `path`, and return it."""
    held = harness.read_latest(path, "device", *Cell._fields)
    parts = []
    for name in dict.fromkeys(row["device"] for row in held):
        device = next((device for part, device in DEVICES.items() if part in name), None)
        rows = [row for row in held if row["device"] == name]
        peaks = "No floor: the device's peaks are not known; add them to DEVICES in benchmarks/gpu.py."
        if device:
            peaks = "Peaks taken: {:g} TFLOPS in float32, {:g} in TF32, {:g} in bfloat16, {:g} GB/s.".format(*device)
        about = f"{report.describe_versions(rows[-1])}; {rows[-1]['date']}. {peaks}"
        parts += [f"## {name}", about, report.write_table(HEAD, [describe(row, device) for row in rows], left=2)]
    batches, seeds = (" ".join(map(str, values)) for values in (options.batches, options.seeds))
    command = f"python -m benchmarks.gpu --resolution {options.resolution} --batches {batches} --seeds {seeds}"
    devices = "\n\n".join(parts) or NOT_RUN
    return report.fill_page(path.with_suffix(".md"), "gpu", command=command, devices=devices)


def describe(row: Row, device: Sequence[float] | None) -> list[str]:
    """A row of a device's table."""
    cell = find_cell(row)
    words = [f"{cell.library} {cell.form}".strip(), cell.precision]
    words += map(str, (cell.resolution, cell.batch, cell.seeds))
    floor, by = compute_floor(cell, device) if device else (math.nan, "")
    least = f"{1e3 * floor:.3f} ({by})" if device else ""
    if "failed" in row:
        return [*words, row["failed"], "", least, ""]
    step = cell.batch * cell.seeds / row["images_per_second"]
    ratio = f"{step / floor:.1f}" if device else ""
    return [*words, f"{row['images_per_second']:.0f}", f"{1e3 * step:.2f}", least, ratio]


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the page."""
    parser = harness.make_parser("Training images per second on a GPU, beside what it could do at most.", "speed")
    harness.add_numbers(
        parser,
        resolution=(96, "pixels per side"),
        batches=([32, 128, 512, 1024], "images per batch"),
        seeds=([1, 2, 4, 8], "seeds in one program"),
        images=(8192, "in memory, and of an epoch"),
        seconds=(10.0, "of measuring each"),
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what is recorded")
    parser.add_argument("--allow-cpu", action="store_true", help="try it without a GPU; prints the page, keeps nothing")
    options = parser.parse_args(words)
    harness.check_positive(options, "resolution", "batches", "seeds", "images", "seconds")
    # JAX takes memory as it needs it, so that PyTorch finds some in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    with tempfile.TemporaryDirectory() as scratch:
        path = (Path(scratch) if options.allow_cpu else options.out) / "gpu.jsonl"
        if not options.report_only and not options.allow_cpu and jax.devices()[0].platform == "cpu":
            tell("no GPU here, so nothing is measured; --allow-cpu tries it without one")
        elif not options.report_only:
            run(options, path)
        page = write_report(path, options)
    if options.allow_cpu:
        print(page)


if __name__ == "__main__":
    main()
