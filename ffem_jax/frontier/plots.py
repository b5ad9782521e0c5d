"""The frontier as a figure, PNG and SVG."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.frontier.annotations import KeyEntry, Name, draw_key, write_names
from ffem_jax.frontier.canvas import list_files, mark_synthetic, save_figure
from ffem_jax.frontier.layout import Box, spread_sideways
from ffem_jax.frontier.question import FrontierQuestion
from ffem_jax.frontier.scales import SHORT_UNITS, UNITS, draw_cap, get_interval, set_cost_limits, set_rate_limits
from ffem_jax.frontier.styles import draw_legend, get_style
from ffem_jax.frontier.summary import NetworkSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_NAMES = {
    "accuracy": "closed-set accuracy, classifier (%)",
    "accuracy_gallery": "closed-set accuracy, nearest gallery image (%)",
    "verification": "verification accuracy, pairs of View 2 (%)",
}
LABEL_ALL_UP_TO = 16  # networks; beyond, only the frontier's are named
LISTED_GHOSTS = 8  # networks over the cap; beyond, a key leaves them out
POINTS_A_LETTER = 4.8
NAMES_POINTS = 1200  # names longer than this in all do not go beside the marks
CROWD_POINTS = 60  # nor do those of four marks closer together than this
LEFT = 0.075  # of the figure's width


def plot_frontier(
    summaries: Sequence[NetworkSummary],
    path: Path,
    question: FrontierQuestion,
    *,
    title: str = "",
    synthetic: bool = False,
) -> list[Path]:
    """Draw accuracy against cost into `path` with the suffixes .png and .svg, and return the two paths.

    Every trained network with its 95 % interval, the frontier as a staircase, the cap as a line (against bytes),
    and in a strip below the networks over the cap that were not trained, at their size and without an accuracy.
    Networks of nearly equal cost are moved apart sideways, in order of cost and never across the cap; the figure
    then says so. Byte for byte the same for the same input and Matplotlib.

    Raises OSError where the folder cannot be written.
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
    scale, unit = UNITS[question.against]
    set_cost_limits(axes, [question.get_cost(s) / scale for s in (*trained, *ghosts)], question)
    set_rate_limits(axes, trained)
    named = _choose_named(trained, question)
    keyed = _needs_key(axes, trained, named, question)
    if keyed:
        figure.set_size_inches(10.2, 5.6)
        for part in {axes, below}:
            frame = part.get_position()
            part.set_position((LEFT * 9 / 10.2, frame.y0, 0.565, frame.height))
    precision = f", {question.precision}, as deployed" if question.against == "bytes" else ""
    below.set_xlabel(f"{unit}{precision}", color="#202020")
    axes.set_ylabel(METRIC_NAMES[question.measure], color="#202020")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)

    cap = draw_cap(axes, below, question)
    moved = False
    if trained:
        texts = {i: str(number) if keyed else trained[i].label for number, i in enumerate(named, 1)}
        moved = _draw_trained(axes, trained, question, cap, texts)
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
    if moved:
        note = "Networks of nearly equal cost stand side by side, in order of cost; the ticks below mark true places."
        figure.text(0.975, 0.018, note, size=7.5, color="#606060", ha="right")


def _choose_named(trained: Sequence[NetworkSummary], question: FrontierQuestion) -> list[int]:
    """Which networks are named, by cost: all of a few, of many the frontier's."""
    marks = question.mark_frontier(trained)
    few = len(trained) <= LABEL_ALL_UP_TO
    return sorted((i for i in range(len(trained)) if few or marks[i]), key=lambda i: question.get_cost(trained[i]))


def _needs_key(axes: Axes, trained: Sequence[NetworkSummary], named: Sequence[int], question: FrontierQuestion) -> bool:
    """Whether names beside the marks would be a tangle: too much text, or several marks in one spot."""
    if POINTS_A_LETTER * sum(len(trained[i].label) for i in named) > NAMES_POINTS:
        return True
    costs = [question.get_cost(trained[i]) / UNITS[question.against][0] for i in named]
    x = np.sort(axes.transData.transform([(cost, 0.0) for cost in costs])[:, 0]) if costs else np.zeros(0)
    return bool(np.any(x[3:] - x[:-3] < CROWD_POINTS))


