"""The hypervolume that networks dominate in accuracy and one or more costs, and its expected gains.

Costs are minimised and end at `caps`; accuracy is maximised and starts at a floor. The costs of known networks divide
the box into a grid of cells. Each cell holds one number: the best accuracy available at no more than its costs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ffem_jax.analysis.pareto import find_dominated


class Grid(NamedTuple):
    """Cells between costs.

    Args:
        edges: for each cost, ascending, from 0 to its cap.
        heights: [cell of the first cost, of the second, ...], the highest level of a point whose costs are at most the
            cell's lower edges, or the floor.
    """

    edges: list[np.ndarray]
    heights: np.ndarray


def find_front(costs: npt.ArrayLike, values: npt.ArrayLike) -> np.ndarray:
    """Return the points that no other dominates: bool [point].

    A point with a NaN is not on the front and dominates none.

    Args:
        costs: [point, cost], lower is better.
        values: [point], higher is better.
    """
    losses = np.column_stack([np.asarray(costs, dtype=np.float64), -np.asarray(values, dtype=np.float64)])
    known = np.flatnonzero(~np.isnan(losses).any(axis=1))
    front = np.zeros(len(losses), dtype=bool)
    front[known] = ~find_dominated(losses[known]).any(axis=0)
    return front


def lay_grid(costs: np.ndarray, levels: np.ndarray, caps: np.ndarray, floor: float) -> Grid:
    """Return the grid for points with `costs` [point, cost] and `levels` [point]."""
    inside = find_front(costs, levels) & (costs < caps).all(axis=1) & (levels > floor)
    costs, levels = costs[inside], levels[inside]
    edges = [np.unique([0.0, *column, cap]) for column, cap in zip(costs.T, caps, strict=True)]
    heights = np.full([len(each) - 1 for each in edges], floor)
    places = tuple(np.searchsorted(each, column) for each, column in zip(edges, costs.T, strict=True))
    np.maximum.at(heights, places, levels)
    for axis in range(heights.ndim):
        heights = np.maximum.accumulate(heights, axis=axis)
    return Grid(edges, heights)


def compute_volume(costs: npt.ArrayLike, levels: npt.ArrayLike, caps: npt.ArrayLike) -> float:
    """Return the share of the box from costs 0 to `caps` and from level 0 to 1 that points dominate, in 0 to 1.

    Args:
        costs: [point, cost].
        levels: [point], in 0 to 1.
        caps: [cost], in the costs' units.

    References:
        Zitzler and Thiele, IEEE Trans. Evol. Comput. 3 (1999) 257. With one cost it is
        `analysis.hypervolume.compute_hypervolume` divided by the cap.
    """
    costs, levels, caps = (np.asarray(values, dtype=np.float64) for values in (costs, levels, caps))
    if not len(levels) or (caps <= 0).any():
        return 0.0
    edges, heights = lay_grid(costs, levels, caps, 0.0)
    for axis, each in reversed(list(enumerate(edges))):
        heights = heights @ np.diff(each) / caps[axis]
    return float(heights)


def compute_expected_gains(
    costs: np.ndarray,
    levels: np.ndarray,
    new_costs: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    caps: np.ndarray,
) -> np.ndarray:
    """Return the expected gain of hypervolume by each new point, [new]; its level is normal, its costs are known.

    Args:
        costs: [point, cost], of the known points.
        levels: [point], of the known points.
        new_costs: [new, cost].
        means, deviations: [new], of the new points' levels.
        caps: [cost], where the hypervolume ends; it starts at the lowest known level.

    References:
        Emmerich, Giannakoglou and Naujoks, IEEE Trans. Evol. Comput. 10 (2006) 421.
    """
    from scipy.special import ndtr

    edges, heights = lay_grid(costs, levels, caps, float(levels.min()))
    *outer, inner = [
        np.clip(each[1:, None] - np.maximum(each[:-1, None], column), 0.0, None)
        for each, column in zip(edges, new_costs.T, strict=True)
    ]
    found, places = np.unique(heights, return_inverse=True)
    apart = (means - found[:, None]) / deviations
    density = np.exp(-0.5 * apart**2) / math.sqrt(2 * math.pi)
    above = deviations * (apart * ndtr(apart) + density)  # a level's expected excess over each height
    gains = np.zeros(len(new_costs))
    places = places.reshape(heights.shape)
    for row in np.ndindex(heights.shape[:-1]):
        width = np.prod([widths[place] for widths, place in zip(outer, row, strict=True)], axis=0)
        gains += width * (inner * above[places[row]]).sum(axis=0)
    return gains
