"""The frontier for a paper: one column wide, in SVG and PDF, readable in grey. Matplotlib is imported to draw it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.frontier.layout import spread_sideways
from ffem_jax.frontier.question import FrontierQuestion
from ffem_jax.frontier.scales import UNITS, get_interval, set_cost_limits
from ffem_jax.frontier.styles import STYLES, get_style
from ffem_jax.frontier.summary import NetworkSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 3.35  # 85 mm: a column of two on A4 or letter
PLOT_INCHES = 2.25
LINE_INCHES = 0.125  # of the key below, which names the frontier
KEY_INCHES = 0.14  # of the line above, which names the kinds
LISTED = 10
AXIS_NAMES = {"accuracy": "accuracy (%)", "accuracy_gallery": "accuracy, gallery (%)", "verification": "accuracy (%)"}
SHORT_COSTS = {
    "bytes": "size as deployed in {precision} (MB)",
    "params": "parameters (million)",
    "macs": "multiply-adds (million)",
    "latency_ms_wasm": "milliseconds in wasm",
}
SETTINGS = {
    "font.size": 7.0,
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType, embedded: what publishers ask for
    "svg.fonttype": "path",  # outlines, the same on every machine
    "svg.hashsalt": "ffem",
}


def plot_column(
    networks: Sequence[NetworkSummary], path: Path, question: FrontierQuestion, *, synthetic: bool = False
) -> list[Path]:
    """Draw accuracy against cost, WIDTH_INCHES wide, into `path` with the suffixes .svg and .pdf; the two paths.

    Kinds of attention differ in shape and fill as well as in colour; what is on the frontier is large and numbered,
    with the names below. Networks over the cap that were not trained are counted there. Raises OSError where the
    folder cannot be written.
    """
    import matplotlib
    from matplotlib import style
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".svg"), path.with_suffix(".pdf")]
    with matplotlib.rc_context(), style.context(["default", SETTINGS]):
        trained = [n for n in networks if n.accuracy is not None and math.isfinite(question.get_cost(n))]
        marks = question.mark_frontier(trained)
        front = [n for n, marked in zip(trained, marks, strict=True) if marked]
        front.sort(key=question.get_cost)
        notes = _write_notes(networks, front, synthetic)
        height = PLOT_INCHES + KEY_INCHES + 0.5 + LINE_INCHES * len(notes)
        figure = Figure(figsize=(WIDTH_INCHES, height))
        axes = figure.add_axes(
            (0.125, 1 - (PLOT_INCHES + KEY_INCHES + 0.14) / height, 0.855, (PLOT_INCHES - 0.02) / height),
        )
        _draw(axes, trained, front, question)
        _draw_key(figure, trained, height)
        for number, line in enumerate(notes):
            figure.text(0.02, (LINE_INCHES * (len(notes) - number) - 0.06) / height, line, size=6.5, va="center")
        figure.savefig(written[0], metadata={"Date": None})
        figure.savefig(written[1], metadata={"CreationDate": None})
    return written


def _draw(
    axes: Axes, trained: Sequence[NetworkSummary], front: Sequence[NetworkSummary], question: FrontierQuestion
) -> None:
    scale = UNITS[question.against][0]
    costs = np.array([question.get_cost(n) / scale for n in trained])
    set_cost_limits(axes, costs.tolist(), question)
    intervals = 100 * np.array([get_interval(n) for n in trained]).reshape(-1, 2)
    if len(trained):
        span = max(1.0, intervals[:, 1].max() - intervals[:, 0].min())
        axes.set_ylim(intervals[:, 0].min() - 0.05 * span, intervals[:, 1].max() + 0.1 * span)
    axes.set_xlabel(SHORT_COSTS[question.against].format(precision=question.precision), labelpad=2)
    axes.set_ylabel(AXIS_NAMES[question.measure], labelpad=2)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.5)
    axes.set_axisbelow(True)
    left, right = axes.get_xlim()
    if question.against == "bytes" and left < question.cap_mb < right:
        axes.axvline(question.cap_mb, color="#404040", linewidth=0.8, linestyle=(0, (5, 3)), zorder=1)
        place = axes.get_xaxis_transform()
        text = f"{question.cap_mb:g} MB"
        axes.text(question.cap_mb, 1.0, text, transform=place, ha="center", va="bottom", size=6.5)

    # Side by side where costs are nearly equal, in order of cost; in fractions of the axis, so that a log scale works.
    to_axis = axes.transData + axes.transAxes.inverted()
    x = to_axis.transform(np.column_stack([costs, np.full(len(costs), axes.get_ylim()[0])]))[:, 0]
    x = spread_sideways(x, 0.028, 0.02, 0.98) if len(trained) <= 40 else x
    shown = (axes.transAxes + axes.transData.inverted()).transform(np.column_stack([x, np.zeros(len(x))]))[:, 0]
    kinds = [n.attention for n in trained]
    steps = []
    for place, rate, interval, network in zip(shown, costs, intervals, trained, strict=True):
        standing = network in front
        look = get_style(network.attention, kinds)
        rate = 100 * (network.accuracy or 0.0)
        size, alpha = (5.6, 1.0) if standing else (3.6, 0.7)
        axes.vlines(place, *interval, color=look["color"], linewidth=0.9 if standing else 0.5, alpha=alpha)
        axes.plot(place, rate, **look, markersize=size, markerfacecoloralt="white", markeredgewidth=0.9, alpha=alpha)
        if standing:
            steps.append((place, rate))
            number = str(front.index(network) + 1)
            axes.annotate(number, (place, interval[1]), (0, 1.5), textcoords="offset points", ha="center", size=6.5)
    if steps:
        steps.sort()
        end = min(right, question.cap_mb) if question.against == "bytes" else right
        xs, ys = [*(s[0] for s in steps), max(end, steps[-1][0])], [*(s[1] for s in steps), steps[-1][1]]
        axes.step(xs, ys, where="post", color="#202020", linewidth=0.9, zorder=1.5)


def _draw_key(figure: Figure, trained: Sequence[NetworkSummary], height: float) -> None:
    from matplotlib.lines import Line2D

    kinds = {n.attention for n in trained}
    order = [kind for kind in STYLES if kind in kinds] + sorted(kinds - set(STYLES))
    if not order or order == ["none"]:
        return
    look: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "markerfacecoloralt": "white"}
    marks = [Line2D([], [], **get_style(kind, order), **look) for kind in order]
    names = ["no attention" if kind == "none" else kind.upper() for kind in order]
    figure.legend(
        marks, names, loc="upper left", bbox_to_anchor=(0.12, 1 - 0.02 / height), ncols=len(order), frameon=False,
        fontsize=6.5, handletextpad=0.1, columnspacing=0.9, borderpad=0, borderaxespad=0,
    )  # fmt: skip


def _write_notes(networks: Sequence[NetworkSummary], front: Sequence[NetworkSummary], synthetic: bool) -> list[str]:
    lines = ["SYNTHETIC FACES: drawn, not photographed"] if synthetic else []
    for number, network in enumerate(front[:LISTED], 1):
        low, high = get_interval(network)
        lines.append(
            f"{number}  {network.label}: {100 * (network.accuracy or 0.0):.1f} [{100 * low:.1f}, {100 * high:.1f}] %"
        )
    if len(front) > LISTED:
        lines.append(f"and {len(front) - LISTED} more on the frontier")
    refused = sum(network.status == "over_cap" for network in networks)
    if refused:
        lines.append(f"not shown: {refused} over the size limit, not trained")
    return lines
