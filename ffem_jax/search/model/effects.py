"""The main effect of each choice of a space, with intervals, from the networks that were trained.

A search trains more networks in promising regions, so the plain means for two values compare networks that differ in
many other choices. Here all choices are fitted together (the additive part of the surrogate: ridge regression on coded
choices, its weight by restricted likelihood). An effect is the change due to one value with all else equal.
Interactions between choices count as noise and widen the intervals. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ffem_jax.analysis.comparability import check_comparable
from ffem_jax.analysis.comparison import SIGNIFICANT
from ffem_jax.analysis.labels import describe_data
from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.metrics.paired import correct_holm
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.search.model.encoding import deactivate_codes, draw_all_codes, embed_codes, encode_points
from ffem_jax.search.model.prediction import read_known
from ffem_jax.search.model.surrogate import ADDITIVE, Kernel, Surrogate
from ffem_jax.search.space import SearchSpace

AT_EQUAL_BYTES = (Kernel(cost=1.0),)
DRAWS = 2000  # random points over which the choices that depend on a choice are averaged
NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A difference of accuracies, in -1 to 1, its 95 % interval, and p with Holm's correction over all rows."""

    difference: float
    low: float
    high: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        """Whether it differs significantly from 0 after the correction."""
        return self.p_corrected < SIGNIFICANT


@dataclass(frozen=True)
class Effect:
    """The effect of `value` of `choice`, against `reference`, the first value in the space.

    Args:
        networks: how many were trained with the value.
        on_frontier: how many of those are on the frontier of accuracy against bytes.
        accuracy: with all other choices equal, so the size changes with the value. None for the reference.
        at_equal_bytes: with the size equal too; other choices compensate for the difference. None for the reference.
        bytes_factor: the factor by which the value changes the bytes. None for the reference.
    """

    choice: str
    value: str
    reference: str
    networks: int
    on_frontier: int
    accuracy: Estimate | None = None
    at_equal_bytes: Estimate | None = None
    bytes_factor: float | None = None


@dataclass(frozen=True)
class Effects:
    """The effects of all choices, in the order of the space.

    Args:
        networks: the networks that the effects are estimated from.
        trainings: their trainings.
        outside: recorded networks outside the space.
        on_frontier: networks on the frontier.
        explained: the share of the variance of accuracy that the additive model explains in networks left out, at
            most 1. The rest is noise and interactions between choices.
    """

    effects: tuple[Effect, ...]
    networks: int
    trainings: int
    outside: int
    on_frontier: int
    explained: float
    precision: str
    title: str
    synthetic: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the effects as nested dicts and lists, ready for JSON."""
        return dataclasses.asdict(self)


def compute_effects(records: Sequence[TrialRecord], space: SearchSpace, *, precision: str = "float32") -> Effects:
    """Return the main effect of each value of each choice of `space`, from the records of its networks.

    Intervals are for networks like those trained, on these test images. Variance between seeds is noise.

    Args:
        precision: the precision whose bytes are held equal, one of PRECISIONS.

    Raises:
        FrontierError: if the records have several data sets, protocols or recipes.
        SurrogateError: if fewer than `surrogate.FEWEST` networks of the space are trained.
    """
    records = latest_records(records)
    check_comparable(records)
    known = read_known(records, space, "estimate effects from")
    codes = encode_points(space, known.points)
    features = embed_codes(space, codes)
    sizes = np.array([getattr(record, f"bytes_{precision}") or math.nan for record in known.firsts], dtype=float)
    stands = find_pareto(sizes, known.accuracies)
    plain = Surrogate(features, known.accuracies, known.tests, None, ADDITIVE)
    equal = Surrogate(features, known.accuracies, known.tests, sizes, AT_EQUAL_BYTES)
    by_bytes = Surrogate(features, np.log(sizes), None, None, ADDITIVE)

    pairs = [(i, code) for i, choice in enumerate(space.choices) for code in range(1, len(choice.values))]
    contrasts = np.array([compute_contrast(space, index, code) for index, code in pairs])
    contrasts = contrasts.reshape(len(pairs), features.shape[1])
    accuracy, at_equal_bytes = (_estimate(model, contrasts) for model in (plain, equal))
    factors = np.exp(by_bytes.compute_contrasts(contrasts)[0])
    found = {pair: row for pair, *row in zip(pairs, accuracy, at_equal_bytes, factors.tolist(), strict=True)}
    effects = []
    for index, choice in enumerate(space.choices):
        for code, value in enumerate(choice.values):
            own = codes[:, index] == code
            counts = int(own.sum()), int((own & stands).sum())
            effects.append(Effect(choice.name, value, choice.values[0], *counts, *found.get((index, code), ())))
    guesses, _ = plain.left_out
    misses, spread = plain.values - guesses, plain.values - plain.values.mean()
    title = describe_data(records, (r.resolution for r in known.firsts), (r.tested for r in known.firsts))
    return Effects(
        effects=tuple(effects),
        networks=len(known.points),
        trainings=int(known.tests.sum()),
        outside=known.outside,
        on_frontier=int(stands.sum()),
        explained=1 - float(misses @ misses) / max(float(spread @ spread), 1e-12),
        precision=precision,
        title=title,
        synthetic=any(record.synthetic for record in records),
    )


def compute_contrast(space: SearchSpace, index: int, code: int) -> np.ndarray:
    """Return the difference of features, [feature], between value number `code` of choice `index` and its first value.

    All other choices are equal. A choice that only one of the two values activates takes its average there.
    """
    drawn = draw_all_codes(space, DRAWS, np.random.default_rng(0))
    places = {choice.name: place for place, choice in enumerate(space.choices)}
    means = []
    for value in (0, code):
        codes = drawn.copy()
        codes[:, index] = value
        # The choices on which it depends take values that activate it.
        wanted = [index]
        while wanted:
            for name, values in space.choices[wanted.pop()].when:
                allowed = np.array([space.by_name[name].values.index(value) for value in values])
                codes[:, places[name]] = allowed[codes[:, places[name]] % len(allowed)]
                wanted.append(places[name])
        means.append(embed_codes(space, deactivate_codes(space, codes)).mean(axis=0, dtype=np.float64))
    return means[1] - means[0]


def _estimate(model: Surrogate, contrasts: np.ndarray) -> list[Estimate]:
    means, deviations = model.compute_contrasts(contrasts)
    quantile = NORMAL.inv_cdf(0.975)
    p_values = [
        2 * NORMAL.cdf(-abs(mean) / deviation) if deviation > 0 else 1.0
        for mean, deviation in zip(means.tolist(), deviations.tolist(), strict=True)
    ]
    return [
        Estimate(mean, mean - quantile * deviation, mean + quantile * deviation, p)
        for mean, deviation, p in zip(means.tolist(), deviations.tolist(), correct_holm(p_values), strict=True)
    ]
