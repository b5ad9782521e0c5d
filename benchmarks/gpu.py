"""Training speed on a GPU, beside the time that the device needs at the very least.

    python -m benchmarks.gpu                      everything, into results/speed/
    python -m benchmarks.gpu --report-only        the page again, from gpu.jsonl
    python -m benchmarks.gpu --allow-cpu --resolution 32 --batches 8      does it work? On a CPU, written nowhere

The least time, or floor, is the longer of two. Arithmetic: 2 operations a multiply-accumulate forward and twice as many
backward, at the device's peak. Memory: an activation is what a convolution gives, in float32; it is written once and
read once forward and read twice backward (for the gradient of the kernel after it, and of the BatchNorm and activation
at it), at the memory's bandwidth. All else is taken to cost nothing: elementwise work to be part of the convolutions,
gradients of activations never to leave the chip, weights and the optimiser not to be read. Real programs need more.

Started again, it goes on: what gpu.jsonl holds is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.contest import describe_machine, tell
from ffem_jax.cost.cost import compute_cost
from ffem_jax.models import PRESETS, compute_map_sizes
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.specs.architecture import NetworkSpec, resolve_network
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.trainer import Trainer

# Our name of a precision -> JAX's.
PRECISIONS = {"float32": "highest", "TF32": "tensorfloat32"}
# Of our convolutions' forms those that an accelerator can run.
FORMS = ("xla", "shifted")
PACKAGES = ("python", "jax", "flax", "torch")
PEOPLE = 52
TESTED = 64
BYTES_FLOAT32 = 4


class Device(NamedTuple):
    """A device's peaks, dense, as its maker gives them: TFLOPS at each precision, and GB/s of memory."""

    tflops_float32: float
    tflops_tf32: float
    gbs: float


# By a part of JAX's name of the device.
DEVICES = {"H100": Device(67, 495, 3350), "H200": Device(67, 495, 4800)}


@dataclass(frozen=True)
class Cell:
    """What is measured. form: of our convolutions, empty for PyTorch. seeds: trained at once as one program."""

    library: str
    form: str
    precision: str
    batch: int
    seeds: int
    resolution: int


class EnoughError(Exception):
    """The time for measuring is over."""


# ---------------------------------------------------------------------------------- the floor


def count_activations(network: NetworkSpec, resolution: int) -> int:
    """Numbers that the convolutions of one image give, forward."""
    sizes = compute_map_sizes(network, resolution)
    total = network.stem_channels * sizes[1] ** 2
    for block, before, after in zip(network.blocks, sizes[1:], sizes[2:], strict=False):
        expanded = block.hidden_channels * before**2 if block.hidden_channels != block.in_channels else 0
        total += expanded + (block.hidden_channels + block.out_channels) * after**2
    return total + network.head_channels * sizes[-1] ** 2


def compute_floor(cell: Cell, device: Device) -> tuple[float, str]:
    """Seconds that a step takes at the least, and what takes them: arithmetic or memory."""
    network, images = resolve_network(PRESETS["ffem_am"]), cell.batch * cell.seeds
    operations = 2 * 3 * compute_cost(network, cell.resolution).macs * images
    transferred = 4 * BYTES_FLOAT32 * count_activations(network, cell.resolution) * images
    tflops = device.tflops_float32 if cell.precision == "float32" else device.tflops_tf32
    return max((operations / tflops / 1e12, "arithmetic"), (transferred / device.gbs / 1e9, "memory"))


# ------------------------------------------------------------------------------ measurements


def list_cells(options: argparse.Namespace, torch: bool) -> list[Cell]:
    """Every form, precision and batch with one seed; more seeds with the smallest batch, which fills a GPU least."""
    cells = []
    for precision in PRECISIONS:
        ours = [("ffem-jax", form, batch, 1) for form in FORMS for batch in options.batches]
        ours += [("ffem-jax", "xla", min(options.batches), seeds) for seeds in options.seeds if seeds > 1]
        theirs = [("PyTorch", "", batch, 1) for batch in options.batches] if torch else []
        for library, form, batch, seeds in [*ours, *theirs]:
            cells.append(Cell(library, form, precision, batch, seeds, options.resolution))
    return cells


