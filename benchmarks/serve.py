"""How many faces per second the recognition server matches, and at which size an index would pay off.

    python -m benchmarks.serve [--sizes 1000 100000 1000000] [--seconds 10]
    python -m benchmarks.serve --report-only

From the repository root, with `pip install -e ".[serve]"` and, for the comparison, usearch. Two parts: the search
alone, exact in NumPy on one core against an approximate index (usearch's HNSW); and complete requests to a real `ffem
serve` on the loopback, with its gallery in SQLite. Vectors are drawn, ten per person, and distributed like those of a
network that separates people. `--index-sizes` sets the sizes for which an index is built, which takes long.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Row
from ffem_jax.serve.snapshot import Snapshot

LENGTH, IMAGES_PER_PERSON, PROBES = 128, 10, 200
MODEL_ID = "0" * 16
# The contestants are called in turn for part of the time, in ROUNDS rounds; each at least MIN_CALLS times per round.
ROUNDS, MIN_CALLS = 5, 4
NEIGHBOURS = 10  # requested from an index
SIGMA = 0.35
# Spread of a person's images, relative to a vector's length, so that Eq. 7's distance is about 0.3.
SPREAD = 0.45
CLIENTS = (1, 4)
Call = Callable[[Any], object]


def draw_gallery(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw L2-normalised vectors, float32 [size, LENGTH], their people, and PROBES further images of these people."""
    draw = np.random.default_rng(0)
    people = np.arange(size) // IMAGES_PER_PERSON
    whose = np.concatenate([people, draw.choice(people, PROBES)])
    centres = draw.standard_normal((people[-1] + 1, LENGTH), np.float32)
    vectors = centres[whose] + SPREAD * draw.standard_normal((len(whose), LENGTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:size], people, vectors[size:]


def time_calls(call: Call, inputs: Any, until: float) -> list[float]:
    """Return the seconds of each call, one after another until the clock reaches `until`."""
    times: list[float] = []
    while len(times) < MIN_CALLS or time.perf_counter() < until:
        before = time.perf_counter()
        call(inputs[len(times) % PROBES])
        times.append(time.perf_counter() - before)
    return times


def compare(
    calls: dict[str, tuple[Call, int]], inputs: Any, seconds: float, read_cpu: Callable[[], float], cpu: str
) -> Row:
    """Time the calls by name, each with a number of calling threads; also the cores used by others between rounds.

    The best call shows what a busy machine hides. cpu: the field for the processor time from `read_cpu`.
    """

    def make_turn(call: Call, threads: int) -> Callable[[], tuple[list[float], float, float]]:
        def turn() -> tuple[list[float], float, float]:
            started, cpu_before = time.perf_counter(), read_cpu()
            with ThreadPoolExecutor(threads) as pool:
                until = started + seconds / ROUNDS
                parts = list(pool.map(lambda _: time_calls(call, inputs, until), range(threads)))
            used = read_cpu() - cpu_before
            return list(itertools.chain(*parts)), time.perf_counter() - started, used

        return turn

    for call, _ in calls.values():
        time_calls(call, inputs, time.perf_counter() + 1)
    found, pauses = harness.take_turns({name: make_turn(*call) for name, call in calls.items()}, ROUNDS)
    row: Row = {"busy_cores": statistics.mean(pauses), "busy_cores_peak": max(pauses)}
    for name, measured in found.items():
        times = [value for own, _, _ in measured for value in own]
        low, median, high, slow = 1e3 * np.quantile(times, (0.25, 0.5, 0.75, 0.95))
        row[name] = {
            "milliseconds_median": median,
            "milliseconds_low": low,
            "milliseconds_high": high,
            "milliseconds_95": slow,
            "milliseconds_best": 1e3 * min(times),
            "matches_per_second": len(times) / sum(lasted for _, lasted, _ in measured),
            cpu: 1e3 * sum(used for _, _, used in measured) / len(times),
            "calls": len(times),
        }
    return row


def measure_search(size: int, seconds: float, with_index: bool) -> Row:
    """Measure the search alone: exact and, if requested, with an index, alternately."""
    from threadpoolctl import threadpool_limits

    vectors, people, probes = draw_gallery(size)
    snapshot = Snapshot(1, vectors, people)
    calls: dict[str, tuple[Call, int]] = {"exact": (lambda probe: snapshot.match(probe, SIGMA), 1)}
    if with_index:
        index, facts = build_index(snapshot, probes)
        calls["index"] = lambda probe: index.search(probe, NEIGHBOURS), 1
    with threadpool_limits(1, user_api="blas"):  # as the server does
        row = compare(calls, probes, seconds, time.process_time, "cpu_milliseconds")
    if with_index:
        row["index"] |= facts
    return {"vectors": size, "megabytes": vectors.nbytes / 1e6, **row}


def build_index(snapshot: Snapshot, probes: np.ndarray) -> tuple[Any, Row]:
    """Build usearch's HNSW; measure build seconds, size, and how often it misses the nearest vector and the person."""
    from usearch.index import Index

    index = Index(ndim=LENGTH, metric="cos", dtype="f32")
    started = time.perf_counter()
    index.add(np.arange(len(snapshot.vectors)), snapshot.vectors, threads=os.cpu_count() or 1)
    seconds = time.perf_counter() - started
    exact = [snapshot.match(probe, SIGMA) for probe in probes]
    found = [index.search(probe, NEIGHBOURS).keys.astype(int) for probe in probes]
    pairs = list(zip(exact, found, strict=True))
    return index, {
        "build_seconds": seconds,
        "misses_nearest": float(np.mean([one.index[0] not in keys for one, keys in pairs])),
        "misses_person": float(np.mean([one.label[0] not in snapshot.people[keys] for one, keys in pairs])),
        "megabytes": index.memory_usage / 1e6,
    }


@contextmanager
def run_server(folder: Path, url: str) -> Iterator[Row]:
    """Run a real server on the loopback; yield its address, process and seconds until it answered."""
    (folder / "export.json").write_text(json.dumps({"model_id": MODEL_ID, "output": {"length": LENGTH}}))
    words = ["--model", ".", "--threshold", str(SIGMA), "--port", "0", "--json", "--rate", "1000000/second"]
    command = [sys.executable, "-m", "ffem_jax.cli", "serve", *words, "--database", url]
    started = time.perf_counter()
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text().strip()[-300:]}")
        yield {**json.loads(line), "start_seconds": time.perf_counter() - started, "process": process.pid}
    finally:
        process.terminate()
        process.wait()


