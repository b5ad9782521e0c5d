"""Proposes the network to train next: the one with the highest expected gain of the frontier, by a surrogate.

The expected gain in hypervolume has a closed form, because the costs are treated as known. The frontier uses the
model's predictions and not the noisy observed accuracies. Fits use one core: beside trainings that use all cores, a
threaded decomposition of a 200 x 200 matrix took half a minute, and on one core 6 ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.errors import FfemError
from ffem_jax.search.model.encoding import change_codes, decode_point, embed_codes, encode_points, sample_codes
from ffem_jax.search.model.surrogate import FEWEST, KERNELS, Kernel, Scale, Surrogate, fit_rates, use_one_core
from ffem_jax.search.model.volume import compute_expected_gains, find_front
from ffem_jax.search.space import Point, SearchSpace

if TYPE_CHECKING:
    from numpy.random import Generator

POOL = 1000  # points drawn for each proposal, and the number of neighbours of the best known ones
MOST_PRICED = 300  # the latest networks from which costs are learnt
# With several costs the hypervolume ends at this multiple of the largest: the worst in one cost may be best in another.
BEYOND = 1.1
TRIES = 20  # pools in which every point is refused, before giving up
# For models of log cost, which have no costs as input.
COST_KERNELS = tuple(kernel for kernel in KERNELS if not kernel.cost)


class ProposalError(FfemError):
    """Raised if no network is left to propose. The message is one line."""


@dataclass(frozen=True)
class Observation:
    """A point that the surrogate learns from.

    Args:
        point: maps each choice to its value.
        accuracy: in 0 to 1; None while it is trained, and if it failed or was refused.
        costs: the objectives to minimise, positive, in the same order for all points; None for an unknown one, and
            empty if none is known.
        tested: test images per training; None takes the median of the others.
        fill: its size as a share of the cap; None if unknown.
        running: it is being trained.
    """

    point: Mapping[str, str]
    accuracy: float | None = None
    costs: tuple[float | None, ...] = ()
    tested: int | None = None
    fill: float | None = None
    running: bool = False


class SurrogateSampler:
    """Proposes points by expected hypervolume improvement: accuracy is maximised, one or more costs are minimised.

    The first `warm_up` points are random. After that the accuracy and the costs of POOL random points, and of up to
    POOL neighbours of the frontier, are predicted. (Costs are learnt too: that is far faster than tracing thousands of
    networks.) The point with the largest expected gain, times its probability to fit the cap, is proposed. Points that
    are being trained count with their predicted accuracy, so that workers spread out.

    Args:
        warm_up: points with an accuracy before the model is used; at least `surrogate.FEWEST`.
        kernels: the candidates for the model of accuracy.

    References:
        Emmerich, Giannakoglou and Naujoks, IEEE Trans. Evol. Comput. 10 (2006) 421, with all objectives but accuracy
        treated as known.
        Ginsbourger, Le Riche and Carraro, Kriging Is Well-Suited to Parallelize Optimization (2010): running points.
    """

    def __init__(self, space: SearchSpace, *, warm_up: int = 16, kernels: tuple[Kernel, ...] = KERNELS) -> None:
        self.space, self.warm_up, self.kernels = space, max(warm_up, FEWEST), kernels

    def propose(
        self, known: Sequence[Observation], rng: Generator, refuse: Callable[[Point], bool] = lambda _: False
    ) -> Point:
        """Return the most promising point that is not refused.

        Args:
            known: all points so far.
            refuse: returns whether a point must not be proposed: it is taken, or over the cap.

        Raises:
            ProposalError: if all points of TRIES pools are refused.
        """
        codes = encode_points(self.space, [seen.point for seen in known])
        for _ in range(TRIES):
            pool = sample_codes(self.space, POOL, rng)
            if self._is_warm(known):
                near = change_codes(self.space, codes[self._find_front(known)], POOL, rng)
                pool = np.vstack([pool, near])
            for index in self.rank(known, pool):
                point = decode_point(self.space, pool[index])
                if not refuse(point):
                    return point
        raise ProposalError("every network drawn is refused: the space is exhausted, or the cap is too low")

    def rank(self, known: Sequence[Observation], pool: np.ndarray) -> np.ndarray:
        """Return the indices of `pool`, codes [point, choice], the most promising first; in the warm-up, in order."""
        if not self._is_warm(known):
            return np.arange(len(pool))
        codes = encode_points(self.space, [seen.point for seen in known])
        with use_one_core():
            return np.argsort(-self._compute_gains(known, codes, pool), kind="stable")

    def _is_warm(self, known: Sequence[Observation]) -> bool:
        return sum(map(_is_done, known)) >= self.warm_up

    def _find_front(self, known: Sequence[Observation]) -> np.ndarray:
        values = np.array([one.accuracy if _is_done(one) else math.nan for one in known], dtype=np.float64)
        return find_front(_list_costs(known), values)

    def _compute_gains(self, known: Sequence[Observation], codes: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """Return each pool point's expected gain of hypervolume, times its probability to fit the cap: [point]."""
        done = np.array([_is_done(seen) for seen in known])
        features, candidates = embed_codes(self.space, codes), embed_codes(self.space, pool)
        costs = _list_costs(known)
        new_costs = np.empty((len(candidates), costs.shape[1]))
        for place, column in enumerate(costs.T):
            priced, unpriced = np.flatnonzero(~np.isnan(column))[-MOST_PRICED:], np.isnan(column)
            by_cost = Surrogate(features[priced], np.log(column[priced]), kernels=COST_KERNELS)
            new_costs[:, place] = np.exp(by_cost.predict_means(candidates))
            if unpriced.any():
                column[unpriced] = np.exp(by_cost.predict_means(features[unpriced]))

        seen = [one for one in known if _is_done(one)]
        model, scale = self._fit_accuracy(seen, features[done], costs[done])
        means, deviations = model.predict(candidates, new_costs)
        rates = scale.to_rates(means)

        # The frontier of predicted, not observed accuracies: the highest observations are partly luck.
        standing = done | np.array([one.running for one in known])
        levels = scale.to_rates(model.predict_means(features[standing], costs[standing]))
        gains = compute_expected_gains(
            costs[standing],
            levels,
            new_costs,
            rates,
            deviations / scale.compute_slopes(rates),
            costs[done].max(axis=0) * (BEYOND if costs.shape[1] > 1 else 1.0),
        )
        return gains * self._compute_chances(known, features, candidates)

    def _compute_chances(
        self, known: Sequence[Observation], features: np.ndarray, candidates: np.ndarray
    ) -> np.ndarray:
        """Return each candidate's probability to fit the cap, [candidate]; 1 if no known network was near the cap."""
        from scipy.special import ndtr

        fills = np.array([one.fill or math.nan for one in known])
        filled = np.flatnonzero(~np.isnan(fills))[-MOST_PRICED:]
        if len(filled) < FEWEST or fills[filled].max() < 0.5:
            return np.ones(len(candidates))
        by_fill = Surrogate(features[filled], np.log(fills[filled]), kernels=COST_KERNELS)
        means, deviations = by_fill.predict(candidates)
        return np.asarray(ndtr(-means / deviations))

    def _fit_accuracy(
        self, seen: Sequence[Observation], features: np.ndarray, costs: np.ndarray
    ) -> tuple[Surrogate, Scale]:
        """Return the model of accuracy, and its scale."""
        usual = float(np.median([one.tested for one in seen if one.tested] or [1000]))
        rates, tested = [one.accuracy or 0.0 for one in seen], [one.tested or usual for one in seen]
        return fit_rates(features, rates, tested, None, costs, self.kernels)


def _is_done(seen: Observation) -> bool:
    return seen.accuracy is not None and bool(seen.costs) and None not in seen.costs


def _list_costs(known: Sequence[Observation]) -> np.ndarray:
    """Return costs [point, cost]; NaN for an unknown one."""
    count = max((len(one.costs) for one in known), default=1)
    return np.array([[cost or math.nan for cost in one.costs or [None] * count] for one in known], dtype=np.float64)
