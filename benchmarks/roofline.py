"""What bounds a training step on one core: bytes and operations by kind, against the machine's bandwidth and peak.

    python -m benchmarks.roofline [--network ffem_am] [--resolution 96] [--batch 32]

From the repository root. Bytes and operations are read off the step's equations; seconds are those that JAX's profiler
gives for each operation within whole steps, of the shortest of several runs. Writes results/speed/roofline.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One core for all of it, libraries' threads included; before they start.
os.environ.update(JAX_NUM_CPU_DEVICES="1", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np

from benchmarks.harness import add_numbers, check_positive, make_parser
from ffem_jax.kernels.huge_pages import use_huge_pages

# Of a call, by its name's beginning: the row of the table that it belongs to, and operations per number of its largest
# array.
KINDS = {
    "ffem_batch_norm_depthwise": ("an expansion's BatchNorm, activation and depthwise convolution", 22),
    "ffem_normalize_depthwise_sums": ("their gradient, sums and kernel", 47),
    "ffem_normalize_depthwise_gradient": ("their gradient, input", 25),
    "ffem_depthwise": ("depthwise convolution, 3x3", 18),
    "ffem_global_depthwise": ("depthwise convolution as large as the map", 2),
    "ffem_moments": ("BatchNorm, statistics", 4),
    "ffem_batch_norm": ("BatchNorm and activation", 4),
    "ffem_normalize_sums": ("BatchNorm's gradient, sums", 7),
    "ffem_normalize_gradient": ("BatchNorm's gradient", 7),
    "ffem_join": ("parameters to and from a vector", 0),
    "ffem_split": ("parameters to and from a vector", 0),
}
KERNEL_GRADIENT, PRODUCT = "1x1 convolution's kernel gradient", "1x1 convolution and its input's gradient"
OTHER = "XLA's other work"
# What XLA calls products of matrices: its own, and those it hands to XNNPACK.
PRODUCTS = ("dot", "ynn_fusion")
# Operations that stand for those within them.
AROUND = ("while", "call", "conditional")
REPEATS = 5


@dataclass
class Work:
    """What a kind of work comes to in a step."""

    calls: int = 0
    bytes: float = 0.0
    operations: float = 0.0
    seconds: float = 0.0


def main() -> None:
    """The command."""
    parser = make_parser(__doc__, "speed", kept=False)
    parser.add_argument("--network", default="ffem_am", help="a preset (default: ffem_am)")
    add_numbers(parser, resolution=(96, "pixels per side"), batch=(32, "images"))
    options = parser.parse_args()
    check_positive(options, "resolution", "batch")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    bandwidth, peak = measure_bandwidth(), measure_peak()
    equations, seconds = run_step(options.network, options.resolution, options.batch)
    kinds: dict[str, Work] = defaultdict(Work)
    for name, equation in equations:
        kind, operations = classify(name, equation)
        work, arrays = kinds[kind], [*equation.invars, *equation.outvars]
        work.calls += 1
        work.bytes += sum(4.0 * array.aval.size for array in arrays)
        work.operations += operations
    for kind, spent in seconds.items():
        kinds[kind].seconds = spent
    write_page(options, kinds, bandwidth, peak)


def measure_bandwidth() -> float:
    """Bytes per second of a sum of two arrays written to a third, larger than any cache of a core's own."""
    first, second, total = (np.ones(64_000_000, np.float32) for _ in range(3))
    return 3 * first.nbytes / find_least(lambda: np.add(first, second, out=total))


def measure_peak() -> float:
    """Operations per second of a product of two square matrices."""
    matrix = np.ones((2048, 2048), np.float32)
    return 2 * 2048**3 / find_least(lambda: matrix @ matrix)


