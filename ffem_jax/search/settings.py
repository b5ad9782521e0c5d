"""The settings of a search, under `hydra.sweeper`: space, sampler, objectives, budget, storage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.records.costs import COST_FIELDS, MEASURED_FIELDS
from ffem_jax.search.halving import compute_rungs
from ffem_jax.specs.architecture import SpecError, check_choice, check_range

# Names alone, so that a wrong one is refused without Optuna.
SAMPLER_NAMES = ("random", "nsga2", "tpe", "gp", "grid", "surrogate")
ACCURACY = "accuracy"
STORAGE_SCHEMES = ("postgresql", "postgresql+psycopg")


@dataclass
class HalvingSettings:
    """Successive halving (`halving.Halving`): bad networks are stopped at epochs of their schedule, the rungs.

    min_epochs: the first rung; 0 is a quarter of recipe.epochs, rounded up: before that the order says little
    (results/halving). reduction: one in so many goes on from a rung, and the next rung is so many times as late.
    """

    enabled: bool = False
    min_epochs: int = 0
    reduction: int = 3

    def __post_init__(self) -> None:
        check_range("hydra.sweeper.halving.min_epochs", self.min_epochs, 0)
        check_range("hydra.sweeper.halving.reduction", self.reduction, 2)

    def get_rungs(self, epochs: int) -> tuple[int, ...]:
        """The rungs of a schedule of `epochs` epochs; none where halving is off. Raises SpecError."""
        if not self.enabled:
            return ()
        check_range("hydra.sweeper.halving.min_epochs", self.min_epochs, 0, epochs)
        return compute_rungs(self.min_epochs or math.ceil(epochs / 4), self.reduction, epochs)


@dataclass
class SearchSettings:
    """The node `hydra.sweeper` of a search; `_target_` is how Hydra finds the plugin.

    params: override keys and their values in Hydra's syntax. when: conditions, see `space.read_space`.
    sampler: who proposes networks. sampler_options: keyword arguments of Optuna's sampler.
    seed: of the sampler; the network's own seed is the key `seed`.
    n_trials: networks with a result, in total: a search that has 40 goes on to n_trials. Networks refused before
        training (over the cap, impossible) and repetitions do not count.
    n_epochs: nothing more is begun once so many epochs are trained, of all networks together; 0 asks n_trials alone.
    halving: whether bad networks are stopped early; the networks of n_trials are then those that were begun.
    objectives: accuracy, which goes up, and one or two of `records.costs.COST_FIELDS`, which go down.
    storage: where the study is kept: empty for a journal file in the sweep's folder, or a URL
        (postgresql+psycopg://user@host/database) that workers on several machines share.
    study: its name there; empty takes the sweep's folder's.
    heartbeat_seconds: how often a worker says that it is alive. stale_seconds: a trial whose worker has said nothing
        for so long is taken from it and trained once more.
    """

    _target_: str = "hydra_plugins.ffem_search.search_sweeper.SearchSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    sampler: str = "nsga2"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    n_trials: int = 50
    n_epochs: int = 0
    halving: HalvingSettings = field(default_factory=HalvingSettings)
    objectives: list[str] = field(default_factory=lambda: [ACCURACY, "bytes_float32"])
    storage: str = ""
    study: str = ""
    heartbeat_seconds: float = 10.0
    stale_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_choice("hydra.sweeper.sampler", self.sampler, SAMPLER_NAMES)
        check_range("hydra.sweeper.seed", self.seed, 0, 2**31 - 1)
        check_range("hydra.sweeper.n_trials", self.n_trials, 1)
        check_range("hydra.sweeper.n_epochs", self.n_epochs, 0)
        if isinstance(self.halving, dict):  # as YAML has it
            self.halving = HalvingSettings(**self.halving)
        measured = [name for name in self.objectives if name in MEASURED_FIELDS]
        if self.halving.enabled and measured:
            raise SpecError(
                f"hydra.sweeper.halving judges networks half trained, and {measured[0]} is measured at the end; take "
                f"macs for {measured[0]} in hydra.sweeper.objectives, or hydra.sweeper.halving.enabled=false"
            )
        for name in self.objectives:
            check_choice("hydra.sweeper.objectives", name, (ACCURACY, *COST_FIELDS))
        if ACCURACY not in self.objectives or not 2 <= len(set(self.objectives)) == len(self.objectives) <= 3:
            listed = ", ".join(COST_FIELDS)
            raise SpecError(
                f"hydra.sweeper.objectives={list(self.objectives)} must be accuracy and 1 or 2 of: {listed}"
            )
        scheme = self.storage.partition("://")[0]
        if self.storage and scheme not in STORAGE_SCHEMES:
            raise SpecError(
                f"hydra.sweeper.storage={self.storage!r} is not known; leave it empty for a journal file, or write "
                "postgresql+psycopg://USER@HOST/DATABASE"
            )
        check_range("hydra.sweeper.heartbeat_seconds", self.heartbeat_seconds, 0.05, 3600)
        check_range("hydra.sweeper.stale_seconds", self.stale_seconds, 3 * self.heartbeat_seconds)

    @property
    def costs(self) -> list[str]:
        """The objectives that go down: fields of a record."""
        return [name for name in self.objectives if name != ACCURACY]
