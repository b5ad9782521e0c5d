"""How far a rate measured on a few images can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist


def compute_wilson_interval(correct: float, tested: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a rate, `correct` out of `tested`, as (low, high) in 0 to 1.

    `correct` need not be whole: a mean over seeds times the images tested is welcome. Nothing tested says
    nothing: (0, 1). Unlike the interval of the normal approximation it stays inside 0 to 1 and has a width at
    0 and at `tested` correct, where small test sets often are.

    Raises ValueError unless 0 <= correct <= tested and 0 < confidence < 1.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927); Brown, Cai and DasGupta, Statistical Science 16 (2001).
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
    reach = z * math.sqrt(rate * (1 - rate) / tested + (z / (2 * tested)) ** 2) / shrink
    # The two ends are exact in theory; in floating point they miss 0 and 1 by a rounding.
    low = 0.0 if correct == 0 else centre - reach
    high = 1.0 if correct == tested else centre + reach
    return low, high


def compute_unpaired_interval(
    first: tuple[float, int], second: tuple[float, int], confidence: float = 0.95
) -> tuple[float, float]:
    """An interval (low, high), in -1 to 1, of rate `second` less rate `first`, each as (correct, tested).

    For images of which it is not known who was right about which: they are treated as different ones.
    Raises ValueError as `compute_wilson_interval` does.
    Source: Newcombe, Statistics in Medicine 17 (1998) 873, method 10: the two Wilson intervals, squared and added.
    """
    low_a, high_a = compute_wilson_interval(*first, confidence)
    low_b, high_b = compute_wilson_interval(*second, confidence)
    a, b = (correct / tested if tested else 0.5 for correct, tested in (first, second))
    return b - a - math.hypot(b - low_b, high_a - a), b - a + math.hypot(high_b - b, a - low_a)
