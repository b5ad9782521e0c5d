"""Verification of pairs of images: ROC, its area, error rates and LFW View 2's accuracy, from distances.

A pair is accepted at distance <= threshold, so pairs of equal distance are accepted together. Only operating points
that occur in the pairs are reported, without interpolation. Every rate depends only on the order of the distances, so
similarities can be passed negated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffem_jax.metrics.identification import normalize_embeddings


@dataclass(frozen=True)
class Roc:
    """All operating points of a set of pairs, by ascending threshold. Arrays are [point].

    Args:
        threshold: minus infinity, which accepts nothing, then every distance that occurs.
        far: the accepted share of pairs of different people.
        tar: the accepted share of pairs of the same person.
    """

    threshold: np.ndarray
    far: np.ndarray
    tar: np.ndarray


def compute_pair_distances(first: npt.ArrayLike, second: npt.ArrayLike) -> np.ndarray:
    """Return half the Euclidean distance [pair], in 0 to 1, of L2-normalised embeddings, as in `matching`.

    Args:
        first, second: [pair, feature], normalised here.

    Raises:
        ValueError: an embedding has no direction, or the shapes differ.
    """
    first, second = normalize_embeddings(first), normalize_embeddings(second)
    if first.shape != second.shape:
        raise ValueError(f"the two sides of the pairs have shapes {first.shape} and {second.shape}; give equal ones")
    return np.asarray(np.linalg.norm(first - second, axis=1) / 2)


def compute_roc(distances: npt.ArrayLike, same: npt.ArrayLike) -> Roc:
    """Compute the ROC of pairs.

    Args:
        distances: [pair].
        same: bool [pair], whether both images show one person.

    Raises:
        ValueError: the shapes differ, a distance is not finite, or either kind of pair is missing.
    """
    distances, same = _as_pairs(distances, same)
    order = np.argsort(distances, kind="stable")
    ranked = distances[order]
    last = np.flatnonzero(np.append(ranked[1:] > ranked[:-1], True))  # the end of each run of equal distances
    hits = np.cumsum(same[order])[last]
    return Roc(
        threshold=np.append(-np.inf, ranked[last]),
        far=np.append(0, last + 1 - hits) / (same.size - same.sum()),
        tar=np.append(0, hits) / same.sum(),
    )


def compute_area(roc: Roc) -> float:
    """Return the area under the ROC: how often a pair of one person is closer than one of two; a tie counts half."""
    return float(np.sum(np.diff(roc.far) * (roc.tar[1:] + roc.tar[:-1]) / 2))


def compute_tar_at_far(roc: Roc, far: float) -> float:
    """Return the largest TAR of an operating point whose FAR is at most `far`; both in 0 to 1.

    If `far` is below 1 / (pairs of different people), it is the TAR without any false accept. This applies to 1e-3 and
    the 300 such pairs in a fold of View 2.
    """
    if not 0 <= far <= 1:
        raise ValueError(f"far={far} must be between 0 and 1")
    return float(roc.tar[roc.far <= far].max())


def compute_equal_error_rate(roc: Roc) -> float:
    """Return the smallest rate, in 0 to 1, that neither FAR nor the rejected share of same pairs exceeds at a point."""
    return float(np.maximum(roc.far, 1 - roc.tar).min())


def choose_threshold(distances: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Return the threshold with the highest accuracy; the smallest of equals, which accepts least.

    It is minus infinity if accepting nothing is best.

    Raises:
        ValueError: as in `compute_roc`.
    """
    distances, same = _as_pairs(distances, same)
    roc = compute_roc(distances, same)
    # Count whole pairs, so that ties are exact.
    wrong = np.rint(roc.far * (~same).sum()) + np.rint((1 - roc.tar) * same.sum())
    return float(roc.threshold[np.argmin(wrong)])


def compute_fold_hits(
    distances: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike, fold: int
) -> tuple[np.ndarray, float]:
    """Return whether each pair of `fold` is decided correctly, and the threshold, chosen on the other folds.

    Args:
        distances, same: as in `compute_roc`.
        folds: int [pair].
        fold: the fold to test.

    Returns:
        (bool [pair of the fold], threshold).

    Raises:
        ValueError: as in `compute_roc`, or `fold` has no pair.

    References:
        Huang et al., Labeled Faces in the Wild, 2007, section III (View 2).
    """
    distances, same = _as_pairs(distances, same)
    tested = np.asarray(folds) == fold
    if tested.shape != distances.shape or not tested.any():
        raise ValueError(f"no pair of fold {fold} among folds of shape {tested.shape} for {distances.size} pairs")
    threshold = choose_threshold(distances[~tested], same[~tested])
    return (distances[tested] <= threshold) == same[tested], threshold


def compute_mean_and_error(accuracies: npt.ArrayLike) -> tuple[float, float]:
    """Return the mean over folds and its standard error: sample deviation / sqrt(folds); NaN for a single fold."""
    values = np.asarray(accuracies, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"accuracies have shape {values.shape}; give one number per fold")
    error = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan
    return float(values.mean()), error


def compute_view2_accuracy(distances: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike) -> tuple[float, float]:
    """Return View 2's accuracy of one network on all folds: the mean over folds and its standard error.

    Raises:
        ValueError: as in `compute_fold_hits`.
    """
    rates = [compute_fold_hits(distances, same, folds, fold)[0].mean() for fold in np.unique(np.asarray(folds))]
    return compute_mean_and_error(rates)


def _as_pairs(distances: npt.ArrayLike, same: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    distances, same = np.asarray(distances, dtype=np.float64), np.asarray(same, dtype=bool)
    if distances.ndim != 1 or distances.shape != same.shape:
        raise ValueError(
            f"distances have shape {distances.shape} and same has shape {same.shape}; give one of each per pair"
        )
    if not np.isfinite(distances).all():
        raise ValueError("a pair's distance is not finite")
    if same.all() or not same.any():
        raise ValueError("pairs of the same person and pairs of different people are both needed")
    return distances, same
