"""The schema of the config: a trial, how it is run, and where; and the keys that it has."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.config.overrides import ConfigError, suggest, write_value
from ffem_jax.specs.architecture import StageSpec
from ffem_jax.specs.fields import SpecError, check_fields, setting
from ffem_jax.specs.trial import RunSpec, TrialSpec

# Of keys that a word may be short for.
MEANT_AT_MOST = 3
# Types of fields that hold one value, as the specs write them.
SCALARS = ("int", "float", "bool", "str", "str | None", "int | None", "float | None")
LAUNCHERS = ("local", "joblib", "ray", "slurm")
ALONE = ("joblib", "ray")  # whose trials are single processes


@dataclass(frozen=True)
class LauncherSpec:
    """Where the trials of a sweep run. What a launcher has no use for, it ignores."""

    name: str = setting(
        "local", "Where trials run: in this process, in several here, on a Ray cluster or under Slurm.",
        choices=LAUNCHERS, source="Hydra's launcher plugins",
    )  # fmt: skip
    jobs: int = setting(1, "The trials that run at a time.", low=1, unit="trials")
    cpus_per_job: int = setting(1, "The CPU cores asked of Ray and Slurm for each trial.", low=1, unit="cores")
    gpus_per_job: int = setting(0, "The GPUs asked of Ray and Slurm for each trial.", low=0, unit="GPUs")
    partition: str | None = setting(None, "The partition asked of Slurm; empty is the cluster's default.")
    memory_gb: int = setting(8, "The memory asked of Slurm for each trial.", low=1, unit="GB")
    minutes: int = setting(240, "The time asked of Slurm for each trial.", low=1, unit="minutes")

    def __post_init__(self) -> None:
        check_fields(self, "launcher")


@dataclass(frozen=True)
class ApplicationSpec(TrialSpec):
    """The root of the config: a trial, how it is run, and where."""

    run: RunSpec = field(default_factory=RunSpec)
    launcher: LauncherSpec = field(default_factory=LauncherSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run.processes != 1 and self.launcher.name in ALONE:
            raise SpecError(
                f"launcher={self.launcher.name} starts one process per trial, and run.processes={self.run.processes} "
                "trains one by several: leave one of them out"
            )


def list_keys(node: Any = None, prefix: str = "") -> list[str]:
    """Every dotted key that has a value, in the schema's order; a stage table's columns by its first row."""
    keys: list[str] = []
    for f in dataclasses.fields(ApplicationSpec if node is None else node):
        key = f"{prefix}{f.name}"
        below = _find_below(f)
        keys += [key] if below is None else list_keys(below, f"{key}.")
        keys += list_keys(StageSpec, f"{key}.0.") if key.endswith("arch.stages") else []
    return keys


def _find_below(f: dataclasses.Field) -> Any:
    """The dataclass that a field holds, None where it holds a value."""
    made = f.default_factory if f.default is dataclasses.MISSING else type(f.default)
    return made if isinstance(made, type) and dataclasses.is_dataclass(made) else None


def find_keys(word: str) -> list[str]:
    """The keys that `word` may be short for, or a misspelling of: the best kind of match alone.

    The parts of the word stand for the last parts of a key, whole (`resolution`, `attention.kind`) or their beginnings
    (`width`). Keys of a pretraining count where the word begins so.
    """
    keys = [key for key in list_keys() if word.startswith("pretrain") or not key.startswith("pretrain.")]
    parts = word.split(".")
    for tail in (parts, parts[-1:]):
        for is_match in (str.__eq__, str.startswith):
            found = [key for key in keys if _ends_with(key.split("."), tail, is_match)]
            if found and all(tail):
                return [key for key in found if key.startswith(f"{parts[0]}.")] or found
    close = difflib.get_close_matches(word, keys, n=1, cutoff=0.8)
    names = difflib.get_close_matches(parts[-1], {key.rpartition(".")[2] for key in keys}, n=1, cutoff=0.7)
    return close or [key for key in keys if key.rpartition(".")[2] in names]


def _ends_with(key: Sequence[str], tail: Sequence[str], is_match: Callable[[str, str], bool]) -> bool:
    return len(tail) <= len(key) and all(map(is_match, key[-len(tail) :], tail))


def list_several(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`, at most MEANT_AT_MOST of them."""
    some = list(words[:MEANT_AT_MOST])
    return " or ".join(filter(None, [", ".join(some[:-1]), *some[-1:]]))


