"""Verification as insightface measures it: thresholds on a grid, chosen on nine folds of pairs, tested on the tenth.

Its numbers compare with published ones; `verification` takes the thresholds that the pairs themselves have and
interpolates nothing. insightface interpolates the threshold of a FAR by SciPy, which in today's versions (1.17) refuses
the repeated FARs that such a grid has: here the line runs between the two thresholds where the FAR passes the target.

References:
    insightface, recognition/arcface_torch/eval/verification.py: calculate_roc, calculate_val, evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffem_jax.metrics.identification import normalize_embeddings

FOLDS = 10
FAR_TARGET = 1e-3
# Of the squared distance of unit vectors, which is 0 to 4: for the accuracy, and for the TAR at a FAR.
THRESHOLDS = np.arange(0, 4, 0.01)
FINE_THRESHOLDS = np.arange(0, 4, 0.001)


@dataclass(frozen=True)
class FoldReport:
    """What ten folds of pairs give. Rates are in 0 to 1, arrays are [fold] unless said otherwise.

    Args:
        hits: bool [pair], whether each pair was decided correctly when its fold was tested.
        accuracy: the share of hits. threshold: the one that the other folds chose, squared distance.
        tar: the share of pairs of one person that are accepted at the threshold that gives the other folds a FAR of
            1e-3; far: the share of pairs of two people. NaN for a fold, or with other folds, without such pairs.
    """

    hits: np.ndarray
    accuracy: np.ndarray
    threshold: np.ndarray
    tar: np.ndarray
    far: np.ndarray


def measure_folds(first: npt.ArrayLike, second: npt.ArrayLike, same: npt.ArrayLike) -> FoldReport:
    """Ten consecutive folds of pairs, each tested at thresholds that the other nine choose.

    A pair is accepted where its squared distance is less than the threshold. Of thresholds of one accuracy the smallest
    is taken.

    Args:
        first, second: embeddings [pair, feature], normalised here.
        same: bool [pair], whether both are of one person.

    Raises:
        ValueError: for an embedding without a direction, shapes that differ, and fewer than ten pairs.
    """
    same = np.asarray(same, dtype=bool)
    first, second = normalize_embeddings(first), normalize_embeddings(second)
    if first.shape != second.shape or same.shape != (len(first),):
        raise ValueError(
            f"the sides of the pairs and `same` have shapes {first.shape}, {second.shape} and {same.shape}"
        )
    if len(same) < FOLDS:
        raise ValueError(f"{len(same)} pairs make no {FOLDS} folds")
    distances = np.sum(np.square(first - second), axis=1)
    hits = np.zeros(len(same), bool)
    rows = []
    for test in np.array_split(np.arange(len(same)), FOLDS):
        train = np.setdiff1d(np.arange(len(same)), test)
        threshold = _choose_threshold(distances[train], same[train])
        hits[test] = (distances[test] < threshold) == same[test]
        accepted = distances[test] < _find_threshold(distances[train][~same[train]])
        rows.append((hits[test].mean(), threshold, _rate(accepted[same[test]]), _rate(accepted[~same[test]])))
    return FoldReport(hits, *(np.asarray(column) for column in zip(*rows, strict=True)))


def _choose_threshold(distances: np.ndarray, same: np.ndarray) -> float:
    """The threshold of the highest accuracy; of equals the smallest."""
    correct = [np.count_nonzero((distances < threshold) == same) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(correct))])


def _find_threshold(distances: np.ndarray) -> float:
    """The threshold at which FAR_TARGET of pairs of two people are accepted, on a line between two of the grid.

    Where FAR rises over the target from one threshold to the next, these are the two. 0 where it never gets there; NaN
    without such a pair.
    """
    if not distances.size:
        return float("nan")
    # How many are less than each threshold.
    far = np.searchsorted(np.sort(distances), FINE_THRESHOLDS, side="left") / distances.size
    if far[-1] < FAR_TARGET:
        return 0.0
    above = min(int(np.searchsorted(far, FAR_TARGET, side="right")), len(far) - 1)
    below = above - 1
    if far[above] == far[below]:  # at the target all the way to the last threshold
        return float(FINE_THRESHOLDS[above])
    rise = (FINE_THRESHOLDS[above] - FINE_THRESHOLDS[below]) / (far[above] - far[below])
    return float(FINE_THRESHOLDS[below] + (FAR_TARGET - far[below]) * rise)


def _rate(accepted: np.ndarray) -> float:
    return float(accepted.mean()) if accepted.size else float("nan")
