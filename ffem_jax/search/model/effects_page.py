"""Main effects as a page and a figure: the significant ones, all rows, and an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.figures.canvas import OTHER_COLOR, SIGNIFICANT_COLOR, list_files, mark_synthetic, save_figure
from ffem_jax.search.model.effects import Effect, Effects, Estimate
from ffem_jax.text.display import escape, make_markdown_table
from ffem_jax.text.numbers import format_p, format_points
from ffem_jax.text.tables import Column, Table, make_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN_CHOICES = 14
# The columns of numbers. On a narrow terminal those with the highest rank are left out first.
NUMBERS = {
    "networks": 4, "on the frontier": 6, "points [95 %]": 0, "p, Holm": 2, "at equal bytes [95 %]": 1,
    "p at equal bytes": 3, "bytes": 5,
}  # fmt: skip
ROW_INCHES = 0.23
HEAD_INCHES, FOOT_INCHES = 0.95, 0.78
METHOD = (
    "A search trains more networks in promising regions, so plain means would compare networks that differ in many "
    "other choices. Here all choices are fitted together with additive effects (ridge regression, its weight by "
    "restricted likelihood). A row is the difference between a value and the choice's first value with all other "
    "choices equal: once with the size that results, and once at equal bytes, where other choices compensate for the "
    "difference. Intervals are 95 %, for networks like these on these test images. Interactions between choices count "
    "as noise. p has Holm's correction over the rows of its column. On NAS-Bench-Macro, where the true effects are "
    "known, such intervals contained them in 89 % of the cases with 150 networks and in 92 % with 400, not in 95 %: "
    "layers there interact strongly. So treat a p near 0.05 as a hint."
)


def list_significant(effects: Effects, *, at_equal_bytes: bool) -> list[Effect]:
    """Return the effects that are significant after Holm's correction, the largest first."""
    pairs = [(effect, effect.at_equal_bytes if at_equal_bytes else effect.accuracy) for effect in effects.effects]
    found = [(effect, estimate) for effect, estimate in pairs if estimate and estimate.significant]
    return [effect for effect, _ in sorted(found, key=lambda pair: -abs(pair[1].difference))]


def write_effects(effects: Effects) -> str:
    """Return the page as Markdown."""
    lines = [f"# What each choice does: {escape(effects.title)}", ""]
    if effects.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    for line in tell_effects(effects):
        what, _, told = line.partition(": ")
        lines += [f"**{what}:** {escape(told)}", ""]
    lines += ["![Effects of the choices with the largest ones](effects.svg)", "", *_make_table(effects), ""]
    outside = f"; {effects.outside} recorded networks outside the space left out" if effects.outside else ""
    lines += [
        f"{effects.networks} networks, {effects.trainings} trainings{outside}. {effects.on_frontier} of the networks "
        f"are on the frontier of accuracy against bytes ({effects.precision}). The additive effects explain "
        f"{100 * max(effects.explained, 0):.0f} % of the variance of accuracy in networks left out; the rest is noise "
        "and interactions between choices.",
        "",
        METHOD,
    ]
    return "\n".join(lines) + "\n"


def tell_effects(effects: Effects) -> list[str]:
    """Return the significant effects, in two lines."""
    mark = "SYNTHETIC FACES, " if effects.synthetic else ""
    return [
        f"{mark}significant, {what}: {_tell_significant(effects, at_equal_bytes)}"
        for at_equal_bytes, what in ((False, "all else equal"), (True, "at equal bytes"))
    ]


def _tell_significant(effects: Effects, at_equal_bytes: bool) -> str:
    found = list_significant(effects, at_equal_bytes=at_equal_bytes)
    told = [
        f"{shorten(effect.choice)} {effect.value} against {effect.reference} {_format(estimate)}"
        for effect in found
        if (estimate := effect.at_equal_bytes if at_equal_bytes else effect.accuracy)
    ]
    return "; ".join(told) + "." if told else "none after Holm's correction."


def make_effects_table(effects: Effects) -> Table:
    """Return the rows of the figure as a table for a terminal: each value against its choice's first value."""
    columns = [Column("choice", fold=True), Column("value", whole=True), Column("against", whole=True)]
    columns += [Column(title, right=True, whole=True, rank=rank) for title, rank in NUMBERS.items()]
    rows = [(_make_cells(effect), effect.reference) for effect in choose_rows(effects)]
    title = f"{'SYNTHETIC FACES, ' * effects.synthetic}what each choice does: {effects.title}"
    return make_table(columns, [[*cells[:2], reference, *cells[2:]] for cells, reference in rows], title=title)


def _make_table(effects: Effects) -> list[str]:
    rows = [[*map(escape, cells[:2]), *cells[2:]] for cells in map(_make_cells, effects.effects)]
    return make_markdown_table(["choice", "value", *NUMBERS], rows)


