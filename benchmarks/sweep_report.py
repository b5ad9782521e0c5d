"""The page and the figure of `benchmarks.sweep`, from its measurements."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.harness import Row
from benchmarks.report import Mark

PEER, INSTALLED = "peer", "peer as installed"  # with the huge pages that ffem asks for, and without
FIRST, SECOND = "first sweep", "second sweep"
OURS = {"basic": "ffem, one after another", "joblib": "ffem, a process per core", "seeds": "ffem, seeds in one program"}
PEERS = {INSTALLED: "Optuna + PyTorch", PEER: "Optuna + PyTorch, with huge pages"}
NAMES = {**PEERS, **OURS}
HEAD = [
    "",
    "wall seconds",
    "trials per hour",
    "times as fast as PyTorch",
    "as PyTorch with huge pages",
    "mean accuracy, %",
    "seconds compiling",
]

ONCE = ", once each: the spread is not known, and a difference of a few percent means nothing."

Selected = Mapping[tuple[str, str], Sequence[Row]]


def select_rows(rows: Sequence[Row]) -> Selected:
    """(contestant, cache) -> one row per round, the latest."""
    latest = {(row["contestant"], row["cache"], row["round"]): row for row in rows}
    keys = [(contestant, cache) for contestant in NAMES for cache in ("", FIRST, SECOND)]
    selected = {key: [row for where, row in latest.items() if where[:2] == key] for key in keys}
    return {key: own for key, own in selected.items() if own}


def write_report(selected: Selected, settings: Row, attentions: Sequence[str], command: str, folder: Path) -> None:
    """Write sweep.md and sweep.png; `command` makes them, `attentions` are what was swept."""
    every = [row for rows in selected.values() for row in rows]
    trials, busy = settings["networks"] * settings["seeds"], max(row["busy_cores"] for row in every)
    several = max(map(len, selected.values())) > 1
    threads = ", ".join(sorted({str(row["threads"]) for peer in PEERS for row in selected.get((peer, ""), [])}))
    report.fill_page(
        folder / "sweep.md",
        "sweep",
        **settings,
        trials=trials,
        command=command,
        machine=every[-1],
        versions=report.describe_versions(every[-1]),
        spread=", median of the rounds with their range." if several else ONCE,
        busy=busy,
        judged=report.judge_busy(busy),
        table=report.write_table(HEAD, [describe(key, selected) for key in selected]),
        attentions="\n".join(f"- `{line}`" for line in attentions),
        threads=f" ({threads})" if threads else "",
    )
    marks = []
    for key, rows in selected.items():
        minutes = [row["seconds"] / 60 for row in rows]
        name = f"{name_row(key)}: {statistics.median(minutes):.1f} min"
        marks.append(Mark("", name, "", min(minutes), statistics.median(minutes), max(minutes)))
    title = f"{trials} trials, from the start of the process to its end"
    spread = "bars: lowest to highest round" if several else "one round, so no spread is known"
    report.draw_marks(folder / "sweep.png", marks, title, f"wall time, minutes; {spread}", log=False)


def name_row(key: tuple[str, str]) -> str:
    """The contestant, and which of its sweeps."""
    return NAMES[key[0]] + (f", {key[1]}" if key[1] else "")


def find_median(peer: str, selected: Selected) -> float:
    """The seconds of a peer's sweep, median over rounds."""
    return statistics.median(row["seconds"] for row in selected[peer, ""])


def describe(key: tuple[str, str], selected: Selected) -> list[str]:
    """A row of the table: medians over rounds, with their range where there are several."""
    rows = selected[key]
    seconds = [row["seconds"] for row in rows]
    middle = statistics.median(seconds)
    spread = f" ({min(seconds):.0f} to {max(seconds):.0f})" if len(rows) > 1 else ""
    compiling = [row["compile_seconds"] for row in rows if "compile_seconds" in row]
    return [
        name_row(key),
        f"{middle:.0f}{spread}",
        f"{3600 * len(rows[0]['accuracies']) / middle:.0f}",
        *(f"{find_median(peer, selected) / middle:.2f}" if (peer, "") in selected else "" for peer in PEERS),
        f"{100 * statistics.mean(value for row in rows for value in row['accuracies']):.1f}",
        f"{statistics.median(compiling):.0f}" if compiling else "",
    ]
