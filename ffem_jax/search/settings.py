"""The settings of a search, under `hydra.sweeper`: space, sampler, objectives, budget, storage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ffem_jax.records.costs import COST_FIELDS, MEASURED_FIELDS
from ffem_jax.search.halving import compute_rungs
from ffem_jax.specs.fields import SpecError, check_fields, check_range, setting

# Names only, so that an unknown one is refused without importing Optuna.
SAMPLER_NAMES = ("random", "nsga2", "tpe", "gp", "grid", "surrogate")
ACCURACY = "accuracy"
STORAGE_SCHEMES = ("postgresql", "postgresql+psycopg")


@dataclass
class HalvingSettings:
    """Successive halving (`halving.Halving`): bad networks are stopped at epochs of their schedule, the rungs.

    min_epochs: the first rung; 0 is a quarter of recipe.epochs, rounded up: before that the order says little
    (results/halving).
    reduction: one network in this many continues from a rung, and the next rung is at this many times the epoch.
    """

    enabled: bool = setting(
        False, "Whether bad networks are stopped early.", source="Li et al., A System for Massively Parallel "
        "Hyperparameter Tuning, MLSys 2020",
    )  # fmt: skip
    min_epochs: int = setting(0, "The first rung; 0 is a quarter of recipe.epochs, rounded up.", low=0, unit="epochs")
    reduction: int = setting(
        3, "One network in this many continues from a rung; the next rung is at this many times the epoch.", low=2
    )

    def __post_init__(self) -> None:
        check_fields(self, "hydra.sweeper.halving")

    def get_rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the rungs of a schedule of `epochs` epochs; empty if halving is off. Raises SpecError."""
        if not self.enabled:
            return ()
        check_range("hydra.sweeper.halving.min_epochs", self.min_epochs, 0, epochs)
        return compute_rungs(self.min_epochs or math.ceil(epochs / 4), self.reduction, epochs)


@dataclass
class SearchSettings:
    """The node `hydra.sweeper` of a search; `_target_` is how Hydra finds the plugin.

    params: override keys and their values in Hydra's syntax.
    when: conditions, see `space.read_space`.
    sampler: proposes the networks.
    sampler_options: keyword arguments of Optuna's sampler.
    seed: of the sampler; the network's own seed is the key `seed`.
    n_trials: networks with a result, in total: a search that has 40 continues to n_trials. Networks refused before
        training (over the cap, impossible) and repetitions do not count.
    n_epochs: nothing more is begun once this many epochs are trained, summed over all networks; 0 is no limit.
    halving: whether bad networks are stopped early; n_trials then counts the networks that were begun.
    objectives: accuracy, which is maximised, and one or two of `records.costs.COST_FIELDS`, which are minimised.
    storage: where the study is kept: empty for a journal file in the sweep's folder, or a URL
        (postgresql+psycopg://user@host/database) that workers on several machines share.
    study: the study's name in the storage; empty takes the name of the sweep's folder.
    heartbeat_seconds: the interval at which a worker reports that it is alive.
    stale_seconds: a trial whose worker is silent for this long is taken from it and trained once more.
    """

    _target_: str = "hydra_plugins.ffem_search.search_sweeper.SearchSweeper"
    params: dict[str, Any] = setting(  # noqa: RUF009
        factory=dict, meaning="The space: an override's key and its values, such as `arch.width_multiplier: 0.5,1.0`."
    )
    when: dict[str, Any] = setting(  # noqa: RUF009
        factory=dict, meaning="Conditions: a choice is active only if another has one of the values given here."
    )
    sampler: str = setting(
        "nsga2", "What proposes the networks.", choices=SAMPLER_NAMES, source="surrogate: ours; Optuna"
    )
    sampler_options: dict[str, Any] = setting(factory=dict, meaning="Keyword arguments of Optuna's sampler.")  # noqa: RUF009
    seed: int = setting(0, "The seed of the sampler; a network's own is the key seed.", low=0, high=2**31 - 1)
    n_trials: int = setting(
        50, "Networks with a result, in total; those refused or repeated do not count.", low=1, unit="networks"
    )
    n_epochs: int = setting(
        0, "Nothing more is begun once this many epochs are trained, summed over all networks; 0 is no limit.",
        low=0, unit="epochs",
    )  # fmt: skip
    halving: HalvingSettings = setting(factory=HalvingSettings)  # noqa: RUF009
    objectives: list[str] = setting(  # noqa: RUF009
        factory=lambda: [ACCURACY, "bytes_float32"],
        meaning="Accuracy, which is maximised, and one or two costs, which are minimised.",
        choices=(ACCURACY, *COST_FIELDS),
    )
    storage: str = setting(
        "", "Where the study is kept: empty for a journal file, or postgresql+psycopg://USER@HOST/DATABASE."
    )
    study: str = setting("", "The study's name in its storage; empty takes the name of the sweep's folder.")
    heartbeat_seconds: float = setting(
        10.0, "The interval at which a worker reports that it is alive.", low=0.05, high=3600.0, unit="seconds"
    )
    stale_seconds: float = setting(
        60.0, "A worker that is silent for this long loses its network to another; at least three heartbeats.",
        unit="seconds",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self, "hydra.sweeper")
        if isinstance(self.halving, dict):  # as read from YAML
            self.halving = HalvingSettings(**self.halving)
        measured = [name for name in self.objectives if name in MEASURED_FIELDS]
        if self.halving.enabled and measured:
            raise SpecError(
                f"hydra.sweeper.halving compares partly trained networks, but {measured[0]} is measured at the end; "
                f"take macs for {measured[0]} in hydra.sweeper.objectives, or hydra.sweeper.halving.enabled=false"
            )
        if ACCURACY not in self.objectives or not 2 <= len(set(self.objectives)) == len(self.objectives) <= 3:
            listed = ", ".join(COST_FIELDS)
            raise SpecError(
                f"hydra.sweeper.objectives={list(self.objectives)} must be accuracy and 1 or 2 of: {listed}"
            )
        scheme = self.storage.partition("://")[0]
        if self.storage and scheme not in STORAGE_SCHEMES:
            raise SpecError(
                f"hydra.sweeper.storage={self.storage!r} is unknown; leave it empty for a journal file, or write "
                "postgresql+psycopg://USER@HOST/DATABASE"
            )
        check_range("hydra.sweeper.stale_seconds", self.stale_seconds, 3 * self.heartbeat_seconds)

    @property
    def costs(self) -> list[str]:
        """The objectives to minimise: fields of a record."""
        return [name for name in self.objectives if name != ACCURACY]
