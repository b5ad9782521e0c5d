"""Which points no other point beats: lower cost, higher value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def find_pareto(costs: npt.ArrayLike, values: npt.ArrayLike) -> np.ndarray:
    """Mark the points that no other dominates: bool [point].

    A point dominates another if it costs no more and is worth no less, and is better in one of the two; so
    equal points stand or fall together. A point with a NaN neither stands nor dominates. O(n log n).

    Raises ValueError unless both are vectors of one length.
    """
    costs, values = as_points(costs, values)
    mask = np.zeros(costs.shape, dtype=bool)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(values)))
    # By cost, the most valuable first: a point stands if it beats all before it, or equals the last that did.
    standing: tuple[float, float] | None = None
    for point in known[np.lexsort((-values[known], costs[known]))]:
        if standing is None or values[point] > standing[1] or (costs[point], values[point]) == standing:
            standing = (costs[point], values[point])
            mask[point] = True
    return mask


def as_points(costs: npt.ArrayLike, values: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [point]; ValueError unless they are vectors of one length."""
    costs, values = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if costs.ndim != 1 or costs.shape != values.shape:
        raise ValueError(f"costs {costs.shape} and values {values.shape} must be vectors of one length")
    return costs, values
