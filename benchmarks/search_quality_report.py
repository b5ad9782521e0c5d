"""The page and the figure of `benchmarks.search_quality`, from its JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.harness import Row
from benchmarks.search_table import Table

NAMES = {
    "random": "random",
    "grid": "grid",
    "nsga2": "NSGA-II (Optuna)",
    "tpe": "TPE (Optuna)",
    "additive": "surrogate, additive only",
    "surrogate": "surrogate",
    "random+halving": "random, halving",
    "surrogate+halving": "surrogate, halving",
}
MARKS = (10, 20, 30, 50, 75, 100, 150, 200)
POOL = (
    "Replayed on what was recorded: searchers may only ask for these networks, which an earlier search chose. A "
    "suggestion of Optuna's that is not among them counts as the nearest that is, which is to its disadvantage. "
)
HALVING = (
    "Halving trains a network for a ninth of the epochs, the best third of those for a third, the best third of those "
    "for all; the early accuracies are those of one long schedule, read at that epoch. Trainings are counted by epochs."
)

# Of each method, a search per repeat: (trainings spent, share of the table's hypervolume) after each training.
Curves = Mapping[str, Sequence[Sequence[tuple[float, float]]]]


def align(curves: Sequence[Sequence[tuple[float, float]]], budget: int) -> np.ndarray:
    """The share reached after 1, 2, ... `budget` trainings, [repeat, training]; 0 before a search shows anything."""
    shares = np.zeros((len(curves), budget))
    for row, curve in zip(shares, curves, strict=True):
        for spent, share in curve:
            row[max(0, math.ceil(spent - 1e-9) - 1) :] = share
    return shares


def count_to_reach(shares: np.ndarray, target: float) -> np.ndarray:
    """After how many trainings each repeat first has `target`, [repeat]; infinite where it never has."""
    reached = shares >= target
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def summarize(table: Table, curves: Curves, budget: int, command: str) -> Row:
    """What NAME.json holds, which the page and the figure are made of."""
    shares = {method: align(rows, budget) for method, rows in curves.items()}
    target = float(np.median(shares["random"][:, -1]))
    methods: Row = {}
    for method, values in shares.items():
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0).round(5).tolist()
        counts = [None if math.isinf(count) else int(count) for count in count_to_reach(values, target)]
        methods[method] = {"median": middle, "low": low, "high": high, "trainings_to_reach_random": counts}
    return {
        "table": table.title,
        "networks": len(table.points),
        "cost": table.cost_name,
        "reference": table.reference,
        "budget": budget,
        "repeats": len(shares["random"]),
        "random_final": target,
        "command": command,
        "methods": methods,
    }


def write_report(path: Path) -> str:
    """Write NAME.md, NAME.png and NAME.svg beside NAME.json, and return the first."""
    found = json.loads(path.read_text(encoding="utf-8"))
    methods, budget, target = found["methods"], found["budget"], 100 * found["random_final"]
    curves = {
        NAMES[method]: 100 * np.array([row[name] for name in ("low", "median", "high")])
        for method, row in methods.items()
    }
    title = f"{found['table']}: {found['repeats']} searches of each kind, median and middle 80 %"
    axis = "hypervolume of the shown frontier, % of the best possible"
    report.draw_curves(path.with_suffix(""), curves, title, axis, target=target)
    marks = [mark for mark in MARKS if mark < budget] + [budget]
    head = ["search", *map(str, marks), "middle 80 %", "to random's end", "of random's"]
    cost = found["cost"].replace("macs", "MACs").replace("params", "parameters").replace("bytes_", "bytes in ")
    return report.fill_page(
        path.with_suffix(".md"),
        "search_quality",
        **{name: found[name] for name in ("table", "networks", "repeats", "budget")},
        # Files of before it was kept have none.
        command=found.get("command", "python -m benchmarks.search_quality"),
        name=path.stem,
        cost=cost,
        corner=100 * found["reference"][1],
        target=target,
        rows=report.write_table(head, [describe(method, row, marks, budget) for method, row in methods.items()]),
        verdict=judge(methods, budget),
        pool=POOL if path.stem.endswith("_records") else "",
        halving=HALVING if any("+" in method for method in methods) else "",
    )


def describe(method: str, row: Row, marks: Sequence[int], budget: int) -> list[str]:
    """A row of the table."""
    middle = [f"{100 * row['median'][mark - 1]:.1f}" for mark in marks]
    # "lower" and "higher" take numbers that occurred: an infinity beside one has no number between.
    typical, *ends = (find_count(row, share, how) for share, how in ((0.5, "higher"), (0.1, "lower"), (0.9, "higher")))
    told = [f"over {budget}" if math.isinf(count) else f"{count:.0f}" for count in (typical, *ends)]
    share = "-" if math.isinf(typical) else f"{typical / budget:.2f}"
    spread = f"{100 * row['low'][-1]:.1f} to {100 * row['high'][-1]:.1f}"
    return [NAMES[method], *middle, spread, f"{told[0]} ({told[1]} to {told[2]})", share]


def find_count(row: Row, share: float, how: str) -> float:
    """A quantile of the trainings to random's end, infinite where a search never has it."""
    counts = [math.inf if count is None else count for count in row["trainings_to_reach_random"]]
    return float(np.quantile(counts, share, method=how))  # type: ignore[call-overload]


def judge(methods: Mapping[str, Row], budget: int) -> str:
    """Whether the goal is met, in one sentence."""
    if "surrogate" not in methods:
        return "The surrogate, which is the default search, was left out."
    typical = find_count(methods["surrogate"], 0.5, "higher")
    if math.isinf(typical):
        return (
            f"The surrogate does not reach random's hypervolume in {budget} trainings: the goal of a third is missed."
        )
    verdict = "met" if 3 * typical <= budget else "missed"
    return (
        f"The goal, random's final hypervolume in a third of the trainings, is {verdict}: the surrogate takes "
        f"{typical:.0f} of {budget} in the median."
    )