def make_faces(cell: Cell, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Noise in place of faces, which speed does not depend on: images, labels, train, test; whole batches train."""
    source = np.random.default_rng(0)
    trained = max(count // cell.batch, 1) * cell.batch
    images = source.integers(0, 256, (trained + TESTED, cell.resolution, cell.resolution, 3), np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % PEOPLE
    return images, labels, np.arange(trained), np.arange(trained, len(images))


def make_recipe(cell: Cell) -> RecipeSpec:
    """`modern`, at a rate that noise bears, and longer than anybody measures."""
    return RecipeSpec(epochs=1000, batch_size=cell.batch, learning_rate=0.001)


def measure_ours(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Training images a second as the records have them: those of all seeds over the seconds of steps."""
    images, labels, train, test = make_faces(cell, options.images)
    with jax.default_matmul_precision(PRECISIONS[cell.precision]), use_convolution_form(cell.form):
        network = resolve_network(PRESETS["ffem_am"])
        trainer = Trainer(network, make_recipe(cell), range(cell.seeds), images, labels, train, test)
    rate = 0.0
    for limit in (options.seconds / 5, options.seconds):  # the first warms the device up
        started = time.perf_counter()

        def look(epoch: int, step: int, loss: float, images_per_second: float) -> None:
            nonlocal rate
            if not math.isfinite(loss):
                raise SystemExit(f"{cell}: the loss is not finite")
            rate = images_per_second
            if time.perf_counter() - started > limit:  # noqa: B023 - called within its own pass
                raise EnoughError

        try:
            trainer.fit(on_progress=look)
        except EnoughError:
            continue
    return {"images_per_second": rate, "compile_seconds": trainer.compile_seconds}


def measure_torch(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """Training images a second of the peer: whole epochs, until the time is over."""
    import torch

    from benchmarks.peers.torch_trial import TorchTrainer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cell.precision == "TF32"
    torch.backends.cudnn.benchmark = True
    images, labels, train, _ = make_faces(cell, options.images)
    recipe, network = make_recipe(cell), resolve_network(PRESETS["ffem_am"])
    steps = len(train) // cell.batch * recipe.epochs
    trainer = TorchTrainer(network, images, labels, recipe, 0, steps, device)
    indices = torch.from_numpy(train).to(device)
    rate = 0.0
    for limit in (options.seconds / 5, options.seconds):
        started, trained, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < limit:
            trainer.train_epoch(indices)
            if device == "cuda":
                torch.cuda.synchronize()
            trained, elapsed = trained + len(train), time.perf_counter() - started
        rate = trained / elapsed
    del trainer
    torch.cuda.empty_cache()
    return {"images_per_second": rate}


def measure(cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    """What a cell gives, or that it does not fit into memory."""
    try:
        return measure_torch(cell, options) if cell.library == "PyTorch" else measure_ours(cell, options)
    except RuntimeError as error:
        # JAX and PyTorch each have a class of their own for this, both RuntimeErrors.
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error):
            raise
        return {"failed": "out of memory"}


def read_cells(path: Path) -> dict[tuple[str, Cell], dict[str, Any]]:
    """(device, cell) -> its latest record."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    names = Cell.__dataclass_fields__
    return {(row["device"], Cell(**{name: row[name] for name in names})): row for row in rows}


def run(options: argparse.Namespace, path: Path) -> None:
    """Measure the cells that the records lack."""
    device = jax.devices()[0].device_kind
    cells, held = list_cells(options, has_torch(options)), read_cells(path)
    for number, cell in enumerate(cells, 1):
        words = [cell.library, cell.form, cell.precision, f"batch {cell.batch}", f"seeds {cell.seeds}"]
        place = f"[{number}/{len(cells)}] {', '.join(filter(None, words))}"
        if (device, cell) in held and not options.fresh:
            tell(f"{place}: already measured")
            continue
        measured = measure(cell, options)
        row = {**asdict(cell), "device": device, **measured, **describe_machine()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        tell(f"{place}: {measured.get('failed') or format(measured['images_per_second'], '.0f') + ' images/s'}")


def has_torch(options: argparse.Namespace) -> bool:
    """Whether PyTorch can take part."""
    if importlib.util.find_spec("torch") is None:
        tell('PyTorch is left out: no torch; pip install -e ".[bench]"')
        return False
    import torch

    if not torch.cuda.is_available() and not options.allow_cpu:
        tell("PyTorch is left out: this build of it sees no GPU")
        return False
    return True


# ---------------------------------------------------------------------------------- reporting


def write_page(path: Path, options: argparse.Namespace) -> str:
    """Write gpu.md beside the records `path`, and return it."""
    held = read_cells(path)
    parts = ["# Training speed on a GPU", f"```\n{make_own_command(options)}\n```"]
    if not held:
        parts.append("**Not run.** No GPU was at hand. On a machine with one, the command above fills this page.")
    for name in dict.fromkeys(device for device, _ in held):
        rows = [(cell, row) for (device, cell), row in held.items() if device == name]
        parts += describe_device(name, rows, options)
    parts.append(EXPLANATION)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = "\n\n".join(parts)
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    return page


EXPLANATION = """\
FFEM-AM, recipe `modern` on noise (speed does not depend on the pictures), augmentation and optimiser included. `xla`
and `shifted` are the two forms of our convolutions that it can run, of which it gets `xla` unless told otherwise. The
package has no way to train in bfloat16 yet, so there is no such row. With several seeds, networks that differ in their
seed alone are trained as one program, and the images of all are counted.

The floor is the longer of two times. Arithmetic: 6 operations a multiply-accumulate (forward 2, backward 4) at the
peak. Memory: what each convolution gives, in float32, written once and read once forward and read twice backward, at
the bandwidth. Elementwise work, gradients of activations, weights and the optimiser are taken to cost nothing. Programs
need more than either. PyTorch: eager, channels last, fused optimiser, `cudnn.benchmark`; no `torch.compile`.
"""


def describe_device(name: str, rows: list[tuple[Cell, dict[str, Any]]], options: argparse.Namespace) -> list[str]:
    """A device's paragraph and table."""
    device, last = find_device(name, options), rows[-1][1]
    versions = ", ".join(f"{package} {number}" for package, number in last["versions"].items() if package in PACKAGES)
    peaks = "No floor: the device's peaks are not known; give --peak-tflops and --bandwidth-gbs."
    if device:
        peaks = (
            f"Peaks taken: {device.tflops_float32:g} TFLOPS in float32, {device.tflops_tf32:g} in TF32, "
            f"{device.gbs:g} GB/s."
        )
    table = [
        "| | precision | pixels | batch | seeds | training images/s | ms a step | floor, ms (set by) | step / floor |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(describe_row(cell, row, device) for cell, row in rows),
    ]
    return [f"## {name}", f"{versions}; {last['date']}. {peaks}", "\n".join(table)]


def describe_row(cell: Cell, row: dict[str, Any], device: Device | None) -> str:
    """A row of a device's table."""
    name = f"{cell.library} {cell.form}".strip()
    words = [name, cell.precision, str(cell.resolution), str(cell.batch), str(cell.seeds)]
    floor = compute_floor(cell, device) if device else None
    least = f"{1e3 * floor[0]:.3f} ({floor[1]})" if floor else ""
    if "failed" in row:
        return f"| {' | '.join([*words, row['failed'], '', least, ''])} |"
    rate = row["images_per_second"]
    step = cell.batch * cell.seeds / rate
    ratio = f"{step / floor[0]:.1f}" if floor else ""
    return f"| {' | '.join([*words, f'{rate:.0f}', f'{1e3 * step:.2f}', least, ratio])} |"


def find_device(name: str, options: argparse.Namespace) -> Device | None:
    """The peaks given on the command line, else those known for a device of that name."""
    known = next((device for part, device in DEVICES.items() if part in name), None)
    float32, tf32 = options.peak_tflops or (known[:2] if known else (None, None))
    gbs = options.bandwidth_gbs or (known.gbs if known else None)
    return Device(float32, tf32, gbs) if float32 and tf32 and gbs else None


def make_own_command(options: argparse.Namespace) -> str:
    """The command that makes the page, and no folder of this machine."""
    batches, seeds = (" ".join(map(str, values)) for values in (options.batches, options.seeds))
    return f"python -m benchmarks.gpu --resolution {options.resolution} --batches {batches} --seeds {seeds}"


# ------------------------------------------------------------------------------------ command


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Training images a second on a GPU, beside what it could do at most.")
    parser.add_argument("--resolution", type=int, default=96, help="pixels a side (default: 96)")
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128, 512, 1024], help="images a batch")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 4, 8], help="seeds in one program")
    parser.add_argument("--images", type=int, default=8192, help="in memory, and of an epoch (default: 8192)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring each (default: 10)")
    parser.add_argument("--peak-tflops", nargs=2, type=float, metavar=("FLOAT32", "TF32"), help="known: H100, H200")
    parser.add_argument("--bandwidth-gbs", type=float, metavar="GB/S", help="of its memory; known: H100, H200")
    parser.add_argument("--out", type=Path, help="folder (default: results/speed)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is recorded")
    parser.add_argument("--report-only", action="store_true", help="write the page from the records")
    parser.add_argument("--allow-cpu", action="store_true", help="try it without a GPU; prints the page, keeps nothing")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, then write the page."""
    options = parse_options()
    # JAX takes memory as it needs it, so that PyTorch finds some in the same process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if options.allow_cpu and not options.out:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gpu.jsonl"
            run(options, path)
            print(write_page(path, options))
        return
    path = (options.out or Path("results/speed")) / "gpu.jsonl"
    page = path.with_suffix(".md")
    if not options.report_only:
        if jax.devices()[0].platform == "cpu" and not options.allow_cpu:
            state = "keeps what was measured elsewhere" if read_cells(path) else "says that it was not run"
            tell(f"no GPU here, so nothing is measured; {page.name} {state}")
        else:
            run(options, path)
    write_page(path, options)


if __name__ == "__main__":
    main()
