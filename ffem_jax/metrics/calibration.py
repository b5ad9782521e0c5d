"""Thresholds for Eq. 7 from pairs of people that a network has never seen, with intervals of their error rates.

A network separates the people it was trained on better than strangers, so a threshold from those people accepts too
many strangers; `matching.calibrate_sigma` has no others. Here the people must be new to the network. The unit is a pair
of images of two people, from which the rate for a gallery of any size follows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ffem_jax.errors import FfemError
from ffem_jax.metrics.duplicates import find_duplicates
from ffem_jax.metrics.identification import as_labels, normalize_embeddings
from ffem_jax.metrics.intervals import compute_wilson_interval

CALIBRATION_VERSION = 1

# 12.5 million pairs; of more images an even choice is taken.
MAX_IMAGES = 5_000
# The rates that a calibration has with intervals; any other is looked up in its curve.
TOLD_RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
# Where none of n independent pairs is accepted, the 95 % interval of the rate ends at 3/n.
PAIRS_FOR_A_RATE = 3.0
# Accepted pairs from which on their spread over people can be estimated.
MIN_ACCEPTED = 30
BLOCK_IMAGES = 512


class CalibrationError(FfemError):
    """Faces or a file that give no threshold. The message is one line."""


@dataclass(frozen=True)
class ToldRate:
    """A threshold and its false-accept rate: the share of pairs of different people at distance <= threshold.

    Args:
        false_accept_rate: asked for, in 0 to 1. threshold: a distance, in 0 to 1.
        accepted: how many pairs are accepted.
        low, high: the 95 % interval of the rate, which allows for pairs that share people. With 25 people it held the
            true rate in 90 % of simulated draws, so with few people it is somewhat too narrow.
        enough: whether there are enough pairs to show a rate as low as `false_accept_rate`.
    """

    false_accept_rate: float
    threshold: float
    accepted: int
    low: float
    high: float
    enough: bool


@dataclass(frozen=True)
class Calibration:
    """Distances between images of different people, all new to the network.

    Args:
        model_id: of the network. people, images, pairs: how many there were.
        design_effect: how many pairs are worth one independent pair, as pairs share people; at least 1.
        curve: (accepted, threshold), ascending: the largest distance, in 0 to 1, at which at most so many pairs are
            accepted; below 0 where nothing may be accepted.
        contested, repeated: images left out because they occur under more than one person, or more than once.
    """

    model_id: str
    people: int
    images: int
    pairs: int
    design_effect: float
    curve: tuple[tuple[int, float], ...]
    told: tuple[ToldRate, ...] = ()
    synthetic: bool = False
    contested: int = 0
    repeated: int = 0

    def choose_threshold(self, false_accept_rate: float) -> float:
        """The largest distance of the curve at which at most `false_accept_rate` (0 to 1) of the pairs are accepted."""
        allowed = _count_allowed(false_accept_rate, self.pairs)
        index = bisect_right(self.curve, allowed, key=lambda entry: entry[0])
        return self.curve[index - 1][1]

    def has_enough(self, false_accept_rate: float) -> bool:
        """Whether the pairs can show so low a rate, which takes 3 / rate independent ones."""
        return false_accept_rate * self.pairs / self.design_effect >= PAIRS_FOR_A_RATE

    def describe_shortage(self, false_accept_rate: float) -> str:
        """How many pairs `false_accept_rate` needs and how many there are, in one sentence."""
        return (
            f"a false-accept rate of {false_accept_rate:.2g} a comparison takes about "
            f"{math.ceil(PAIRS_FOR_A_RATE / false_accept_rate):,} independent pairs; the {self.pairs:,} pairs of "
            f"{self.people} people are worth {self.pairs / self.design_effect:,.0f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As a dict for JSON; `read_calibration` reads it back."""
        return {
            "version": CALIBRATION_VERSION,
            "model_id": self.model_id,
            "synthetic": self.synthetic,
            "people": self.people,
            "images": self.images,
            "left_out": {"contested": self.contested, "repeated": self.repeated},
            "pairs": self.pairs,
            "design_effect": self.design_effect,
            "rates": [vars(rate) for rate in self.told],
            "curve": [list(entry) for entry in self.curve],
        }


