"""Speed contests: each contestant in its own process, all measured alternately, cell by cell; and their pages."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from pkgutil import resolve_name
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Row, Worker, tell
from benchmarks.report import name_network, write_range
from ffem_jax.specs.architecture import NetworkSpec, resolve_network

PEOPLE = 52

# Runs that many steps and returns once the last result is ready: the answer on which contestants must agree, if any.
Call = Callable[[int], np.ndarray | None]


class Cell(NamedTuple):
    """A measurement as records identify it: a preset's name, pixels per side, and images per batch."""

    network: str
    resolution: int
    batch: int

    @property
    def spec(self) -> NetworkSpec:
        """The resolved network."""
        from ffem_jax.config.presets import PRESETS

        return resolve_network(PRESETS[self.network])


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a cell."""

    name: str  # in records
    label: str  # in tables
    libraries: tuple[str, ...]  # modules it needs
    build: str  # `module:function` that makes a Call from a cell, its folder and `options`; its import is not timed
    cached: bool = False  # keeps compiled programs in the folder, so a second process that finds them is timed
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contest:
    """A benchmark: its contestants, ours first, and the words of its page."""

    name: str  # of its files
    work: str  # what is timed, as in `a training step`
    step: str  # what a contestant repeats
    notes: str  # the page's paragraph on it
    contestants: tuple[Contestant, ...]
    batches: tuple[int, ...]  # images per batch by default
    prepare: str = ""  # `module:function` that writes the contestants' inputs into the folder, in its own process
    tolerance: float = 1e-3  # largest difference between answers, relative to the largest value


def make_faces(resolution: int, count: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Return noise instead of faces, which does not affect speed: bytes [count, R, R, 3], and int32 labels [count]."""
    images = np.random.default_rng(0).integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)
    return images, np.arange(count, dtype=np.int32) % PEOPLE


def repeat(embed: Callable[[np.ndarray], np.ndarray], cell: Cell) -> Call:
    """Return calls of `embed`, uint8 [batch, R, R, 3] -> float32 [batch, embedding_dim], on the same images."""
    images, _ = make_faces(cell.resolution, cell.batch)

    def call(steps: int) -> np.ndarray:
        for _ in range(steps):
            answer = embed(images)
        return answer

    return call


def enter(contestant: Contestant, cell: Cell, folder: Path) -> tuple[Row, Callable[..., Any]]:
    """Build a contestant in its process; return its start times and the handler of "race", "answer" and "memory"."""
    build = resolve_name(contestant.build)
    imported = harness.read_memory("VmRSS")
    started = time.perf_counter()
    call = build(cell, folder, **contestant.options)
    call(1)
    first = time.perf_counter() - started

    def time_steps(steps: int) -> float:
        started = time.perf_counter()
        call(steps)
        return time.perf_counter() - started

    step_seconds = time_steps(2) / 2

    def answer(what: str, seconds: float = 0.0) -> Any:
        nonlocal step_seconds
        if what == "memory":
            return harness.read_memory("VmHWM")
        woken = call(1)  # warms up threads and caches; not timed
        if what == "answer":
            return woken
        steps = max(1, round(seconds / step_seconds))
        elapsed = time_steps(steps)
        step_seconds = elapsed / steps
        return [steps * cell.batch, elapsed]

    return {"first_seconds": first, "imported_bytes": imported}, answer


def prepare(function: str, cell: Cell, folder: Path) -> tuple[None, Callable[..., None]]:
    """Write the contestants' files, in a separate process."""
    resolve_name(function)(cell, folder)
    return None, lambda: None


