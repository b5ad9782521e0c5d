"""Shared parts of benchmark pages: tables, values with their spread, sentences about the machine, and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks.harness import Row
from ffem_jax.figures.canvas import SETTINGS, apply_look, make_figure, save_figure
from ffem_jax.latency.turns import BUSY_CORES

T = TypeVar("T")
PAGES = Path(__file__).parent / "pages"
NO_BENCHMARK = " **That is too much: do not use these numbers as a benchmark.**"
NETWORK_NAMES = {
    "ffem_am": "FFEM-AM",
    "ffem": "FFEM",
    "ffem_se": "FFEM-SE",
    "mobilenetv2": "MobileNetV2",
    "mobilefacenet": "MobileFaceNet (ours)",
    "shufflenetv2": "ShuffleNetV2",
    "ffem_0_35": "FFEM x 0.35",
}
# Okabe and Ito's colours, which colour-blind readers can distinguish; each also has its own shape or line.
COLOURS = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#D55E00", "#56B4E9", "#606060")
SHAPES = ("o", "^", "s", "D", "v", "P", "x")
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100, 200, 500, 1000, 2000)


def fill_template(name: str, /, **values: object) -> str:
    """Return pages/`name`.md filled with `values`, without empty paragraphs."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8").format(**values)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip()


def fill_page(path: Path, template: str, /, **values: object) -> str:
    """Write a filled template to `path` and return the page."""
    page = fill_template(template, **values) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return page


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, spaced: bool = False) -> str:
    """Return a Markdown table: the first `left` columns are text, the others numbers; `spaced` pads the rule."""
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    line = f"| {' | '.join(rule)} |" if spaced else f"|{'|'.join(rule)}|"
    head_line, *body = (f"| {' | '.join(cells)} |" for cells in [head, *rows])
    return "\n".join([head_line.replace("|  |", "| |", 1), line, *body])


def tabulate(
    rows: Iterable[T], columns: Mapping[str, Callable[[T], object]], left: int = 1, spaced: bool = False
) -> str:
    """Return a Markdown table as `write_table` does: `columns` maps each column's head to its text for a row."""
    cells = ([str(write(row)) for write in columns.values()] for row in rows)
    return write_table(list(columns), cells, left, spaced)


def write_number(value: float) -> str:
    """Format with three significant digits, and all digits before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def find_spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest value, the median and the highest."""
    return min(values), median(values), max(values)


def write_range(values: Sequence[float], write: Callable[[float], str] = write_number) -> str:
    """Format median, lowest and highest; `-` if there are no values."""
    return f"{write(median(values))} [{write(min(values))}, {write(max(values))}]" if values else "-"


def name_network(row: Row) -> str:
    """Return the display name of a record's network."""
    return NETWORK_NAMES.get(row["network"], row["network"])


def judge_busy(cores: float) -> str:
    """Return the warning if other work used too many cores, else nothing."""
    return NO_BENCHMARK if cores > BUSY_CORES else ""


def describe_versions(row: Row) -> str:
    """Format the libraries of a record with their versions."""
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


class Mark(NamedTuple):
    """A value in a figure: its panel, row and series, and its low, middle and high end."""

    panel: str
    row: str
    series: str
    low: float
    middle: float
    high: float


