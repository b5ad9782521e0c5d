"""Samplers of a search: Optuna's, and our own proposers, which see points and outcomes.

A sampler is built again for every network, seeded by the network's number. So a proposal depends only on the known
results, not on which worker asks or how often the search was stopped. A search with one worker is reproducible.
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, Trial

from ffem_jax.config.compose import ConfigError
from ffem_jax.search.model.proposal import Observation, ProposalError, SurrogateSampler
from ffem_jax.search.space import Point, SearchSpace

LARGEST_GRID = 100_000
# Optuna's samplers; hydra.sweeper.sampler_options are their keyword arguments.
WITH_OPTIONS = ("nsga2", "tpe", "gp")


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of one network of a study.

    Args:
        point: its choices.
        accuracy: in 0 to 1; None if it was refused or failed.
        costs: known costs by record field.
        excess: the excess over the cap, as a fraction of the cap; 0 or less means within it.
        stopped: the epoch at which its accuracy was measured, if it was stopped early; 0 if it was trained to the end.
        tested: test images per training; None in studies from before this was stored.
    """

    point: Point
    accuracy: float | None
    costs: Mapping[str, float]
    excess: float
    stopped: int = 0
    tested: int | None = None


# Takes the space, the outcomes so far, the taken points (`freeze` of each), a generator and the objectives to minimise.
# Returns the next point, or None if none is left.
Proposer = Callable[
    [SearchSpace, Sequence[TrialOutcome], set[tuple[str, ...]], np.random.Generator, Sequence[str]], Point | None
]


def freeze(point: Mapping[str, str]) -> tuple[str, ...]:
    """Return a point as a hashable tuple: alternating names and values, sorted by name."""
    return tuple(itertools.chain.from_iterable(sorted(point.items())))


def thaw(frozen: Sequence[str]) -> Point:
    """Return the point that `freeze` was given."""
    return dict(zip(frozen[::2], frozen[1::2], strict=True))


def read_excess(trial: FrozenTrial) -> tuple[float]:
    """Return Optuna's constraint: 0 or less if the network may be trained."""
    return (float(trial.user_attrs.get("cost", {}).get("excess", 0.0)),)


def suggest_point(space: SearchSpace, trial: Trial) -> Point:
    """Return the point that Optuna proposes in `trial`.

    Optuna also suggests the inactive choices: its samplers work best in a space of constant shape.
    """
    point: Point = {}
    for choice in space.choices:
        if len(choice.values) == 1:
            point[choice.name] = choice.values[0]
        elif choice.ordered:  # by index: neighbours are similar, however far apart their numbers
            point[choice.name] = choice.values[trial.suggest_int(choice.name, 0, len(choice.values) - 1)]
        else:
            point[choice.name] = str(trial.suggest_categorical(choice.name, choice.values))
    return space.get_active(point)


