"""The command that retrains a recorded network: config choices, and the settings that differ from them."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ffem_jax.config.compose import find_conf_dir
from ffem_jax.config.overrides import write_value
from ffem_jax.records.view import GROUPS, TrialView
from ffem_jax.specs.trial import TrialSpec, to_plain

# The reader supplies the locations of faces and teacher; the location of a cache has no effect.
PRIVATE = ("root", "cache_dir", "path")
# Settings that differ between the trials of a network.
RUN_SETTINGS = ("protocol.fold", "protocol.split_seed")
FACES, TEACHER = "data.root=FACES", "teacher.path=TEACHER"


def make_overrides(view: TrialView) -> list[str]:
    """Return the arguments of `ffem train` that compose to the recorded spec, without seed, fold and split.

    A folder of faces is given as `data.root=FACES` and a teacher as `teacher.path=TEACHER`, for the reader to fill in.
    Values are quoted for a shell.
    """
    words = [shlex.quote(f"{key}={value}") for key, value in find_settings(view).items()]
    words += [FACES] if view.get_name("data") == "folder" else []
    return [*words, TEACHER] if view.teacher.name != "none" else words


def find_settings(view: TrialView, groups: Sequence[str] = tuple(GROUPS)) -> dict[str, str]:
    """Return the settings that compose to the recorded `groups`, by key, with values in Hydra's grammar.

    Seed, fold, split, the location of the faces and groups that the record does not have are left out.
    """
    settings = {}
    for group in groups:
        own = view.get_written(group)
        if group not in view.written or (group == "pretrain" and not view.is_pretrained):
            continue
        choice, base = _find_choice(group, str(own.get("name", "")))
        settings[group] = choice
        settings |= {f"{group}.{key}": _write_value(value) for key, value in _find_changes(own, base)}
    return {key: value for key, value in settings.items() if key not in RUN_SETTINGS}


def make_run_overrides(view: TrialView) -> list[str]:
    """Return the arguments for one trial of the network: seed, and fold and split if they are not 0."""
    own = {"seed": view.seed, "protocol.fold": view.protocol.fold}
    own["protocol.split_seed"] = view.protocol.split_seed
    return [f"{name}={value}" for name, value in own.items() if value or name == "seed"]


def _find_changes(own: dict[str, Any], base: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of `own` that differ from `base`, as dotted keys; omitted fields have their default."""
    defaults = base["defaults"] if not prefix else {}
    for key in dict.fromkeys([*own, *base["values"]]):
        if key in PRIVATE:
            continue
        chosen = base["values"].get(key)
        value = own.get(key, defaults.get(key, chosen))
        if isinstance(value, dict) and isinstance(chosen, dict):
            yield from ((f"{key}.{name}", v) for name, v in _find_changes(value, {"values": chosen}, f"{key}."))
        elif value != chosen:
            yield key, value


@functools.cache
def _find_choice(group: str, name: str) -> tuple[str, dict[str, Any]]:
    """Return the config of `group` with this name and its composed values; the group's default if there is none."""
    folder = find_conf_dir() / group
    chosen = _read(find_conf_dir() / "config.yaml")["defaults"]
    default = next(line[group] for line in chosen if isinstance(line, dict) and group in line)
    files = sorted(folder.rglob("*.yaml"), key=lambda path: (path.stem != name, len(path.parts), path.stem))
    path = next((path for path in files if _read(path).get("name") == name), folder / f"{default}.yaml")
    whole = json.loads(json.dumps(_fill(getattr(TrialSpec(), group))))  # converts tuples to lists, as in a record
    values = _merge(json.loads(json.dumps(whole)), _compose(path, group))
    return path.relative_to(folder).with_suffix("").as_posix(), {"values": values, "defaults": whole}


def _fill(spec: Any) -> dict[str, Any]:
    """Return a spec as nested dicts, including `added` fields at their defaults."""
    fields = dataclasses.fields(spec)
    plain = {f.name: getattr(spec, f.name) for f in fields}
    filled = {name: _fill(value) if dataclasses.is_dataclass(value) else value for name, value in plain.items()}
    return filled | json.loads(json.dumps(to_plain(spec)))


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _compose(path: Path, group: str) -> dict[str, Any]:
    """Compose a config file with its defaults list: `x`, `/group/x@_here_` or `/group@key: x`, as conf/ uses them."""
    values: dict[str, Any] = {}
    for entry in _read(path).get("defaults", ()):
        if isinstance(entry, dict):
            ((key, name),) = entry.items()
            other, _, place = key.strip("/").partition("@")
            inner = {place: _compose(find_conf_dir() / other / f"{name}.yaml", other)}
        elif entry == "_self_":
            continue
        else:
            own = entry.strip("/").removesuffix("@_here_").removeprefix(f"{group}/")
            inner = _compose(find_conf_dir() / group / f"{own}.yaml", group)
        values = _merge(values, inner)
    return _merge(values, {key: value for key, value in _read(path).items() if key != "defaults"})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        # An interpolation repeats the value of another key.
        elif not (isinstance(value, str) and value.startswith("${")):
            # YAML 1.1 reads 5e-4 as a string.
            merged[key] = float(value) if isinstance(merged.get(key), float) and isinstance(value, str) else value
    return merged


def _write_value(value: Any) -> str:
    """Write a value in Hydra's override grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_write_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_write_value, value)) + "]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return write_value(value) if isinstance(value, str) else str(value)
