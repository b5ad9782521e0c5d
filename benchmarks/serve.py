"""How many faces a second the recognition server matches, and from how many on an index would pay.

    python -m benchmarks.serve [--sizes 1000 100000 1000000] [--seconds 10]

From the repository root, with `pip install -e ".[serve]"` and, for the comparison, usearch. Two parts: the search
alone, exact in NumPy on one core against an approximate index (HNSW of usearch); and whole requests to a real `ffem
serve` on the loopback, its gallery in SQLite. Vectors are drawn, ten a person, as a network that tells people apart
gives them. What is compared takes turns, ROUNDS times; in the pauses between it is measured what other work takes of
the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ffem_jax.latency.turns import measure_busy_cores
from ffem_jax.serve.snapshot import Snapshot

RESULTS = Path(__file__).resolve().parent.parent / "results" / "serve"
LENGTH = 128
PICTURES = 10
MODEL_ID = "0" * 16
PROBES = 200
# Each of what is compared is called for a part of the time, then the next, so many times.
ROUNDS = 5
PAUSE_SECONDS = 0.5
# In each round, however long they take.
MIN_CALLS = 4
# An index is asked for so many.
NEIGHBOURS = 10
SIGMA = 0.35
# Of a vector's length: how far two pictures of a person lie apart, so that Eq. 7's distance is about 0.3.
SPREAD = 0.45
CLIENTS = (1, 4)


def draw_gallery(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors float32 [size, LENGTH] of unit length, their people, and PROBES further pictures of people enrolled."""
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(-(-size // PICTURES)), PICTURES)[:size]

    def picture(who: np.ndarray, seed: int) -> np.ndarray:
        found = np.empty((len(who), LENGTH), np.float32)
        for start in range(0, len(who), 100_000):
            rows = slice(start, start + 100_000)
            noise = np.random.default_rng([seed, start]).normal(size=(len(found[rows]), LENGTH))
            vectors = centres[who[rows]] + SPREAD * noise
            found[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return found

    centres = draw.normal(size=(people.max() + 1, LENGTH))
    return picture(people, 1), people, picture(draw.choice(people, PROBES), 2)


def time_in_turn(
    calls: dict[str, Callable[[np.ndarray], Any]], probes: np.ndarray, seconds: float
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Milliseconds a call of each, one call after another for a part of `seconds`, by turns; and what others used."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    cpu = dict.fromkeys(calls, 0.0)
    pauses = []
    for call in calls.values():
        call(probes[0])
    for _ in range(ROUNDS):
        pauses.append(measure_busy_cores(PAUSE_SECONDS))
        for name, call in calls.items():
            own, done = times[name], len(times[name])
            started, cpu_started = time.perf_counter(), time.process_time()
            while time.perf_counter() - started < seconds / ROUNDS or len(own) - done < MIN_CALLS:
                before = time.perf_counter()
                call(probes[len(own) % len(probes)])
                own.append(time.perf_counter() - before)
            cpu[name] += time.process_time() - cpu_started
    found = {
        name: {**describe_times(own), "cpu_milliseconds": 1e3 * cpu[name] / len(own)} for name, own in times.items()
    }
    return found, describe_busy(pauses)


def describe_times(times: Sequence[float]) -> dict[str, float]:
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


def describe_busy(pauses: Sequence[float]) -> dict[str, float]:
    """Cores that other work took while this one slept: on average and at most."""
    return {"busy_cores": statistics.mean(pauses), "busy_cores_peak": max(pauses)}


def measure_search(size: int, seconds: float, index: bool) -> dict[str, Any]:
    """The search alone: exact and, where asked for, by an index, in turn."""
    vectors, people, probes = draw_gallery(size)
    snapshot = Snapshot(1, vectors, people)
    row: dict[str, Any] = {"vectors": size, "megabytes": vectors.nbytes / 1e6}
    calls: dict[str, Callable[[np.ndarray], Any]] = {"exact": lambda probe: snapshot.match(probe, SIGMA)}
    facts: dict[str, Any] = {}
    if index:
        with suppress(ImportError):
            built, facts = build_index(snapshot, probes)
            calls["index"] = lambda probe: built.search(probe, NEIGHBOURS)
    # As the server does.
    with threadpool_limits(1, user_api="blas"):
        found, busy = time_in_turn(calls, probes, seconds)
    row |= {**found, **busy}
    if facts:
        row["index"] |= facts
    return row


def build_index(snapshot: Snapshot, probes: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """usearch's HNSW; the seconds to build it, its size, and how often it misses the nearest or judges otherwise."""
    from usearch.index import Index

    index = Index(ndim=LENGTH, metric="cos", dtype="f32")
    started = time.perf_counter()
    index.add(np.arange(len(snapshot.vectors)), snapshot.vectors, threads=os.cpu_count() or 1)
    facts: dict[str, Any] = {"build_seconds": time.perf_counter() - started}
    exact = [snapshot.match(probe, SIGMA) for probe in probes]
    found = [index.search(probe, NEIGHBOURS).keys for probe in probes]
    facts["misses_nearest"] = float(np.mean([one.index[0] not in keys for one, keys in zip(exact, found, strict=True)]))
    facts["misses_person"] = float(
        np.mean([one.label[0] not in snapshot.people[keys.astype(int)] for one, keys in zip(exact, found, strict=True)])
    )
    facts["megabytes"] = index.memory_usage / 1e6
    return index, facts


# ---------------------------------------------------------------------------------- whole requests


@contextmanager
def run_server(folder: Path, url: str) -> Iterator[dict[str, Any]]:
    """A real server on the loopback; its address and how long it took to answer."""
    (folder / "export.json").write_text(json.dumps({"model_id": MODEL_ID, "output": {"length": LENGTH}}))
    words = ["--model", ".", "--threshold", str(SIGMA), "--port", "0", "--json", "--rate", "1000000/second"]
    command = [sys.executable, "-m", "ffem_jax.cli", "serve", *words, "--database", url]
    started = time.perf_counter()
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        facts = json.loads(process.stdout.readline())
        yield {**facts, "start_seconds": time.perf_counter() - started, "process": process.pid}
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


def measure_requests(size: int, seconds: float) -> dict[str, Any]:
    """Matches a second over HTTP, by clients that ask one after another; an enrolment and a deletion besides."""
    import httpx2 as httpx

    from ffem_jax.serve.database import open_database
    from ffem_jax.serve.keys import SCOPES, add_key

    vectors, people, probes = draw_gallery(size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/gallery.db"
        row: dict[str, Any] = {"vectors": size, "fill_seconds": fill_gallery(url, vectors, people)}
        _, key = add_key(open_database(url), SCOPES)
        del vectors, people
        with run_server(folder, url) as server:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            bodies = [json.dumps({"model_id": MODEL_ID, "vector": probe.tolist()}) for probe in probes]
            row["start_seconds"] = server["start_seconds"]
            row["body_bytes"] = len(bodies[0])

            def ask(until: float) -> list[float]:
                times = []
                with httpx.Client(base_url=server["address"], headers=headers, timeout=120) as client:
                    # One at least, however slow the machine.
                    while not times or time.perf_counter() < until:
                        before = time.perf_counter()
                        client.post("/v1/match", content=bodies[len(times) % PROBES]).raise_for_status()
                        times.append(time.perf_counter() - before)
                return times

            ask(time.perf_counter() + 1)
            times: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
            cpu, lasted, pauses = dict.fromkeys(CLIENTS, 0.0), dict.fromkeys(CLIENTS, 0.0), []
            for _ in range(ROUNDS):
                pauses.append(measure_busy_cores(PAUSE_SECONDS))
                for clients in CLIENTS:
                    started, cpu_started = time.perf_counter(), read_cpu_seconds(server["process"])
                    until = started + seconds / ROUNDS
                    with ThreadPoolExecutor(clients) as threads:
                        times[clients] += [t for part in threads.map(ask, [until] * clients) for t in part]
                    cpu[clients] += read_cpu_seconds(server["process"]) - cpu_started
                    lasted[clients] += time.perf_counter() - started
            row |= describe_busy(pauses)
            for clients, own in times.items():
                row[f"clients_{clients}"] = {
                    **describe_times(own),
                    "matches_per_second": len(own) / lasted[clients],
                    "server_cpu_milliseconds": 1e3 * cpu[clients] / len(own),
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


# ------------------------------------------------------------------------------------- the report


def describe_machine() -> str:
    """Processor, cores and versions."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    packages = []
    for package in ("numpy", "fastapi", "uvicorn", "sqlalchemy", "usearch"):
        with suppress(Exception):
            packages.append(f"{package} {version(package)}")
    return f"{name}, {os.cpu_count()} cores; python {platform.python_version()}, {', '.join(packages)}"


def main() -> None:
    """Measure and write results/serve/serve.json; `python -m benchmarks.serve_report` writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--index-sizes", type=int, nargs="*", help="of the index, which takes long to build; default: --sizes"
    )
    parser.add_argument("--request-sizes", type=int, nargs="*", help="of whole requests; default: --sizes")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder other than results/serve, for a trial run")
    options = parser.parse_args()
    index_sizes = options.sizes if options.index_sizes is None else options.index_sizes
    request_sizes = options.sizes if options.request_sizes is None else options.request_sizes
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    load = os.getloadavg()[0]
    if load > 0.5:
        print(
            f"the machine is busy (load {load:.1f}): medians will say more of that than of the server", file=sys.stderr
        )
    for size in options.sizes:
        row = {"search": measure_search(size, options.seconds, size in index_sizes)}
        if size in request_sizes:
            row["requests"] = measure_requests(size, options.seconds)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
        # After each size, so that a run that is cut off leaves what it has.
        write_results(rows, load, options.out)


def write_results(rows: list[dict[str, Any]], load: float, folder: Path) -> None:
    """Write serve.json. load: of the machine over the minute before the first measurement."""
    found = {
        "machine": describe_machine(),
        "load_before": load,
        "command": "python -m benchmarks.serve " + " ".join(sys.argv[1:]),
        "rows": rows,
    }
    (folder / "serve.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
