"""Contests of speed: each contestant in a process of its own, all measured in turn, cell by cell."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness
from benchmarks.harness import Row, Worker, tell
from ffem_jax.specs.architecture import NetworkSpec, resolve_network

IMAGES = 1024

# Makes that many steps, returns when the last one's result is there, and gives what contestants must agree on, if any.
Call = Callable[[int], np.ndarray | None]


class Cell(NamedTuple):
    """What is measured, as records identify it: a preset's name, pixels per side, and images per batch."""

    network: str
    resolution: int
    batch: int

    @property
    def spec(self) -> NetworkSpec:
        """The network as it is built."""
        from ffem_jax.config.presets import PRESETS

        return resolve_network(PRESETS[self.network])


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a cell.

    Args:
        name: in records and options.
        label: in tables.
        libraries: modules it needs.
        build: `module:function`, which makes a Call of a cell and the cell's folder; importing it is not timed.
        cached: it keeps compiled programs in that folder. It is started a second time to find them there, and the
            second process is the one that is timed.
    """

    name: str
    label: str
    libraries: tuple[str, ...]
    build: str
    cached: bool = False


@dataclass(frozen=True)
class Contest:
    """A benchmark: its contestants, ours first, and what its page says.

    Args:
        name: of its files.
        work: what is timed, as in `a training step`.
        step: what a contestant repeats.
        batches: images per batch by default.
        prepare: `module:function` that writes into the cell's folder what contestants read, in a process of its own.
        tolerance: how far answers may lie apart, relative to the largest value.
    """

    name: str
    work: str
    step: str
    notes: str
    contestants: tuple[Contestant, ...]
    batches: tuple[int, ...]
    prepare: str = ""
    tolerance: float = 1e-3


def make_images(count: int, resolution: int) -> np.ndarray:
    """Random bytes [count, resolution, resolution, 3], the same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)


def make_faces(resolution: int, people: int = 52) -> tuple[np.ndarray, np.ndarray]:
    """Random images [IMAGES, R, R, 3] and their people int32 [IMAGES], each person at least once."""
    return make_images(IMAGES, resolution), np.arange(IMAGES, dtype=np.int32) % people


def repeat(embed: Callable[[np.ndarray], np.ndarray], cell: Cell) -> Call:
    """Calls of `embed`, uint8 [batch, R, R, 3] -> float32 [batch, embedding_dim], on the same images."""
    images = make_images(cell.batch, cell.resolution)

    def call(steps: int) -> np.ndarray:
        for _ in range(steps):
            answer = embed(images)
        return answer

    return call


# ------------------------------------------------------------------- in a contestant's process


def enter(contestant: Contestant, cell: Cell, folder: Path) -> tuple[Row, Callable[..., Any]]:
    """Start the contestant: what that took, and what answers ("race", seconds), ("answer",) and ("memory",)."""
    build = resolve_name(contestant.build)
    imported = harness.read_memory("VmRSS")
    started = time.perf_counter()
    call = build(cell, folder)
    call(1)
    first = time.perf_counter() - started
    started = time.perf_counter()
    call(2)
    step_seconds = (time.perf_counter() - started) / 2

    def answer(what: str, seconds: float = 0.0) -> Any:
        nonlocal step_seconds
        if what == "memory":
            return harness.read_memory("VmHWM")
        woken = call(1)  # wakes threads and caches; not timed
        if what == "answer":
            return woken
        steps = max(1, round(seconds / step_seconds))
        started = time.perf_counter()
        call(steps)
        elapsed = time.perf_counter() - started
        step_seconds = elapsed / steps
        return steps, elapsed

    return {"first_seconds": first, "imported_bytes": imported}, answer


def prepare(function: str, cell: Cell, folder: Path) -> tuple[None, Callable[..., None]]:
    """Run what writes the contestants' files, in a process of its own."""
    resolve_name(function)(cell, folder)
    return None, lambda: None


# ------------------------------------------------------------------- in the parent