def _draw_trained(
    axes: Axes,
    trained: Sequence[NetworkSummary],
    question: FrontierQuestion,
    cap: float | None,
    texts: dict[int, str],
) -> bool:
    """Marks, whiskers, staircase and names; whether any mark had to leave its true place."""
    scale = UNITS[question.against][0]
    costs = np.array([question.get_cost(s) / scale for s in trained])
    rates = np.array([100 * (s.accuracy or 0.0) for s in trained])
    intervals = 100 * np.array([get_interval(s) for s in trained])
    on_frontier = np.array(question.mark_frontier(trained))
    true = axes.transData.transform(np.column_stack([costs, rates]))
    x = _spread(true[:, 0], costs, question, axes, cap)
    shown = axes.transData.inverted().transform(np.column_stack([x, true[:, 1]]))[:, 0]
    moved = bool(np.any(np.abs(x - true[:, 0]) > 3))

    kinds = [s.attention for s in trained]
    for i in np.argsort(on_frontier, kind="stable"):
        look, front = get_style(kinds[i], kinds), on_frontier[i]
        axes.vlines(
            shown[i], *intervals[i], color=look["color"], linewidth=1.3 if front else 0.9, alpha=1 if front else 0.45
        )
        axes.plot(
            shown[i],
            rates[i],
            **look,
            markersize=8.5 if front else 6.5,
            markerfacecoloralt="white",
            markeredgewidth=1.4,
            alpha=1 if front else 0.75,
            zorder=4 if front else 3,
        )
    steps = sorted(zip(shown[on_frontier], rates[on_frontier], strict=True))
    if steps:
        end = question.cap_mb if cap is not None else axes.get_xlim()[1]
        axes.step(
            [*(s[0] for s in steps), end],
            [*(s[1] for s in steps), steps[-1][1]],
            where="post",
            color="#202020",
            linewidth=1.1,
            zorder=2,
        )
    if moved:
        axes.plot(
            costs,
            np.zeros_like(costs),
            "|",
            transform=axes.get_xaxis_transform(),
            color="#808080",
            markersize=9,
            zorder=1,
        )
    _draw_names(axes, texts, x, intervals, rates, on_frontier, cap)
    return moved


def _spread(x: np.ndarray, costs: np.ndarray, question: FrontierQuestion, axes: Axes, cap: float | None) -> np.ndarray:
    box = axes.get_window_extent()
    separation = min(13.0, 0.3 * box.width / len(x))
    left, right = box.x0 + 8, box.x1 - 8
    if cap is None:
        return spread_sideways(x, separation, left, right)
    spread = np.empty_like(x)
    under = costs <= question.cap_mb
    spread[under] = spread_sideways(x[under], separation, left, cap - 6)
    spread[~under] = spread_sideways(x[~under], separation, cap + 6, right)
    return spread


def _draw_names(
    axes: Axes,
    texts: dict[int, str],
    x: np.ndarray,
    intervals: np.ndarray,
    rates: np.ndarray,
    on_frontier: np.ndarray,
    cap: float | None,
) -> None:
    def to_points(values: np.ndarray) -> np.ndarray:
        return axes.transData.transform(np.column_stack([np.full(len(values), axes.get_xlim()[1]), values]))[:, 1]

    y, low, high = to_points(rates), to_points(intervals[:, 0]), to_points(intervals[:, 1])
    obstacles: list[Box] = [(a - 5, b - 5, a + 5, b + 5) for a, b in zip(x, y, strict=True)]
    # A whisker's ends are kept free as well: what stands there reads as its name.
    obstacles += [(a - 1.5, b - 12, a + 1.5, c + 12) for a, b, c in zip(x, low, high, strict=True)]
    frame = axes.get_window_extent()
    if cap is not None:
        obstacles.append((cap - 2, frame.y0, cap + 2, frame.y1))
    steps = sorted(zip(x[on_frontier], y[on_frontier], strict=True))
    for (left, level), (right, rise) in itertools.pairwise([*steps, (cap or frame.x1, None)]):
        obstacles.append((left, level - 1, right, level + 1))
        if rise is not None:
            obstacles.append((right - 1, level, right + 1, rise))
    names = [Name(text, x[i], y[i], low[i], high[i], bool(on_frontier[i]), text.isdigit()) for i, text in texts.items()]
    write_names(axes, names, obstacles, margin=9)


def _draw_ghosts(
    axes: Axes, ghosts: Sequence[NetworkSummary], question: FrontierQuestion, texts: Sequence[str]
) -> None:
    scale = UNITS[question.against][0]
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
    # The strip's title, clear of the cap's line.
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
            f"{question.get_cost(summary) / UNITS[question.against][0]:.2f}",
            _format_rate(summary),
            get_style(summary.attention, kinds) | ({} if summary.accuracy is not None else {"fillstyle": "none"}),
            marked,
        )
        for summary, marked in zip(listed, question.mark_frontier(listed), strict=True)
    ]
    draw_key(figure, entries, left, SHORT_UNITS[question.against])


def _format_rate(summary: NetworkSummary) -> str:
    if summary.accuracy is None:
        return "not trained"
    low, high = get_interval(summary)
    return f"{100 * summary.accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