def to_params(space: SearchSpace, point: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of Optuna's trial of `point`: the inverse of `suggest_point`."""
    params: dict[str, Any] = {}
    for choice in space.choices:
        if choice.name in point and len(choice.values) > 1:
            value = point[choice.name]
            params[choice.name] = choice.values.index(value) if choice.ordered else value
    return params


def build_sampler(name: str, seed: int, options: Mapping[str, Any]) -> BaseSampler:
    """Return Optuna's sampler `name`; for one of our own proposers, a random sampler for what the proposer leaves open.

    It is built again for every network, from `seed`. So a proposal depends only on the known results, not on which
    worker asks.

    Args:
        name: one of `settings.SAMPLER_NAMES`.
        options: keyword arguments of Optuna's class.

    Raises:
        ConfigError: if the sampler does not take an option, or its libraries are missing.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if name == "gp" and not all(importlib.util.find_spec(library) for library in ("torch", "scipy")):
        raise ConfigError("hydra.sweeper.sampler=gp needs torch and scipy; pip install torch scipy")
    with warnings.catch_warnings():
        # Optuna 5 has Trial.set_constraint instead, 4.9 does not; and some arguments are experimental.
        warnings.simplefilter("ignore")
        try:
            if name == "nsga2":
                # Optuna's default of 50 suits thousands of trials. With 150 trainings simulated as in
                # tests/search/test_quality.py, 10 repeats: hypervolume above random search by 0.06 with 6, 0.07 with 8
                # and 12, 0.05 with 16.
                return NSGAIISampler(seed=seed, constraints_func=read_excess, **{"population_size": 10, **options})
            if name == "tpe":
                chosen = {"multivariate": True, "constant_liar": True, "n_startup_trials": 20, **options}
                return TPESampler(seed=seed, constraints_func=read_excess, **chosen)
            if name == "gp":
                return GPSampler(seed=seed, constraints_func=read_excess, **options)
            # It never leaves its random start-up trials. Optuna's RandomSampler would not store the constraint, and
            # the study could not continue with another sampler.
            return TPESampler(seed=seed, constraints_func=read_excess, **{**options, "n_startup_trials": 2**31})
        except TypeError as error:
            raise ConfigError(f"hydra.sweeper.sampler_options: {error}") from error


def check_sampler(name: str, options: Mapping[str, Any], space: SearchSpace) -> None:
    """Raise ConfigError if the sampler `name` does not fit this space or these options, or cannot be built."""
    if options and name not in WITH_OPTIONS:
        raise ConfigError(
            f"hydra.sweeper.sampler={name} takes no hydra.sweeper.sampler_options (here {', '.join(options)}); leave "
            f"them out, or take one of: {', '.join(WITH_OPTIONS)}"
        )
    if name == "grid" and space.size > LARGEST_GRID:
        raise ConfigError(
            f"hydra.sweeper.sampler=grid is for at most {LARGEST_GRID} points and this space has {space.size:.2g}; "
            "take another sampler or fewer values"
        )
    if name not in PROPOSERS:
        build_sampler(name, 0, options)


def propose_grid(
    space: SearchSpace,
    outcomes: Sequence[TrialOutcome],
    taken: set[tuple[str, ...]],
    rng: np.random.Generator,
    costs: Sequence[str] = (),
) -> Point | None:
    """Return the first point, in the order of the space, that is not taken."""
    return next((point for point in space if freeze(point) not in taken), None)


def propose_surrogate(
    space: SearchSpace,
    outcomes: Sequence[TrialOutcome],
    taken: set[tuple[str, ...]],
    rng: np.random.Generator,
    costs: Sequence[str],
) -> Point | None:
    """Return the point with the highest expected gain against all of `costs`, by the surrogate (`model.proposal`)."""
    known = [
        Observation(
            one.point,
            one.accuracy,
            tuple(map(one.costs.get, costs)),
            one.tested,
            fill=1 + one.excess if one.costs else None,
        )
        for one in outcomes
    ]
    settled = {freeze(one.point) for one in outcomes}
    known += [Observation(thaw(point), running=True) for point in taken if point not in settled]
    try:
        return SurrogateSampler(space).propose(known, rng, lambda point: freeze(point) in taken)
    except ProposalError:
        return propose_grid(space, outcomes, taken, rng) if space.size <= LARGEST_GRID else None


PROPOSERS: dict[str, Proposer] = {"grid": propose_grid, "surrogate": propose_surrogate}


def propose_neighbour(
    space: SearchSpace, point: Mapping[str, str], taken: set[tuple[str, ...]], rng: np.random.Generator
) -> Point | None:
    """Return a free point that differs from `point` in one choice or a few, for a sampler that keeps repeating itself.

    If random changes find none, it is the first free point of a small space, or None.
    """
    for attempt in range(200):
        changed, other = dict(point), space.sample(rng)
        names = rng.permutation(list(other))[: 1 + attempt // 20]
        for name in names:
            changed[str(name)] = other[str(name)]
        # A choice that the change activated takes a random value.
        for choice in space.choices:
            if choice.name not in changed:
                changed[choice.name] = choice.values[int(rng.integers(len(choice.values)))]
        active = space.get_active(changed)
        if freeze(active) not in taken:
            return active
    if space.size <= LARGEST_GRID:
        return propose_grid(space, (), taken, rng)
    return None