def fill_gallery(url: str, vectors: np.ndarray, people: np.ndarray) -> tuple[float, str]:
    """Enrol all people in the database at `url`; return the seconds and an API key with all scopes."""
    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.gallery import Gallery
    from ffem_jax.serve.keys import SCOPES, add_key

    gallery = Gallery(open_database(url), MODEL_ID, LENGTH)
    parts = np.split(vectors, np.flatnonzero(np.diff(people)) + 1)
    named = [(f"person {number}", own) for number, own in enumerate(parts)]
    started = time.perf_counter()
    for first in range(0, len(named), 1000):
        gallery.enrol_all(named[first : first + 1000])
    return time.perf_counter() - started, add_key(open_database(url), SCOPES)[1]


def measure_requests(size: int, seconds: float) -> Row:
    """Measure matches per second over HTTP, from clients sending one request after another; also enrol and delete."""
    import httpx2 as httpx

    vectors, people, probes = draw_gallery(size)
    bodies = [json.dumps({"model_id": MODEL_ID, "vector": probe.tolist()}) for probe in probes]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/gallery.db"
        filled, key = fill_gallery(url, vectors, people)
        del vectors, people
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with run_server(Path(folder), url) as server, httpx.Client(headers=headers, timeout=600) as client:
            address = server["address"]

            def match(body: str) -> None:
                client.post(f"{address}/v1/match", content=body).raise_for_status()

            calls: dict[str, tuple[Call, int]] = {f"clients_{clients}": (match, clients) for clients in CLIENTS}
            cpu = partial(read_cpu_seconds, server["process"])
            row = compare(calls, bodies, seconds, cpu, "server_cpu_milliseconds")
            started = time.perf_counter()
            enrolled = client.post(f"{address}/v1/enrol", content=bodies[0][:-1] + ', "name": "one more"}').json()
            enrol_seconds, started = time.perf_counter() - started, time.perf_counter()
            client.delete(f"{address}/v1/people/{enrolled['person_id']}").raise_for_status()
            delete_seconds = time.perf_counter() - started
            status = Path(f"/proc/{server['process']}/status").read_text()
            return {
                "vectors": size,
                "fill_seconds": filled,
                "start_seconds": server["start_seconds"],
                "body_bytes": len(bodies[0]),
                **row,
                "enrol_milliseconds": 1e3 * enrol_seconds,
                "delete_seconds": delete_seconds,
                "server_megabytes": int(status.split("VmHWM:")[1].split()[0]) / 1e3,
            }


