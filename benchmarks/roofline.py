"""What bounds a training step on one core: bytes and operations by kind of work, against bandwidth and peak.

    python -m benchmarks.roofline [--network ffem_am] [--resolution 96] [--batch 32]

From the repository root. Bytes and operations are derived from the step's equations. Seconds come from JAX's profiler,
per operation over complete steps, from the shortest of several runs. Writes results/speed/roofline.md.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One core for everything, including the libraries' threads; set before they start.
os.environ.update(JAX_NUM_CPU_DEVICES="1", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np

from benchmarks import harness, report
from benchmarks.contest import make_faces
from ffem_jax.kernels.huge_pages import use_huge_pages

# By the prefix of the name of a compiled call or matrix product: its row in the table, and its operations per number of
# its largest array. XLA computes some products itself and delegates others to XNNPACK.
KERNEL_GRADIENT, PRODUCT = "1x1 convolution's kernel gradient", "1x1 convolution and its input's gradient"
KINDS = {
    "ffem_batch_norm_depthwise": ("an expansion's BatchNorm, activation and depthwise convolution", 22),
    "ffem_normalize_depthwise_sums": ("their gradient, sums and kernel", 47),
    "ffem_normalize_depthwise_gradient": ("their gradient, input", 25),
    "ffem_depthwise": ("depthwise convolution, 3x3", 18),
    "ffem_global_depthwise": ("depthwise convolution as large as the map", 2),
    "ffem_moments": ("BatchNorm, batch statistics", 4),
    "ffem_batch_norm": ("BatchNorm and activation", 4),
    "ffem_normalize_sums": ("BatchNorm's gradient, sums", 7),
    "ffem_normalize_gradient": ("BatchNorm's gradient", 7),
    "ffem_join": ("parameters to and from a vector", 0),
    "ffem_split": ("parameters to and from a vector", 0),
    "ffem_pointwise_kernel_gradient": (KERNEL_GRADIENT, math.nan),  # counted from its shapes, as products are
    **dict.fromkeys(("dot", "ynn_fusion"), (PRODUCT, math.nan)),
}
OTHER = "XLA's other work"
# Operations that contain others, which are counted instead.
AROUND = ("while", "call", "conditional")
REPEATS = 5


def main() -> None:
    """Measure and write the page."""
    parser = harness.make_parser(__doc__, "speed", kept=False)
    parser.add_argument("--network", default="ffem_am", help="a preset (default: ffem_am)")
    harness.add_numbers(parser, resolution=(96, "pixels per side"), batch=(32, "images"))
    options = parser.parse_args()
    harness.check_positive(options, "resolution", "batch")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    # Bytes per second of summing two arrays into a third, larger than any cache of one core; and operations per second
    # of a matrix product.
    first, second, total = (np.ones(64_000_000, np.float32) for _ in range(3))
    bandwidth = 3 * first.nbytes / find_least(lambda: np.add(first, second, out=total))
    matrix = np.ones((2048, 2048), np.float32)
    peak = 2 * 2048**3 / find_least(lambda: matrix @ matrix)

    equations, seconds = run_step(options.network, options.resolution, options.batch)
    rest, measured = seconds.pop(OTHER, 0.0), sum(seconds.values())
    step, possible, rows = measured + rest, 0.0, []
    for kind in sorted({*seconds, *(find_kind(name) for name, _ in equations)}, key=lambda kind: -seconds[kind]):
        spent, own = seconds[kind], [(name, equation) for name, equation in equations if find_kind(name) == kind]
        transferred = sum(4.0 * array.aval.size for _, each in own for array in (*each.invars, *each.outvars))
        operations = sum(count_operations(name, equation) for name, equation in own)
        least, bound = max((transferred / bandwidth, "memory"), (operations / peak, "arithmetic"))
        possible += least
        rates = [f"{amount / spent / 1e9:.1f}" for amount in (transferred, operations)]
        rows.append([kind, str(len(own)), f"{spent / step:.0%}", *rates, bound, f"{least / step:.0%}"])
    report.fill_page(
        options.out / "roofline.md",
        "roofline",
        **vars(options),
        machine=harness.describe_machine(),
        load=os.getloadavg()[1],
        cores=os.cpu_count(),
        bandwidth=bandwidth / 1e9,
        peak=peak / 1e9,
        step=1000 * step,
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows),
        rest=rest / step,
        possible=1000 * possible,
        measured=1000 * measured,
    )
    harness.tell(str(options.out / "roofline.md"))


def find_least(work: Callable[[], Any]) -> float:
    """Return the least CPU seconds of several calls."""
    work()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def run_step(preset: str, resolution: int, batch: int) -> tuple[list[tuple[str, Any]], dict[str, float]]:
    """Return the compiled calls and products of a training step, and the seconds per step of each kind of work."""
    import jax

    from ffem_jax.config.presets import PRESETS
    from ffem_jax.machine.devices import make_batch_mesh
    from ffem_jax.specs.architecture import resolve_network
    from ffem_jax.specs.trial import RecipeSpec
    from ffem_jax.training.program import build_program
    from ffem_jax.training.recipes import Schedule
    from ffem_jax.training.step import BATCH_AXIS
    from ffem_jax.training.trainer import Trainer

    images, labels = make_faces(resolution, 4 * batch)
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
    program = build_program(network, resolution, int(labels.max()) + 1, recipe, make_batch_mesh(BATCH_AXIS, batch))
    arguments = state, trainer.zero_metrics(), trainer.keys, trainer.faces, schedule, 0, 0, steps
    named = [
        (equation.params.get("target_name", equation.primitive.name), equation)
        for equation in walk(program.train_steps.trace(*arguments).jaxpr)
    ]
    found = [(name, equation) for name, equation in named if name.startswith("ffem_") or name == "dot_general"]
    return found, {kind: seconds / steps for kind, seconds in shortest.items()}


def profile(run: Callable[[], Any], program: str) -> dict[str, float]:
    """Return the seconds of each kind of work while `run` runs the compiled `program`, given as text."""
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
    """Return the table row for a compiled call or XLA operation of that name."""
    default = () if name.startswith("ffem_") else (OTHER,)  # one of our calls missing from KINDS is an error
    return next(itertools.chain((kind for start, (kind, _) in KINDS.items() if name.startswith(start)), default))


def walk(jaxpr: Any) -> Iterator[Any]:
    """Yield all equations of a program, including those inside its loops and calls, in order."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(getattr(value, "jaxpr", value), "eqns"):
                yield from walk(value)


def count_operations(name: str, equation: Any) -> float:
    """Return the number of operations of an equation."""
    inputs, outputs = ([variable.aval for variable in side] for side in (equation.invars, equation.outvars))
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * math.prod(inputs[0].shape[axis] for axis in contracted) * outputs[0].size
    if name == "ffem_pointwise_kernel_gradient":
        return 2.0 * inputs[0].size * inputs[1].shape[-1]
    each = next(each for start, (_, each) in KINDS.items() if name.startswith(start))
    return float(each * max(array.size for array in (*inputs, *outputs)))


if __name__ == "__main__":
    use_huge_pages()  # as `ffem` requests for itself
    main()
