"""The frontier for a paper: one column wide, SVG and PDF, readable in greyscale. Imports Matplotlib on demand."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.figures.annotations import shrink_text, split_shared
from ffem_jax.figures.canvas import apply_look, clean_text, clean_texts, make_figure
from ffem_jax.figures.marks import draw_marks, draw_staircase, make_marks, name_marks
from ffem_jax.figures.scales import draw_chance, get_interval, set_cost_limits, set_rate_limits
from ffem_jax.figures.styles import STYLES, get_style
from ffem_jax.specs.attention import get_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 3.35  # 85 mm: one of two columns on A4 or letter paper
PLOT_INCHES = 2.25
LINE_INCHES = 0.125  # height of a line in the key below, which lists the frontier
KEY_INCHES = 0.14  # height of the line above, which lists the attention kinds
LISTED = 10
LETTERS = 64  # per line of the key
SIZE = 0.66  # relative to a mark on screen
SETTINGS = {
    "font.size": 7.0,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # embedded TrueType, as publishers require
    "svg.fonttype": "path",  # outlines, which look the same on every machine
}


def plot_column(
    networks: Sequence[NetworkSummary], path: Path, question: FrontierQuestion, *, synthetic: bool = False
) -> list[Path]:
    """Draw accuracy against cost, WIDTH_INCHES wide, to `path` with the suffixes .svg and .pdf; return the two paths.

    Attention kinds differ in shape and fill as well as in colour. Networks on the frontier are large and numbered, with
    their names below, where the untrained networks over the cap are counted too.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".svg"), path.with_suffix(".pdf")]
    with apply_look(SETTINGS):
        trained = [n for n in networks if n.accuracy is not None and math.isfinite(question.get_cost(n))]
        trained.sort(key=question.get_cost)
        front = [i for i, marked in enumerate(question.mark_frontier(trained)) if marked]
        notes = _write_notes(networks, [trained[i] for i in front], synthetic)
        height = PLOT_INCHES + KEY_INCHES + 0.5 + LINE_INCHES * len(notes)
        figure = make_figure((WIDTH_INCHES, height))
        axes = figure.add_axes(
            (0.14, 1 - (PLOT_INCHES + KEY_INCHES + 0.14) / height, 0.84, (PLOT_INCHES - 0.02) / height),
        )
        _draw(axes, trained, {i: str(number) for number, i in enumerate(front, 1)}, question)
        _draw_key(figure, trained, height)
        for number, line in enumerate(notes):
            y = (LINE_INCHES * (len(notes) - number) - 0.06) / height
            text = figure.text(0.02, y, clean_text(line), size=6.5, va="center")
            shrink_text(text, 0.96 * figure.bbox.width)
        clean_texts(figure)
        figure.savefig(written[0], metadata={"Date": None})
        figure.savefig(written[1], metadata={"CreationDate": None})
    return written


def _draw(axes: Axes, trained: Sequence[NetworkSummary], numbers: dict[int, str], question: FrontierQuestion) -> None:
    marks = make_marks(trained, question)
    set_cost_limits(axes, marks.costs.tolist(), question)
    set_rate_limits(axes, trained)
    draw_chance(axes, trained, 6.5)
    axes.set_xlabel(question.axis.short.format(precision=question.precision), labelpad=2)
    axes.set_ylabel(question.measure.short, labelpad=2)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
    left, right = axes.get_xlim()
    cap = None
    if question.against == "bytes" and left < question.cap_mb < right:
        cap = float(axes.transData.transform((question.cap_mb, 0))[0])
        axes.axvline(question.cap_mb, color="#404040", linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
        place = axes.get_xaxis_transform()
        text = f"{question.cap_mb:g} MB"
        axes.text(question.cap_mb, 1.0, text, transform=place, ha="center", va="bottom", size=6.5)
    draw_marks(axes, marks, SIZE)
    draw_staircase(axes, marks, min(right, question.cap_mb) if question.against == "bytes" else right, SIZE)
    name_marks(axes, marks, numbers, cap, 6.5)


def _draw_key(figure: Figure, trained: Sequence[NetworkSummary], height: float) -> None:
    from matplotlib.lines import Line2D

    kinds = {n.attention for n in trained}
    order = [kind for kind in STYLES if kind in kinds] + sorted(kinds - set(STYLES))
    if not order or order == ["none"]:
        return
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "markerfacecoloralt": "white"}
    marks = [Line2D([], [], **get_style(kind, order), **look) for kind in order]
    names = ["no attention" if kind == "none" else get_title(kind) for kind in order]
    figure.legend(
        marks, names, loc="upper left", bbox_to_anchor=(0.135, 1 - 0.02 / height), ncols=len(order), frameon=False,
        fontsize=6.5, handletextpad=0.1, columnspacing=0.9, borderpad=0, borderaxespad=0,
    )  # fmt: skip


def _write_notes(networks: Sequence[NetworkSummary], front: Sequence[NetworkSummary], synthetic: bool) -> list[str]:
    """Return the lines below the figure, none wider than the column."""
    lines = ["SYNTHETIC FACES: drawn, not photographed"] if synthetic else []
    shared, labels = split_shared([network.label for network in front[:LISTED]])
    lines += [f"all of these: {shared}"] if shared else []
    for number, (network, label) in enumerate(zip(front, labels, strict=False), 1):
        low, high = get_interval(network)
        lines.append(f"{number}  {label}: {100 * (network.accuracy or 0.0):.1f} [{100 * low:.1f}, {100 * high:.1f}] %")
    if len(front) > LISTED:
        lines.append(f"and {len(front) - LISTED} more on the frontier")
    refused = sum(network.status == "over_cap" for network in networks)
    if refused:
        lines.append(f"not shown: {refused} over the size limit, not trained")
    return [part for line in lines for part in textwrap.wrap(line, LETTERS, subsequent_indent="    ")]
