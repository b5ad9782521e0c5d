"""The page and the figure of `benchmarks.search_quality`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search_table import Table
from ffem_jax.figures.canvas import save_figure

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
# Okabe and Ito's colours; dashes tell the same apart.
LOOKS = {
    "random": ("#606060", "-"),
    "grid": ("#E69F00", (0, (1, 1.2))),
    "nsga2": ("#009E73", (0, (5, 1.5))),
    "tpe": ("#0072B2", (0, (6, 1.5, 1, 1.5))),
    "additive": ("#CC79A7", (0, (3, 1))),
    "surrogate": ("#D55E00", "-"),
    "random+halving": ("#606060", (0, (4, 2))),
    "surrogate+halving": ("#D55E00", (0, (4, 2))),
}
COST_NAMES = {
    "macs": "multiply-adds",
    "params": "parameters",
    "bytes_float32": "bytes in float32",
    "bytes_float16": "bytes in float16",
    "bytes_int8": "bytes in int8",
}
MARKS = (10, 20, 30, 50, 75, 100, 150, 200)

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


def write_page(table: Table, curves: Curves, budget: int, out: Path, command: str) -> Path:
    """Write NAME.png, .svg, .json and .md into `out`, and return the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    shares = {method: align(rows, budget) for method, rows in curves.items()}
    target = float(np.median(shares["random"][:, -1]))
    draw_figure(table, shares, target, out / table.name)
    rows = {
        method: {
            "median": np.median(values, axis=0).round(5).tolist(),
            "low": np.quantile(values, 0.1, axis=0).round(5).tolist(),
            "high": np.quantile(values, 0.9, axis=0).round(5).tolist(),
            "trainings_to_reach_random": [
                None if math.isinf(count) else int(count) for count in count_to_reach(values, target)
            ],
        }
        for method, values in shares.items()
    }
    summary = {
        "table": table.title,
        "networks": len(table.points),
        "cost": table.cost_name,
        "reference": table.reference,
        "budget": budget,
        "repeats": len(shares["random"]),
        "random_final": target,
        "methods": rows,
    }
    (out / f"{table.name}.json").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    page = out / f"{table.name}.md"
    page.write_text("\n".join(_write_lines(table, shares, target, budget, command)) + "\n", encoding="utf-8")
    return page


def _write_lines(table: Table, shares: Mapping[str, np.ndarray], target: float, budget: int, command: str) -> list[str]:
    repeats = len(shares["random"])
    cost = COST_NAMES.get(table.cost_name, table.cost_name)
    marks = [mark for mark in MARKS if mark < budget] + [budget]
    lines = [
        f"# Search quality: {table.title}",
        "",
        f"`{command}`",
        "",
        f"![Hypervolume against trainings]({table.name}.svg)",
        "",
        f"{len(table.points):,} networks, accuracy up and {cost} down; {repeats} searches of each kind with {budget} "
        "trainings each. What a search shows is the frontier of what it saw; the table says what hypervolume that "
        f"frontier truly has, in % of the best possible (corner: the largest cost, {100 * table.reference[1]:.1f} % "
        "accuracy). Median, and the middle 80 % of the searches at the end. *To random's end*: trainings until a "
        f"search first has what random search has in the median after {budget} ({100 * target:.1f} %), median and "
        "middle 80 %.",
        "",
        f"| search | {' | '.join(str(mark) for mark in marks)} | middle 80 % | to random's end | of random's |",
        f"|---|{'---:|' * len(marks)}---:|---:|---:|",
    ]
    for method, values in shares.items():
        middle = " | ".join(f"{100 * np.median(values[:, mark - 1]):.1f}" for mark in marks)
        low, high = np.quantile(values[:, -1], (0.1, 0.9))
        counts = count_to_reach(values, target)
        # "lower" and "higher" take numbers that occurred: an infinity beside one has no number between.
        typical = float(np.quantile(counts, 0.5, method="higher"))
        ends = [np.quantile(counts, q, method=how) for q, how in ((0.1, "lower"), (0.9, "higher"))]
        told = [f"over {budget}" if math.isinf(count) else f"{count:.0f}" for count in (typical, *ends)]
        share = "-" if math.isinf(typical) else f"{typical / budget:.2f}"
        lines.append(
            f"| {NAMES[method]} | {middle} | {100 * low:.1f} to {100 * high:.1f} | {told[0]} ({told[1]} to {told[2]}) "
            f"| {share} |"
        )
    lines += ["", _judge(shares, target, budget)]
    if not table.whole:
        lines += [
            "",
            "Replayed on what was recorded: searchers may only ask for these networks, which an earlier search chose. "
            "A suggestion of Optuna's that is not among them counts as the nearest that is, which is to its "
            "disadvantage. NSGA-II has populations of 20, TPE is the multivariate one; numbers are whole numbers to "
            "both.",
        ]
    else:
        lines += ["", "NSGA-II has populations of 20, TPE is the multivariate one; numbers are whole numbers to both."]
    if any("+" in method for method in shares):
        lines += [
            "",
            "Halving trains a network for a ninth of the epochs, the best third of those for a third, the best third "
            "of those for all; the early accuracies are those of one long schedule, read at that epoch. Trainings are "
            "counted by epochs.",
        ]
    return lines


