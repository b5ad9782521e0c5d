"""Which network to train next: the one from which a surrogate expects the frontier to gain most. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.errors import FfemError
from ffem_jax.search.model.encoding import change_codes, decode_point, embed_codes, encode_points, sample_codes
from ffem_jax.search.model.surrogate import FEWEST, KERNELS, SCALES, Kernel, Scale, Surrogate, fit_rates, use_one_core
from ffem_jax.search.model.volume import compute_expected_gains, compute_normal, find_front
from ffem_jax.search.space import Point, SearchSpace

if TYPE_CHECKING:
    from numpy.random import Generator

POOL = 1000  # points drawn for each proposal, and as many neighbours of the best known
MOST_PRICED = 300  # networks, the latest, that cost is learnt from
GROWTH = 1.1  # kernels are chosen anew when so many times more is known
# How far the hypervolume reaches over the largest of several costs: what is last in one may be first in another.
BEYOND = 1.1
TRIES = 20  # pools in which every point was refused before giving up
# A kernel for log cost alone: what parts cost together is most of the matter, and nothing is noise.
COST_KERNELS = tuple(kernel for kernel in KERNELS if not kernel.cost)


class ProposalError(FfemError):
    """No network is left to propose. The message is one line."""


@dataclass(frozen=True)
class Observation:
    """What is known of a point. accuracy: in 0 to 1; None while it is being trained, where it failed or was refused.

    costs: what the search wants low, positive, as many and in the same order for all points; None for one that is not
    known, and none at all where nothing is. tested: images that a training behind the accuracy was tested on; None
    takes what is usual among the others. fill: its size as a share of the cap, or None. running: it is being trained,
    so that something of its kind is on the way.
    """

    point: Mapping[str, str]
    accuracy: float | None = None
    costs: tuple[float | None, ...] = ()
    tested: int | None = None
    fill: float | None = None
    running: bool = False


class SurrogateSampler:
    """Proposes points by expected improvement of the hypervolume, of accuracy up and one cost or several down.

    The first `warm_up` points are random. From then on, accuracy and costs of POOL random points and of neighbours of
    the frontier are predicted (costs are learnt as well: that is far faster than tracing thousands of networks), and
    the one is proposed whose volume above the frontier of what is known is expected to be largest, times the chance
    that it fits the cap. What is being trained counts with what is predicted for it, so that workers spread out.

    Source: Emmerich, Giannakoglou and Naujoks, IEEE Trans. Evol. Comput. 10 (2006) 421, with all objectives but one
    taken as known; Ginsbourger et al. (2010) for points that are under way.
    """

    def __init__(self, space: SearchSpace, *, warm_up: int = 16, kernels: tuple[Kernel, ...] = KERNELS) -> None:
        self.space, self.warm_up, self.kernels = space, max(warm_up, FEWEST), kernels
        self._chosen: dict[str, tuple[int, tuple[Kernel, ...], tuple[Scale, ...]]] = {}

    def propose(
        self, known: Sequence[Observation], rng: Generator, refuse: Callable[[Point], bool] = lambda _: False
    ) -> Point:
        """A point that `refuse` does not refuse (trained already, over the cap when traced).

        Raises ProposalError where all of many points are refused.
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
        raise ProposalError("every network that was drawn is refused: the space is searched, or the cap too low")

    def rank(self, known: Sequence[Observation], pool: np.ndarray) -> np.ndarray:
        """The indices of `pool`, codes [point, choice], the most promising first; as they are in the warm-up."""
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
        """The expected gain in hypervolume, [point of the pool]."""
        done = np.array([_is_done(seen) for seen in known])
        features, candidates = embed_codes(self.space, codes), embed_codes(self.space, pool)
        costs = _list_costs(known)
        new_costs = np.empty((len(candidates), costs.shape[1]))
        for place, column in enumerate(costs.T):
            priced, unpriced = np.flatnonzero(~np.isnan(column))[-MOST_PRICED:], np.isnan(column)
            by_cost = self._fit(f"cost {place}", features[priced], np.log(column[priced]))
            new_costs[:, place] = np.exp(by_cost.predict_means(candidates))
            if unpriced.any():
                column[unpriced] = np.exp(by_cost.predict_means(features[unpriced]))

        seen = [one for one in known if _is_done(one)]
        model, scale = self._fit_accuracy(seen, features[done], costs[done])
        means, deviations = model.predict(candidates, new_costs)
        rates = scale.to_rates(means)

        # The frontier as the model sees it: of noisy numbers the highest are partly luck.
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
        """The chance of each candidate to fit the cap, [candidate]; 1 where nothing known was near it."""
        fills = np.array([one.fill or math.nan for one in known])
        filled = np.flatnonzero(~np.isnan(fills))[-MOST_PRICED:]
        if len(filled) < FEWEST or fills[filled].max() < 0.5:
            return np.ones(len(candidates))
        means, deviations = self._fit("fill", features[filled], np.log(fills[filled])).predict(candidates)
        return compute_normal(-means / deviations)

    def _fit_accuracy(
        self, seen: Sequence[Observation], features: np.ndarray, costs: np.ndarray
    ) -> tuple[Surrogate, Scale]:
        """The model of accuracy and its scale; see `_fit`."""
        fitted_on, kernels, scales = self._chosen.get("accuracy", (0, self.kernels, SCALES))
        if len(seen) >= GROWTH * fitted_on:
            kernels, scales = self.kernels, SCALES
        usual = float(np.median([one.tested for one in seen if one.tested] or [1000]))
        rates, tested = [one.accuracy or 0.0 for one in seen], [one.tested or usual for one in seen]
        model, scale = fit_rates(features, rates, tested, None, costs, kernels, scales)
        if len(kernels) > 1 or len(scales) > 1:
            self._chosen["accuracy"] = (len(seen), (model.kernel,), (scale,))
        return model, scale

    def _fit(self, what: str, features: np.ndarray, values: np.ndarray) -> Surrogate:
        """A model of cost; its kernel is chosen anew only when a tenth more is known, which is most of the time."""
        fitted_on, kernels, _ = self._chosen.get(what, (0, COST_KERNELS, ()))
        fresh = len(values) >= GROWTH * fitted_on
        model = Surrogate(features, values, kernels=COST_KERNELS if fresh else kernels)
        if fresh:
            self._chosen[what] = (len(values), (model.kernel,), ())
        return model


def _is_done(seen: Observation) -> bool:
    return seen.accuracy is not None and bool(seen.costs) and None not in seen.costs


def _list_costs(known: Sequence[Observation]) -> np.ndarray:
    """Costs [point, cost], NaN for those that are not known."""
    count = max((len(one.costs) for one in known), default=1)
    return np.array([[cost or math.nan for cost in one.costs or [None] * count] for one in known], dtype=np.float64)
