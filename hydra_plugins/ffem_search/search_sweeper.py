"""`hydra/sweeper=search`: a Hydra sweeper whose workers pull networks from one Optuna study."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ffem_jax.search.settings import SearchSettings


class SearchSweeper(Sweeper):
    """What `ffem sweep` runs where the sweep's YAML says `override /hydra/sweeper: search`.

    Its workers train ffem's trials, whatever the application's own task function would do.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra composed."""
        self.hydra_context, self.config = hydra_context, config

    def sweep(self, arguments: Sequence[str]) -> Any:
        """Search until n_trials networks are trained; `arguments` are the overrides of the command line."""
        from ffem_jax.search.workers.launch import sweep_by_hydra

        return sweep_by_hydra(self.config, list(arguments))


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchSettings, provider="ffem_jax")
