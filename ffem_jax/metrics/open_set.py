"""Open-set metrics for people who were not in training: identification and verification within a test fold.

Identification tests for each image whether its nearest neighbour among all others shows the same person: one hit or
miss per image, so everything that counts hits (paired comparisons, groups, intervals) works as for a classifier.

Verification compares every pair. A person with 530 images has more pairs than a thousand others combined, so pairs are
weighted: the genuine pairs of each person have total weight 1, and so do the impostor pairs of each two people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffem_jax.metrics.identification import as_labels, normalize_embeddings

FALSE_ACCEPT_RATES = (1e-2, 1e-3, 1e-4)
REPLICATES = 200
# A replicate's ROC is evaluated at the thresholds of these false accept rates; the measures themselves use every pair.
GRID = np.concatenate([np.geomspace(1e-5, 0.03, 18), np.linspace(0.05, 1, 16)])
_BLOCK = 512
# The number of pairs is quadratic in the images: with more images than this, only a sample of people is compared.
MOST_IMAGES = 6_000


@dataclass(frozen=True)
class Estimate:
    """A measure, in 0 to 1, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OpenSetReport:
    """The open-set metrics of a fold's embeddings. All intervals resample people, not images.

    probes: int [probe], the rows of the images whose person has at least two.
    hits: bool [probe], whether the nearest other image shows the same person.
    rank1: the share of hits.
    tar: per false accept rate, the share of genuine pairs accepted at the lowest similarity threshold at which the
        accepted share of impostor pairs is at most that rate.
    eer: the rate at which both kinds of errors are equally frequent.
    auc: the probability that a genuine pair is more similar than an impostor pair; a tie counts half.
    compared: the number of images in these pairs: all, or in a large fold those of a sample of people.
    """

    probes: np.ndarray
    hits: np.ndarray
    rank1: Estimate
    tar: dict[float, Estimate]
    eer: Estimate
    auc: Estimate
    compared: int


