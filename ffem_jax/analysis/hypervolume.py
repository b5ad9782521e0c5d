"""The hypervolume of a frontier: one number for a set of points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ffem_jax.analysis.pareto import as_points, find_pareto


def compute_hypervolume(
    costs: npt.ArrayLike, values: npt.ArrayLike, reference_cost: float, reference_value: float
) -> float:
    """Compute the area that the points dominate within the corner (reference_cost, reference_value).

    Cost is minimised, value maximised; the unit is cost times value. Points that are no better than the
    reference in both, and points with a NaN, contribute nothing; without points the area is 0.

    Raises ValueError unless costs and values are vectors of one length and the reference is finite.
    Source: Zitzler and Thiele, Parallel Problem Solving from Nature V (1998).
    """
    if not (np.isfinite(reference_cost) and np.isfinite(reference_value)):
        raise ValueError(f"the reference ({reference_cost}, {reference_value}) must be finite")
    costs, values = as_points(costs, values)
    inside = (costs < reference_cost) & (values > reference_value)  # False for NaN
    costs, values = costs[inside], values[inside]
    mask = find_pareto(costs, values)
    # Left to right along the staircase: the width of a step is the distance to the next, the height its value. Equal
    # points give steps of zero width.
    costs, values = np.sort(costs[mask]), np.sort(values[mask])
    widths = np.diff(costs, append=reference_cost)
    return float(np.sum(widths * (values - reference_value)))
