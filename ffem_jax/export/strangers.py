"""Thresholds of an exported network from the people whom its trial tests and it has never seen, and whether they hold:
for other people, and for each group of people.

The rate that a threshold promises is of the very people who chose it. So half of the people also choose a threshold
that the other half are judged by, and the other way round: that is what somebody else's faces will meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ffem_jax.analysis.groups import cut_columns
from ffem_jax.export.parity import Reference
from ffem_jax.metrics.calibration import Calibration, CalibrationError, compute_calibration
from ffem_jax.metrics.duplicates import find_duplicates
from ffem_jax.metrics.identification import normalize_embeddings
from ffem_jax.metrics.open_set import REPLICATES, Estimate

CHECKED_RATES = (0.1, 0.01, 0.001)
GROUPS_RATE = 0.01  # asked for by the threshold that groups are judged by
FEWEST_PEOPLE = 12  # behind an interval: of fewer, drawn anew, it holds the truth too seldom
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


@dataclass(frozen=True)
class GroupRates:
    """What one threshold does to a group of images.

    Args:
        column: the attribute. group: its value.
        people, images: how many are in the group.
        accepted: the share of pairs of one person that are accepted, each person with equal weight; None of fewer than
            FEWEST_PEOPLE people with a pair.
        false_accepts: the share of pairs of two people of the group that are accepted; None of fewer.
    """

    column: str
    group: str
    people: int
    images: int
    accepted: Estimate | None
    false_accepts: Estimate | None


@dataclass(frozen=True)
class Strangers:
    """What the tested people say of thresholds.

    Args:
        calibration: from all of them.
        checked: how the thresholds of one half of the people hold for the other.
        groups: what the threshold for GROUPS_RATE does to each group.
        passed_over: a line for each attribute that makes no groups.
    """

    calibration: Calibration
    checked: tuple[CheckedRate, ...]
    groups: tuple[GroupRates, ...]
    passed_over: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The field `strangers` of export.json."""
        return {
            "people": self.calibration.people,
            "images": self.calibration.images,
            "checked": [asdict(one) for one in self.checked],
            "groups": [asdict(one) for one in self.groups],
        }


def calibrate_on_strangers(reference: Reference, model_id: str, by: Sequence[str] = ()) -> Strangers | None:
    """Thresholds from the tested people of `reference`, and how they hold; None where these people trained too.

    None also where the tested images are not known by person (protocol=bins), or are of too few people.

    Args:
        reference: the network's vectors of its trial's faces.
        model_id: of the network.
        by: which attributes make groups, as `analysis.groups.cut_columns` takes them; empty takes all that can.
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
    vectors, labels, images = vectors[kept], labels[kept], images[kept]
    try:
        calibration = compute_calibration(vectors, labels, model_id, synthetic=reference.faces.synthetic)
        checked = check_thresholds(vectors, labels)
    except CalibrationError:
        return None
    columns, notes = cut_columns(reference.faces.attributes, by)
    threshold = next(one.threshold for one in calibration.told if one.false_accept_rate == GROUPS_RATE)
    groups = measure_groups(vectors, labels, {name: values[images] for name, values in columns.items()}, threshold)
    measured = {one.column for one in groups if one.accepted or one.false_accepts}
    notes += [f"{name} has no group of {FEWEST_PEOPLE} people" for name in columns if name not in measured]
    told = tuple(one for one in groups if one.column in measured)
    return Strangers(calibration, checked, told, tuple(notes))


def measure_groups(
    vectors: np.ndarray, labels: np.ndarray, columns: Mapping[str, np.ndarray], threshold: float
) -> tuple[GroupRates, ...]:
    """What a threshold does to each group of images, with 95 % intervals that draw people.

    Args:
        vectors: [image, feature]. labels: [image], whose image.
        columns: for each attribute a group's name for every image, "" where it is not known.
        threshold: a distance (Eq. 7), in 0 to 1.

    References:
        Field and Welsh, J. R. Stat. Soc. B 69 (2007) 369: the bootstrap over clusters.
    """
    units, found = normalize_embeddings(vectors), []
    for column, names in columns.items():
        for group in sorted(set(names.tolist()) - {""}):
            rows = np.flatnonzero(names == group)
            people, owner = np.unique(labels[rows], return_inverse=True)
            accepted = np.sqrt(np.clip(2 - 2 * units[rows] @ units[rows].T, 0, None)) / 2 <= threshold
            np.fill_diagonal(accepted, False)
            of_person = np.eye(len(people))[owner]
            rates = _estimate_rates(of_person.T @ accepted @ of_person, of_person.sum(axis=0))
            found.append(GroupRates(column, group, len(people), len(rows), *rates))
    return tuple(found)


def _estimate_rates(accepted: np.ndarray, images: np.ndarray) -> tuple[Estimate | None, Estimate | None]:
    """The rates of `GroupRates` from the pairs accepted [person, person], each counted twice, and images [person]."""
    has, own = images > 1, np.diagonal(accepted) / np.maximum(images * (images - 1), 1)
    others = accepted - np.diag(np.diagonal(accepted))

    def compute(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # A person drawn twice is two people who make no pair with each other.
        of_one = (times[:, has] @ own[has], times[:, has].sum(axis=1))
        of_two = (((times @ others) * times).sum(axis=1), (times @ images) ** 2 - times**2 @ images**2)
        return of_one[0] / np.where(of_one[1], of_one[1], np.nan), of_two[0] / np.where(of_two[1], of_two[1], np.nan)

    count = len(images)
    if count < FEWEST_PEOPLE:
        return None, None
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), REPLICATES).astype(float)
    values, spreads = compute(np.ones((1, count))), compute(drawn)
    return _make_estimate(values[0], spreads[0], int(has.sum())), _make_estimate(values[1], spreads[1], count)


def _make_estimate(value: np.ndarray, drawn: np.ndarray, people: int) -> Estimate | None:
    if people < FEWEST_PEOPLE:
        return None
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    # Where all pairs agree, so do all draws. Of so many people that all agree, this share may still not.
    doubt = 1 - 0.025 ** (1 / people)
    low, high = min(low, 1 - doubt), max(high, doubt)
    return Estimate(float(value[0]), float(low), float(high))


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