def _make_cells(effect: Effect) -> list[str]:
    cells = [shorten(effect.choice), effect.value, str(effect.networks), str(effect.on_frontier)]
    for estimate in (effect.accuracy, effect.at_equal_bytes):
        cells += [_format(estimate), format_p(estimate.p_corrected)] if estimate else ["-", "-"]
    return [*cells, "-" if effect.bytes_factor is None else f"x {effect.bytes_factor:.2f}"]


def shorten(choice: str) -> str:
    """Return a choice's name without the `arch.` that most have."""
    return choice.removeprefix("arch.")


def _format(estimate: Estimate) -> str:
    points, low, high = (format_points(rate) for rate in (estimate.difference, estimate.low, estimate.high))
    return f"{points} [{low}, {high}]"


def plot_effects(effects: Effects, path: Path) -> list[Path]:
    """Draw the choices with the largest effects to `path`, with the suffixes .png and .svg.

    Returns:
        The two paths. The files are byte-identical for the same input and Matplotlib.

    Raises:
        OSError: if the folder cannot be written.
    """
    rows = choose_rows(effects)
    with save_figure(path, (9.0, HEAD_INCHES + FOOT_INCHES + ROW_INCHES * len(rows))) as figure:
        _draw(figure, effects, rows)
    return list_files(path)


def choose_rows(effects: Effects) -> list[Effect]:
    """Return the effects to draw: those of the DRAWN_CHOICES choices with the largest effects, the largest first."""
    largest: dict[str, float] = {}
    for effect in effects.effects:
        if effect.accuracy and effect.at_equal_bytes:
            own = max(abs(effect.accuracy.difference), abs(effect.at_equal_bytes.difference))
            largest[effect.choice] = max(largest.get(effect.choice, 0.0), own)
    chosen = sorted(largest, key=lambda name: -largest[name])[:DRAWN_CHOICES]
    rows = [effect for effect in effects.effects if effect.choice in chosen and effect.accuracy]
    return sorted(rows, key=lambda effect: chosen.index(effect.choice))


def _draw(figure: Figure, effects: Effects, rows: Sequence[Effect]) -> None:
    height = figure.get_figheight()
    top, bottom = 1 - HEAD_INCHES / height, FOOT_INCHES / height
    titles = ("all else equal", "at equal bytes")
    ends = [0.0]
    for effect in rows:
        ends += [100 * end for e in (effect.accuracy, effect.at_equal_bytes) if e for end in (e.low, e.high)]
    pad = 0.05 * (max(ends) - min(ends)) or 1.0
    for column, title in enumerate(titles):
        axes = figure.add_axes((0.36 + 0.32 * column, bottom, 0.3, top - bottom))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(min(ends) - pad, max(ends) + pad)
        axes.axvline(0, color="#202020", linewidth=1.1, zorder=1)
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_title(title, fontsize=9, loc="left", color="#202020")
        axes.set_xlabel("difference of accuracy, points", color="#202020")
        for place, effect in enumerate(rows):
            estimate = effect.at_equal_bytes if column else effect.accuracy
            assert estimate
            _draw_estimate(axes, place, estimate)
            if place and rows[place - 1].choice != effect.choice:
                axes.axhline(place - 0.5, color="#c8c8c8", linewidth=0.6)
    for place, effect in enumerate(rows):
        y = bottom + (top - bottom) * (1 - (place + 0.5) / len(rows))
        first = not place or rows[place - 1].choice != effect.choice
        name = shorten(effect.choice) if first else ""
        figure.text(0.012, y, name, va="center", size=8.5, weight="bold", color="#202020")
        text = f"{effect.value} against {effect.reference}"
        figure.text(0.352, y, text, va="center", ha="right", size=8.5, color="#202020")
    figure.text(0.012, 1 - 0.24 / height, "What each choice does", size=11, weight="bold")
    figure.text(0.012, 1 - 0.44 / height, f"{effects.title}; {effects.networks} networks", size=8.5, color="#404040")
    if effects.synthetic:
        mark_synthetic(figure, 0.985, 1 - 0.24 / height, size=9)
    left_out = len({effect.choice for effect in effects.effects}) - len({effect.choice for effect in rows})
    others = f"; {left_out} choices with smaller ones in the table" if left_out > 0 else ""
    note = f"filled: significant, p under 0.05 after Holm's correction; hollow: not; bars: 95 % intervals{others}"
    figure.text(0.012, 0.1 / height, note, size=7.5, color="#606060")


def _draw_estimate(axes: Axes, place: int, estimate: Estimate) -> None:
    color = SIGNIFICANT_COLOR if estimate.significant else OTHER_COLOR
    axes.plot([100 * estimate.low, 100 * estimate.high], [place, place], color=color, linewidth=1.3)
    face = color if estimate.significant else "white"
    axes.plot(
        100 * estimate.difference, place, "o", color=color, markerfacecolor=face, markersize=5, markeredgewidth=1.3
    )
