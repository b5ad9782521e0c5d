"""Calls models in turn, A B C A B C ..., in a runtime of its own process, and measures the load of other programs.

In turn, so that whatever else slows the machine slows all models alike.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ffem_jax.export.layers import INPUT_OFFSET, INPUT_SCALE
from ffem_jax.export.tfjs import NODE_FOLDER, PACKAGES_VARIABLE, find_node_packages
from ffem_jax.latency import LatencyError

BUSY_CORES = 0.1  # used by other programs; above it, the reader is warned that the numbers are no benchmark
SETTLE_SECONDS = 0.1  # after a round, while the runtime collects garbage
PAUSE_SECONDS = 0.25  # then, without a running model, to measure other programs
WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class TimedModel:
    """A model on disk and its input: square images of `resolution` pixels, values from `low` to `high`.

    Args:
        kind: `graph`, a TensorFlow.js graph model whose model.json is `model`; other kinds are a runtime's own.
        output: which output of a graph is the vector; empty where it has one only.
    """

    name: str
    model: Path
    resolution: int
    low: float = INPUT_OFFSET
    high: float = INPUT_OFFSET + 255 * INPUT_SCALE
    output: str = ""
    kind: str = "graph"

    def to_request(self) -> dict[str, Any]:
        """As the scripts of `ScriptRuntime` read it."""
        side = self.resolution
        return {
            **{name: value for name, value in asdict(self).items() if name not in ("resolution", "output")},
            "model": str(self.model.resolve()),
            "shape": [1, side, side, 3],
            "output": self.output or None,
        }


class Runtime(Protocol):
    """A runtime of models, on one thread."""

    def load(self, model: TimedModel) -> dict[str, Any]:
        """Load it and call it once; returns the fields of timing.cjs that the runtime knows. Raises LatencyError."""

    def time(self, name: str) -> float:
        """Milliseconds of one call, from pixels to vector, right after an untimed one."""

    def describe(self) -> str:
        """Its name, version and host."""


class ScriptRuntime:
    """A Node script that answers lines of JSON on standard input with lines on standard output; see time_tfjs.cjs.

    It is a context manager; leaving it ends the process.

    Raises:
        LatencyError: where Node is missing.
    """

    def __init__(self, script: Path, *words: str | Path):
        node = shutil.which("node")
        if node is None:
            raise LatencyError("Node is not installed; it runs TensorFlow.js outside a browser")
        command = [node, *map(str, (script, *words))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> ScriptRuntime:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def load(self, model: TimedModel) -> dict[str, Any]:
        return self._ask({"load": model.to_request()})

    def time(self, name: str) -> float:
        return float(self._ask({"time": name}))

    def describe(self) -> str:
        return str(self._ask({"describe": True}))

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LatencyError("the runtime that times models has ended; see what it said above") from None
        line = self._process.stdout.readline()
        if not line:
            raise LatencyError("the runtime that times models has ended; see what it said above")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            message = (answer["error"].splitlines() or ["no reason given"])[0]
            raise LatencyError(f"{request.get('load', {}).get('name', 'the runtime')}: {message}")
        return answer


def start_node() -> ScriptRuntime:
    """TensorFlow.js' wasm backend in Node, on one thread. Raises LatencyError where either is missing."""
    packages = find_node_packages()
    if packages is None:
        raise LatencyError(
            f"TensorFlow.js is not installed for Node; run `npm install` in {NODE_FOLDER}, or let {PACKAGES_VARIABLE} "
            "name a folder that has it in node_modules"
        )
    return ScriptRuntime(NODE_FOLDER / "time_tfjs.cjs", packages)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a model's calls, one per round."""

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the calls."""
        if len(self.milliseconds) == 1:
            return self.milliseconds[0], self.milliseconds[0]
        first, _, third = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return first, third


@dataclass(frozen=True)
class Busy:
    """Cores that other programs used between rounds: the mean over all pauses, and the peak."""

    mean: float
    peak: float


def time_in_turn(runtime: Runtime, names: Sequence[str], rounds: int) -> tuple[dict[str, Timing], Busy]:
    """Call the loaded models `names` in turn, `rounds` times each after a warm-up.

    Returns:
        The timing of each model, and the cores that other programs used meanwhile.
    """
    calls: dict[str, list[float]] = {name: [] for name in names}
    pauses = []
    for index in range(-WARM_UP_ROUNDS, rounds):
        if index >= 0:
            time.sleep(SETTLE_SECONDS)
            pauses.append(measure_busy_cores(PAUSE_SECONDS))
        for name in names:
            milliseconds = runtime.time(name)
            if index >= 0:
                calls[name].append(milliseconds)
    return {name: Timing(tuple(times)) for name, times in calls.items()}, Busy(statistics.mean(pauses), max(pauses))


def measure_busy_cores(seconds: float) -> float:
    """Cores that are busy while this process sleeps for `seconds`; 0 where the system has no /proc/stat."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0

    def read() -> int:
        ticks = [int(word) for word in path.read_text().splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4]  # idle, and waiting for a disk

    before = read()
    time.sleep(seconds)
    return (read() - before) / os.sysconf("SC_CLK_TCK") / seconds
