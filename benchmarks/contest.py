"""Contests of speed: each contestant in a process of its own, all measured in turn, cell by cell.

Contestants run A B C A B C ... and sleep while it is not their turn, so that whatever else slows the machine slows all
of them. A cell's record is appended to a file as it finishes, and the report is drawn from that file.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import resource
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ffem_jax.latency.turns import BUSY_CORES, measure_busy_cores
from ffem_jax.specs.architecture import NetworkSpec

PAUSE_SECONDS = 0.2  # before a turn: the threads of the one before go on spinning for a while
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "tensorflow"}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}
PACKAGES = ("jax", "flax", "torch", "tensorflow", "tensorflow-cpu", "keras", "onnxruntime")


@dataclass(frozen=True)
class Cell:
    """What is measured: a network (a preset's name, and as it is built), pixels a side, and images a batch."""

    name: str
    network: NetworkSpec
    resolution: int
    batch: int

    @property
    def place(self) -> dict[str, Any]:
        """What identifies the cell in the records."""
        return {"network": self.name, "resolution": self.resolution, "batch": self.batch}


class Contestant(ABC):
    """One way to do the work of a cell; made and used in a process of its own.

    name, label: in records and options, and in tables. libraries: modules it needs. cached: it keeps compiled programs
    in `folder`, and is also started a second time to find them there; the second process is the one that is timed.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    cached: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def import_libraries(folder: Path) -> None:
        """Import what the contestant needs, and settle what must be settled before its first computation."""

    @abstractmethod
    def __init__(self, cell: Cell, folder: Path): ...

    @abstractmethod
    def run(self, steps: int) -> None:
        """Make that many steps (or calls), and return when the last one's result is there."""

    def answer(self) -> np.ndarray | None:
        """What the contestants must agree on, or None."""
        return None


@dataclass(frozen=True)
class Contest:
    """A benchmark: its contestants, ours first, and what its report says.

    name: of its files. work: what is timed, as in `a training step`. step: what a contestant repeats.
    batches: the default ones. prepare(cell, folder), where given, runs before a cell's contestants, in a process of
    its own, and writes into `folder` what they read. tolerance: how far their answers may lie apart, relative to the
    largest value.
    """

    name: str
    work: str
    step: str
    notes: str
    contestants: tuple[type[Contestant], ...]
    batches: tuple[int, ...]
    prepare: Callable[[Cell, Path], None] | None = None
    tolerance: float = 1e-3


# ------------------------------------------------------------------- in a contestant's process


def read_memory(field: str) -> int:
    """Bytes of this process by a field of Linux's status file: VmRSS, resident now; VmHWM, at its peak.

    Elsewhere both are the peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines[field].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _serve(connection: Connection, contestant: type[Contestant], cell: Cell, folder: Path) -> None:
    """Start the contestant, then answer requests: ("race", seconds), ("answer",), ("memory",), None to end."""
    try:
        contestant.import_libraries(folder)
        imported = read_memory("VmRSS")
        started = time.perf_counter()
        entry = contestant(cell, folder)
        entry.run(1)
        first = time.perf_counter() - started
        started = time.perf_counter()
        entry.run(2)
        a_step = (time.perf_counter() - started) / 2
        connection.send({"first_seconds": first, "imported_bytes": imported})
        while request := connection.recv():
            if request[0] == "race":
                entry.run(1)  # wakes threads and caches; not timed
                steps = max(1, round(request[1] / a_step))
                started = time.perf_counter()
                entry.run(steps)
                seconds = time.perf_counter() - started
                a_step = seconds / steps
                connection.send((steps, seconds))
            else:
                connection.send(entry.answer() if request[0] == "answer" else read_memory("VmHWM"))
    except Exception as error:
        message = next((line for line in str(error).splitlines() if line.strip()), "")
        # It ends up in the report, where this machine's folders have no place.
        message = re.sub(r"\S*/", "", message)
        connection.send(RuntimeError(f"{type(error).__name__}: {message}"[:200]))


# ------------------------------------------------------------------- in the parent


class Worker:
    """A contestant's process, as seen from outside. RuntimeError, in one line, where it fails."""

    def __init__(self, contestant: type[Contestant], cell: Cell, folder: Path):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contestant, cell, folder), daemon=True)
        self._process.start()
        theirs.close()
        self.start: dict[str, Any] = self._receive()

    def ask(self, *request: Any) -> Any:
        """What the process answers to a request (see `_serve`)."""
        self._connection.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"its process died (exit code {self._process.exitcode}); out of memory?") from None
        if isinstance(reply, RuntimeError):
            raise reply
        return reply

    def end(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join(30)
        self._process.kill()


def make_images(count: int, resolution: int) -> np.ndarray:
    """Random bytes [count, resolution, resolution, 3], the same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)


def _start(contestant: type[Contestant], cell: Cell, folder: Path) -> tuple[Worker, dict[str, Any]]:
    """The worker to be timed, and what its start took, cold and from its cache."""
    worker = Worker(contestant, cell, folder)
    record = {"label": contestant.label, **worker.start}
    if contestant.cached:
        record["peak_bytes"] = worker.ask("memory")
        worker.end()
        worker = Worker(contestant, cell, folder)
        record["cached_first_seconds"] = worker.start["first_seconds"]
    return worker, record


def _check_answers(workers: dict[str, Worker], tolerance: float) -> float | None:
    """The largest difference from the first worker's answer, over its largest value; ends the run beyond tolerance."""
    answers = {name: worker.ask("answer") for name, worker in workers.items()}
    ours = next(iter(answers.values()))
    if ours is None:
        return None
    differences = {name: float(np.abs(answer - ours).max() / np.abs(ours).max()) for name, answer in answers.items()}
    for name, difference in differences.items():
        if not difference <= tolerance:
            raise SystemExit(f"{name} computes something else: {difference:.1e} away from ours, over {tolerance:.0e}")
    return max(differences.values())


def play(contest: Contest, cell: Cell, entries: list[type[Contestant]], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure one cell -> its record. A peer that fails is left out, with the reason; ours may not fail."""
    results: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    difference, busy = None, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if contest.prepare:
            process = multiprocessing.get_context("spawn").Process(target=contest.prepare, args=(cell, folder))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit("the contestants' weights could not be written; see above")

        def leave_out(entry: type[Contestant], error: RuntimeError) -> None:
            if entry is entries[0]:
                raise SystemExit(f"{entry.label} failed: {error}")
            tell(f"    {entry.label} is left out: {error}")
            workers.pop(entry.name, None)
            results[entry.name] = {"label": entry.label, "failed": str(error)}

        try:
            for entry in entries:
                try:
                    workers[entry.name], results[entry.name] = _start(entry, cell, folder)
                except RuntimeError as error:
                    leave_out(entry, error)
            difference = _check_answers(workers, contest.tolerance)
            for index in range(rounds):
                speeds = []
                time.sleep(PAUSE_SECONDS)
                busy.append(measure_busy_cores(0.5))
                if busy[-1] > BUSY_CORES:
                    tell(f"    others use {busy[-1]:.1f} cores: no benchmark")
                for entry in [entry for entry in entries if entry.name in workers]:
                    time.sleep(PAUSE_SECONDS)
                    try:
                        steps, elapsed = workers[entry.name].ask("race", seconds)
                    except RuntimeError as error:
                        leave_out(entry, error)
                        continue
                    results[entry.name].setdefault("turns", []).append([steps * cell.batch, elapsed])
                    speeds.append(f"{entry.name} {steps * cell.batch / elapsed:.0f}")
                tell(f"    round {index + 1} of {rounds}, images/s: {', '.join(speeds)}")
            for key, worker in workers.items():
                field = "cached_peak_bytes" if "cached_first_seconds" in results[key] else "peak_bytes"
                results[key][field] = worker.ask("memory")
        finally:
            for worker in workers.values():
                worker.end()
    settings = {"rounds": rounds, "seconds": seconds, "busy_cores": max(busy), "difference": difference}
    return {**cell.place, **settings, **describe_machine(), "contestants": results}


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions and date; nothing that names the machine."""
    import joblib

    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        if importlib.util.find_spec(package.replace("-", "_")) or package == "tensorflow-cpu":
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    processor = models[0] if models else platform.processor() or platform.machine()
    cores = joblib.cpu_count(only_physical_cores=True)
    return {"date": str(datetime.date.today()), "processor": processor, "cores": cores, "versions": versions}


# ------------------------------------------------------------------- records and options


def read_records(path: Path) -> list[dict[str, Any]]:
    """The last record of each cell, in the order of the first."""
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        record = json.loads(line)
        records[record["network"], record["resolution"], record["batch"]] = record
    return list(records.values())


def tell(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _parse(contest: Contest) -> argparse.Namespace:
    peers = [entry.name for entry in contest.contestants[1:]]
    parser = argparse.ArgumentParser(description=f"Images per second of {contest.work}, ours against other libraries.")
    parser.add_argument("--networks", nargs="+", default=["ffem_am", "ffem", "mobilenetv2"], help="presets")
    parser.add_argument("--resolutions", nargs="+", type=int, default=[48, 96, 112], help="pixels a side")
    parser.add_argument("--batches", nargs="+", type=int, default=list(contest.batches), help="images a batch")
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="against whom (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="folder (default: results/speed)")
    parser.add_argument("--fresh", action="store_true", help="measure again what the records already hold")
    parser.add_argument("--report-only", action="store_true", help="draw the report from the records")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("give --rounds of at least 1 and --seconds above 0")
    return options


def _find_entries(contest: Contest, names: list[str]) -> list[type[Contestant]]:
    """Ours and the peers named whose libraries are installed."""
    entries = [contest.contestants[0]]
    for entry in contest.contestants[1:]:
        missing = [library for library in entry.libraries if importlib.util.find_spec(library) is None]
        if entry.name in names and missing:
            tell(f'{entry.label} is left out: no {" and no ".join(missing)}; pip install -e ".[bench]"')
        elif entry.name in names:
            entries.append(entry)
    return entries


def run(contest: Contest) -> None:
    """Read the options, measure the cells that the records lack, and write the report."""
    options = _parse(contest)
    path = options.out / f"{contest.name}.jsonl"
    if not options.report_only:
        from ffem_jax.models import PRESETS
        from ffem_jax.specs.architecture import resolve_network

        unknown = [name for name in options.networks if name not in PRESETS]
        if unknown:
            raise SystemExit(f"network {unknown[0]!r} is not known; choose from: {', '.join(PRESETS)}")
        entries = _find_entries(contest, options.peers)
        cells = [
            Cell(name, resolve_network(PRESETS[name]), resolution, batch)
            for name in options.networks
            for resolution in options.resolutions
            for batch in options.batches
        ]
        os.environ.update(ENVIRONMENT)
        for variable, value in QUIET.items():
            os.environ.setdefault(variable, value)
        options.out.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(cells, 1):
            place = f"[{number}/{len(cells)}] {cell.name}, {cell.resolution} pixels, batch {cell.batch}"
            held = [r for r in read_records(path) if cell.place.items() <= r.items()]
            if held and not options.fresh and {entry.name for entry in entries} <= held[0]["contestants"].keys():
                tell(f"{place}: already measured")
                continue
            tell(place)
            record = play(contest, cell, entries, options.rounds, options.seconds)
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
    records = read_records(path)
    if not records:
        raise SystemExit("nothing has been measured yet; run without --report-only")
    from benchmarks.contest_report import write_report

    print(write_report(contest, records, options.out))
