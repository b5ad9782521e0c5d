"""`--where KEY=VALUE`: selects recorded trials, for example those with one recipe, attention or resolution."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.pairing import read_names, read_settings, shorten, write_value
from ffem_jax.records.record import TrialRecord, flatten_spec, latest_records

LISTED = 12  # values or keys that an error names


def select_where(records: Sequence[TrialRecord], conditions: Sequence[str]) -> list[TrialRecord]:
    """Return the records that meet every condition, such as `recipe.name=modern`.

    A key given twice matches either value. A setting is written as it is typed for training (`attention.kind` also
    stands for `arch.attention.kind`). A trial that does not use a setting, such as the reduction in a network without
    attention, meets no condition on it.

    Raises:
        FrontierError: a condition is not KEY=VALUE, has a key or a value that no trial has (the message names the
            existing ones), or no trial meets all conditions.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, sign, value = condition.partition("=")
        if not sign or not key.strip():
            raise FrontierError(f"--where {condition} is not KEY=VALUE, such as recipe.name=modern")
        wanted.setdefault(key.strip(), []).append(value.strip())
    settings = [list_settings(record) for record in latest_records(records)] if wanted else []
    for key, values in wanted.items():
        _check_condition(key, values, settings)
    kept = [record for record in records if _meets(list_settings(record), wanted)] if wanted else list(records)
    if wanted and not kept:
        raise FrontierError(f"no trial meets --where {' and '.join(conditions)} together; remove one of them")
    return kept


def list_settings(record: TrialRecord) -> dict[str, str]:
    """Return every setting of the trial, by its short name as typed, with its value."""
    flat = {name: write_value(value) for name, value in flatten_spec(record.spec).items()}
    flat |= {"seed": write_value(record.view.seed), "pretrain.name": record.view.pretrain.name}
    try:
        # The settings that the trial uses replace those of its spec; unused ones are dropped.
        read = read_settings(record)
    except FrontierError:  # an attention kind from another version: its settings are used as written
        return flat | read_names(record)
    decided = {name for name in flat if name.split(".")[0] in ("arch", "attention", "recipe")}
    kept = {name: value for name, value in flat.items() if name not in decided}
    return kept | {shorten(name): value for name, value in (read | read_names(record)).items()}


def _check_condition(key: str, values: Sequence[str], settings: Sequence[dict[str, str]]) -> None:
    short = shorten(key)
    levels = Counter(own[short] for own in settings if short in own)
    if not levels:
        every = {name: len({own.get(name) for own in settings}) for own in settings for name in own}
        near = difflib.get_close_matches(short, every, n=3, cutoff=0.6)
        varying = [name for name, count in every.items() if count > 1]
        if not varying:
            raise FrontierError(f"--where {key}: no recorded trial has this setting, and no setting varies")
        listed = _list(list(dict.fromkeys([*near, *varying])))
        raise FrontierError(f"--where {key}: no recorded trial has this setting; choose one of: {listed}")
    for value in values:
        if not any(_same(value, level) for level in levels):
            listed = _list([f"{level} ({count})" for level, count in levels.most_common()])
            raise FrontierError(f"--where {key}={value}: no recorded trial has this value; choose one of: {listed}")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _meets(settings: dict[str, str], wanted: dict[str, list[str]]) -> bool:
    own = {key: settings.get(shorten(key)) for key in wanted}
    return all(
        (level := own[key]) is not None and any(_same(value, level) for value in values)
        for key, values in wanted.items()
    )


def _same(typed: str, level: str) -> bool:
    """Whether a typed value equals the level: 0.50 is 0.5, True is true, [0, 13] is [0,13]."""
    try:
        return float(typed) == float(level)
    except ValueError:
        return typed.replace(" ", "").lower() == level.replace(" ", "").lower()
