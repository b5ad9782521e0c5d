"""Which network to train next: the one from which a surrogate expects the frontier to gain most. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.frontier.pareto import find_pareto
from ffem_jax.search.encoding import change_codes, decode_point, embed_codes, encode_points, sample_codes
from ffem_jax.search.space import Point, SearchSpace
from ffem_jax.search.surrogate import FEWEST, KERNELS, SCALES, Kernel, Scale, Surrogate, fit_rates, use_one_core

if TYPE_CHECKING:
    from numpy.random import Generator

POOL = 1000  # points drawn for each proposal, and as many neighbours of the best known
MOST_PRICED = 300  # networks, the latest, that cost is learnt from
GROWTH = 1.1  # kernels are chosen anew when so many times more is known
TRIES = 20  # pools in which every point was refused before giving up
# A kernel for log cost alone: what parts cost together is most of the matter, and nothing is noise.
COST_KERNELS = tuple(kernel for kernel in KERNELS if not kernel.cost)


class ProposalError(ValueError):
    """No network is left to propose. The message is one line."""


@dataclass(frozen=True)
class Observation:
    """What is known of a point. accuracy: in 0 to 1; None while it is being trained, where it failed or was refused.

    cost: what the search wants low, positive; None where it is not known. tested: images behind the accuracy, or None.
    fill: its size as a share of the cap, or None. running: it is being trained, so that something of its kind is on
    the way.
    """

    point: Mapping[str, str]
    accuracy: float | None = None
    cost: float | None = None
    tested: int | None = None
    fill: float | None = None
    running: bool = False


class SurrogateSampler:
    """Proposes points by expected improvement of the hypervolume, of accuracy up and cost down.

    The first `warm_up` points are random. From then on, accuracy and cost of POOL random points and of neighbours of
    the frontier are predicted (cost is learnt as well: that is far faster than tracing thousands of networks), and
    the one is proposed whose area above the frontier of what is known is expected to be largest, times the chance that
    it fits the cap. What is being trained counts with what is predicted for it, so that workers spread out.

    Source: Emmerich, Giannakoglou and Naujoks, IEEE Trans. Evol. Comput. 10 (2006) 421, for two objectives of which
    one is taken as known; Ginsbourger et al. (2010) for points that are under way.
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
        done = [seen if _is_done(seen) else Observation({}) for seen in known]
        costs, values = (np.array([getattr(s, name) for s in done], dtype=np.float64) for name in ("cost", "accuracy"))
        return find_pareto(costs, values)

    def _compute_gains(self, known: Sequence[Observation], codes: np.ndarray, pool: np.ndarray) -> np.ndarray:
        """The expected gain in hypervolume, [point of the pool]."""
        done = np.array([_is_done(seen) for seen in known])
        features, candidates = embed_codes(self.space, codes), embed_codes(self.space, pool)
        costs = np.array([one.cost or math.nan for one in known])
        priced = np.flatnonzero(~np.isnan(costs))[-MOST_PRICED:]
        by_cost = self._fit("cost", features[priced], np.log(costs[priced]))
        new_costs = np.exp(by_cost.predict_means(candidates))
        unpriced = np.isnan(costs)
        if unpriced.any():
            costs[unpriced] = np.exp(by_cost.predict_means(features[unpriced]))

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
            float(costs[done].max()),
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
        return _normal(-means / deviations)

    def _fit_accuracy(
        self, seen: Sequence[Observation], features: np.ndarray, costs: np.ndarray
    ) -> tuple[Surrogate, Scale]:
        """The model of accuracy and its scale; see `_fit`."""
        fitted_on, kernels, scales = self._chosen.get("accuracy", (0, self.kernels, SCALES))
        if len(seen) >= GROWTH * fitted_on:
            kernels, scales = self.kernels, SCALES
        rates, tested = [one.accuracy or 0.0 for one in seen], [one.tested or 1000 for one in seen]
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
    return seen.accuracy is not None and seen.cost is not None


def compute_expected_gains(
    costs: np.ndarray, levels: np.ndarray, new_costs: np.ndarray, means: np.ndarray, deviations: np.ndarray, cap: float
) -> np.ndarray:
    """By how much each new point, normal in value and of known cost, is expected to raise the hypervolume, [new].

    costs, levels [point]: of what is known. The hypervolume reaches to `cap` in cost and down to the lowest level.
    """
    front = find_pareto(costs, levels) & (costs < cap)
    order = np.argsort(costs[front])
    floor = float(levels.min())
    steps = np.concatenate([[0.0], costs[front][order], [cap]])
    heights = np.concatenate([[floor], levels[front][order]])
    gains = np.zeros(len(new_costs))
    for left, right, height in zip(steps[:-1], steps[1:], heights, strict=True):
        width = np.clip(right - np.maximum(left, new_costs), 0.0, None)
        apart = (means - height) / deviations
        density = np.exp(-0.5 * apart**2) / math.sqrt(2 * math.pi)
        gains += width * deviations * (apart * _normal(apart) + density)
    return gains


def _normal(values: np.ndarray) -> np.ndarray:
    """The standard normal distribution function (Abramowitz and Stegun 26.2.17, to 1e-7)."""
    t = 1 / (1 + 0.2316419 * np.abs(values))
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail *= np.exp(-0.5 * values**2) / math.sqrt(2 * math.pi)
    return np.where(values > 0, 1 - tail, tail)