def make_variables(folder: Path) -> dict[str, str]:
    """The environment of all contestants: CPUs alone, little talk, and compiled programs kept in `folder`."""
    return {
        **{"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "tensorflow"},
        **{"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"},
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


class Match:
    """A cell's contestants while they are measured. A peer that fails is left out, with the reason; ours may not."""

    def __init__(self, contest: Contest, cell: Cell, entries: Sequence[Contestant], folder: Path):
        self.cell, self.entries, self.folder = cell, entries, folder
        self.workers: dict[str, Worker] = {}
        self.results: dict[str, Row] = {}
        self.variables = make_variables(folder)
        if contest.prepare:
            try:
                Worker(prepare, contest.prepare, cell, folder, environment=self.variables).end()
            except RuntimeError as error:
                raise SystemExit(f"the contestants' weights could not be written: {error}") from None

    def try_to(self, entry: Contestant, act: Callable[..., Any], *arguments: Any) -> Any:
        """What `act` returns; where it fails, the contestant is left out."""
        try:
            return act(*arguments)
        except RuntimeError as error:
            if entry is self.entries[0]:
                raise SystemExit(f"{entry.label} failed: {error}") from None
            tell(f"    {entry.label} is left out: {error}")
            self.workers.pop(entry.name, None)
            self.results[entry.name] = {"label": entry.label, "failed": str(error)}
            return None

    def start(self, entry: Contestant) -> None:
        """Start the worker to be timed, and note what its start took, cold and from its cache."""
        worker = Worker(enter, entry, self.cell, self.folder, environment=self.variables)
        row = {"label": entry.label, **worker.start}
        if entry.cached:
            row["peak_bytes"] = worker.ask("memory")
            worker.end()
            worker = Worker(enter, entry, self.cell, self.folder, environment=self.variables)
            row["cached_first_seconds"] = worker.start["first_seconds"]
        self.workers[entry.name], self.results[entry.name] = worker, row

    def check_answers(self, tolerance: float) -> float | None:
        """The largest difference from our answer, over its largest value; ends the run beyond `tolerance`."""
        answers = {}
        for entry in [entry for entry in self.entries if entry.name in self.workers]:
            answers[entry.name] = self.try_to(entry, self.workers[entry.name].ask, "answer")
        ours, differences = next(iter(answers.values())), [0.0]
        if ours is None:
            return None
        for name in self.workers:
            difference = float(np.abs(answers[name] - ours).max() / np.abs(ours).max())
            if not difference <= tolerance:
                away = f"{difference:.1e} away from ours, over {tolerance:.0e}"
                raise SystemExit(f"{name} computes something else: {away}")
            differences.append(difference)
        return max(differences)

    def race(self, rounds: int, seconds: float) -> float:
        """Add the turns of all to their results; returns the cores that other work took in the busiest pause."""
        turns: dict[str, Callable[[], Any]] = {}

        def make_turn(entry: Contestant) -> Callable[[], Any]:
            def turn() -> Any:
                found = self.try_to(entry, self.workers[entry.name].ask, "race", seconds)
                if found is None:
                    del turns[entry.name]
                    return None
                return [found[0] * self.cell.batch, found[1]]

            return turn

        turns.update((entry.name, make_turn(entry)) for entry in self.entries if entry.name in self.workers)

        def told(index: int, returned: Row) -> None:
            speeds = ", ".join(f"{name} {images / elapsed:.0f}" for name, (images, elapsed) in returned.items())
            tell(f"    round {index + 1} of {rounds}, images/s: {speeds}")

        found, busy = harness.take_turns(turns, rounds, told=told)
        for name, worker in self.workers.items():
            field = "cached_peak_bytes" if "cached_first_seconds" in self.results[name] else "peak_bytes"
            self.results[name] |= {"turns": found[name], field: worker.ask("memory")}
        return max(busy)


def play(contest: Contest, cell: Cell, entries: Sequence[Contestant], rounds: int, seconds: float) -> Row:
    """Measure one cell -> what its record holds beside the cell itself."""
    with tempfile.TemporaryDirectory() as name:
        match = Match(contest, cell, entries, Path(name))
        try:
            for entry in entries:
                match.try_to(entry, match.start, entry)
            difference = match.check_answers(contest.tolerance)
            busy = match.race(rounds, seconds)
        finally:
            for worker in match.workers.values():
                worker.end()
    settings = {"rounds": rounds, "seconds": seconds, "busy_cores": busy, "difference": difference}
    return {**settings, **harness.describe_machine(), "contestants": match.results}


def run(contest: Contest, words: Sequence[str] | None = None) -> None:
    """Read the options, measure the cells that the records lack, and write the page."""
    from benchmarks.contest_report import write_report

    options = _parse(contest, words)
    path = options.out / f"{contest.name}.jsonl"
    if not options.report_only:
        entries = _find_entries(contest, options.peers)
        every = [Cell(n, r, b) for n in options.networks for r in options.resolutions for b in options.batches]
        harness.measure_missing(
            path,
            {f"{cell.network}, {cell.resolution} pixels, batch {cell.batch}": cell._asdict() for cell in every},
            lambda row: {entry.name for entry in entries} <= row["contestants"].keys(),
            lambda cell: play(contest, Cell(**cell), entries, options.rounds, options.seconds),
            options.fresh,
        )
    records = harness.demand_rows(harness.read_latest(path, *Cell._fields))
    print(write_report(contest, records, options.out))


def _parse(contest: Contest, words: Sequence[str] | None) -> argparse.Namespace:
    from ffem_jax.config.presets import PRESETS

    peers = [entry.name for entry in contest.contestants[1:]]
    parser = harness.make_parser(f"Images per second of {contest.work}, ours against other libraries.", "speed")
    parser.add_argument("--networks", nargs="+", default=["ffem_am", "ffem", "mobilenetv2"], help="presets")
    harness.add_numbers(
        parser,
        resolutions=([48, 96, 112], "pixels per side"),
        batches=(list(contest.batches), "images per batch"),
        rounds=(5, "turns of each contestant"),
        seconds=(3.0, "length of a turn"),
    )
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="against whom (default: all)")
    parser.add_argument("--fresh", action="store_true", help="measure again what the records already hold")
    options = parser.parse_args(words)
    harness.check_positive(options, "resolutions", "batches", "rounds", "seconds")
    for name in options.networks:
        if name not in PRESETS:
            raise SystemExit(f"network {name!r} is not known; choose from: {', '.join(PRESETS)}")
    return options


def _find_entries(contest: Contest, names: Sequence[str]) -> list[Contestant]:
    """Ours and the peers named whose libraries are installed."""
    ours, *peers = contest.contestants
    asked = [entry for entry in peers if entry.name in names]
    missing = {entry.name: harness.find_missing(entry.libraries) for entry in asked}
    for entry in asked:
        if missing[entry.name]:
            tell(f'{entry.label} is left out: no {" and no ".join(missing[entry.name])}; pip install -e ".[bench]"')
    return [ours, *(entry for entry in asked if not missing[entry.name])]
