"""Networks in a figure: each mark and whisker at its exact values, however close others are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.figures.annotations import Name, write_names
from ffem_jax.figures.layout import Box
from ffem_jax.figures.scales import get_interval
from ffem_jax.figures.styles import get_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 40  # networks; with more, those behind the frontier are faded


@dataclass(frozen=True)
class Marks:
    """Trained networks in the units of the axes.

    Args:
        costs: [network].
        rates: [network], in %.
        intervals: [network, 2], in %.
        front: [network], whether it is on the frontier.
        looks: marker, fill and colour of each network.
    """

    costs: np.ndarray
    rates: np.ndarray
    intervals: np.ndarray
    front: np.ndarray
    looks: tuple[dict[str, Any], ...]


def make_marks(trained: Sequence[NetworkSummary], question: FrontierQuestion) -> Marks:
    """Return the marks of `trained`, in its order."""
    scale = question.axis.scale
    kinds = [s.attention for s in trained]
    return Marks(
        costs=np.array([question.get_cost(s) / scale for s in trained], dtype=np.float64),
        rates=np.array([100 * (s.accuracy or 0.0) for s in trained], dtype=np.float64),
        intervals=100 * np.array([get_interval(s) for s in trained], dtype=np.float64).reshape(-1, 2),
        front=np.array(question.mark_frontier(trained), dtype=bool),
        looks=tuple(get_style(kind, kinds) for kind in kinds),
    )


def draw_marks(axes: Axes, marks: Marks, size: float = 1.0) -> None:
    """Draw marks and whiskers: large and opaque on the frontier, else small, thin and transparent.

    Filled marks have a pale rim, which separates them when they overlap. With few networks the small marks are on top,
    so that large ones do not hide them. With many, the frontier is on top, and the other whiskers have no caps.

    Args:
        size: 1 for the screen, less for paper.
    """
    many = len(marks.costs) > MANY
    for i in np.argsort(marks.front == many, kind="stable"):
        front, look = marks.front[i], marks.looks[i]
        width = (1.2 if front else 0.8) * size
        axes.plot(
            [marks.costs[i]] * 2,
            marks.intervals[i],
            marker="_" if front or not many else "none",
            color=look["color"],
            linewidth=width,
            markersize=5 * size,
            markeredgewidth=width,
            alpha=1.0 if front else 0.25 if many else 0.5,
            zorder=2.6 if front else 2.4,
        )
        rim = {"markeredgecolor": "white", "markeredgewidth": 0.8 * size} if look["fillstyle"] == "full" else {}
        axes.plot(
            marks.costs[i],
            marks.rates[i],
            **{**look, "markeredgewidth": 1.3 * size, **rim},
            linestyle="none",
            markersize=((7.5 if front else 5.0) if many else (9.0 if front else 6.5)) * size,
            markerfacecoloralt="white",
            alpha=1.0 if front else 0.6 if many else 0.85,
            zorder=4 if front == many else 3,
        )


def draw_staircase(axes: Axes, marks: Marks, end: float, size: float = 1.0) -> None:
    """Draw the frontier as steps through its marks, the last one extended to `end`."""
    steps = sorted(zip(marks.costs[marks.front], marks.rates[marks.front], strict=True))
    if steps:
        costs, rates = zip(*steps, strict=True)
        axes.step(
            [*costs, max(end, costs[-1])],
            [*rates, rates[-1]],
            where="post",
            color="#202020",
            linewidth=1.1 * size,
            zorder=2.5,
        )


def name_marks(axes: Axes, marks: Marks, texts: dict[int, str], cap: float | None, size: float = 8.0) -> None:
    """Write each text at its mark, by index, where it covers nothing; distant texts get a line to their mark.

    A numeric text is placed above its whisker if there is room.

    Args:
        cap: the position of the cap line, in points.
    """
    to_points = axes.transData.transform
    x, y = to_points(np.column_stack([marks.costs, marks.rates])).T
    low, high = (to_points(np.column_stack([marks.costs, ends]))[:, 1] for ends in marks.intervals.T)
    obstacles: list[Box] = [(a - 5, b - 5, a + 5, b + 5) for a, b in zip(x, y, strict=True)]
    # Keep the ends of whiskers free too: text there would look like the name of that whisker.
    obstacles += [(a - 1.5, b - 12, a + 1.5, c + 12) for a, b, c in zip(x, low, high, strict=True)]
    frame = axes.get_window_extent()
    if cap is not None:
        # If no mark is over the cap, no name may be.
        obstacles.append((cap - 2, frame.y0, cap + 2 if np.any(x > cap) else frame.x1, frame.y1))
    steps = sorted(zip(x[marks.front], y[marks.front], strict=True))
    for (left, level), (right, rise) in itertools.pairwise([*steps, (frame.x1 if cap is None else cap, None)]):
        obstacles.append((left, level - 1, right, level + 1))
        if rise is not None:
            obstacles.append((right - 1, level, right + 1, rise))
    names = [Name(text, x[i], y[i], low[i], high[i], bool(marks.front[i]), text.isdigit()) for i, text in texts.items()]
    write_names(axes, names, obstacles, size=size)