def check_key(key: str, groups: Iterable[str]) -> None:
    """Raise ConfigError unless the dotted `key` is one of the schema's or one of the config `groups`, naming those it
    could be."""
    groups = list(groups)
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
        where = ".".join(parents)
        if isinstance(node, dict):
            return  # keys of somebody's own, which their spec checks
        if not dataclasses.is_dataclass(node):
            known = f"{where} is {'a config group' if where in groups else 'a value'} and has no keys"
            raise ConfigError(f"{key} is not known;{_suggest_key(key, groups)} {known}")
        names = [f.name for f in dataclasses.fields(node)]
        if not parents:
            names += [group for group in groups if group not in names]
        if part not in names:
            hint = _suggest_key(key, groups)
            raise ConfigError(f"{key} is not known;{hint} {where or 'the config'} has: {', '.join(names)}")
        parents.append(part)
        node = getattr(node, part, None)


def _suggest_key(key: str, groups: Sequence[str]) -> str:
    """` did you mean X?` with the whole key, and the group where the first part is one; nothing where none is close."""
    head, _, rest = key.partition(".")
    meant = find_keys(key)
    if (
        rest in ("kind", "name")
        and head in groups
        and head not in {f.name for f in dataclasses.fields(ApplicationSpec)}
    ):
        meant = [*[key for key in meant if f".{head}." in key], f"{head}=NAME"]
    if not meant and not rest:
        return suggest(key, groups)
    return f" did you mean {list_several(meant)}?" if meant else ""


def explain_word(word: str, choices: Mapping[str, Sequence[str]], sweeps: Iterable[str]) -> str:
    """What a word without `=` may have been meant for, in one line.

    choices: of every config group. sweeps: names of those there are.
    """
    start = f"{word!r} cannot be read as key=value"
    exact = [f"{group}={word}" for group, names in choices.items() if word in names]
    if exact:
        return f"{start}; did you mean {list_several(exact)}?"
    keys = [word] if word in choices else find_keys(word) if re.fullmatch(r"[A-Za-z_][\w.]*", word) else []
    close = [
        f"{group}={name}" for group, names in choices.items() for name in difflib.get_close_matches(word, names, n=1)
    ]
    if word not in (*choices, *sweeps) and close and not any(key.split(".")[-1] == word.split(".")[-1] for key in keys):
        return f"{start}; did you mean {list_several(close)}?"
    if word in sweeps:
        return f"{start}; did you mean {list_several([f'ffem sweep {word}', *(f'{key}=VALUE' for key in keys)])}?"
    if keys:
        return f"{start}; did you mean {list_several([f'{key}=VALUE' for key in keys])}?"
    return f"{start}, such as arch=ffem_am"


def check_listed(key: str, values: Any, groups: Iterable[str]) -> None:
    """Raise ConfigError where a sweep file gives the values of `key` as a YAML list, which would be one value.

    A key that takes a list, such as arch.attention.placement, may have one.
    """
    if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
        return
    if key not in groups and _find_type(key) not in SCALARS:
        return
    written = ",".join(
        write_value(_write_plain(value)) if isinstance(value, str) else _write_plain(value) for value in values
    )
    raise ConfigError(
        f"hydra.sweeper.params.{key} is a YAML list, which would be one value; write the values in one line: "
        f"{key}: {written}"
    )


def _write_plain(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _find_type(key: str) -> str:
    """The type of the key's field as it is written; empty where there is no such key."""
    node: Any = ApplicationSpec
    written = ""
    for part in key.split("."):
        if part.isdigit():
            node = StageSpec
            continue
        f = next((f for f in dataclasses.fields(node) if f.name == part), None) if node is not None else None
        if f is None:
            return ""
        node, written = _find_below(f), str(f.type)
    return written
