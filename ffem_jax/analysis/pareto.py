"""Pareto-optimal points (low cost, high value), and the ranking of all other points.

Source of rank and crowding: Deb et al., IEEE Transactions on Evolutionary Computation 6 (2002).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def find_pareto(costs: npt.ArrayLike, values: npt.ArrayLike) -> np.ndarray:
    """Mark the points that no other point dominates: bool [point].

    A point dominates another if it costs no more, is worth no less and is strictly better in one of the two. Equal
    points are therefore marked together. A point with a NaN is never marked and dominates nothing. O(n log n).

    Raises:
        ValueError: costs and values are not vectors of one length.
    """
    costs, values = as_points(costs, values)
    mask = np.zeros(costs.shape, dtype=bool)
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(values)))
    # By cost, the highest value first: a point is marked if it beats all before it or equals the last marked one.
    standing: tuple[float, float] | None = None
    for point in known[np.lexsort((-values[known], costs[known]))]:
        if standing is None or values[point] > standing[1] or (costs[point], values[point]) == standing:
            standing = (costs[point], values[point])
            mask[point] = True
    return mask


def as_points(costs: npt.ArrayLike, values: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 [point]; ValueError unless they are vectors of one length."""
    costs, values = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if costs.ndim != 1 or costs.shape != values.shape:
        raise ValueError(f"costs {costs.shape} and values {values.shape} must be vectors of one length")
    return costs, values


def rank_points(losses: npt.ArrayLike) -> np.ndarray:
    """Return the non-dominated rank of each point, int [point].

    No point dominates rank 0, only points of rank 0 dominate rank 1, and so on. Equal points share a rank.

    Args:
        losses: [point, objective], lower is better.
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
    """Return the crowding distance of each point on one front, float64 [point]; infinite at the ends.

    Each objective is scaled by its range on the front. Of equal points, the first gets the distance and the others -1,
    because a copy adds nothing.

    Args:
        losses: [point, objective], lower is better.
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
    # A single distinct point has no neighbours.
    crowding[distinct] = distances if len(points) > 1 else math.inf
    return crowding


def sort_points(losses: npt.ArrayLike) -> np.ndarray:
    """Return the indices of the points, best first, int [point]: by rank, then crowding, then the first loss."""
    losses = np.asarray(losses, dtype=np.float64)
    ranks, crowding = rank_points(losses), np.empty(len(losses))
    for rank in np.unique(ranks):
        crowding[ranks == rank] = compute_crowding(losses[ranks == rank])
    return np.lexsort((np.arange(len(losses)), losses[:, 0], -crowding, ranks))


def find_dominated(losses: npt.ArrayLike) -> np.ndarray:
    """Return whether the first point dominates the second, bool [first, second].

    A point dominates if it is no worse in any objective and better in at least one.

    Args:
        losses: [point, objective], lower is better.
    """
    losses = np.asarray(losses, dtype=np.float64)
    first, second = losses[:, None], losses[None]
    return np.logical_and((first <= second).all(axis=-1), (first < second).any(axis=-1))
