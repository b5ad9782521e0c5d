"""Rank agreement of two lists of numbers: Kendall's tau, with an interval.

The point estimate does not use SciPy's `kendalltau`: the interval needs the counts per item, which yield the estimate
in one line, and importing scipy.stats takes 0.8 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CHUNK = 512  # rows of the table of pairs in memory at once
FEWEST_FOR_INTERVAL = 5


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b with its interval, all in -1 to 1, and the number of ranked items.

    tau is NaN if one of the two lists has no order: fewer than two items, or all equal.
    """

    tau: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if math.isnan(self.tau):
            return f"none ({self.count})"
        return f"{self.tau:.2f} [{self.low:.2f}, {self.high:.2f}]"


def compute_kendall_tau(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Kendall's tau-b of two lists of numbers, in -1 to 1; NaN if one of them has no order.

    It is the number of pairs that both lists order in the same way, minus those that they order differently, divided by
    the geometric mean of the numbers of pairs that each list orders. Ties in both lists therefore cost nothing. O(n^2)
    time.

    Args:
        first, second: [item], infinities allowed.

    Raises:
        ValueError: unless both are vectors of the same length without NaN.

    References:
        Kendall, Biometrika 33 (1945) 239.
    """
    alike, in_first, in_second = _count_pairs(first, second)
    return _divide(alike.sum() / 2, in_first.sum() / 2, in_second.sum() / 2)


def compute_rank_agreement(first: npt.ArrayLike, second: npt.ArrayLike, confidence: float = 0.95) -> RankAgreement:
    """Return Kendall's tau-b with an interval, which covers other items of the same kind.

    The interval is the jackknife's, with each item left out once, on Fisher's scale atanh(tau). It is at least as wide
    as that of independent normal numbers: a few items that all agree prove little. Fewer than five items yield -1 to 1.

    Args:
        first, second: [item].
        confidence: the level of the interval, in 0 to 1.

    Raises:
        ValueError: as in `compute_kendall_tau`.

    References:
        Fieller, Hartley and Pearson, Biometrika 44 (1957) 470: the variance for normal numbers.
    """
    alike, in_first, in_second = _count_pairs(first, second)
    total, total_first, total_second = (counts.sum() / 2 for counts in (alike, in_first, in_second))
    tau, count = _divide(total, total_first, total_second), len(alike)
    if math.isnan(tau) or count < FEWEST_FOR_INTERVAL:
        return RankAgreement(tau, -1.0, 1.0, count)
    # At most half a pair short of 1, so that atanh is finite.
    bound = 1 - 1 / (count * (count - 1))
    without = np.array(
        [
            _divide(total - a, total_first - b, total_second - c)
            for a, b, c in zip(alike, in_first, in_second, strict=True)
        ]
    )
    scaled = np.arctanh(np.clip(without[~np.isnan(without)], -bound, bound))
    jackknife = (count - 1) / count * float(((scaled - scaled.mean()) ** 2).sum())
    variance = max(jackknife, 0.437 / max(1, count - 4))
    half_width = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    centre = math.atanh(min(max(tau, -bound), bound))
    return RankAgreement(tau, math.tanh(centre - half_width), max(tau, math.tanh(centre + half_width)), count)


def compute_top_tau(guess: npt.ArrayLike, truth: npt.ArrayLike, fraction: float = 0.1) -> float:
    """Return Kendall's tau-b of `guess` and `truth` among the best items by `truth`; ties at the cut-off are included.

    This is the relevant value when looking for the best item. It is lower than the tau of all items, whose differences
    are larger.

    Args:
        guess, truth: [item].
        fraction: the share of the items, above 0 and at most 1.

    Raises:
        ValueError: as in `compute_kendall_tau`, or the fraction is out of range.
    """
    guess, truth = _check_lists(guess, truth)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction} must be above 0 and at most 1")
    if not truth.size:
        return math.nan
    kept = max(1, round(fraction * truth.size))
    top = truth >= np.sort(truth)[-kept]
    return compute_kendall_tau(guess[top], truth[top])


def _check_lists(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"the lists {first.shape} and {second.shape} must be vectors of the same length")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("a list to be ranked contains a NaN")
    return first, second


def _count_pairs(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count for each item, over its pairs with all others: concordant minus discordant; those ordered by each list."""
    first, second = _check_lists(first, second)
    alike, in_first, in_second = (np.empty(first.size) for _ in range(3))
    for start in range(0, first.size, CHUNK):
        rows = slice(start, start + CHUNK)
        # Compare instead of subtracting: two infinities are equal.
        signs = [(x[rows, None] > x).astype(np.int8) - (x[rows, None] < x).astype(np.int8) for x in (first, second)]
        alike[rows] = (signs[0] * signs[1]).sum(axis=1, dtype=np.int64)
        in_first[rows] = np.count_nonzero(signs[0], axis=1)
        in_second[rows] = np.count_nonzero(signs[1], axis=1)
    return alike, in_first, in_second


def _divide(alike: float, in_first: float, in_second: float) -> float:
    pairs = math.sqrt(in_first * in_second)
    return float(alike / pairs) if pairs else math.nan
