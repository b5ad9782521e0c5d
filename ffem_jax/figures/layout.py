"""Places the labels of a figure legibly: pure geometry, in points (1/72 inch)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# A box is (left, bottom, right, top).
Box = tuple[float, float, float, float]

GAP = 4.0  # between a label and its mark


@dataclass(frozen=True)
class Label:
    """A text of `width` by `height` for the mark at (x, y), whose whisker extends from low to high.

    Args:
        required: placed even if it covers something; other labels are left out in that case.
        beside: prefer a place beside the mark to one above the whisker.
    """

    x: float
    y: float
    low: float
    high: float
    width: float
    height: float
    required: bool = True
    beside: bool = True


@dataclass(frozen=True)
class Placement:
    """The box of a label. rotated: by 90 degrees, reading upwards. leader: so far away that it needs a leader line."""

    box: Box
    rotated: bool = False
    leader: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of the text."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def place_labels(labels: Sequence[Label], obstacles: Sequence[Box], bounds: Box) -> list[Placement | None]:
    """Place each label near its mark, clear of the obstacles and of other labels, within bounds.

    The method is greedy: required labels first, from left to right, each where it covers the least area and, among such
    places, the most natural one. The library adjustText is not used because it moves labels iteratively and its result
    is not reproducible.

    Args:
        labels: the labels to place.
        obstacles: boxes to keep clear; a label ignores one that is centred on its own mark or whisker.
        bounds: the box to stay within.

    Returns:
        One placement per label; None for a label that is not required and has no free place.
    """
    taken = np.array(obstacles, dtype=np.float64).reshape(-1, 4)
    placements: list[Placement | None] = [None] * len(labels)
    for number in sorted(range(len(labels)), key=lambda i: (not labels[i].required, labels[i].x, i)):
        label = labels[number]
        others = taken[~_find_own(label, taken)]
        best: tuple[float, Placement] | None = None
        for effort, candidate in _candidates(label):
            covered = _covered_area(candidate.box, others)
            outside = label.width * label.height - _covered_area(candidate.box, np.array([bounds]))
            cost = effort + 5.0 * (covered + 3 * max(0.0, outside))
            clear = covered + outside < 0.02 * label.width * label.height
            if (clear or label.required) and (best is None or cost < best[0]):
                best = (cost, candidate)
        if best:
            placements[number] = best[1]
            taken = np.vstack([taken, best[1].box])
    return placements


def _candidates(label: Label) -> Iterator[tuple[float, Placement]]:
    """Yield (reading effort, placement); lower is better."""
    x, y, w, h = label.x, label.y, label.width, label.height
    clearance = 7.0  # around the mark
    above, below = label.high + GAP, label.low - GAP
    if not label.beside:
        for rank, bottom in enumerate((above, below - h)):
            yield rank - 10.0, Placement((x - w / 2, bottom, x + w / 2, bottom + h))
    for step in (0, 1, -1, 2, -2):
        dy = step * h * 0.6
        for side, effort in ((1, 0.0), (-1, 1.0)):
            left = x + clearance if side == 1 else x - clearance - w
            yield effort + 2 * abs(step), Placement((left, y + dy - h / 2, left + w, y + dy + h / 2))
    for shift in (0.0, 0.35, -0.35):
        left = x - w / 2 + shift * w
        yield 3 + 4 * abs(shift), Placement((left, above, left + w, above + h))
        yield 4 + 4 * abs(shift), Placement((left, below - h, left + w, below))
    yield 8, Placement((x - h / 2, above, x + h / 2, above + w), rotated=True)
    yield 10, Placement((x - h / 2, below - w, x + h / 2, below), rotated=True)
    for radius in (16.0, 24.0, 40.0, 60.0, 90.0):
        for angle in np.arange(0, 360, 30):
            dx, dy = radius * np.cos(np.radians(angle)), radius * np.sin(np.radians(angle))
            left = x + dx - (0 if dx > 1 else w if dx < -1 else w / 2)
            box = (float(left), float(y + dy - h / 2), float(left + w), float(y + dy + h / 2))
            yield 30 + radius / 2, Placement(box, leader=True)


def _find_own(label: Label, boxes: np.ndarray) -> np.ndarray:
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    heights = (label.y, (label.low + label.high) / 2)
    return (np.abs(x - label.x) < 0.1) & np.any([np.abs(y - height) < 0.1 for height in heights], axis=0)


def _covered_area(box: Box, others: np.ndarray) -> float:
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float(np.sum(np.clip(width, 0, None) * np.clip(height, 0, None)))
