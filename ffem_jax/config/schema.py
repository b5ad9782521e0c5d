"""The schema of the config: a trial, how it is run, and where; and the keys that it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.config.overrides import ConfigError, suggest
from ffem_jax.specs.architecture import StageSpec, check_choice, check_range
from ffem_jax.specs.trial import RunSpec, TrialSpec

LAUNCHERS = ("local", "joblib", "ray", "slurm")


@dataclass(frozen=True)
class LauncherSpec:
    """Where the trials of a sweep run. What a launcher has no use for, it ignores.

    jobs: trials at a time. cpus_per_job, gpus_per_job: asked of Ray and Slurm for each trial.
    partition, memory_gb, minutes: asked of Slurm; an empty partition is the cluster's default.
    """

    name: str = "local"
    jobs: int = 1
    cpus_per_job: int = 1
    gpus_per_job: int = 0
    partition: str | None = None
    memory_gb: int = 8
    minutes: int = 240

    def __post_init__(self) -> None:
        check_choice("launcher.name", self.name, LAUNCHERS)
        check_range("launcher.jobs", self.jobs, 1)
        check_range("launcher.cpus_per_job", self.cpus_per_job, 1)
        check_range("launcher.gpus_per_job", self.gpus_per_job, 0)
        check_range("launcher.memory_gb", self.memory_gb, 1)
        check_range("launcher.minutes", self.minutes, 1)


@dataclass(frozen=True)
class ApplicationSpec(TrialSpec):
    """The root of the config: a trial, how it is run, and where."""

    run: RunSpec = field(default_factory=RunSpec)
    launcher: LauncherSpec = field(default_factory=LauncherSpec)


def check_key(key: str, groups: Iterable[str]) -> None:
    """Raise ConfigError unless the dotted `key` is one of the schema's or one of the config `groups`, naming those it
    could be."""
    node: Any = ApplicationSpec()
    parents: list[str] = []
    for part in key.split("."):
        if parents == ["arch", "stages"] and part.isdigit():
            # Which rows there are depends on the network; they all have the same columns.
            parents.append(part)
            node = StageSpec()
            continue
        if isinstance(node, tuple):
            raise ConfigError(
                f"{key}: {'.'.join(parents)} is a list; give it whole, or a row's value as arch.stages.0.channels"
            )
        if not dataclasses.is_dataclass(node):
            raise ConfigError(f"{key} is not known; {'.'.join(parents)} is a value and has no keys")
        names = [f.name for f in dataclasses.fields(node)]
        if not parents:
            names += [group for group in groups if group not in names]
        if part not in names:
            where = ".".join(parents) or "the config"
            raise ConfigError(f"{key} is not known;{suggest(part, names)} {where} has: {', '.join(names)}")
        parents.append(part)
        node = getattr(node, part, None)
