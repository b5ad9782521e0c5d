"""insightface's ten folds, held against loops over its thresholds written from its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.preprocessing import normalize

from ffem_jax.metrics.ten_folds import measure_folds

Rates = list[float]


def measure_by_loops(first: np.ndarray, second: np.ndarray, same: np.ndarray) -> tuple[Rates, Rates, Rates]:
    """Accuracy, TAR and FAR of each fold: nothing shared with the package but the definition."""
    distances = [float(np.sum((a - b) ** 2)) for a, b in zip(normalize(first), normalize(second), strict=True)]
    accuracies, tars, fars = [], [], []
    for train, test in KFold(10, shuffle=False).split(distances):
        best, chosen = -1.0, 0.0
        for threshold in np.arange(0, 4, 0.01):
            accuracy = sum((distances[i] < threshold) == same[i] for i in train) / len(train)
            if accuracy > best:
                best, chosen = accuracy, threshold
        accuracies.append(sum((distances[i] < chosen) == same[i] for i in test) / len(test))
        different = [distances[i] for i in train if not same[i]]
        points = [(sum(d < t for d in different) / len(different), t) for t in np.arange(0, 4, 0.001)]
        cut = 0.0
        if max(far for far, _ in points) >= 1e-3:
            for (low, left), (high, right) in itertools.pairwise(points):
                if low <= 1e-3 < high:
                    cut = left + (1e-3 - low) / (high - low) * (right - left)
        accepted = [distances[i] < cut for i in test]
        own = [a for a, i in zip(accepted, test, strict=True) if same[i]]
        other = [a for a, i in zip(accepted, test, strict=True) if not same[i]]
        tars.append(sum(own) / len(own))
        fars.append(sum(other) / len(other))
    return accuracies, tars, fars


def make_pairs(pairs: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    same = np.arange(pairs) % 6 < 3
    first = random.normal(size=(pairs, 8))
    second = np.where(same[:, None], first, random.normal(size=(pairs, 8))) + noise * random.normal(size=(pairs, 8))
    return first, second, same


@pytest.mark.parametrize(("pairs", "noise"), [(60, 0.7), (203, 0.3), (240, 1.2), (120, 0.0)])
def test_every_fold_agrees_with_loops_to_the_last_digit(pairs: int, noise: float) -> None:
    first, second, same = make_pairs(pairs, noise, seed=pairs)
    report = measure_folds(first, second, same)
    accuracies, tars, fars = measure_by_loops(first, second, same)
    assert report.accuracy.tolist() == accuracies
    assert report.tar.tolist() == tars
    assert report.far.tolist() == fars
    assert report.hits.mean() == pytest.approx(
        np.average(accuracies, weights=[len(f) for f in np.array_split(same, 10)])
    )


def test_the_interpolated_threshold_decides_between_two_of_the_grid() -> None:
    # 1,800 different pairs train in each fold: FAR 1e-3 lies between the first and the second distance.
    angle = np.concatenate([np.full(1000, 0.05), np.linspace(1.0, 3.0, 2000)])
    same = np.arange(3000) < 1000
    order = np.random.default_rng(0).permutation(3000)
    first = np.tile([1.0, 0.0], (3000, 1))
    second = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    report = measure_folds(first[order], second[order], same[order])
    assert report.accuracy.min() == 1.0
    assert report.tar.min() == 1.0
    assert 0 < report.far.mean() < 3e-3


def test_equal_distances_and_missing_kinds_of_pairs() -> None:
    first = np.tile([1.0, 0.0], (20, 1))
    same = np.arange(20) >= 10
    report = measure_folds(first, first, same)  # all distances are 0 and accepted from the second threshold on
    assert report.threshold.tolist() == [0.01] * 5 + [0.0] * 5
    assert np.isnan(report.tar[:5]).all()
    assert not np.isnan(report.tar[5:]).any()


def test_what_cannot_be_measured_is_refused() -> None:
    good = np.ones((10, 2))
    with pytest.raises(ValueError, match="9 pairs are too few for 10 folds"):
        measure_folds(good[:9], good[:9], np.zeros(9, bool))
    with pytest.raises(ValueError, match="no direction"):
        measure_folds(np.zeros((10, 2)), good, np.zeros(10, bool))
    with pytest.raises(ValueError, match="shapes"):
        measure_folds(good, good, np.zeros(11, bool))
