"""How many faces per second the recognition server matches, and from how many on an index would pay.

    python -m benchmarks.serve [--sizes 1000 100000 1000000] [--seconds 10]
    python -m benchmarks.serve --report-only

From the repository root, with `pip install -e ".[serve]"` and, for the comparison, usearch. Two parts: the search
alone, exact in NumPy on one core against an approximate index (HNSW of usearch); and whole requests to a real `ffem
serve` on the loopback, its gallery in SQLite. Vectors are drawn, ten per person, as a network that tells people apart
gives them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Row, tell
from ffem_jax.serve.snapshot import Snapshot

LENGTH, PICTURES, PROBES = 128, 10, 200
MODEL_ID = "0" * 16
# Each of what is compared is called for a part of the time, then the next, so many times; in each round so often.
ROUNDS, MIN_CALLS = 5, 4
# An index is asked for so many.
NEIGHBOURS = 10
SIGMA = 0.35
# Of a vector's length: how far two images of a person lie apart, so that Eq. 7's distance is about 0.3.
SPREAD = 0.45
CLIENTS = (1, 4)

# ---------------------------------------------------------------------------------- the search alone


def draw_gallery(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors float32 [size, LENGTH] of unit length, their people, and PROBES further images of people enrolled."""
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(-(-size // PICTURES)), PICTURES)[:size]
    centres = draw.normal(size=(people.max() + 1, LENGTH))

    def picture(who: np.ndarray, seed: int) -> np.ndarray:
        found = np.empty((len(who), LENGTH), np.float32)
        for start in range(0, len(who), 100_000):
            rows = slice(start, start + 100_000)
            noise = np.random.default_rng([seed, start]).normal(size=(len(found[rows]), LENGTH))
            vectors = centres[who[rows]] + SPREAD * noise
            found[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return found

    return picture(people, 1), people, picture(draw.choice(people, PROBES), 2)


def describe_times(times: Sequence[float]) -> Row:
    """Median, quartiles and best of calls in seconds, as milliseconds; best tells what a busy machine hides."""
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return {
        "milliseconds_median": 1e3 * median,
        "milliseconds_low": 1e3 * low,
        "milliseconds_high": 1e3 * high,
        "milliseconds_best": 1e3 * min(times),
        "matches_per_second": len(times) / sum(times),
        "calls": len(times),
    }


def describe_busy(pauses: Sequence[float]) -> Row:
    """Cores that other work took while this one slept: on average and at most."""
    return {"busy_cores": statistics.mean(pauses), "busy_cores_peak": max(pauses)}


def measure_search(size: int, seconds: float, index: bool) -> Row:
    """The search alone: exact and, where asked for, by an index, in turn."""
    from threadpoolctl import threadpool_limits

    vectors, people, probes = draw_gallery(size)
    snapshot = Snapshot(1, vectors, people)
    calls: dict[str, Callable[[np.ndarray], Any]] = {"exact": lambda probe: snapshot.match(probe, SIGMA)}
    facts: Row = {}
    if index:
        with suppress(ImportError):
            built, facts = build_index(snapshot, probes)
            calls["index"] = lambda probe: built.search(probe, NEIGHBOURS)

    def make_turn(call: Callable[[np.ndarray], Any]) -> Callable[[], tuple[list[float], float]]:
        def turn() -> tuple[list[float], float]:
            own: list[float] = []
            started, cpu_started = time.perf_counter(), time.process_time()
            while time.perf_counter() - started < seconds / ROUNDS or len(own) < MIN_CALLS:
                before = time.perf_counter()
                call(probes[len(own) % PROBES])
                own.append(time.perf_counter() - before)
            return own, time.process_time() - cpu_started

        return turn

    with threadpool_limits(1, user_api="blas"):  # as the server does
        for call in calls.values():
            call(probes[0])
        found, pauses = harness.take_turns({name: make_turn(call) for name, call in calls.items()}, ROUNDS)
    row = {"vectors": size, "megabytes": vectors.nbytes / 1e6, **describe_busy(pauses)}
    for name, turns in found.items():
        times = [value for own, _ in turns for value in own]
        row[name] = {**describe_times(times), "cpu_milliseconds": 1e3 * sum(cpu for _, cpu in turns) / len(times)}
    if facts:
        row["index"] |= facts
    return row


def build_index(snapshot: Snapshot, probes: np.ndarray) -> tuple[Any, Row]:
    """usearch's HNSW; the seconds to build it, its size, and how often it misses the nearest or judges otherwise."""
    from usearch.index import Index

    index = Index(ndim=LENGTH, metric="cos", dtype="f32")
    started = time.perf_counter()
    index.add(np.arange(len(snapshot.vectors)), snapshot.vectors, threads=os.cpu_count() or 1)
    facts: Row = {"build_seconds": time.perf_counter() - started}
    exact = [snapshot.match(probe, SIGMA) for probe in probes]
    found = [index.search(probe, NEIGHBOURS).keys.astype(int) for probe in probes]
    pairs = list(zip(exact, found, strict=True))
    facts["misses_nearest"] = float(np.mean([one.index[0] not in keys for one, keys in pairs]))
    facts["misses_person"] = float(np.mean([one.label[0] not in snapshot.people[keys] for one, keys in pairs]))
    facts["megabytes"] = index.memory_usage / 1e6
    return index, facts


# ---------------------------------------------------------------------------------- whole requests


@contextmanager
def run_server(folder: Path, url: str) -> Iterator[Row]:
    """A real server on the loopback; its address and how long it took to answer."""
    (folder / "export.json").write_text(json.dumps({"model_id": MODEL_ID, "output": {"length": LENGTH}}))
    words = ["--model", ".", "--threshold", str(SIGMA), "--port", "0", "--json", "--rate", "1000000/second"]
    command = [sys.executable, "-m", "ffem_jax.cli", "serve", *words, "--database", url]
    started = time.perf_counter()
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text().strip()[-300:]}")
        yield {**json.loads(line), "start_seconds": time.perf_counter() - started, "process": process.pid}
    finally:
        process.terminate()
        process.wait()


def fill_gallery(url: str, vectors: np.ndarray, people: np.ndarray) -> float:
    """Enrol all in the database at `url`; seconds."""
    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.gallery import Gallery

    gallery = Gallery(open_database(url), MODEL_ID, LENGTH)
    starts = np.flatnonzero(np.diff(people, prepend=-1))
    groups = np.split(np.arange(len(people)), starts[1:])
    started = time.perf_counter()
    for first in range(0, len(groups), 1000):
        gallery.enrol_all([(f"person {people[rows[0]]}", vectors[rows]) for rows in groups[first : first + 1000]])
    return time.perf_counter() - started


def measure_requests(size: int, seconds: float) -> Row:
    """Matches per second over HTTP, by clients that ask one after another; an enrolment and a deletion besides."""
    import httpx2 as httpx

    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.keys import SCOPES, add_key

    vectors, people, probes = draw_gallery(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/gallery.db"
        row: Row = {"vectors": size, "fill_seconds": fill_gallery(url, vectors, people)}
        _, key = add_key(open_database(url), SCOPES)
        del vectors, people
        with run_server(folder, url) as server:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            bodies = [json.dumps({"model_id": MODEL_ID, "vector": probe.tolist()}) for probe in probes]
            row |= {"start_seconds": server["start_seconds"], "body_bytes": len(bodies[0])}

            def ask(until: float) -> list[float]:
                times: list[float] = []
                with httpx.Client(base_url=server["address"], headers=headers, timeout=120) as client:
                    # One at least, however slow the machine.
                    while not times or time.perf_counter() < until:
                        before = time.perf_counter()
                        client.post("/v1/match", content=bodies[len(times) % PROBES]).raise_for_status()
                        times.append(time.perf_counter() - before)
                return times

            def make_turn(clients: int) -> Callable[[], tuple[list[float], float, float]]:
                def turn() -> tuple[list[float], float, float]:
                    started, cpu_started = time.perf_counter(), read_cpu_seconds(server["process"])
                    until = started + seconds / ROUNDS
                    with ThreadPoolExecutor(clients) as threads:
                        times = [value for part in threads.map(ask, [until] * clients) for value in part]
                    cpu = read_cpu_seconds(server["process"]) - cpu_started
                    return times, time.perf_counter() - started, cpu

                return turn

            ask(time.perf_counter() + 1)
            turns = {f"clients_{clients}": make_turn(clients) for clients in CLIENTS}
            found, pauses = harness.take_turns(turns, ROUNDS)
            row |= describe_busy(pauses)
            for clients, measured in found.items():
                own = [value for times, _, _ in measured for value in times]
                row[clients] = {
                    **describe_times(own),
                    "matches_per_second": len(own) / sum(lasted for _, lasted, _ in measured),
                    "server_cpu_milliseconds": 1e3 * sum(cpu for _, _, cpu in measured) / len(own),
                    "milliseconds_95": 1e3 * float(np.quantile(own, 0.95)),
                }
            with httpx.Client(base_url=server["address"], headers=headers, timeout=600) as client:
                started = time.perf_counter()
                person = client.post("/v1/enrol", content=bodies[0][:-1] + ', "name": "one more"}').json()["person_id"]
                row["enrol_milliseconds"] = 1e3 * (time.perf_counter() - started)
                started = time.perf_counter()
                client.delete(f"/v1/people/{person}").raise_for_status()
                row["delete_seconds"] = time.perf_counter() - started
            with suppress(OSError):
                status = Path(f"/proc/{server['process']}/status").read_text()
                row["server_megabytes"] = int(status.split("VmHWM:")[1].split()[0]) / 1e3
    return row


def read_cpu_seconds(process: int) -> float:
    """Seconds of processor time that a process has had: other work on the machine does not lengthen them."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------- the page

SEARCH_HEAD = [
    *("vectors", "exact: median ms [quartiles]", "best ms", "CPU ms", "matches/s", "MB"),
    *("index: median ms [quartiles]", "best ms", "CPU ms", "matches/s", "MB", "built"),
    *("misses the nearest", "and the person"),
]
REQUEST_HEAD = [
    "vectors",
    *(
        head
        for n in CLIENTS
        for head in (f"{n} client{'s' * (n > 1)}, matches/s", "median ms [quartiles]", "95 % ms", "server's CPU ms")
    ),
    *("enrol, ms", "delete, s", "start, s", "memory, MB"),
]


def write_report(found: Row, folder: Path) -> None:
    """Write README.md from the measurements, and from what a person concluded in reading.md."""
    searches = [row["search"] for row in found["rows"]]
    requested = [row["requests"] for row in found["rows"] if "requests" in row]
    busy, peaks = ([row[name] for row in [*searches, *requested]] for name in ("busy_cores", "busy_cores_peak"))
    reading = folder / "reading.md"
    requests = report.write_table(REQUEST_HEAD, map(describe_requests, requested), left=0)
    report.fill_page(
        folder / "README.md",
        "serve",
        **found,
        busy=sum(busy) / len(busy),
        peak=max(peaks),
        reading=reading.read_text(encoding="utf-8").strip() if reading.exists() else "",
        searches=report.write_table(SEARCH_HEAD, map(describe_search, searches), left=0),
        requests=f"## Whole requests\n\n{requests}" if requested else "",
    )


def describe_search(row: Row) -> list[str]:
    """A row of the first table."""
    cells = [f"{row['vectors']:,}", *describe_calls(row["exact"], row["megabytes"])]
    if index := row.get("index"):
        misses = (f"{100 * index[name]:.1f} %" for name in ("misses_nearest", "misses_person"))
        return [*cells, *describe_calls(index, index["megabytes"]), f"{index['build_seconds']:,.1f} s", *misses]
    return [*cells, *[""] * 8]


def describe_calls(row: Row, megabytes: float) -> list[str]:
    """Median with quartiles, best and CPU milliseconds, matches per second, and megabytes."""
    best, cpu = (f"{row[name]:.2f}" for name in ("milliseconds_best", "cpu_milliseconds"))
    return [describe_median(row), best, cpu, f"{row['matches_per_second']:,.0f}", f"{megabytes:,.1f}"]


def describe_median(row: Row) -> str:
    """Milliseconds: the median and its quartiles."""
    return f"{row['milliseconds_median']:.2f} [{row['milliseconds_low']:.2f}, {row['milliseconds_high']:.2f}]"


def describe_requests(row: Row) -> list[str]:
    """A row of the second table."""
    cells = [f"{row['vectors']:,}"]
    for one in (row[f"clients_{clients}"] for clients in CLIENTS):
        cells += [f"{one['matches_per_second']:,.0f}", describe_median(one)]
        cells += [f"{one['milliseconds_95']:.1f}", f"{one['server_cpu_milliseconds']:.2f}"]
    cells += [f"{row['enrol_milliseconds']:.0f}", f"{row['delete_seconds']:.2f}", f"{row['start_seconds']:.1f}"]
    return [*cells, f"{row.get('server_megabytes', 0):,.0f}"]


def main(words: Sequence[str] | None = None) -> None:
    """Measure into serve.json, size by size, and write the page."""
    parser = harness.make_parser(__doc__, "serve")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--index-sizes", type=int, nargs="*", help="of the index, which takes long to build; default: --sizes"
    )
    parser.add_argument("--request-sizes", type=int, nargs="*", help="of whole requests; default: --sizes")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options = parser.parse_args(words)
    harness.check_positive(options, "sizes", "seconds")
    index_sizes, request_sizes = (
        options.sizes if sizes is None else sizes for sizes in (options.index_sizes, options.request_sizes)
    )
    path = options.out / "serve.json"
    if not options.report_only:
        load = os.getloadavg()[0]
        if load > 0.5:
            tell(f"the machine is busy (load {load:.1f}): medians will say more of that than of the server")
        typed = sys.argv[1:] if words is None else words
        machine = harness.describe_machine(("numpy", "fastapi", "uvicorn", "sqlalchemy", "usearch"))
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        found: Row = {
            "machine": f"{machine['processor']}, {os.cpu_count()} cores; {versions}",
            "load_before": load,
            "command": " ".join(["python -m benchmarks.serve", *typed]),
            "rows": [],
        }
        options.out.mkdir(parents=True, exist_ok=True)
        for size in options.sizes:
            found["rows"].append({"search": measure_search(size, options.seconds, size in index_sizes)})
            if size in request_sizes:
                found["rows"][-1]["requests"] = measure_requests(size, options.seconds)
            tell(json.dumps(found["rows"][-1]))
            # After each size, so that a run that is cut off leaves what it has.
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not path.exists():
        raise SystemExit(harness.NOTHING)
    write_report(json.loads(path.read_text(encoding="utf-8")), options.out)


if __name__ == "__main__":
    main()
