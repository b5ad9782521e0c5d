"""Training speed on a GPU, compared with the least time that the device needs.

    python -m benchmarks.gpu                      everything, into results/speed/
    python -m benchmarks.gpu --report-only        the page again, from gpu.jsonl
    python -m benchmarks.gpu --allow-cpu --resolution 32 --batches 8      a trial run on a CPU that writes nothing

The page defines the least time, called the floor. A restarted run resumes: what gpu.jsonl holds is not measured again.
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

# Precision of the network -> JAX's name for the precision of its matrix products.
PRECISIONS = {"float32": "highest", "TF32": "tensorfloat32", "bfloat16": "default"}
# The forms of our convolutions that an accelerator can run.
FORMS = ("xla", "shifted")
TESTED = 64
NOT_RUN = "**Not run.** No GPU was available. On a machine with one, the command above fills this page."
HEAD = [
    *("", "precision", "pixels", "batch", "seeds", "training images/s", "ms per step"),
    *("floor, ms (set by)", "step / floor"),
]


# By a part of JAX's name for a device, its maker's figures: dense TFLOPS in PRECISIONS, and GB/s of memory.
DEVICES = {"H100": (67.0, 495.0, 989.0, 3350.0), "H200": (67.0, 495.0, 989.0, 4800.0)}


class Cell(NamedTuple):
    """One measurement. form: the form of our convolutions, empty for PyTorch. seeds: how many train as one program."""

    library: str
    form: str
    precision: str
    batch: int
    seeds: int
    resolution: int

    @property
    def network(self) -> NetworkSpec:
        """FFEM-AM, resolved."""
        from ffem_jax.config.presets import PRESETS

        return resolve_network(PRESETS["ffem_am"])

    @property
    def recipe(self) -> RecipeSpec:
        """`modern`, with a learning rate that is stable on noise, and more epochs than any measurement runs."""
        precision = "bfloat16" if self.precision == "bfloat16" else "float32"
        return RecipeSpec(epochs=1000, batch_size=self.batch, learning_rate=0.001, precision=precision)

    def make_faces(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return images, labels, training indices (full batches) and test indices."""
        trained = max(count // self.batch, 1) * self.batch
        indices = np.arange(trained + TESTED)
        return *make_faces(self.resolution, len(indices)), indices[:trained], indices[trained:]


def count_activations(network: NetworkSpec, resolution: int) -> int:
    """Return how many output numbers the convolutions have for one image, forward."""
    from ffem_jax.models import compute_map_sizes

    sizes = compute_map_sizes(network, resolution)
    maps = [(network.stem_channels, sizes[1]), (network.head_channels, sizes[-1])]
    for block, before, after in zip(network.blocks, sizes[1:], sizes[2:], strict=False):
        maps += [(block.hidden_channels, before)] if block.hidden_channels != block.in_channels else []
        maps += [(block.hidden_channels, after), (block.out_channels, after)]
    return sum(channels * size**2 for channels, size in maps)


def compute_floor(cell: Cell, device: Sequence[float]) -> tuple[float, str]:
    """Return the least seconds of a step, and its bound: arithmetic or memory. The page describes how."""
    from ffem_jax.cost.cost import compute_cost

    images = cell.batch * cell.seeds
    operations = 2 * 3 * compute_cost(cell.network, cell.resolution).macs * images
    size = 2 if cell.precision == "bfloat16" else 4
    transferred = 4 * size * count_activations(cell.network, cell.resolution) * images
    tflops, gbs = device[list(PRECISIONS).index(cell.precision)], device[-1]
    return max((operations / tflops / 1e12, "arithmetic"), (transferred / gbs / 1e9, "memory"))


def list_cells(options: argparse.Namespace, torch: bool) -> list[Cell]:
    """List every form, precision and batch with one seed; more seeds only with the smallest batch."""
    cells = []
    for precision in PRECISIONS:
        rows = [("ffem-jax", form, batch, 1) for form in FORMS for batch in options.batches]
        rows += [("ffem-jax", "xla", min(options.batches), seeds) for seeds in options.seeds if seeds > 1]
        rows += [("PyTorch", "", batch, 1) for batch in options.batches] if torch else []
        cells += [Cell(name, form, precision, batch, seeds, options.resolution) for name, form, batch, seeds in rows]
    return cells


def build_ours(cell: Cell, count: int) -> tuple[Callable[[], None], Row]:
    """Return a function that trains one epoch of our network, and its compile seconds."""
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
    """Return a function that trains one epoch of the PyTorch network."""
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
    """Return training images per second, summed over seeds: full epochs until the time is over."""
    train, facts = (build_torch if cell.library == "PyTorch" else build_ours)(cell, options.images)
    for limit in (options.seconds / 5, options.seconds):  # the first warms up the device
        started, epochs, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < limit:
            train()
            epochs, elapsed = epochs + 1, time.perf_counter() - started
    images = max(options.images // cell.batch, 1) * cell.batch * cell.seeds
    return {"images_per_second": epochs * images / elapsed, **facts}


def measure(cell: Cell, options: argparse.Namespace) -> Row:
    """Measure a cell, or report that it does not fit into memory."""
    try:
        return time_epochs(cell, options)
    except RuntimeError as error:
        # JAX and PyTorch each have their own class for this; both are RuntimeErrors.
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error):
            raise
        return {"failed": "out of memory"}
    finally:
        if cell.library == "PyTorch":
            import torch

            torch.cuda.empty_cache()


def run(options: argparse.Namespace, path: Path) -> None:
    """Measure the cells missing from the records."""
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
    """Return the cell of a record."""
    return Cell(*(row[name] for name in Cell._fields))


def has_torch(options: argparse.Namespace) -> bool:
    """Return whether PyTorch can take part."""
    reason = 'torch is not installed; pip install -e ".[bench]"'
    if not harness.find_missing(["torch"]):
        import torch

        reason = "" if torch.cuda.is_available() or options.allow_cpu else "this build of torch finds no GPU"
    if reason:
        tell(f"PyTorch is left out: {reason}")
    return not reason


def write_report(path: Path, options: argparse.Namespace) -> str:
    """Write gpu.md beside the records `path`, and return the page."""
    held = harness.read_latest(path, "device", *Cell._fields)
    parts = []
    for name in dict.fromkeys(row["device"] for row in held):
        device = next((device for part, device in DEVICES.items() if part in name), None)
        rows = [row for row in held if row["device"] == name]
        peaks = "No floor: the device's peaks are unknown; add them to DEVICES in benchmarks/gpu.py."
        if device:
            peaks = "Peaks used: {:g} TFLOPS in float32, {:g} in TF32, {:g} in bfloat16, {:g} GB/s.".format(*device)
        about = f"{report.describe_versions(rows[-1])}; {rows[-1]['date']}. {peaks}"
        parts += [f"## {name}", about, report.write_table(HEAD, [describe(row, device) for row in rows], left=2)]
    batches, seeds = (" ".join(map(str, values)) for values in (options.batches, options.seeds))
    command = f"python -m benchmarks.gpu --resolution {options.resolution} --batches {batches} --seeds {seeds}"
    devices = "\n\n".join(parts) or NOT_RUN
    return report.fill_page(path.with_suffix(".md"), "gpu", command=command, devices=devices)


def describe(row: Row, device: Sequence[float] | None) -> list[str]:
    """Format a row of a device's table."""
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
    """Measure what is missing and write the page."""
    parser = harness.make_parser("Training images per second on a GPU, compared with the most it could reach.", "speed")
    harness.add_numbers(
        parser,
        resolution=(96, "pixels per side"),
        batches=([32, 128, 512, 1024], "images per batch"),
        seeds=([1, 2, 4, 8], "seeds trained in one program"),
        images=(8192, "images in memory, and per epoch"),
        seconds=(10.0, "seconds to measure each cell"),
    )
    parser.add_argument("--fresh", action="store_true", help="measure recorded cells again")
    parser.add_argument("--allow-cpu", action="store_true", help="run without a GPU; prints the page, writes nothing")
    options = parser.parse_args(words)
    harness.check_positive(options, "resolution", "batches", "seeds", "images", "seconds")
    # JAX allocates memory as needed, so that some is left for PyTorch in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    with tempfile.TemporaryDirectory() as scratch:
        path = (Path(scratch) if options.allow_cpu else options.out) / "gpu.jsonl"
        if not options.report_only and not options.allow_cpu and jax.devices()[0].platform == "cpu":
            tell("no GPU found, so nothing is measured; --allow-cpu tries it without one")
        elif not options.report_only:
            run(options, path)
        page = write_report(path, options)
    if options.allow_cpu:
        print(page)


if __name__ == "__main__":
    main()
