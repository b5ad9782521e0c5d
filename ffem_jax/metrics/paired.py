"""Compare two classifiers on the same images: an interval of their difference, an exact test, Holm's correction.

Everything works on differences per image and training run: 1 if only the second classifier is correct, -1 if only the
first is, 0 if they agree.

Implemented here because scipy.stats has no bootstrap of runs crossed with images, and its `permutation_test` samples
signs, while the exact test here counts all of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

DRAWS = 10_000


def compute_mean_difference(totals: npt.ArrayLike, counts: npt.ArrayLike) -> float:
    """Return the mean difference over all tests: `totals` / `counts`, both [run, image]. ValueError without a test."""
    totals, counts = _check_tables(totals, counts)
    return float(totals.sum() / counts.sum())


def compute_paired_interval(
    totals: npt.ArrayLike,
    counts: npt.ArrayLike,
    *,
    units: Sequence[Hashable] | None = None,
    starts: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a bootstrap interval (low, high) of the mean difference, in -1 to 1.

    Images and runs (training seeds) are resampled separately, with replacement, and the two changes are added. An image
    is drawn with its tests by all runs: if each run's test counted as its own image, the interval would shrink with
    every seed. Resampling both at once counts the randomness of a single test three times; this counts it up to twice.
    The interval is therefore somewhat wide if runs differ mainly by that randomness, and somewhat narrow for the effect
    of the seed if there are few runs. A single run cannot be resampled: the interval then excludes variance between
    seeds.

    Runs that start from the same weights are not independent: with two or more `starts` these are drawn, each with all
    its runs. A start shifts all its runs and there are few, so the change is drawn from Student's t, whose degrees of
    freedom are one less than the number of starts. With one start the runs are drawn, and the interval excludes
    variance between starts.

    If the two classifiers never differ, the draws have no width. The interval is then the exact one of a rate with no
    observed case, in both directions.

    Args:
        totals: [run, image], sums of differences.
        counts: [run, image], the number of tests; 0 if there was none.
        units: labels [run], equal for runs that are drawn together; None draws each run on its own.
        starts: labels [run] of the weights from which a run starts; None means that all runs start independently.
        draws: the number of resamples.
        seed: the seed of the draws.

    Raises:
        ValueError: the shapes disagree, nothing was tested or confidence is not between 0 and 1.

    References:
        Owen, Annals of Applied Statistics 1 (2007) 386: the pigeonhole bootstrap, which resamples both at once.
        Cameron, Gelbach and Miller, J. Bus. Econ. Stat. 29 (2011) 238: several ways to cluster at once.
    """
    totals, counts = _check_tables(totals, counts)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must be between 0 and 1, both excluded")
    by_run, by_image = counts.any(axis=1), counts.any(axis=0)
    together, begun = (_number(labels, len(counts))[by_run] for labels in (units, starts))
    tested = np.ix_(by_run, by_image)
    totals, counts = totals[tested], counts[tested]
    if not totals.any():
        half_width = 1 - ((1 - confidence) / 2) ** (1 / counts.shape[1])
        return -half_width, half_width
    random = np.random.default_rng(seed)
    changes = _draw_changes(totals, counts, draws, random)
    several = starts is not None and len(np.unique(begun)) > 1
    if several:
        changes = changes + _draw_few(_sum_by(totals, begun), _sum_by(counts, begun), draws, random)
    if len(np.unique(together)) > 1 and not (several and _is_within(together, begun)):
        changes = changes + _draw_changes(_sum_by(totals, together).T, _sum_by(counts, together).T, draws, random)
    low, high = np.quantile(changes, [(1 - confidence) / 2, (1 + confidence) / 2])
    mean = compute_mean_difference(totals, counts)
    return float(max(-1.0, mean + low)), float(min(1.0, mean + high))