def find_least(work: Callable[[], Any]) -> float:
    """The least CPU seconds of several calls."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def run_step(preset: str, resolution: int, batch: int) -> tuple[list[tuple[str, Any]], dict[str, float]]:
    """The compiled calls and products of a training step, and the seconds of each kind of work in a step."""
    import jax

    from ffem_jax.config.presets import PRESETS
    from ffem_jax.machine.devices import make_batch_mesh
    from ffem_jax.specs.architecture import resolve_network
    from ffem_jax.specs.trial import RecipeSpec
    from ffem_jax.training.program import build_program
    from ffem_jax.training.recipes import Schedule
    from ffem_jax.training.step import BATCH_AXIS
    from ffem_jax.training.trainer import Trainer

    images = np.random.default_rng(0).integers(0, 255, (4 * batch, resolution, resolution, 3)).astype(np.uint8)
    labels = np.arange(len(images)) % 52
    recipe = RecipeSpec(name="benchmark", epochs=1, batch_size=batch, optimizer="sgd", flip=False)
    network = resolve_network(PRESETS[preset])
    trainer = Trainer(network, recipe, [0], images, labels, np.arange(len(images)), labels[:0])
    schedule = Schedule(*(values[0] for values in trainer.schedule))
    state, steps = trainer.init(), trainer.steps_per_epoch

    def run() -> None:
        nonlocal state
        state, _ = trainer.run_steps(state, trainer.zero_metrics(), 0, 0, steps)
        jax.block_until_ready(state)

    run()
    profiles = [profile(run, trainer._program.train.as_text()) for _ in range(REPEATS)]
    shortest = min(profiles, key=lambda one: sum(one.values()))
    program = build_program(network, resolution, 52, recipe, make_batch_mesh(BATCH_AXIS, batch))
    arguments = state, trainer.zero_metrics(), trainer.keys, trainer.faces, schedule, 0, 0, steps
    named = [
        (equation.params.get("target_name", equation.primitive.name), equation)
        for equation in walk(program.train_steps.trace(*arguments).jaxpr)
    ]
    found = [(name, equation) for name, equation in named if name.startswith("ffem_") or name == "dot_general"]
    return found, {kind: seconds / steps for kind, seconds in shortest.items()}


def profile(run: Callable[[], Any], program: str) -> dict[str, float]:
    """Seconds of each kind of work while `run` runs the compiled `program`, given as text."""
    import jax

    targets = dict(re.findall(r"%?(ffi_call[.\d]*) = .*?custom_call_target=\"(\w+)\"", program))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        operation = event.get("args", {}).get("hlo_op", "")
        if operation and operation.partition(".")[0] not in AROUND:
            seconds[find_kind(targets.get(operation, operation))] += event["dur"] / 1e6
    return seconds


def find_kind(name: str) -> str:
    """The row of the table for a compiled call, or an operation of XLA, of that name."""
    if name == "ffem_pointwise_kernel_gradient":
        return KERNEL_GRADIENT
    if name.startswith("ffem_"):
        return next(kind for beginning, (kind, _) in KINDS.items() if name.startswith(beginning))
    return PRODUCT if name.startswith(PRODUCTS) else OTHER


def walk(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of its loops' bodies and calls in their place."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(getattr(value, "jaxpr", value), "eqns"):
                yield from walk(value)


def classify(name: str, equation: Any) -> tuple[str, float]:
    """The kind of an equation and how many operations it takes."""
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return PRODUCT, 2.0 * terms * equation.outvars[0].aval.size
    if name == "ffem_pointwise_kernel_gradient":
        x, grad = (variable.aval for variable in equation.invars)
        return KERNEL_GRADIENT, 2.0 * x.size * grad.shape[-1]
    largest = max(array.aval.size for array in (*equation.invars, *equation.outvars))
    return find_kind(name), float(largest * next(each for start, (_, each) in KINDS.items() if name.startswith(start)))


def write_page(options: argparse.Namespace, kinds: dict[str, Work], bandwidth: float, peak: float) -> None:
    """Write roofline.md, a row for each kind of work, the longest first."""
    from benchmarks import harness, report

    rest = kinds.pop(OTHER, Work()).seconds
    measured = sum(work.seconds for work in kinds.values())
    rows, possible = [], 0.0
    for kind, work in sorted(kinds.items(), key=lambda item: -item[1].seconds):
        floor, bound = max((work.bytes / bandwidth, "memory"), (work.operations / peak, "arithmetic"))
        possible += floor
        rates = (f"{amount / work.seconds / 1e9:.1f}" for amount in (work.bytes, work.operations))
        share, least = (f"{seconds / (measured + rest):.0%}" for seconds in (work.seconds, floor))
        rows.append(f"| {' | '.join([kind, str(work.calls), share, *rates, bound, least])} |")
    path = options.out / "roofline.md"
    report.fill_page(
        path,
        "roofline",
        **{name: getattr(options, name) for name in ("network", "resolution", "batch")},
        machine=harness.describe_machine(),
        load=os.getloadavg()[1],
        cores=os.cpu_count(),
        bandwidth=bandwidth / 1e9,
        peak=peak / 1e9,
        step=1000 * (measured + rest),
        rows="\n".join(rows),
        rest=rest / (measured + rest),
        possible=1000 * possible,
        measured=1000 * measured,
    )
    harness.tell(str(path))


if __name__ == "__main__":
    use_huge_pages()  # as `ffem` asks for itself
    main()
