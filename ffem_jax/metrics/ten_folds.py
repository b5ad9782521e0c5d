"""Verification as insightface measures it: thresholds on a grid, chosen on nine folds of pairs, tested on the tenth.

Its numbers are comparable with published ones; `verification` uses the distances of the pairs as thresholds and does
not interpolate. insightface interpolates the threshold of a FAR with SciPy, whose current versions (1.17) reject the
repeated FARs of such a grid. Here the line runs between the two thresholds at which the FAR passes the target.

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
# Thresholds on the squared distance of unit vectors, which is 0 to 4: for the accuracy, and for the TAR at a FAR.
THRESHOLDS = np.arange(0, 4, 0.01)
FINE_THRESHOLDS = np.arange(0, 4, 0.001)


@dataclass(frozen=True)
class FoldReport:
    """The metrics of ten folds of pairs. Rates are in 0 to 1, arrays are [fold] unless noted otherwise.

    Args:
        hits: bool [pair], whether each pair was decided correctly when its fold was tested.
        accuracy: the share of hits.
        threshold: the threshold chosen on the other folds, a squared distance.
        tar: the share of same-person pairs accepted at the threshold at which the other folds have a FAR of 1e-3.
        far: the share of different-person pairs accepted there. Both are NaN for a fold without such pairs, or if the
            other folds have no different-person pairs.
    """

    hits: np.ndarray
    accuracy: np.ndarray
    threshold: np.ndarray
    tar: np.ndarray
    far: np.ndarray


def measure_folds(first: npt.ArrayLike, second: npt.ArrayLike, same: npt.ArrayLike) -> FoldReport:
    """Test ten consecutive folds of pairs, each at thresholds chosen on the other nine.

    A pair is accepted if its squared distance is less than the threshold. Among thresholds of equal accuracy the
    smallest is chosen.

    Args:
        first, second: embeddings [pair, feature], normalised here.
        same: bool [pair], whether both show one person.

    Raises:
        ValueError: an embedding has no direction, the shapes differ, or there are fewer than ten pairs.
    """
    same = np.asarray(same, dtype=bool)
    first, second = normalize_embeddings(first), normalize_embeddings(second)
    if first.shape != second.shape or same.shape != (len(first),):
        raise ValueError(
            f"the sides of the pairs and `same` have shapes {first.shape}, {second.shape} and {same.shape}"
        )
    if len(same) < FOLDS:
        raise ValueError(f"{len(same)} pairs are too few for {FOLDS} folds")
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
    """Return the threshold with the highest accuracy; the smallest of equals."""
    correct = [np.count_nonzero((distances < threshold) == same) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(correct))])


def _find_threshold(distances: np.ndarray) -> float:
    """Return the threshold at which the FAR of these pairs of two people is FAR_TARGET, interpolated on the grid.

    The line runs between the two neighbouring thresholds where the FAR passes the target. 0 if it never reaches the
    target; NaN without pairs.
    """
    if not distances.size:
        return float("nan")
    # The share of distances below each threshold.
    far = np.searchsorted(np.sort(distances), FINE_THRESHOLDS, side="left") / distances.size
    if far[-1] < FAR_TARGET:
        return 0.0
    above = min(int(np.searchsorted(far, FAR_TARGET, side="right")), len(far) - 1)
    below = above - 1
    if far[above] == far[below]:  # the FAR stays at the target up to the last threshold
        return float(FINE_THRESHOLDS[above])
    rise = (FINE_THRESHOLDS[above] - FINE_THRESHOLDS[below]) / (far[above] - far[below])
    return float(FINE_THRESHOLDS[below] + (FAR_TARGET - far[below]) * rise)


def _rate(accepted: np.ndarray) -> float:
    return float(accepted.mean()) if accepted.size else float("nan")