class Match:
    """A cell's contestants while they are measured. A peer that fails is left out, with its reason; ours must not."""

    def __init__(self, contest: Contest, cell: Cell, entries: Sequence[Contestant], folder: Path):
        self.cell, self.entries, self.folder = cell, entries, folder
        self.workers: dict[str, Worker] = {}
        self.results: dict[str, Row] = {}
        if contest.prepare:
            try:
                self.make_worker(prepare, contest.prepare).end()
            except RuntimeError as error:
                raise SystemExit(f"the contestants' weights could not be written: {error}") from None

    def make_worker(self, make: Callable[..., Any], what: Any) -> Worker:
        """A process on CPUs alone, with little talk, and with compiled programs kept in the cell's folder."""
        variables = {
            **{"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "tensorflow"},
            **{"TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"},
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        return Worker(make, what, self.cell, self.folder, environment=variables)

    def try_to(self, entry: Contestant, act: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `act` returns; if it fails, leave the contestant out."""
        try:
            return act(*arguments)
        except RuntimeError as error:
            if entry is self.entries[0]:
                raise SystemExit(f"{entry.label} failed: {error}") from None
            tell(f"    {entry.label} is left out: {error}")
            self.workers.pop(entry.name, None)
            self.results[entry.name] = {"label": entry.label, "failed": str(error)}

    def start(self, entry: Contestant) -> None:
        """Start the worker to be timed and record its start times, cold and from its cache."""
        worker = self.make_worker(enter, entry)
        row = {"label": entry.label, **worker.start}
        if entry.cached:
            row["peak_bytes"] = worker.ask("memory")
            worker.end()
            worker = self.make_worker(enter, entry)
            row["cached_first_seconds"] = worker.start["first_seconds"]
        self.workers[entry.name], self.results[entry.name] = worker, row

    def ask(self, entry: Contestant, *request: Any) -> Any:
        """Return the contestant's answer, or None if it fails."""
        return self.try_to(entry, self.workers[entry.name].ask, *request)

    def check_answers(self, tolerance: float) -> float | None:
        """Return the largest difference from our answer, relative to its maximum; exit if it exceeds `tolerance`."""
        answers = {entry.name: self.ask(entry, "answer") for entry in self.entries if entry.name in self.workers}
        ours, differences = next(iter(answers.values())), [0.0]
        if ours is None:
            return None
        for name in self.workers:
            difference = float(np.abs(answers[name] - ours).max() / np.abs(ours).max())
            if not difference <= tolerance:
                away = f"{difference:.1e} from ours, more than {tolerance:.0e}"
                raise SystemExit(f"{name} computes a different result: {away}")
            differences.append(difference)
        return max(differences)

    def race(self, rounds: int, seconds: float) -> float:
        """Add every contestant's turns to its results; return the cores that other work used in the busiest pause."""

        def take_turn(entry: Contestant) -> Any:
            turn = self.ask(entry, "race", seconds)
            if turn is None:
                del turns[entry.name]
            return turn

        def told(index: int, returned: Row) -> None:
            speeds = ", ".join(f"{name} {images / elapsed:.0f}" for name, (images, elapsed) in returned.items())
            tell(f"    round {index + 1} of {rounds}, images/s: {speeds}")

        turns: dict[str, Callable[[], Any]] = {
            entry.name: partial(take_turn, entry) for entry in self.entries if entry.name in self.workers
        }
        found, busy = harness.take_turns(turns, rounds, told=told)
        for name, worker in self.workers.items():
            peak = "cached_peak_bytes" if "cached_first_seconds" in self.results[name] else "peak_bytes"
            self.results[name] |= {"turns": found[name], peak: worker.ask("memory")}
        return max(busy)


def play(contest: Contest, cell: Cell, entries: Sequence[Contestant], rounds: int, seconds: float) -> Row:
    """Measure one cell and return its record without the cell's own fields."""
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
    """Parse the options, measure the cells missing from the records, and write the page."""
    from ffem_jax.config.presets import PRESETS

    parser = harness.make_parser(f"Images per second of {contest.work}, ours against other libraries.", "speed")
    parser.add_argument("--networks", nargs="+", default=["ffem_am", "ffem", "mobilenetv2"], help="presets")
    harness.add_numbers(
        parser,
        resolutions=([48, 96, 112], "pixels per side"),
        batches=(list(contest.batches), "images per batch"),
        rounds=(5, "turns of each contestant"),
        seconds=(3.0, "length of a turn"),
    )
    parser.add_argument("--fresh", action="store_true", help="measure recorded cells again")
    options = parser.parse_args(words)
    harness.check_positive(options, "resolutions", "batches", "rounds", "seconds")
    for name in options.networks:
        if name not in PRESETS:
            raise SystemExit(f"network {name!r} is not known; choose from: {', '.join(PRESETS)}")
    path = options.out / f"{contest.name}.jsonl"
    if not options.report_only:
        entries = find_entries(contest)
        cells = itertools.starmap(Cell, itertools.product(options.networks, options.resolutions, options.batches))
        harness.measure_missing(
            path,
            {f"{cell.network}, {cell.resolution} pixels, batch {cell.batch}": cell._asdict() for cell in cells},
            lambda row: {entry.name for entry in entries} <= row["contestants"].keys(),
            lambda cell: play(contest, Cell(**cell), entries, options.rounds, options.seconds),
            options.fresh,
        )
    records = harness.demand_rows(harness.read_latest(path, *Cell._fields))
    print(write_report(contest, records, options.out))


def find_entries(contest: Contest) -> list[Contestant]:
    """Return the contestants whose libraries are installed."""
    entries = []
    for entry in contest.contestants:
        if missing := harness.find_missing(entry.libraries):
            tell(f'{entry.label} is left out: no {" and no ".join(missing)}; pip install -e ".[bench]"')
        else:
            entries.append(entry)
    return entries


def compute_speeds(record: Row, name: str) -> list[float]:
    """Return the images per second of each round; empty if the contestant did not take part."""
    turns = record["contestants"].get(name, {}).get("turns", [])
    return [images / seconds for images, seconds in turns]


def compute_ratios(record: Row, peer: str) -> list[float]:
    """Return our images per second over the peer's, round by round."""
    theirs = compute_speeds(record, peer)
    return [a / b for a, b in zip(compute_speeds(record, "ours"), theirs, strict=True)] if theirs else []


def write_report(contest: Contest, records: Sequence[Row], folder: Path) -> str:
    """Write <name>.md and <name>.png into `folder`, and return the page's summary."""
    ran = [each for each in contest.contestants if any(compute_speeds(record, each.name) for record in records)]
    peers = [each for each in ran if each.name != "ours"]
    brief = "\n".join(describe_peer(records, peer) for peer in peers)
    busy = max(record["busy_cores"] for record in records)
    machines = [f"- {r['processor']}, {r['cores']} cores; {report.describe_versions(r)}; {r['date']}" for r in records]

    def tabulate(entries: Sequence[Contestant], write: Callable[[Row, str], str]) -> str:
        columns: dict[str, Callable[[Row], object]] = {
            **{"network": name_network, "pixels": itemgetter("resolution"), "batch": itemgetter("batch")},
            **{entry.label: lambda row, name=entry.name: write(row, name) for entry in entries},
        }
        return report.tabulate(records, columns, spaced=True)

    report.fill_page(
        folder / f"{contest.name}.md",
        "contest",
        contest=contest,
        command=write_command(contest, records),
        machines="\n".join(dict.fromkeys(machines)),
        brief=brief,
        figure=f"![Our speed over each library's]({contest.name}.png)" if peers else "",
        **{name: " or ".join(dict.fromkeys(f"{row[name]:g}" for row in records)) for name in ("rounds", "seconds")},
        busy=busy,
        judged=report.judge_busy(busy),
        difference=describe_difference(records, contest.tolerance),
        **{name: tabulate(peers if name == "ratios" else ran, write) for name, write in TABLES.items()},
        failures="\n".join(describe_failures(records)),
    )
    marks = [
        report.Mark(name_network(row), f"{row['resolution']} x {row['batch']}", peer.label, *report.find_spread(ratios))
        for peer in peers
        for row in sorted(records, key=itemgetter("resolution", "batch"))
        if (ratios := compute_ratios(row, peer.name))
    ]
    if marks:
        title = f"{contest.work.removeprefix('a ').capitalize()} on a CPU: ffem_jax's speed over each library's"
        axis = "above 1, ffem_jax is faster; rows: pixels per side x images per batch; bars: lowest to highest round"
        report.draw_marks(folder / f"{contest.name}.png", marks, title, axis, one=True)
    return brief


def write_command(contest: Contest, records: Sequence[Row]) -> str:
    """Return the command that reproduces these records on another machine."""
    fields = (("networks", "network"), ("resolutions", "resolution"), ("batches", "batch"))
    lists = [f"--{name} {' '.join(dict.fromkeys(str(row[field]) for row in records))}" for name, field in fields]
    # Cells measured at other times may have had fewer; the maximum measures all at least as well.
    most = [f"--{name} {max(row[name] for row in records):g}" for name in ("rounds", "seconds")]
    return " ".join([f"python -m benchmarks.{contest.name}", *lists, *most])


def describe_peer(records: Sequence[Row], peer: Contestant) -> str:
    """Summarise in one line our speed relative to this peer's over all cells."""
    cells = [ratios for record in records if (ratios := compute_ratios(record, peer.name))]
    medians = [median(ratios) for ratios in cells]
    faster, slower = sum(min(ratios) > 1 for ratios in cells), sum(max(ratios) < 1 for ratios in cells)
    return (
        f"- Against {peer.label}: {geometric_mean(medians):.2f} times its speed (geometric mean of {len(cells)} cells, "
        f"{min(medians):.2f} to {max(medians):.2f}); faster in every round of {faster} cells, slower in every round "
        f"of {slower}."
    )


def describe_difference(records: Sequence[Row], tolerance: float) -> str:
    """Describe how far the answers differ; empty if there are none."""
    differences = [record["difference"] for record in records if record["difference"] is not None]
    if not differences:
        return ""
    return (
        f"Before each cell all contestants must return the same embeddings. The largest difference, relative to the "
        f"largest value, is {max(differences):.0e} (allowed: {tolerance:.0e})."
    )


def describe_failures(records: Sequence[Row]) -> list[str]:
    """Describe which contestants were left out, why, and in which cells."""
    failures = defaultdict(list)
    for record in records:
        place = f"{name_network(record)}, {record['resolution']} pixels, batch {record['batch']}"
        for result in record["contestants"].values():
            if "failed" in result:
                failures[f"{result['label']}: {result['failed']}"].append(place)
    return [f"Left out: {failure} ({'; '.join(places)})" for failure, places in failures.items()]


def find_values(record: Row, name: str, key: str) -> list[float]:
    """Return a value from the process that compiled and from the one with the cache; empty if it did not race."""
    result = record["contestants"].get(name, {})
    return [result[each] for each in (key, f"cached_{key}") if each in result and "turns" in result]


def write_memory(record: Row, name: str) -> str:
    """Format the peak megabytes, in total and beyond the imported libraries."""
    imported = sum(find_values(record, name, "imported_bytes"))
    peaks = find_values(record, name, "peak_bytes")
    return "; ".join(f"{peak / 1e6:,.0f} / {(peak - imported) / 1e6:,.0f}" for peak in peaks) or "-"


# The page's tables, with a row per cell and a column per contestant, and what fills a table cell.
TABLES: dict[str, Callable[[Row, str], str]] = {
    "speeds": lambda row, name: write_range(compute_speeds(row, name)),
    "ratios": lambda row, name: write_range(compute_ratios(row, name)),
    "milliseconds": lambda row, name: write_range([1000 * row["batch"] / speed for speed in compute_speeds(row, name)]),
    "starts": lambda row, name: " / ".join(f"{value:.1f}" for value in find_values(row, name, "first_seconds")) or "-",
    "memory": write_memory,
}
