"""How many faces a second the recognition server matches, and from how many on an index would pay.

    python -m benchmarks.serve [--sizes 1000 100000 1000000] [--seconds 10]

From the repository root, with `pip install -e ".[serve]"` and, for the comparison, usearch. Two parts: the search
alone, exact in NumPy against an approximate index (HNSW of usearch); and whole requests to a real `ffem serve` on the
loopback, its gallery in SQLite. Vectors are drawn, ten a person, as a network that tells people apart gives them.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.serve.snapshot import Snapshot

RESULTS = Path(__file__).resolve().parent.parent / "results" / "serve"
LENGTH = 128
PICTURES = 10
MODEL_ID = "0" * 16
PROBES = 200
MIN_CALLS = 20
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


def time_calls(call: Callable[[np.ndarray], Any], probes: np.ndarray, seconds: float) -> dict[str, float]:
    """Milliseconds a call, one by one, over `seconds`; best and processor time tell what a busy machine hides."""
    call(probes[0])
    times: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds or len(times) < MIN_CALLS:
        before = time.perf_counter()
        call(probes[len(times) % len(probes)])
        times.append(time.perf_counter() - before)
    median = statistics.median(times)
    return {
        "milliseconds_median": 1e3 * median,
        "milliseconds_best": 1e3 * min(times),
        "cpu_milliseconds": 1e3 * (time.process_time() - cpu) / len(times),
        "matches_per_second": len(times) / sum(times),
        "calls": len(times),
    }


def measure_search(size: int, seconds: float, index: bool) -> dict[str, Any]:
    """The search alone: exact, and by an index where asked for."""
    vectors, people, probes = draw_gallery(size)
    snapshot = Snapshot(1, vectors, people)
    row: dict[str, Any] = {"vectors": size, "megabytes": vectors.nbytes / 1e6}
    row["exact"] = time_calls(lambda probe: snapshot.match(probe, SIGMA), probes, seconds)
    if index:
        with suppress(ImportError):
            row["index"] = measure_index(snapshot, probes, seconds)
    return row


def measure_index(snapshot: Snapshot, probes: np.ndarray, seconds: float) -> dict[str, Any]:
    """usearch's HNSW: time to build, milliseconds, and how often it misses the nearest or judges otherwise."""
    from usearch.index import Index

    index = Index(ndim=LENGTH, metric="cos", dtype="f32")
    started = time.perf_counter()
    index.add(np.arange(len(snapshot.vectors)), snapshot.vectors, threads=os.cpu_count() or 1)
    row: dict[str, Any] = {"build_seconds": time.perf_counter() - started}
    row |= time_calls(lambda probe: index.search(probe, 10), probes, seconds)
    exact = [snapshot.match(probe, SIGMA) for probe in probes]
    found = [index.search(probe, 10).keys for probe in probes]
    row["misses_nearest"] = float(np.mean([one.index[0] not in keys for one, keys in zip(exact, found, strict=True)]))
    row["misses_person"] = float(
        np.mean([one.label[0] not in snapshot.people[keys.astype(int)] for one, keys in zip(exact, found, strict=True)])
    )
    row["megabytes"] = index.memory_usage / 1e6
    return row


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
                    while time.perf_counter() < until:
                        before = time.perf_counter()
                        client.post("/v1/match", content=bodies[len(times) % PROBES]).raise_for_status()
                        times.append(time.perf_counter() - before)
                return times

            ask(time.perf_counter() + 1)
            for clients in CLIENTS:
                cpu, until = read_cpu_seconds(server["process"]), time.perf_counter() + seconds
                with ThreadPoolExecutor(clients) as threads:
                    times = [t for part in threads.map(ask, [until] * clients) for t in part]
                cpu = read_cpu_seconds(server["process"]) - cpu
                row[f"clients_{clients}"] = {
                    "matches_per_second": len(times) / seconds,
                    "server_cpu_milliseconds": 1e3 * cpu / len(times),
                    "requests": len(times),
                    "milliseconds_median": 1e3 * statistics.median(times),
                    "milliseconds_95": 1e3 * float(np.quantile(times, 0.95)),
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
    """Processor, cores, versions, and how busy the machine was."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    packages = []
    for package in ("numpy", "fastapi", "uvicorn", "sqlalchemy", "usearch"):
        with suppress(Exception):
            packages.append(f"{package} {version(package)}")
    load = os.getloadavg()[1]
    return (
        f"{name}, {os.cpu_count()} cores; python {platform.python_version()}, {', '.join(packages)}; "
        f"load of the machine over the last 5 minutes {load:.1f}, this benchmark's own included"
    )


def main() -> None:
    """Measure and write results/serve/serve.json; `python -m benchmarks.serve_report` writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--index-sizes", type=int, nargs="*", help="of the index, which takes long to build; default: --sizes"
    )
    parser.add_argument("--request-sizes", type=int, nargs="*", help="of whole requests; default: --sizes")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options = parser.parse_args()
    index_sizes = options.sizes if options.index_sizes is None else options.index_sizes
    request_sizes = options.sizes if options.request_sizes is None else options.request_sizes
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in options.sizes:
        row = {"search": measure_search(size, options.seconds, size in index_sizes)}
        if size in request_sizes:
            row["requests"] = measure_requests(size, options.seconds)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
        # After each size, so that a run that is cut off leaves what it has.
        write_results(rows)


def write_results(rows: list[dict[str, Any]]) -> None:
    """Write results/serve/serve.json."""
    found = {
        "machine": describe_machine(),
        "command": "python -m benchmarks.serve " + " ".join(sys.argv[1:]),
        "rows": rows,
    }
    (RESULTS / "serve.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
