"""Names in a figure: beside their marks if there is room, else in a key."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.figures.canvas import clean_text
from ffem_jax.figures.layout import Box, Label, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

LETTERS = 23  # per line of the key at full size
MARK_POINTS = 4  # distance from the centre of a mark to the end of its leader line
STRONG, WEAK = "#202020", "#505050"


@dataclass(frozen=True)
class Name:
    """The text of a mark at (x, y) whose whisker extends from low to high, in points.

    Args:
        strong: bold, and never left out.
        number: refers to a key; placed above the whisker rather than beside the mark.
    """

    text: str
    x: float
    y: float
    low: float
    high: float
    strong: bool
    number: bool = False


@dataclass(frozen=True)
class KeyEntry:
    """A line of the key.

    Args:
        style: the style of the mark.
        strong: bold.
        interval: the rate and the two ends of its interval to draw, in percent; None if there are none.
    """

    label: str
    cost: str
    rate: str
    style: dict[str, Any]
    strong: bool
    interval: np.ndarray | None = None


def write_names(
    axes: Axes, names: Sequence[Name], obstacles: Sequence[Box], *, size: float = 8.0, all_or_none: bool = False
) -> None:
    """Write the names where they cover no obstacle (boxes in points); names without a free place are left out.

    Args:
        size: font size in points.
        all_or_none: leave all names out if one has no place, so that a few are not mistaken for all.
    """
    ground = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.4, "alpha": 0.85}
    drawn, labels = [], []
    for name in names:
        artist = axes.text(
            0,
            0,
            clean_text(name.text),
            size=size,
            color=STRONG if name.strong else WEAK,
            weight="bold" if name.strong else "normal",
            transform=None,
            ha="center",
            va="center_baseline",
            bbox=ground,
            zorder=6,
        )
        box = artist.get_window_extent()
        drawn.append(artist)
        labels.append(
            Label(name.x, name.y, name.low, name.high, box.width + 2, box.height + 1, name.strong, not name.number)
        )
    left, bottom, right, top = axes.get_window_extent().extents
    places = place_labels(labels, obstacles, (left, bottom, right, top))
    if all_or_none and None in places:
        places = [None] * len(names)
    back = axes.transData.inverted()
    for artist, label, place in zip(drawn, labels, places, strict=True):
        if place is None:
            artist.remove()
            continue
        # In data coordinates, so that the place is right at any resolution.
        artist.set_transform(axes.transData)
        artist.set_position(tuple(back.transform(place.centre)))
        if place.rotated:
            artist.set(rotation=90, verticalalignment="center")
        if place.leader:
            start = np.array((label.x, label.y))
            near = np.clip(start, place.box[:2], place.box[2:])
            line = back.transform([start + MARK_POINTS * (near - start) / np.hypot(*(near - start)), near])
            axes.plot(line[:, 0], line[:, 1], color="#808080", linewidth=0.7, zorder=5)


def draw_key(figure: Figure, entries: Sequence[KeyEntry], left: float, unit: str) -> None:
    """List the entries to the right of `left` (a fraction of the figure's width), with aligned intervals.

    Entries are numbered from 1, like the marks. What all labels share is written once, above them.
    """
    from matplotlib.lines import Line2D

    right, top = 0.988, 0.835
    start, cost_right = left + 0.031, right - 0.192
    shared, labels = split_shared([entry.label for entry in entries])
    for line in _wrap(f"all of these: {shared}", 2 * LETTERS) if shared else ():
        figure.text(start, top + 0.02, line, size=7.5, color=WEAK, va="center", style="italic")
        top -= 0.031
    # A long list gets tighter spacing instead of being cut off.
    lines = _fit_lines(labels, top - 0.1)
    step, size = _measure_lines(lines, top - 0.1)
    for place, text in ((right, "% [95 % interval]"), (cost_right, unit)):
        figure.text(place, top + 0.012, text, size=size, color=WEAK, ha="right")
    y, rows = top, []
    for number, (entry, wrapped) in enumerate(zip(entries, lines, strict=True), 1):
        weight, colour = ("bold", STRONG) if entry.strong else ("normal", WEAK)
        style: dict[str, Any] = {"size": size, "color": colour, "weight": weight, "va": "center"}
        y -= step / 2
        rows.append(y)
        figure.text(left + 0.011, y, str(number), ha="right", **style)
        mark = Line2D([left + 0.020], [y], **entry.style, markersize=5.5, markerfacecoloralt="white", linestyle="none")
        figure.add_artist(mark)
        figure.text(right, y, entry.rate, ha="right", **style)
        cost = figure.text(cost_right, y, entry.cost, ha="right", **style)
        room = cost.get_window_extent().x0 - start * figure.bbox.width - 4
        for i, line in enumerate(wrapped):
            shrink_text(figure.text(start, y - i * step, clean_text(line), ha="left", **style), room)
        y -= (len(wrapped) - 0.5) * step
    _draw_intervals(figure, entries, rows, (cost_right + 0.012, y, 0.064, top - y))


def _draw_intervals(
    figure: Figure, entries: Sequence[KeyEntry], rows: Sequence[float], frame: tuple[float, float, float, float]
) -> None:
    """Draw each interval in its own row of the key; `rows` and `frame` are in fractions of the figure."""
    from matplotlib.ticker import MaxNLocator

    known = [entry.interval for entry in entries if entry.interval is not None]
    if not known:
        return
    axes = figure.add_axes(frame)
    axes.set_facecolor("none")
    axes.set_ylim(frame[1], frame[1] + frame[3])
    low, high = np.min(known), np.max(known)
    pad = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - pad, high + pad)
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    axes.grid(axis="x", color="#e0e0e0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, labelsize=6.5, labelcolor=WEAK, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for entry, y in zip(entries, rows, strict=True):
        if entry.interval is not None:
            rate, *ends = entry.interval
            colour = entry.style["color"]
            axes.plot(ends, [y, y], color=colour, linewidth=1.3 if entry.strong else 0.8)
            axes.plot(rate, y, "o", color=colour, markersize=3.6 if entry.strong else 2.8)


def shrink_text(artist: Text, room: float) -> None:
    """Shrink the font if the text is wider than `room`, in points."""
    width = artist.get_window_extent().width
    if width > room:
        artist.set_fontsize(float(artist.get_fontsize()) * room / width)


def split_shared(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Return the part that three or more labels share, and the labels without it; nothing if one would be empty."""
    parts = [re.split(r", | (?=#\d+$)", label) for label in labels]
    shared = [part for part in parts[0] if all(part in own for own in parts)] if len(parts) > 2 else []
    rest = [[part for part in own if part not in shared] for own in parts]
    if not shared or not all(rest):
        return "", list(labels)
    return ", ".join(shared), [", ".join(own) for own in rest]


def _measure_lines(lines: Sequence[Sequence[str]], height: float) -> tuple[float, float]:
    """Return line spacing and font size for these lines in `height`."""
    step = min(0.031, height / max(1, sum(map(len, lines))))
    return step, min(7.5, 242 * step)


def _fit_lines(texts: Sequence[str], height: float) -> list[list[str]]:
    """Wrap `texts` to the width of the key; smaller fonts fit more letters per line."""
    best, largest = [_wrap(text, LETTERS) for text in texts], 0.0
    for letters in range(LETTERS, 3 * LETTERS):
        lines = [_wrap(text, letters) for text in texts]
        _, size = _measure_lines(lines, height)
        if size > largest and letters * size <= LETTERS * 7.5:
            best, largest = lines, size
    return best


def _wrap(label: str, letters: int) -> list[str]:
    """Wrap `label` to lines of at most `letters` letters, keeping short parts together."""
    kept = ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") if len(part) < 14 else part for part in label.split(", "))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(kept, letters)] or [""]