def _number(labels: Sequence[Hashable] | None, runs: int) -> np.ndarray:
    """Return labels [run] as numbers in order of first appearance; one number per run without labels."""
    names = list(range(runs)) if labels is None else list(labels)
    if len(names) != runs:
        raise ValueError(f"{len(names)} labels for {runs} runs; there must be one per run")
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([places[name] for name in names])


def _is_within(labels: np.ndarray, others: np.ndarray) -> bool:
    """Whether all runs with the same label also share one of the other labels."""
    return len(np.unique(np.stack([labels, others]), axis=1).T) == len(np.unique(labels))


def _sum_by(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rows of `table` [run, image] summed by label."""
    sums = np.zeros((labels.max() + 1, table.shape[1]))
    np.add.at(sums, labels, table)
    return sums[np.unique(labels)]


def _draw_changes(totals: np.ndarray, counts: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return the change of the mean, [draw], when the columns are resampled."""
    columns = np.vstack([totals.sum(axis=0), counts.sum(axis=0)])
    # Equal columns are interchangeable and few are distinct, so the count of each distinct column is drawn.
    kinds, sizes = np.unique(columns, axis=1, return_counts=True)
    drawn = random.multinomial(sizes.sum(), sizes / sizes.sum(), size=draws) @ kinds.T
    return drawn[:, 0] / drawn[:, 1] - totals.sum() / counts.sum()


def _draw_few(totals: np.ndarray, counts: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return the change of the mean, [draw], when few rows are resampled: their standard error times Student's t."""
    rows, mean = len(totals), totals.sum() / counts.sum()
    beyond = totals.sum(axis=1) - mean * counts.sum(axis=1)
    error = math.sqrt(rows / (rows - 1) * (beyond**2).sum()) / counts.sum()
    return error * random.standard_t(rows - 1, size=draws)


def compute_sign_flip_p_value(totals: npt.ArrayLike) -> float:
    """Return the exact two-sided p-value of the hypothesis that swapping the classifiers changes no distribution.

    Under the hypothesis both signs of each image's total are equally likely. All 2**images sign patterns are counted,
    by their sums. With one test per image this is McNemar's exact test. The sample is the images: the test does not
    generalise to other seeds.

    Args:
        totals: [image], integers: the differences of an image, summed over its tests.

    Raises:
        ValueError: a total is not an integer.

    References:
        Fisher's permutation test on paired differences; McNemar, Psychometrika 12 (1947) 153.
    """
    values = np.asarray(totals, dtype=np.float64)
    if not np.array_equal(values, np.round(values)):
        raise ValueError("totals must be whole numbers: sums of -1, 0 and 1")
    steps = np.abs(values[values != 0]).astype(int)
    largest = int(steps.sum())
    # chance[s] is the probability of the sum s - largest.
    chance = np.zeros(2 * largest + 1)
    chance[largest] = 1.0
    done = 0
    for step in steps:
        done += int(step)
        inner = slice(largest - done, largest + done + 1)
        before = np.pad(chance[inner], step)
        width = 2 * done + 1
        chance[inner] = 0.5 * (before[2 * step :][:width] + before[:width])
    observed = abs(int(values.sum()))
    sums = np.abs(np.arange(-largest, largest + 1))
    return float(min(1.0, chance[sums >= observed].sum()))


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values in the given order, each corrected for testing all of them.

    The smallest is multiplied by their number, the next by one less, and so on; the results keep the order of the
    p-values.

    References:
        Holm, Scand. J. Statist. 6 (1979) 65.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _check_tables(totals: npt.ArrayLike, counts: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    totals, counts = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if totals.ndim != 2 or totals.shape != counts.shape:
        raise ValueError(f"totals {totals.shape} and counts {counts.shape} must both be [run, image]")
    if not counts.sum() > 0:
        raise ValueError("nothing was tested")
    if (np.abs(totals) > counts).any():
        raise ValueError("a total is larger than its count: a difference is -1, 0 or 1")
    return totals, counts