def _judge(shares: Mapping[str, np.ndarray], target: float, budget: int) -> str:
    """Whether the goal is met, in one sentence."""
    if "surrogate" not in shares:
        return "The surrogate, which is the default search, was left out."
    typical = float(np.quantile(count_to_reach(shares["surrogate"], target), 0.5, method="higher"))
    if math.isinf(typical):
        return (
            f"The surrogate does not reach random's hypervolume in {budget} trainings: the goal of a third is missed."
        )
    verdict = "met" if 3 * typical <= budget else "missed"
    return (
        f"The goal, random's final hypervolume in a third of the trainings, is {verdict}: the surrogate takes "
        f"{typical:.0f} of {budget} in the median."
    )


def draw_figure(table: Table, shares: Mapping[str, np.ndarray], target: float, path: Path) -> None:
    """Median and middle 80 % against trainings, PNG and SVG."""
    with save_figure(path, (9.0, 5.2), layout="constrained") as figure:
        axes = figure.add_subplot()
        budget = shares["random"].shape[1]
        trainings = np.arange(1, budget + 1)
        ends = []
        for method, values in shares.items():
            color, dashes = LOOKS[method]
            low, middle, high = 100 * np.quantile(values, (0.1, 0.5, 0.9), axis=0)
            axes.fill_between(trainings, low, high, color=color, alpha=0.10, linewidth=0)
            axes.plot(trainings, middle, color=color, linestyle=dashes, linewidth=1.8)
            ends.append((float(middle[-1]), method))
        axes.axhline(100 * target, color="#606060", linewidth=0.8, linestyle=(0, (2, 2)))
        bottom = min(100 * float(np.quantile(values[:, min(9, budget - 1)], 0.1)) for values in shares.values())
        axes.set_ylim(max(0.0, bottom), 101)
        axes.set_xlim(0, budget)
        axes.annotate("random's end", (0, 100 * target), (4, 3), textcoords="offset points", size=8, color="#606060")
        low, high = axes.get_ylim()
        gap, place = 0.036 * (high - low), -math.inf
        for end, method in sorted(ends):  # names at the lines' ends, pushed apart
            place = max(end, place + gap)
            text = f"{NAMES[method]} {end:.1f}"
            axes.annotate(text, (1.012, place), xycoords=("axes fraction", "data"), va="center", color=LOOKS[method][0])
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("trainings spent")
        axes.set_ylabel("hypervolume of the shown frontier, % of the best possible")
        axes.set_title(
            f"{table.title}: {len(shares['random'])} searches of each kind, median and middle 80 %",
            loc="left",
            size=11.5,
            weight="bold",
            color="#202020",
            pad=16,  # above the names, which may be pushed beyond the axes' top
        )
