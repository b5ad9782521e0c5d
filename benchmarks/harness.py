"""Shared parts of benchmarks: options, records as JSON lines, the machine, worker processes, and turns.

Contestants take turns A B C A B C ..., so that anything that slows the machine slows all of them. Before each round the
load from other work is measured.
"""

from __future__ import annotations

import argparse
import contextlib
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ffem_jax.latency.turns import BUSY_CORES, measure_busy_cores
from ffem_jax.machine.processor import find_processor

Row = dict[str, Any]

PAUSE_SECONDS = 0.2  # before a turn: the previous contestant's threads keep spinning for a while
LIBRARIES = ("jax", "flax", "torch", "tensorflow", "tensorflow-cpu", "keras", "onnxruntime")
NOTHING = "nothing has been measured yet; run without --report-only"


def tell(line: str) -> None:
    """Print a line of progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def make_parser(about: str | None, out: str, kept: bool = True) -> argparse.ArgumentParser:
    """Build a command line with --out, by default results/`out`, and with --report-only if records are `kept`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path("results") / out
    parser.add_argument("--out", type=Path, default=default, help=f"where records and pages go (default: {default})")
    if kept:
        parser.add_argument("--report-only", action="store_true", help="only write page and figure, from the records")
    return parser


def add_numbers(parser: argparse.ArgumentParser, **options: tuple[float | list[int], str]) -> None:
    """Add --options that take a number, or several if the default is a list: name=(default, help)."""
    for name, (default, about) in options.items():
        kind = float if isinstance(default, float) else int
        several = "+" if isinstance(default, list) else None
        told = " ".join(map(str, default)) if isinstance(default, list) else f"{default:g}"
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, nargs=several, default=default, help=f"{about} (default: {told})")


def check_positive(options: argparse.Namespace, *names: str) -> None:
    """Exit with one line if a number is not above 0."""
    for name in names:
        values = getattr(options, name)
        for value in values if isinstance(values, list) else [values]:
            if not value > 0:
                raise SystemExit(f"--{name.replace('_', '-')} {value} must be above 0")


def read_lines(path: Path) -> list[Row]:
    """Return the rows of a JSON lines file; empty if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.strip()]


def read_latest(path: Path, *keys: str) -> list[Row]:
    """Return the last row for each combination of `keys`, in the order of the first ones."""
    return list({tuple(row[key] for key in keys): row for row in read_lines(path)}.values())


def demand_rows(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows. Raises SystemExit with advice if there are none."""
    if not rows:
        raise SystemExit(NOTHING)
    return rows


def measure_missing(
    path: Path, cells: Mapping[str, Row], is_held: Callable[[Row], bool], measure: Callable[[Row], Row], fresh: bool
) -> None:
    """Measure cell by cell and append each record at once, so that a restarted run resumes.

    Args:
        path: the records file.
        cells: by display name, the fields that identify each cell in the records.
        is_held: returns whether a record need not be measured again.
        measure: measures a cell and returns the remaining fields of its record.
        fresh: measure recorded cells again.
    """
    for number, (name, cell) in enumerate(cells.items(), 1):
        place = f"[{number}/{len(cells)}] {name}"
        held = [row for row in read_latest(path, *cell) if cell.items() <= row.items()]
        if held and is_held(held[0]) and not fresh:
            tell(f"{place}: already measured")
            continue
        tell(place)
        append_rows(path, {**cell, **measure(cell)})


def append_rows(path: Path, *rows: Row) -> None:
    """Append rows as lines of JSON; create the folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def find_missing(libraries: Sequence[str]) -> list[str]:
    """Return the libraries that are not installed."""
    return [name for name in libraries if importlib.util.find_spec(name) is None]


def describe_machine(libraries: Sequence[str] = LIBRARIES) -> Row:
    """Return date, processor, physical cores, and the versions of Python and of the installed ones of `libraries`."""
    import joblib

    versions = {"python": platform.python_version()}
    for name in libraries:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    cores = joblib.cpu_count(only_physical_cores=True)
    date = str(datetime.date.today())
    return {"date": date, "processor": find_processor(), "cores": cores, "versions": versions}


def make_environment(**more: str) -> dict[str, str]:
    """Return this process's environment, with this checkout first on the path and no shared compilation cache."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH", "")))), **more}


def read_memory(field: str) -> int:
    """Return bytes of this process: VmRSS now, VmHWM at its peak; without Linux's status file, both are the peak."""
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = re.findall(rf"^{field}:\s+(\d+)", status.read_text(), re.MULTILINE)
        return int(kilobytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


Made = tuple[Any, Callable[..., Any]]


class Worker:
    """A process started from scratch that builds something and answers requests about it.

    Args:
        make: called in the process with `arguments`; returns a report on its start and the request handler.
        environment: variables of the process, in addition to those of this one.
        cores: the only cores it may run on; all if None.

    Raises:
        RuntimeError: in one line, if the process fails, at its start or at a request.
    """

    def __init__(
        self,
        make: Callable[..., Made],
        *arguments: Any,
        environment: dict[str, str] | None = None,
        cores: set[int] | None = None,
    ):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        with _inherited(environment or {}, cores):
            self._process.start()
        theirs.close()
        self.start: Any = self._receive()

    def ask(self, *request: Any) -> Any:
        """Send a request to the process and return its answer."""
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


@contextlib.contextmanager
def _inherited(environment: dict[str, str], cores: set[int] | None) -> Iterator[None]:
    """Give this process the child's settings: libraries read variables and count cores when they are imported."""
    before, own = dict(os.environ), os.sched_getaffinity(0) if cores else set()
    os.environ.update(environment)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        if cores:
            os.sched_setaffinity(0, own)


def _serve(connection: Any, make: Callable[..., Made], arguments: tuple[Any, ...]) -> None:
    try:
        start, answer = make(*arguments)
        connection.send(start)
        while request := connection.recv():
            connection.send(answer(*request))
    except Exception as error:
        message = next((line for line in str(error).splitlines() if line.strip()), "")
        # The message goes into the report, which should not show this machine's folders.
        message = re.sub(r"\S*/", "", message)
        connection.send(RuntimeError(f"{type(error).__name__}: {message}"[:200]))


def take_turns(
    turns: dict[str, Callable[[], Any]], rounds: int, pause: float = 0.5, told: Callable[[int, Row], None] | None = None
) -> tuple[dict[str, list[Any]], list[float]]:
    """Call the contestants in turn, `rounds` times.

    Args:
        turns: the contestants by name; one that deletes its own entry is out, and its return value is dropped.
        pause: seconds before each round in which no contestant runs.
        told: called after each round with its number, from 0, and the return values of its turns.

    Returns:
        The return values by name, and the cores that other work used in each pause.
    """
    found: dict[str, list[Any]] = {name: [] for name in turns}
    busy = []
    for index in range(rounds):
        time.sleep(PAUSE_SECONDS)
        busy.append(measure_busy_cores(pause))
        if busy[-1] > BUSY_CORES:
            tell(f"    other work uses {busy[-1]:.1f} cores: too much for a benchmark")
        returned = {}
        for name, turn in list(turns.items()):
            time.sleep(PAUSE_SECONDS)
            value = turn()
            if name in turns:
                found[name].append(value)
                returned[name] = value
        if told:
            told(index, returned)
    return found, busy
