"""What `benchmarks.sweep` measured: one JSON line a sweep, and the names of those that ran it."""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contest import BUSY_CORES, describe_machine, tell

PEER = "peer"
FIRST, SECOND = "first sweep", "second sweep"
OURS = {"basic": "ffem, one after another", "joblib": "ffem, a process a core", "seeds": "ffem, seeds in one program"}
NAMES = {PEER: "Optuna + PyTorch, one after another", **OURS}
SETTINGS = ("data", "resolution", "networks", "seeds", "epochs")
PACKAGES = ("jax", "flax", "joblib", "torch", "optuna")


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append `row` as one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `append_line` wrote; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def describe_this_machine() -> dict[str, Any]:
    """Processor, cores, date and the versions of what takes part."""
    machine = describe_machine()
    versions = {"python": machine["versions"]["python"]}
    versions |= {name: version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    return {**machine, "versions": versions}


class Measurements:
    """sweep.jsonl of the settings in `options`, which is added to; the last line of a contestant and round counts."""

    def __init__(self, path: Path, options: argparse.Namespace):
        self.path = path
        self.settings = {name: getattr(options, name) for name in SETTINGS}
        self.rows = [row for row in read_lines(path) if all(row[name] == self.settings[name] for name in SETTINGS)]
        self.fresh = options.fresh

    def has(self, contestant: str, cache: str, round_: int) -> bool:
        """Whether that measurement is there and need not be taken again, as one taken beside other work must be."""
        quiet = (row for row in self.rows if row["busy_cores"] <= BUSY_CORES)
        wanted = (contestant, cache, round_)
        return not self.fresh and any((row["contestant"], row["cache"], row["round"]) == wanted for row in quiet)

    def add(self, contestant: str, cache: str, round_: int, measured: dict[str, Any]) -> None:
        """Keep a measurement that came to its end with every trial."""
        trials = self.settings["networks"] * self.settings["seeds"]
        if len(measured["accuracies"]) != trials:
            raise SystemExit(f"{contestant} finished {len(measured['accuracies'])} of {trials} trials; not recorded")
        identity = {"contestant": contestant, "cache": cache, "round": round_}
        row = {**identity, **self.settings, **measured, **describe_this_machine()}
        append_line(self.path, row)
        self.rows.append(row)
        tell(f"{NAMES[contestant]}{', ' + cache if cache else ''}: {measured['seconds']:.1f} s")
        if measured["busy_cores"] > BUSY_CORES:
            tell(f"other work took {measured['busy_cores']:.2f} cores: too much; the next call measures this again")

    def select(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(contestant, cache) -> one row a round, the latest."""
        latest = {(row["contestant"], row["cache"], row["round"]): row for row in self.rows}
        selected: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for contestant in NAMES:
            for cache in ("", FIRST, SECOND):
                rows = [row for key, row in latest.items() if key[:2] == (contestant, cache)]
                if rows:
                    selected[contestant, cache] = rows
        return selected