def compute_calibration(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    model_id: str,
    *,
    content: Sequence[Hashable] | None = None,
    synthetic: bool = False,
) -> Calibration:
    """The calibration from embeddings of people who are new to the network.

    An image that occurs under two people would be a pair at distance 0 that is not of two people: it is left out. Of an
    image that a person has twice, the first counts. Of more than MAX_IMAGES images an even choice is taken. The
    interval's variance is that of a mean over pairs, in which pairs with a person in common are correlated.

    Args:
        embeddings: [image, feature], normalised here. labels: [image], whose image.
        content: [image], equal for copies of one image. Without it all images count as different: equal vectors may
            also come from a network that sees no difference.

    Raises:
        CalibrationError: for fewer than three people, from whom the spread over people cannot be estimated.

    References:
        Aronow, Samii and Assenova, Political Analysis 23 (2015) 564, equation 4: dyadic cluster-robust variance.
    """
    vectors = normalize_embeddings(embeddings)
    owners = as_labels(labels, len(vectors), "calibration")
    duplicates = find_duplicates(owners, range(len(vectors)) if content is None else content)
    kept = duplicates.select(len(vectors))
    contested = sum(map(len, duplicates.contested))
    vectors, (_, people) = vectors[kept], np.unique(owners[kept], return_inverse=True)
    if people.size == 0 or people.max() < 2:
        left_out = f" without the {contested} that stand under more than one person" if contested else ""
        raise CalibrationError(
            f"a calibration takes pictures of at least 3 people, and better of 50; there are {len(np.unique(people))}"
            f"{left_out}"
        )
    if len(vectors) > MAX_IMAGES:
        chosen = np.linspace(0, len(vectors) - 1, MAX_IMAGES).round().astype(int)
        vectors, people = vectors[chosen], people[chosen]
        _, people = np.unique(people, return_inverse=True)
    distances, dyads = _list_impostors(vectors, people)
    order = np.argsort(distances, kind="stable")
    ranked, dyads = distances[order], dyads[order]
    counts = np.bincount(people)
    effect = _compute_design_effect(ranked, dyads, counts, min(max(MIN_ACCEPTED, ranked.size // 1000), ranked.size))
    told = tuple(_tell(rate, ranked, dyads, counts, effect) for rate in TOLD_RATES)
    return Calibration(
        model_id=model_id,
        people=len(counts),
        images=len(people),
        pairs=ranked.size,
        design_effect=effect,
        curve=_make_curve(ranked),
        told=told,
        synthetic=synthetic,
        contested=contested,
        repeated=len(kept) - int(kept.sum()) - contested,
    )


def read_calibration(row: Any) -> Calibration:
    """The calibration that `to_dict` wrote. Raises CalibrationError for anything else."""
    try:
        if row["version"] != CALIBRATION_VERSION:
            raise CalibrationError(f"calibration version {row['version']} is none that this package reads")
        curve = tuple((int(accepted), float(threshold)) for accepted, threshold in row["curve"])
        # Earlier versions left none out.
        left_out = row.get("left_out", {})
        calibration = Calibration(
            model_id=str(row["model_id"]),
            people=int(row["people"]),
            images=int(row["images"]),
            pairs=int(row["pairs"]),
            design_effect=float(row["design_effect"]),
            curve=curve,
            told=tuple(ToldRate(**rate) for rate in row["rates"]),
            synthetic=bool(row["synthetic"]),
            contested=int(left_out.get("contested", 0)),
            repeated=int(left_out.get("repeated", 0)),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"no calibration: {type(error).__name__}: {error}") from None
    flat = [threshold for _, threshold in curve]
    ranks = [accepted for accepted, _ in curve]
    sound = flat and ranks[0] == 0 and ranks == sorted(ranks) and flat == sorted(flat) and math.isfinite(sum(flat))
    if not (sound and calibration.pairs > 0 and calibration.design_effect >= 1):
        raise CalibrationError("no calibration: its curve does not rise from 0 accepted pairs; make it again")
    return calibration


def _list_impostors(embeddings: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance and dyad (first person * people + second person, first < second) of each pair of different people."""
    distances, dyads = [], []
    number = int(people.max()) + 1
    for start in range(0, len(people), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        # Each pair once: the second image comes after the first.
        after = np.arange(len(people)) > np.arange(start, start + len(people[block]))[:, None]
        rows, columns = np.nonzero(after & (people[block, None] != people))
        # Of unit vectors |a - b|^2 = 2 - 2 a.b. It loses the digits of small distances, which are computed directly.
        squares = 2 - 2 * (embeddings[block] @ embeddings.T)[rows, columns]
        close = squares < 1e-6
        squares[close] = ((embeddings[block][rows[close]] - embeddings[columns[close]]) ** 2).sum(axis=1)
        distances.append(np.sqrt(squares) / 2)
        first, second = people[block][rows], people[columns]
        dyads.append(np.minimum(first, second) * number + np.maximum(first, second))
    return np.concatenate(distances), np.concatenate(dyads)


def _count_allowed(rate: float, pairs: int) -> int:
    if not 0 <= rate <= 1:
        raise ValueError(f"false_accept_rate={rate} must be between 0 and 1")
    # 0.29 * 100 is 28.999999999999996, and means 29.
    return math.floor(rate * pairs + 1e-9)


def _find_threshold(ranked: np.ndarray, allowed: int) -> float:
    """The largest distance at which at most `allowed` of the pairs are accepted."""
    return 1.0 if allowed >= ranked.size else float(min(1.0, np.nextafter(ranked[allowed], -np.inf)))


def _make_curve(ranked: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Every count of accepted pairs up to 100, then 2 % apart: a few hundred entries, whatever the pairs."""
    ranks = {0, ranked.size} | {round(100 * 1.02**step) for step in range(700)} | set(range(100))
    kept = sorted(rank for rank in ranks if rank <= ranked.size)
    return tuple((rank, _find_threshold(ranked, rank)) for rank in kept)


def _tell(rate: float, ranked: np.ndarray, dyads: np.ndarray, counts: np.ndarray, effect: float) -> ToldRate:
    threshold = _find_threshold(ranked, _count_allowed(rate, ranked.size))
    accepted = int(np.searchsorted(ranked, threshold, side="right"))
    if accepted >= MIN_ACCEPTED:
        effect = _compute_design_effect(ranked, dyads, counts, accepted)
    worth = max(1, round(ranked.size / effect))
    low, high = compute_wilson_interval(min(accepted / effect, worth), worth)
    return ToldRate(rate, threshold, accepted, low, high, rate * worth >= PAIRS_FOR_A_RATE)


def _compute_design_effect(ranked: np.ndarray, dyads: np.ndarray, counts: np.ndarray, accepted: int) -> float:
    """The variance of the share of accepted pairs, over that of as many independent pairs; at least 1.

    Args:
        ranked: [pair], distances ascending. dyads: [pair], which two people. counts: [person], images.
        accepted: how many of the closest pairs are accepted.
    """
    pairs, people = ranked.size, len(counts)
    rate = accepted / pairs
    if not 0 < rate < 1:
        return 1.0
    dyad, hits = np.unique(dyads[:accepted], return_counts=True)
    first, second = dyad // people, dyad % people
    each = np.bincount(first, hits, people) + np.bincount(second, hits, people)
    surplus = each - rate * counts * (counts.sum() - counts)
    squares = counts.astype(np.float64) ** 2
    all_squares = (squares.sum() ** 2 - (squares**2).sum()) / 2
    of_dyads = (hits**2).sum() - 2 * rate * (hits * counts[first] * counts[second]).sum() + rate**2 * all_squares
    variance = ((surplus**2).sum() - of_dyads) / pairs**2
    # Corrected for one degree of freedom and, as it is an estimate itself, for Student's t, to first order.
    variance *= people / (people - 1) * (1 + (1.96**2 + 1) / (2 * (people - 1)))
    return max(1.0, float(variance * pairs / (rate * (1 - rate))))