def find_rank1_hits(embeddings: npt.ArrayLike, people: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out identification among all images.

    Args:
        embeddings: [image, feature]; normalised here.
        people: [image], the person on each image.

    Returns:
        (probes, hits): int [probe], the images whose person has another image; bool [probe], whether the most similar
        other image shows the same person. The other images include those of people with a single image. Among equally
        similar images the first counts.

    Raises:
        ValueError: the shapes disagree, or an embedding has no direction.
    """
    vectors = normalize_embeddings(embeddings).astype(np.float32)
    _, person = np.unique(as_labels(people, len(vectors), "test"), return_inverse=True)
    probes = np.flatnonzero(np.bincount(person)[person] > 1)
    hits = np.zeros(len(probes), bool)
    for start in range(0, len(probes), _BLOCK):
        rows = probes[start : start + _BLOCK]
        similarity = vectors[rows] @ vectors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        hits[start : start + len(rows)] = person[similarity.argmax(axis=1)] == person[rows]
    return probes, hits


def measure_open_set(
    embeddings: npt.ArrayLike,
    people: npt.ArrayLike,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    most_images: int = MOST_IMAGES,
) -> OpenSetReport:
    """Compute all measures of a fold, each with its interval.

    Args:
        embeddings: [image, feature]; normalised here.
        people: [image], the person on each image; none of them was in training.
        replicates: the number of resamples of people, with replacement, for each interval.
        seed: the seed of these resamples.
        most_images: verification compares at most this many images, namely all images of a sample of people;
            identification always uses all images.

    Raises:
        ValueError: there are fewer than two people, no person has two images, shapes disagree, or an embedding has no
            direction.

    References:
        Field and Welsh, J. R. Stat. Soc. B 69 (2007) 369: the bootstrap over clusters.
    """
    probes, hits = find_rank1_hits(embeddings, people)
    vectors = normalize_embeddings(embeddings).astype(np.float32)
    _, person = np.unique(as_labels(people, len(vectors), "test"), return_inverse=True)
    counts = np.bincount(person)
    if len(counts) < 2 or not len(probes):
        raise ValueError(
            f"{len(counts)} people, {len(probes)} images of people with two or more: both must be at least 2"
        )
    chosen = _choose_people(counts, most_images, seed)
    order = np.argsort(person, kind="stable")
    order = order[np.isin(person[order], chosen)]
    similarity = vectors[order] @ vectors[order].T
    thresholds, *sums = _sum_by_threshold(similarity, np.searchsorted(chosen, person[order]), counts[chosen])
    exact = _measure(*sums)
    random = np.random.default_rng(seed)
    times = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), replicates).astype(np.float64)
    right = np.bincount(person[probes], hits, len(counts))
    asked = np.bincount(person[probes], minlength=len(counts))
    # Drop replicates in which no person has two images or all images show one person.
    own = times[:, chosen]
    times = times[(own @ (counts[chosen] > 1) > 0) & (np.count_nonzero(own, axis=1) > 1)]
    grid = thresholds[np.searchsorted(sums[1] / sums[1][-1], GRID).clip(max=len(thresholds) - 1)]
    drawn = exact + _draw_changes(similarity, counts[chosen], grid, times[:, chosen])
    rank1 = (times @ right) / (times @ asked)
    return OpenSetReport(
        probes=probes,
        hits=hits,
        rank1=_estimate(float(hits.mean()), rank1),
        tar={rate: _estimate(exact[2 + i], drawn[:, 2 + i]) for i, rate in enumerate(FALSE_ACCEPT_RATES)},
        eer=_estimate(exact[0], drawn[:, 0]),
        auc=_estimate(exact[1], drawn[:, 1]),
        compared=len(order),
    )


def _choose_people(counts: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Return the people to compare, sorted: all, or a random sample with at most `most` images in total.

    The sample has at least two people, one of them with two images, even if that exceeds `most`.
    """
    if counts.sum() <= most:
        return np.arange(len(counts))
    shuffled = np.random.default_rng([seed, 1]).permutation(len(counts))
    kept = max(int(np.searchsorted(np.cumsum(counts[shuffled]), most, side="right")), 2)
    if not (counts[shuffled[:kept]] > 1).any():  # otherwise there would be no genuine pair
        kept = int(np.argmax(counts[shuffled] > 1)) + 1
    return np.sort(shuffled[:kept])


def _sum_by_threshold(
    similarity: np.ndarray, person: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each distinct similarity, descending, and the weights of the genuine and impostor pairs accepted at it.

    similarity: [image, image], of images sorted by person; counts: [person], images per person.
    """
    i, j = np.triu_indices(len(person), 1)
    values, first, second = similarity[i, j], person[i], person[j]
    genuine, size = first == second, counts.astype(np.float64)
    weight = np.where(genuine, 2 / np.maximum(size * (size - 1), 1)[first], 1 / (size[first] * size[second]))
    order = np.argsort(-values, kind="stable")
    ranked, genuine, weight = values[order], genuine[order], weight[order]
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # the end of each run of equal similarities
    return ranked[last], np.cumsum(weight * genuine)[last], np.cumsum(weight * ~genuine)[last]


def _draw_changes(similarity: np.ndarray, counts: np.ndarray, thresholds: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the changes of the measures [replicate, measure] if person p is drawn times[replicate, p] times.

    A person drawn twice counts as two people who look the same and are not paired with each other. Evaluated only at
    `thresholds`, the measures are slightly too low, also with each person drawn once. Changes cancel this bias.
    """
    times = np.vstack([np.ones(len(counts)), times])
    starts, size = np.append(0, np.cumsum(counts)[:-1]), counts.astype(np.float64)
    accepted, falsely = (np.empty((len(times), len(thresholds))) for _ in range(2))
    for column, threshold in enumerate(thresholds):
        above = (similarity >= threshold).view(np.uint8)
        np.fill_diagonal(above, 0)
        pairs = np.add.reduceat(above, starts, axis=0, dtype=np.uint16)
        share = np.add.reduceat(pairs.T.copy(), starts, axis=0, dtype=np.float64) / np.outer(size, size)
        accepted[:, column] = times @ (np.diagonal(share) * size / np.maximum(size - 1, 1))
        np.fill_diagonal(share, 0)
        falsely[:, column] = np.einsum("rp,rp->r", times @ share, times)
    measures = np.array([_interpolate(a, f) for a, f in zip(accepted, falsely, strict=True)])
    return measures[1:] - measures[0]


def _interpolate(accepted: np.ndarray, falsely: np.ndarray) -> list[float]:
    """Like `_measure`, from few thresholds: linear between them, for TAR in the logarithm of the false accept rate."""
    tar, far = accepted / accepted[-1], falsely / falsely[-1]
    seen = far > 0
    at = np.interp(np.log(FALSE_ACCEPT_RATES), np.log(far[seen]), tar[seen])
    eer = np.interp(0, far - (1 - tar), far)
    return [float(eer), float(np.trapezoid(np.append(0, tar), np.append(0, far))), *at.tolist()]


def _measure(accepted: np.ndarray, falsely: np.ndarray) -> np.ndarray:
    """Return EER, AUC and TAR at each of FALSE_ACCEPT_RATES, from accepted weights [threshold] by falling threshold."""
    tar, far = np.append(0, accepted) / accepted[-1], np.append(0, falsely) / falsely[-1]
    # The tolerance keeps the last pair of a rate in spite of rounding in the sum of weights.
    at = [float(tar[far <= rate + 1e-12].max()) for rate in FALSE_ACCEPT_RATES]
    area = float(np.sum(np.diff(far) * (tar[1:] + tar[:-1]) / 2))
    return np.array([np.maximum(far, 1 - tar).min(), area, *at])


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975]).clip(0, 1) if len(drawn) else (0.0, 1.0)
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))
