"""The frontier as a figure, PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.figures.annotations import KeyEntry, Name, draw_key, write_names
from ffem_jax.figures.canvas import list_files, mark_synthetic, save_figure
from ffem_jax.figures.layout import Box
from ffem_jax.figures.marks import Marks, draw_marks, draw_staircase, make_marks, name_marks
from ffem_jax.figures.scales import draw_cap, draw_chance, get_interval, set_cost_limits, set_rate_limits
from ffem_jax.figures.styles import draw_legend, get_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_ALL_UP_TO = 16  # networks; with more, only those on the frontier are named
LISTED_GHOSTS = 8  # networks over the cap; with more, a key leaves them out
POINTS_A_LETTER = 4.8
NAMES_POINTS = 1200  # maximum total length of names placed beside the marks
CROWD_POINTS = 60  # four marks closer together than this need a key
WHISKER_POINTS = 5  # two whiskers closer than this that overlap need a key
LEFT = 0.075  # fraction of the figure's width
KEYED_INCHES = 11.2  # the figure's width with a key


def plot_frontier(
    summaries: Sequence[NetworkSummary],
    path: Path,
    question: FrontierQuestion,
    *,
    title: str = "",
    synthetic: bool = False,
) -> list[Path]:
    """Draw accuracy against cost to `path` with the suffixes .png and .svg, and return the two paths.

    The figure shows every trained network with its 95 % interval, the frontier as a staircase and the cap as a line
    (against bytes). A strip below shows the untrained networks over the cap, at their size and without an accuracy.
    Marks are never moved off their values. If marks are so close that names or whiskers would overlap, they are
    numbered, and a key lists names, numbers and intervals. The files are byte-identical for the same input and
    Matplotlib version.

    Raises:
        OSError: the folder cannot be written.
    """
    with save_figure(path, (9.0, 5.6)) as figure:
        _draw(figure, summaries, question, title, synthetic)
    return list_files(path)


def _draw(
    figure: Figure, summaries: Sequence[NetworkSummary], question: FrontierQuestion, title: str, synthetic: bool
) -> None:
    placed = [s for s in summaries if math.isfinite(question.get_cost(s))]
    trained = [s for s in placed if s.accuracy is not None]
    ghosts = [s for s in placed if s.status == "over_cap"]
    strip = 0.1 if ghosts else 0.0
    axes = figure.add_axes((LEFT, 0.115 + strip, 0.9, 0.745 - strip))
    below = figure.add_axes((LEFT, 0.115, 0.9, strip - 0.012), sharex=axes) if ghosts else axes
    set_cost_limits(axes, [question.get_cost(s) / question.axis.scale for s in (*trained, *ghosts)], question)
    set_rate_limits(axes, trained)
    draw_chance(axes, trained)
    marks = make_marks(trained, question)
    named = _choose_named(marks)
    keyed = _needs_key(axes, marks, [trained[i].label for i in named], named)
    if keyed:
        figure.set_size_inches(KEYED_INCHES, 5.6)
        for part in {axes, below}:
            frame = part.get_position()
            part.set_position((LEFT * 9 / KEYED_INCHES, frame.y0, 0.52, frame.height))
    below.set_xlabel(question.describe_axis(), color="#202020")
    axes.set_ylabel(question.measure.axis, color="#202020")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)

    cap = draw_cap(axes, below, question)
    draw_marks(axes, marks)
    draw_staircase(axes, marks, axes.get_xlim()[1] if cap is None else question.cap_mb)
    texts = {i: str(number) if keyed else trained[i].label for number, i in enumerate(named, 1)}
    name_marks(axes, marks, texts, cap)
    ghost_texts = [s.label for s in ghosts]
    if keyed:
        listed = [trained[i] for i in named] + (ghosts if len(ghosts) <= LISTED_GHOSTS else [])
        ghost_texts = [str(number) for number in range(len(named) + 1, len(named) + len(ghosts) + 1)]
        _draw_key(figure, listed, [s.attention for s in placed], question, axes.get_position().x1 + 0.015)
    if not trained:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no network was trained", transform=axes.transAxes, ha="center", color="#606060", size=12)
    if ghosts:
        axes.tick_params(labelbottom=False, length=0, which="both")
        axes.spines["bottom"].set_visible(False)
        _draw_ghosts(below, ghosts, question, ghost_texts if not keyed or len(ghosts) <= LISTED_GHOSTS else [])
    left = axes.get_position().x0
    draw_legend(figure, [s.attention for s in (*trained, *ghosts)], bool(trained), left)
    figure.text(left, 0.96, title, size=11.5, weight="bold", color="#202020", ha="left")
    if synthetic:
        mark_synthetic(figure, 0.972, 0.96, size=10)


def _choose_named(marks: Marks) -> list[int]:
    """Return the networks to name, by cost: all if there are few, else those on the frontier."""
    few = len(marks.costs) <= LABEL_ALL_UP_TO
    return [int(i) for i in np.argsort(marks.costs, kind="stable") if few or marks.front[i]]


def _needs_key(axes: Axes, marks: Marks, labels: Sequence[str], named: Sequence[int]) -> bool:
    """Whether names beside the marks would be unreadable: too much text, several marks in one spot, or overlapping
    whiskers."""
    if POINTS_A_LETTER * sum(map(len, labels)) > NAMES_POINTS:
        return True
    x = axes.transData.transform([(marks.costs[i], 0.0) for i in named])[:, 0] if named else np.zeros(0)
    low, high = marks.intervals[named].T
    close = np.abs(x[:, None] - x) < WHISKER_POINTS
    overlap = (low[:, None] <= high) & (low <= high[:, None])
    return bool(np.any(x[3:] - x[:-3] < CROWD_POINTS) or np.any(np.triu(close & overlap, 1)))


def _draw_ghosts(
    axes: Axes, ghosts: Sequence[NetworkSummary], question: FrontierQuestion, texts: Sequence[str]
) -> None:
    scale = question.axis.scale
    axes.set_facecolor("#f2f2f2")
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    kinds = [s.attention for s in ghosts]
    costs = [question.get_cost(s) / scale for s in ghosts]
    for summary, cost in zip(ghosts, costs, strict=True):
        look = get_style(summary.attention, kinds) | {"fillstyle": "none"}
        axes.plot(cost, 0.3, **look, markersize=7, markeredgewidth=1.0, alpha=0.75, linestyle="none")
    points = axes.transData.transform([(cost, 0.3) for cost in costs])
    frame = axes.get_window_extent()
    # Keep the strip's title clear of the cap line.
    left = frame.x0 + 4
    obstacles: list[Box] = [(a - 4.5, b - 4.5, a + 4.5, b + 4.5) for a, b in points]
    if question.against == "bytes":
        cap = float(axes.transData.transform((question.cap_mb, 0))[0])
        obstacles.append((cap - 2, frame.y0, cap + 2, frame.y1))
        if left < cap < left + 150:
            left = cap + 6
    place = axes.transData.inverted().transform((left, 0))[0]
    axes.text(place, 0.62, f"over the cap, not trained ({len(ghosts)})", size=8, color="#505050")
    obstacles.append((left, frame.y0 + 0.55 * frame.height, left + 145, frame.y1))
    names = [Name(text, a, b, b - 4, b + 4, False) for text, (a, b) in zip(texts, points, strict=False)]
    write_names(axes, names, obstacles, all_or_none=True)


def _draw_key(
    figure: Figure, listed: Sequence[NetworkSummary], kinds: Sequence[str], question: FrontierQuestion, left: float
) -> None:
    entries = [
        KeyEntry(
            summary.label,
            f"{question.get_cost(summary) / question.axis.scale:.2f}",
            _format_rate(summary),
            get_style(summary.attention, kinds) | ({} if summary.accuracy is not None else {"fillstyle": "none"}),
            marked,
            None if summary.accuracy is None else 100 * np.array([summary.accuracy, *get_interval(summary)]),
        )
        for summary, marked in zip(listed, question.mark_frontier(listed), strict=True)
    ]
    draw_key(figure, entries, left, question.axis.key_unit)


def _format_rate(summary: NetworkSummary) -> str:
    if summary.accuracy is None:
        return "not trained"
    low, high = get_interval(summary)
    return f"{100 * summary.accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
