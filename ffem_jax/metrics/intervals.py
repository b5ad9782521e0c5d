"""Confidence intervals of rates that are measured on few images."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


def compute_wilson_interval(correct: float, tested: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate, `correct` out of `tested`, as (low, high) in 0 to 1.

    Unlike the normal approximation, it stays within 0 to 1 and has a positive width if none or all are correct, which
    is common with small test sets. With nothing tested it is (0, 1).

    Args:
        correct, tested: counts of images. They may be fractional, such as a mean over seeds times the images tested.

    Raises:
        ValueError: unless 0 <= correct <= tested and 0 < confidence < 1.

    References:
        Wilson, J. Am. Stat. Assoc. 22 (1927) 209; Brown, Cai and DasGupta, Statistical Science 16 (2001) 101.
    """
    if not 0 <= correct <= tested:
        raise ValueError(f"correct={correct} must be between 0 and tested={tested}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must be between 0 and 1, both excluded")
    if tested == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = correct / tested
    shrink = 1 + z * z / tested
    centre = (rate + z * z / (2 * tested)) / shrink
    half_width = z * math.sqrt(rate * (1 - rate) / tested + (z / (2 * tested)) ** 2) / shrink
    # At the extremes the exact ends are 0 and 1; floating point misses them by a rounding error.
    low = 0.0 if correct == 0 else centre - half_width
    high = 1.0 if correct == tested else centre + half_width
    return low, high


def compute_clustered_interval(
    rates: npt.ArrayLike, clusters: npt.ArrayLike, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval (low, high), in 0 to 1, of a mean of rates that come in clusters, such as people.

    The images of one person tend to be classified correctly or incorrectly together, so they carry less information
    than images of different people. This is Wilson's interval with the number of images divided by the design effect:
    the variance of the mean when people are drawn with all their images, over its variance when images are drawn
    individually; at least 1. With fewer than two clusters, or if all rates are 0 or all are 1, the effect cannot be
    estimated, and images count individually.

    Args:
        rates: [image], in 0 to 1.
        clusters: [image], the cluster (person) of each image.

    Raises:
        ValueError: the shapes disagree, there is no image, or confidence is not between 0 and 1.

    References:
        Korn and Graubard, Survey Methodology 24 (1998) 193; Kish, Survey Sampling (1965).
    """
    rates, clusters = np.asarray(rates, dtype=np.float64), np.asarray(clusters)
    if rates.ndim != 1 or rates.shape != clusters.shape or not rates.size:
        raise ValueError(
            f"rates {rates.shape} and clusters {clusters.shape} must both be [image], with at least one image"
        )
    _, member = np.unique(clusters, return_inverse=True)
    excess = np.bincount(member, rates - rates.mean())
    images, people = rates.size, excess.size
    rate = float(rates.mean().clip(0.0, 1.0))
    by_image = rate * (1 - rate) / images
    by_person = people / (people - 1) * float((excess**2).sum()) / images**2 if people > 1 else 0.0
    effective = images / max(1.0, by_person / by_image) if by_image > 0 else float(images)
    return compute_wilson_interval(rate * effective, effective, confidence)


def compute_difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the interval of `second` minus `first`, each (rate, low, high), assumed independent.

    References:
        Newcombe, Statistics in Medicine 17 (1998) 873, method 10.
    """
    (a, low_a, high_a), (b, low_b, high_b) = first, second
    return b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)


def compute_unpaired_interval(
    first: tuple[float, int], second: tuple[float, int], confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval (low, high), in -1 to 1, of rate `second` minus rate `first` on independent images.

    Use it if the results per image are unknown.

    Args:
        first, second: (correct, tested), counts of images.

    Raises:
        ValueError: as in `compute_wilson_interval`.

    References:
        Newcombe, Statistics in Medicine 17 (1998) 873, method 10: the two Wilson intervals, squared and added.
    """
    ends = [
        (correct / tested if tested else 0.5, *compute_wilson_interval(correct, tested, confidence))
        for correct, tested in (first, second)
    ]
    return compute_difference_interval(ends[0], ends[1])
