"""The plan of a search: all that a worker needs, in one folder that every worker can read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.config.compose import (
    AUTO_DIR,
    SWEEP_GROUP,
    Composer,
    ConfigError,
    find_sweep,
    to_specs,
)
from ffem_jax.config.overrides import explain_error, quote_value
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.search.settings import SearchSettings
from ffem_jax.search.space import SearchSpace, read_space
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import RunSpec, TrialSpec, to_plain, trial_key

if TYPE_CHECKING:
    from omegaconf import DictConfig

PLAN_FILE, SWEEP_FILE = "search.json", "sweep.yaml"


@dataclass(frozen=True)
class SearchPlan:
    """A search, ready to launch.

    Args:
        name: the name of its sweep.
        overrides: the user's overrides.
        config: composed for a launcher.
        fixed: the overrides that all trials share.
        base: a trial of the space, for the values that no choice changes.
        sweep_dir: holds the trials' folders and, in `search/`, the study, this plan and the workers' logs.
    """

    name: str
    overrides: tuple[str, ...]
    config: DictConfig
    fixed: tuple[str, ...]
    space: SearchSpace
    settings: SearchSettings
    base: TrialSpec
    run: RunSpec
    sweep_dir: Path
    records_path: Path

    @property
    def folder(self) -> Path:
        """The folder of the search's own files."""
        return self.sweep_dir / "search"

    @property
    def study_name(self) -> str:
        """The study's name in its storage."""
        return self.settings.study or self.sweep_dir.name

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which networks are compared and most are stopped; empty without halving."""
        return self.settings.halving.get_rungs(self.base.recipe.epochs)

    @property
    def workers(self) -> int:
        """How many workers pull from the study: the launcher's jobs."""
        return int(self.config.launcher.jobs)

    def read_records(self) -> list[TrialRecord]:
        """Return the latest record of every trial of the space in the records file."""
        if not self.records_path.exists():
            return []
        base = to_plain(self.base)
        records = latest_records(read_records(self.records_path))
        return [record for record in records if self.space.read_point(record.spec, base) is not None]

    def identify(self) -> dict[str, Any]:
        """Return the settings that must be equal for two searches to share a study, by their config key."""
        fixed = to_plain(self.base)
        for group in (fixed, fixed.get("pretrain")):
            if group:
                group["data"] = {k: v for k, v in group["data"].items() if k not in ("root", "cache_dir")}
        choices = {choice.name: list(choice.values) for choice in self.space.choices}
        return {
            **fixed,
            "hydra.sweeper.params": choices,
            "hydra.sweeper.when": {choice.name: choice.when for choice in self.space.choices if choice.when},
            "hydra.sweeper.objectives": list(self.settings.objectives),
            **({"hydra.sweeper.halving": [*self.rungs, self.settings.halving.reduction]} if self.rungs else {}),
            "run.cap_mb": [self.run.cap_mb, self.run.cap_precision, self.run.train_over_cap],
            **({"run.cap_mmacs": self.run.cap_mmacs} if self.run.cap_mmacs else {}),
            "run.seeds": list(self.run.seeds),
        }

    def get_trial_dir(self, trial: TrialSpec, seeds: Sequence[int]) -> Path:
        """Return the folder of a trial, always the same for the same trial."""
        label = f"{trial.arch.name}-seed{'_'.join(map(str, seeds or (trial.seed,)))}-{trial_key(trial)}"
        return self.sweep_dir / re.sub(r"[^\w.-]+", "_", label)


def is_search(composer: Composer, name: str, overrides: Sequence[str], config_dir: Path | None = None) -> bool:
    """Return whether the sweep `name` with `overrides` is a search and not a list of combinations."""
    if not name:
        return False
    composer.register_sweep(name, find_sweep(name, config_dir))
    sweeper = [text for text in overrides if text.startswith("hydra/sweeper=")]
    config = composer.compose([f"+{SWEEP_GROUP}={name}", *sweeper], multirun=True)
    return str(config.hydra.sweeper._target_).endswith(".SearchSweeper")


