"""Thresholds for Eq. 7 from pairs of people that a network has never seen, with intervals of their error rates.

A network separates its training identities better than new people, so a threshold from the training identities accepts
too many new people. `matching.calibrate_sigma` has only the former; here the people must be new to the network. The
unit is a pair of images of two people, from which the rate for a gallery of any size follows.
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

# 12.5 million pairs; larger sets are subsampled evenly.
MAX_IMAGES = 5_000
# The rates for which a calibration has intervals; any other rate is looked up in its curve.
TOLD_RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
# If none of n independent pairs is accepted, the 95 % interval of the rate ends at 3/n.
PAIRS_FOR_A_RATE = 3.0
# The fewest accepted pairs from which their spread over people can be estimated.
MIN_ACCEPTED = 30
BLOCK_IMAGES = 512


class CalibrationError(FfemError):
    """No threshold can be derived from the faces or the file. The message is one line."""


@dataclass(frozen=True)
class ToldRate:
    """A threshold and its false-accept rate: the share of pairs of different people at distance <= threshold.

    Args:
        false_accept_rate: the requested rate, in 0 to 1.
        threshold: a distance, in 0 to 1.
        accepted: the number of accepted pairs.
        low, high: the 95 % interval of the rate, which accounts for pairs that share people. With 25 people it
            contained the true rate in 90 % of simulated draws, so with few people it is somewhat too narrow.
        enough: whether there are enough pairs to demonstrate a rate as low as `false_accept_rate`.
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
        model_id: identifies the network.
        people, images, pairs: their numbers.
        design_effect: the number of pairs equivalent to one independent pair, since pairs share people; at least 1.
        curve: (accepted, threshold), ascending: the largest distance, in 0 to 1, at which at most `accepted` pairs are
            accepted; below 0 if nothing may be accepted.
        told: the threshold and interval for each of TOLD_RATES.
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
        """Return the largest distance of the curve that accepts at most `false_accept_rate` (0 to 1) of the pairs."""
        allowed = _count_allowed(false_accept_rate, self.pairs)
        index = bisect_right(self.curve, allowed, key=lambda entry: entry[0])
        return self.curve[index - 1][1]

    def has_enough(self, false_accept_rate: float) -> bool:
        """Whether the pairs can demonstrate a rate this low, which takes 3 / rate independent pairs."""
        return false_accept_rate * self.pairs / self.design_effect >= PAIRS_FOR_A_RATE

    def describe_shortage(self, false_accept_rate: float) -> str:
        """Describe in one sentence how many pairs `false_accept_rate` needs and how many there are."""
        return (
            f"a false-accept rate of {false_accept_rate:.2g} per comparison takes about "
            f"{math.ceil(PAIRS_FOR_A_RATE / false_accept_rate):,} independent pairs; the {self.pairs:,} pairs from "
            f"{self.people} people count as {self.pairs / self.design_effect:,.0f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; `read_calibration` reads it."""
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
    """Compute the calibration from embeddings of people who are new to the network.

    An image that occurs under two people is left out, since it would form a false pair of two people at distance 0. If
    one person has an image twice, the first counts. More than MAX_IMAGES images are subsampled evenly. The interval
    uses the variance of a mean over pairs in which pairs that share a person are correlated.

    Args:
        embeddings: [image, feature], normalised here.
        labels: [image], the person on each image.
        content: [image], equal for copies of one image. Without it all images count as different, since equal vectors
            may also come from a network that cannot distinguish two images.

    Raises:
        CalibrationError: fewer than three people, too few to estimate the spread over people.

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
        left_out = f" without the {contested} images that occur under more than one person" if contested else ""
        raise CalibrationError(
            f"a calibration needs images of at least 3 people, better 50; there are {len(np.unique(people))}{left_out}"
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
    """Read a calibration written by `to_dict`. Raises CalibrationError for anything else."""
    try:
        if row["version"] != CALIBRATION_VERSION:
            raise CalibrationError(f"calibration version {row['version']} is not supported by this package")
        curve = tuple((int(accepted), float(threshold)) for accepted, threshold in row["curve"])
        # Earlier versions did not leave out any images.
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
        raise CalibrationError(f"not a calibration: {type(error).__name__}: {error}") from None
    flat = [threshold for _, threshold in curve]
    ranks = [accepted for accepted, _ in curve]
    sound = flat and ranks[0] == 0 and ranks == sorted(ranks) and flat == sorted(flat) and math.isfinite(sum(flat))
    if not (sound and calibration.pairs > 0 and calibration.design_effect >= 1):
        raise CalibrationError("not a calibration: its curve does not rise from 0 accepted pairs; create it again")
    return calibration


def _list_impostors(embeddings: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distance and dyad (first person * people + second person, first < second) of each impostor pair."""
    distances, dyads = [], []
    number = int(people.max()) + 1
    for start in range(0, len(people), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        # Count each pair once: the second image comes after the first.
        after = np.arange(len(people)) > np.arange(start, start + len(people[block]))[:, None]
        rows, columns = np.nonzero(after & (people[block, None] != people))
        # For unit vectors |a - b|^2 = 2 - 2 a.b. This is imprecise for small distances, which are computed directly.
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
    # 0.29 * 100 is 28.999999999999996 and must count as 29.
    return math.floor(rate * pairs + 1e-9)


def _find_threshold(ranked: np.ndarray, allowed: int) -> float:
    """Return the largest distance at which at most `allowed` of the pairs are accepted."""
    return 1.0 if allowed >= ranked.size else float(min(1.0, np.nextafter(ranked[allowed], -np.inf)))


def _make_curve(ranked: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Return thresholds at every count of accepted pairs up to 100, then 2 % apart: a few hundred entries at most."""
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
    """Return the variance of the share of accepted pairs relative to that of independent pairs; at least 1.

    Args:
        ranked: [pair], distances ascending.
        dyads: [pair], the two people of each pair.
        counts: [person], images.
        accepted: the number of closest pairs that are accepted.
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
    # Corrected for one degree of freedom and, since it is itself an estimate, for Student's t, to first order.
    variance *= people / (people - 1) * (1 + (1.96**2 + 1) / (2 * (people - 1)))
    return max(1.0, float(variance * pairs / (rate * (1 - rate))))
