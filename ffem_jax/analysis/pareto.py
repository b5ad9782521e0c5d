"""Which points no other point beats: lower cost, higher value; and who comes after them.

Source of rank and crowding: Deb et al., IEEE Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

import math

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


def rank_points(losses: npt.ArrayLike) -> np.ndarray:
    """Non-dominated rank of each point, int [point], of losses [point, objective], each the better the lower.

    Rank 0 is dominated by none, rank 1 by points of rank 0 alone, and so on; equal points share a rank.
    """
    dominates = find_dominated(losses)
    dominators = dominates.sum(axis=0)
    ranks, rank = np.full(len(dominators), -1), 0
    while (front := (dominators == 0) & (ranks < 0)).any():
        ranks[front] = rank
        dominators -= dominates[front].sum(axis=0)
        rank += 1
    return ranks


def compute_crowding(losses: npt.ArrayLike) -> np.ndarray:
    """How far each point of one front stands from its neighbours, float64 [point]; the ends are at infinity.

    losses [point, objective]. An objective counts as a fraction of its range on the front. Of equal points the first
    has the distance and the others -1: a copy adds nothing.
    """
    losses = np.asarray(losses, dtype=np.float64)
    crowding = np.full(len(losses), -1.0)
    distinct = np.sort(np.unique(losses, axis=0, return_index=True)[1])
    points = losses[distinct]
    distances = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        width = values[order[-1]] - values[order[0]]
        if width > 0:
            distances[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / width
            distances[order[[0, -1]]] = math.inf
    # With no width in any objective there is one point.
    crowding[distinct] = distances if len(points) > 1 else math.inf
    return crowding


def sort_points(losses: npt.ArrayLike) -> np.ndarray:
    """The points best first, int [point] of their indices: by rank, within one by crowding, then by the first loss."""
    losses = np.asarray(losses, dtype=np.float64)
    ranks, crowding = rank_points(losses), np.empty(len(losses))
    for rank in np.unique(ranks):
        crowding[ranks == rank] = compute_crowding(losses[ranks == rank])
    return np.lexsort((np.arange(len(losses)), losses[:, 0], -crowding, ranks))


def find_dominated(losses: npt.ArrayLike) -> np.ndarray:
    """Whether the first point dominates the second, bool [first, second]: no worse in anything, better in something.

    losses [point, objective], each the better the lower.
    """
    losses = np.asarray(losses, dtype=np.float64)
    first, second = losses[:, None], losses[None]
    return np.logical_and((first <= second).all(axis=-1), (first < second).any(axis=-1))
