"""A comparison as a forest plot: each difference with its interval, and the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ffem_jax.analysis.comparison import Comparison, ComparisonRow
from ffem_jax.figures.canvas import (
    OTHER_COLOR,
    SIGNIFICANT_COLOR,
    list_files,
    mark_synthetic,
    save_figure,
    shorten_name,
)
from ffem_jax.text.numbers import format_p, format_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_A_LETTER = 4.9
ROW_INCHES = 0.27
HEAD_INCHES, FOOT_INCHES = 0.62, 0.62


def plot_comparison(comparison: Comparison, path: Path) -> list[Path]:
    """Draw to `path` with the suffixes .png and .svg, and return the two paths.

    The files are byte-identical for the same input and Matplotlib version.

    Raises:
        OSError: the folder cannot be written.
    """
    lines = _list_lines(comparison)
    with save_figure(path, (9.0, HEAD_INCHES + FOOT_INCHES + ROW_INCHES * len(lines))) as figure:
        _draw(figure, comparison, lines)
    return list_files(path)


class Line(NamedTuple):
    """A line of the figure: a row, or a heading if row is None. inside: whether it belongs to a heading."""

    name: str
    row: ComparisonRow | None
    inside: bool = False


def _list_lines(comparison: Comparison) -> list[Line]:
    """Return the rows from top to bottom; several rows of the same two levels are grouped under a heading."""
    lines = []
    levels = [(row.first, row.second) for row in comparison.rows]
    for number, (row, both) in enumerate(zip(comparison.rows, levels, strict=True)):
        plain, several = f"{row.second} against {row.first}", levels.count(both) > 1
        if several and levels.index(both) == number:
            lines.append(Line(plain, None))
        name = (f"over {row.context}" if row.overall else row.context) if several else plain
        lines.append(Line(shorten_name(name), row, several))
    return lines


def _draw(figure: Figure, comparison: Comparison, lines: list[Line]) -> None:
    height = figure.get_figheight()
    top, bottom = 1 - HEAD_INCHES / height, FOOT_INCHES / height
    left, right = min(0.45, 0.04 + POINTS_A_LETTER * max(len(line.name) for line in lines) / 648), 0.745
    axes = figure.add_axes((left, bottom, right - left, top - bottom))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axvline(0, color="#202020", linewidth=1.1, zorder=1)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    # Show zero and all intervals.
    ends = [100 * end for row in comparison.rows for end in (row.low, row.high)] + [0.0]
    pad = 0.06 * (max(ends) - min(ends))
    axes.set_xlim(min(ends) - pad, max(ends) + pad)
    for place, line in enumerate(lines):
        y = bottom + (top - bottom) * (1 - (place + 0.5) / len(lines))
        look = {"weight": "bold" if line.row is None or line.row.significant else "normal"}
        _write(figure, 0.027 if line.inside else 0.012, y, line.name, **look)
        if row := line.row:
            _draw_row(axes, place, row)
            points = f"{format_points(row.difference)} [{format_points(row.low)}, {format_points(row.high)}]"
            _write(figure, 0.755, y, points, **look)
            _write(figure, 0.93, y, format_p(row.p_corrected), **look)
    _write(figure, 0.755, top + 0.1 / height, "points [95 %]", color="#606060", size=8)
    _write(figure, 0.93, top + 0.1 / height, "p, Holm", color="#606060", size=8)
    metric = " (nearest gallery image)" if comparison.metric == "accuracy_gallery" else ""
    better = ", lower is better" if comparison.measure.lower_is_better else ""
    axes.set_xlabel(f"difference of {comparison.measure.word}{metric}, points{better}", color="#202020")
    figure.text(0.012, 1 - 0.22 / height, f"{comparison.factor}: {comparison.title}", size=11, weight="bold")
    if comparison.synthetic:
        mark_synthetic(figure, 0.985, 1 - 0.22 / height, size=9)
    unpaired = not any(row.test for row in comparison.rows)
    known = comparison.measure.hits
    why = (
        "these records do not list the correctly classified images"
        if known
        else "this measure is not a share of images"
    )
    note = f"unpaired intervals: {why}" if unpaired else _describe_marks(comparison.rows)
    figure.text(0.012, 0.1 / height, note, size=7.5, color="#606060")


def _describe_marks(rows: Sequence[ComparisonRow]) -> str:
    marks = "filled: significant (interval excludes 0 and p < 0.05 after Holm's correction); hollow: not significant"
    return f"{marks}; diamond: over all contexts" if any(row.overall for row in rows) else marks


def _draw_row(axes: Axes, place: int, row: ComparisonRow) -> None:
    color = SIGNIFICANT_COLOR if row.significant else OTHER_COLOR
    axes.plot([100 * row.low, 100 * row.high], [place, place], color=color, linewidth=1.8 if row.overall else 1.3)
    axes.plot(
        100 * row.difference,
        place,
        marker="D" if row.overall else "o",
        color=color,
        markerfacecolor=color if row.significant else "white",
        markersize=6.5 if row.overall else 5.5,
        markeredgewidth=1.4,
    )


def _write(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    figure.text(x, y, text, va="center", **{"color": "#202020", "size": 8.5, **look})