def draw_marks(
    path: Path, marks: Sequence[Mark], title: str, axis: str, *, log: bool = True, one: bool = False
) -> None:
    """Draw panels side by side, one line per row, a bar for each mark; panels, rows and series in the marks' order.

    The axis is logarithmic if `log`, else it begins at 0; `one` draws a line at 1.
    """
    panels, rows, series = (list(dict.fromkeys(getattr(mark, name) for mark in marks)) for name in Mark._fields[:3])
    with apply_look(SETTINGS):
        size = (max(7.6, 2.4 + 2.8 * len(panels)), 1.7 + max(0.31, 0.11 * len(series)) * len(rows))
        figure = make_figure(size, layout="constrained")
        every = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, panel in zip(every, panels, strict=True):
            axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set_title(panel, loc="left", fontsize=10)
            if one:
                axes.axvline(1, color="#404040", linewidth=0.9, zorder=1)
            for index, name in enumerate(series):
                own = [mark for mark in marks if (mark.panel, mark.series) == (panel, name)]
                shift = 0.6 * ((index + 0.5) / len(series) - 0.5)
                spread = [[m.middle - m.low for m in own], [m.high - m.middle for m in own]]
                look = {"color": COLOURS[index % 7], "marker": SHAPES[index % 7], "linestyle": "none"}
                heights = [rows.index(mark.row) + shift for mark in own]
                axes.errorbar([m.middle for m in own], heights, xerr=spread, label=name, markersize=5, **look)
        every[0].set_yticks(range(len(rows)), rows)
        every[0].set_ylim(len(rows) - 0.5, -0.5)
        if log:
            ends = [end for mark in marks for end in (mark.low, mark.high)] + [1.0] * one
            low, high = min(ends) / 1.15, max(ends) * 1.15
            every[0].set_xscale("log")
            every[0].set_xlim(low, high)
            # Over more than a decade there is no room for all of them.
            shown = [tick for tick in TICKS if low <= tick <= high and (high < 20 * low or f"{tick:g}"[-1] not in "37")]
            every[0].set_xticks(shown, [f"{tick:g}" for tick in shown])
            every[0].set_xticks([], minor=True)
        else:
            every[0].set_xlim(0, 1.05 * max(mark.high for mark in marks))
        if len(series) > 1:
            # A series may have no mark in the first panel.
            handles = {name: bar for axes in every for bar, name in zip(*axes.get_legend_handles_labels(), strict=True)}
            place = {"loc": "outside lower center", "ncols": min(5, len(series)), "frameon": False}
            figure.legend(list(handles.values()), list(handles), **place)
        figure.suptitle(f"{title}\n{axis}", x=0.012, ha="left", fontsize=10)
        figure.savefig(path, dpi=160, metadata={"Software": None})


def draw_curves(
    path: Path, curves: Mapping[str, np.ndarray], title: str, axis: str, *, target: float | None = None, note: str = ""
) -> None:
    """Draw lines with a band around each and their names at their ends to `path`.png and .svg.

    curves: by name, [lowest, middle and highest; training], in %. target: random search's end. note: text in a corner.
    """
    budget = next(iter(curves.values())).shape[1]
    with save_figure(path, (9.0, 5.2), layout="constrained") as figure:
        axes = figure.add_subplot()
        ends = []
        for index, (name, (low, middle, high)) in enumerate(curves.items()):
            colour, dashes = COLOURS[(index - 1) % 7], "-" if index % 2 else (0, (5, 1.5))
            trainings = np.arange(1, budget + 1)
            axes.fill_between(trainings, low, high, color=colour, alpha=0.10, linewidth=0)
            axes.plot(trainings, middle, color=colour, linestyle=dashes, linewidth=1.8)
            ends.append((float(middle[-1]), name, colour))
        if target is not None:
            axes.axhline(target, color="#606060", linewidth=0.8, linestyle=(0, (2, 2)))
            axes.annotate("random's end", (0, target), (4, 3), textcoords="offset points", size=8, color="#606060")
        # Start at the slowest curve's value after ten trainings: before that all of them are random.
        bottom = min(float(low[min(9, budget - 1)]) for low, _, _ in curves.values())
        top = min(101.0, 1.03 * max(float(high[-1]) for _, _, high in curves.values()))
        axes.set(xlim=(0, budget), ylim=(max(0.0, bottom), top), xlabel="trainings spent", ylabel=axis)
        gap, place = 0.036 * (top - bottom), -math.inf
        for end, name, colour in sorted(ends):  # move overlapping names apart
            place = max(end, place + gap)
            text = f"{name} {end:.1f}"
            axes.annotate(text, (1.012, place), xycoords=("axes fraction", "data"), va="center", color=colour)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(title, loc="left", size=11.5, weight="bold", color="#202020", pad=16)
        if note:
            axes.text(0.98, 0.04, note, transform=axes.transAxes, ha="right", weight="bold", color="#202020")
