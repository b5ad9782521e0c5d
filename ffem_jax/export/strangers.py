"""Thresholds of an exported network from the people whom its trial tests and it has never seen, and whether they hold.

The rate that a threshold promises is of the very people who chose it. So half of the people also choose a threshold
that the other half are judged by, and the other way round: that is what somebody else's faces will meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ffem_jax.export.parity import Reference
from ffem_jax.metrics.calibration import Calibration, CalibrationError, compute_calibration
from ffem_jax.metrics.duplicates import find_duplicates
from ffem_jax.metrics.identification import normalize_embeddings

CHECKED_RATES = (0.1, 0.01, 0.001)
_BLOCK = 512  # images whose distances to all others are computed at a time


@dataclass(frozen=True)
class CheckedRate:
    """A false-accept rate, asked of one half of the people and measured on the other; both ways, averaged.

    Args:
        false_accept_rate: asked for, per comparison of two people's images.
        false_accepts: measured: the share of pairs of two people that are accepted.
        accepted: the share of pairs of one person that are accepted, each person with equal weight; None without any.
    """

    false_accept_rate: float
    false_accepts: float | None
    accepted: float | None


def calibrate_on_strangers(reference: Reference, model_id: str) -> tuple[Calibration, tuple[CheckedRate, ...]] | None:
    """Thresholds from the tested people of `reference`, and how they hold; None where these people trained too.

    None also where the tested images are not known by person (protocol=bins), or are of too few people.
    """
    split = reference.split
    if not split.tests_strangers or split.bins:
        return None
    positions = reference.tested
    images = reference.images[positions]
    labels, vectors = reference.faces.labels[images], reference.embeddings[positions]
    # A picture under two people is no pair of different people, and twice under one no pair of different pictures.
    content = [reference.faces.content[image] for image in images]
    kept = find_duplicates(labels, content).select(len(images))
    vectors, labels = vectors[kept], labels[kept]
    try:
        calibration = compute_calibration(vectors, labels, model_id, synthetic=reference.faces.synthetic)
        return calibration, check_thresholds(vectors, labels)
    except CalibrationError:
        return None


def check_thresholds(vectors: np.ndarray, labels: np.ndarray) -> tuple[CheckedRate, ...]:
    """What the thresholds of one half of the people do to the other half.

    Args:
        vectors: [image, feature], no image twice. labels: [image], whose image.

    Raises:
        CalibrationError: for too few people.
    """
    people = np.random.default_rng(0).permutation(np.unique(labels))
    halves = [np.isin(labels, half) for half in (people[0::2], people[1::2])]
    found: dict[float, list[tuple[float | None, float | None]]] = {rate: [] for rate in CHECKED_RATES}
    for chooses, judged in (halves, halves[::-1]):
        calibration = compute_calibration(vectors[chooses], labels[chooses], "")
        for rate, rates in found.items():
            rates.append(measure_rates(vectors[judged], labels[judged], calibration.choose_threshold(rate)))
    return tuple(CheckedRate(rate, *map(_average, zip(*rates, strict=True))) for rate, rates in found.items())


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def measure_rates(vectors: np.ndarray, labels: np.ndarray, threshold: float) -> tuple[float | None, float | None]:
    """The shares of pairs at a distance (Eq. 7) of at most `threshold`: of pairs of two people, and of pairs of one.

    Args:
        vectors: [image, feature]. labels: [image]. threshold: a distance, in 0 to 1.

    Returns:
        Of pairs of two people, all alike; of pairs of one, each person with equal weight. None where there are none.
    """
    units = normalize_embeddings(vectors)
    _, owner = np.unique(labels, return_inverse=True)
    pairs, right, others, falsely = np.zeros(owner.max() + 1), np.zeros(owner.max() + 1), 0, 0
    for start in range(0, len(units), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(units)))
        accepted = np.sqrt(np.clip(2 - 2 * units[rows] @ units.T, 0, None)) / 2 <= threshold
        same = owner[rows][:, None] == owner
        others, falsely = others + int((~same).sum()), falsely + int((accepted & ~same).sum())
        same[np.arange(len(rows)), rows] = False
        np.add.at(pairs, owner[rows], same.sum(axis=1))
        np.add.at(right, owner[rows], (accepted & same).sum(axis=1))
    of_two = falsely / others if others else None
    has = pairs > 0
    return of_two, float((right[has] / pairs[has]).mean()) if has.any() else None


def describe_strangers(calibration: Calibration, checked: Sequence[CheckedRate]) -> dict[str, Any]:
    """The field `strangers` of export.json."""
    return {
        "people": calibration.people,
        "images": calibration.images,
        "checked": [asdict(one) for one in checked],
    }