def plan_search(
    composer: Composer,
    name: str,
    overrides: Sequence[str],
    config_dir: Path | None = None,
    sweep_file: Path | None = None,
) -> SearchPlan:
    """Compose the search `name`, check its space, and choose its folders.

    Args:
        overrides: the user's. One for a choice, such as `arch.stem_stride=1` or `=1,2`, replaces the choice's values.
        sweep_file: read instead of the file found by name.

    Raises:
        ConfigError, SpecError, SpaceError: with a message of one line.
    """
    composer.register_sweep(name, sweep_file or find_sweep(name, config_dir))
    selected = f"+{SWEEP_GROUP}={name}"
    user = composer.parse(overrides)
    swept = {override.key_or_group: override for override in user if override.is_sweep_override()}
    fixed = [selected, *(str(one.input_line) for one in user if one.key_or_group not in swept)]
    config = composer.compose(fixed, multirun=True)
    settings = read_settings(config)
    replaced = {
        override.key_or_group: str(override.input_line).partition("=")[2]
        for override in user
        if override.key_or_group in settings.params or override.key_or_group in swept
    }
    space = read_space({"params": settings.params, "when": settings.when}, replaced)
    composer.parse([f"{choice.name}={','.join(choice.values)}" for choice in space.choices])
    base, run = to_specs(composer.compose(fixed), as_typed=True)
    if run.processes != 1:
        raise ConfigError("a search trains each network in one process; leave run.processes out")
    if settings.halving.get_rungs(base.recipe.epochs):
        if any(choice.name in ("recipe", "recipe.epochs") for choice in space.choices):
            raise ConfigError(
                "hydra.sweeper.halving needs one recipe.epochs for all networks; leave it out of the space"
            )
        if not run.checkpoint:
            raise ConfigError("hydra.sweeper.halving resumes from checkpoints; take run.checkpoint=true")
    check_samples(composer, fixed, space)

    if config.hydra.sweep.dir == AUTO_DIR:
        sweep_dir = Path.cwd() / "outputs" / f"{name}-{base.data.name}"
    else:
        sweep_dir = Path(config.hydra.sweep.dir).absolute()
    records_path = Path(run.records or sweep_dir / "records.jsonl").absolute()
    places = [f"run.records={quote_value(records_path)}", f"hydra.sweep.dir={quote_value(sweep_dir)}"]
    config = composer.compose([*fixed, *places], multirun=True)
    return SearchPlan(name, tuple(overrides), config, tuple(fixed), space, settings, base, run, sweep_dir, records_path)


def read_settings(config: DictConfig) -> SearchSettings:
    """Return the checked node `hydra.sweeper`. Raises ConfigError or SpecError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain_error(error)) from error
    return SearchSettings(**values)


def check_samples(composer: Composer, fixed: Sequence[str], space: SearchSpace, samples: int = 20) -> None:
    """Raise ConfigError if none of `samples` random points can be built, which means that the space is wrong."""
    from ffem_jax.search.candidates import CandidateMaker

    maker, rng, problem = CandidateMaker(composer, fixed, space), np.random.default_rng(0), None
    for _ in range(samples):
        try:
            maker.compose(space.sample(rng))
            return
        except (ConfigError, SpecError) as error:
            problem = error
    raise ConfigError(f"none of {samples} networks of the space can be built: {problem}") from problem


# ----------------------------------------------------------------------------------- on disk


def save_plan(plan: SearchPlan, config_dir: Path | None, sweep_file: Path) -> None:
    """Write the plan for `load_plan`, and a copy of the sweep's file, into the search's folder.

    Each file is replaced atomically: workers of this command, or of another on the same search, may be reading it.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    _write_whole(plan.folder / SWEEP_FILE, sweep_file.read_bytes())
    places = [f"hydra.sweep.dir={quote_value(plan.sweep_dir)}", f"run.records={quote_value(plan.records_path)}"]
    row = {
        "name": plan.name,
        "overrides": [*plan.overrides, *places],
        "config_dir": str(config_dir.resolve()) if config_dir else None,
    }
    _write_whole(plan.folder / PLAN_FILE, (json.dumps(row, indent=1) + "\n").encode())


def _write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def read_saved(folder: Path) -> tuple[str, list[str], Path | None]:
    """Return the sweep's name, its overrides and the user's config folder, as `save_plan` wrote them."""
    row = json.loads((folder / PLAN_FILE).read_text())
    return row["name"], row["overrides"], Path(row["config_dir"]) if row["config_dir"] else None


def load_plan(composer: Composer, folder: Path) -> SearchPlan:
    """Return the plan in `folder`, composed again."""
    name, overrides, config_dir = read_saved(folder)
    return plan_search(composer, name, overrides, config_dir, folder / SWEEP_FILE)