def read_cpu_seconds(process: int) -> float:
    """Return the processor seconds that a process has used; other work on the machine does not add to them."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------- the page

TIMES = "{0[milliseconds_median]:.2f} [{0[milliseconds_low]:.2f}, {0[milliseconds_high]:.2f}]"
CALLS = TIMES + " | {0[milliseconds_best]:.2f} | {0[cpu_milliseconds]:.2f} | {0[matches_per_second]:,.0f} | {1:,.1f}"
CLIENT = "{0[matches_per_second]:,.0f} | " + TIMES + " | {0[milliseconds_95]:.1f} | {0[server_cpu_milliseconds]:.2f}"
REQUESTS = (
    "| {vectors:,} | {clients} | {enrol_milliseconds:.0f} | {delete_seconds:.2f} | {start_seconds:.1f} | "
    "{server_megabytes:,.0f} |"
)


def describe_search(row: Row) -> str:
    """Format a row of the first table."""
    told, index = [f"{row['vectors']:,}", CALLS.format(row["exact"], row["megabytes"])], row.get("index")
    if index:
        misses = (f"{100 * index[name]:.1f} %" for name in ("misses_nearest", "misses_person"))
        told += [CALLS.format(index, index["megabytes"]), f"{index['build_seconds']:,.1f} s", *misses]
    else:
        told += [""] * 8
    return f"| {' | '.join(told)} |"


def describe_requests(row: Row) -> str:
    """Format a row of the second table."""
    return REQUESTS.format(**row, clients=" | ".join(CLIENT.format(row[f"clients_{clients}"]) for clients in CLIENTS))


def write_report(found: Row, folder: Path) -> None:
    """Write README.md from the measurements and the hand-written conclusions in reading.md."""
    parts = [part for row in found["rows"] for part in row.values()]
    reading = folder / "reading.md"
    report.fill_page(
        folder / "README.md",
        "serve",
        **found,
        busy=statistics.mean(part["busy_cores"] for part in parts),
        peak=max(part["busy_cores_peak"] for part in parts),
        reading=reading.read_text(encoding="utf-8").strip() if reading.exists() else "",
        searches="\n".join(describe_search(row["search"]) for row in found["rows"]),
        requests="\n".join(describe_requests(row["requests"]) for row in found["rows"]),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure size by size into serve.json, and write the page."""
    parser = harness.make_parser(__doc__, "serve")
    sizes = ([1_000, 10_000, 100_000, 1_000_000], "vectors enrolled")
    harness.add_numbers(parser, sizes=sizes, seconds=(10.0, "seconds per measurement"))
    parser.add_argument("--index-sizes", type=int, nargs="*", help="sizes with an index; default: --sizes")
    options = parser.parse_args(words)
    harness.check_positive(options, "sizes", "seconds")
    path = options.out / "serve.json"
    if not options.report_only:
        index_sizes = options.sizes if options.index_sizes is None else options.index_sizes
        if index_sizes and harness.find_missing(["usearch"]):
            raise SystemExit(
                "usearch is not installed; install it, or measure without an index: --index-sizes without a size"
            )
        machine = harness.describe_machine(("numpy", "fastapi", "uvicorn", "sqlalchemy", "usearch"))
        found: Row = {
            "machine": f"{machine['processor']}, {os.cpu_count()} cores; {report.describe_versions(machine)}",
            "load_before": os.getloadavg()[0],
            "command": " ".join(["python -m benchmarks.serve", *(sys.argv[1:] if words is None else words)]),
            "rows": [],
        }
        options.out.mkdir(parents=True, exist_ok=True)
        for size in options.sizes:
            search = measure_search(size, options.seconds, size in index_sizes)
            found["rows"].append({"search": search, "requests": measure_requests(size, options.seconds)})
            harness.tell(json.dumps(found["rows"][-1]))
            # After each size, so that an interrupted run keeps its results.
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not path.exists():
        raise SystemExit(harness.NOTHING)
    write_report(json.loads(path.read_text(encoding="utf-8")), options.out)


if __name__ == "__main__":
    main()
