"""Finds recorded trials that differ in one factor and in nothing else that affects a result."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffem_jax.analysis.comparability import FrontierError, Run, describe_pretraining, identify, identify_teacher
from ffem_jax.analysis.independence import find_start
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import UNREADABLE, TrialView, read_spec
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, select_effective_attention
from ffem_jax.specs.trial import DataSpec, RecipeSpec, get_added_defaults, select_effective

# A name stands for the settings that are the same in every trial with that name.
NAMES = {"arch.name": "arch.", "recipe.name": "recipe.", "pretrain.name": "pretrain."}
# Data settings that change how an image is seen, but not which image it is.
VIEWS = ("data.resolution", "data.crop", "data.fit")


@dataclass(frozen=True)
class Pair:
    """Two trials with the levels `levels`, trained with one seed on one split of one data set.

    Args:
        context: every setting of either trial except the factor.
        run: the run of both, with fold 0 for all folds.
        pictures: fingerprint of the images that the indices of both refer to; empty if not known.
        start: the seeds of their pretrainings, None for a trial without one; None if neither has one.
    """

    levels: tuple[str, str]
    first: TrialRecord
    second: TrialRecord
    context: dict[str, str]
    run: Run
    pictures: str
    start: tuple[int | None, int | None] | None = None


@dataclass(frozen=True)
class _Trial:
    record: TrialRecord
    level: str
    settings: dict[str, str]
    place: tuple[Any, ...]


def list_levels(records: Sequence[TrialRecord]) -> dict[str, set[str]]:
    """Return every factor of `records` by its full name, names included, with its levels."""
    levels: dict[str, set[str]] = {}
    for record in records:
        for name, value in (read_settings(record) | read_names(record)).items():
            levels.setdefault(name, set()).add(value)
    return levels


def find_factor(records: Sequence[TrialRecord], factor: str) -> str:
    """Return the full name of `factor` (`attention.kind` becomes `arch.attention.kind`).

    Raises:
        FrontierError: the factor does not vary in these records; the message names those that do.
    """
    full = f"arch.{factor}" if factor.startswith("attention.") else factor
    levels = list_levels(records)
    varying = [name for name, values in levels.items() if len(values) > 1]
    if full in varying:
        return full
    choices = f"choose one of: {', '.join(map(shorten, varying))}" if varying else "no setting does"
    if full in levels:
        raise FrontierError(
            f"{factor} is {next(iter(levels[full]))} in all of these records and cannot be compared; {choices}"
        )
    raise FrontierError(f"factor={factor!r} does not vary in these records; {choices}")


def find_pairs(records: Sequence[TrialRecord], factor: str, against: str = "") -> tuple[list[Pair], list[TrialRecord]]:
    """Return all pairs of `records` that differ only in `factor` (full name), and the records without a pair.

    A setting that only one of two trials has is ignored: a network without attention has no placement, so it pairs with
    every placement. Names are ignored too, unless the factor is a name. With `against`, that level is the first of
    every pair.

    Raises:
        FrontierError: `against` is not a level of the factor; the message names the levels.
    """
    own = _find_settings_of_names(records, factor)
    trials = []
    for record in records:
        settings = read_settings(record)
        level = (settings | read_names(record)).get(factor)
        if level is not None:
            kept = {name: value for name, value in settings.items() if name not in own}
            trials.append(_Trial(record, level, kept, _find_place(record, factor)))
    order = sort_levels(dict.fromkeys(trial.level for trial in trials))
    if against:
        if against not in order:
            raise FrontierError(
                f"against={against!r} is not a level of {shorten(factor)} here; choose one of: {', '.join(order)}"
            )
        order = [against, *(level for level in order if level != against)]
    by_place: dict[tuple[Any, ...], list[_Trial]] = {}
    for trial in sorted(trials, key=lambda trial: order.index(trial.level)):
        by_place.setdefault(trial.place, []).append(trial)
    pairs = []
    for (_, run, pictures, _), group in by_place.items():
        for a, b in itertools.combinations(group, 2):
            if against and a.level != against:
                continue
            if a.level != b.level and all(b.settings.get(name, value) == value for name, value in a.settings.items()):
                whole, both = run._replace(fold=0), (a.record, b.record)
                seeds = find_start(a.record), find_start(b.record)
                start = None if seeds == (None, None) else seeds
                pairs.append(Pair((a.level, b.level), *both, a.settings | b.settings, whole, pictures, start))
    paired = {id(record) for pair in pairs for record in (pair.first, pair.second)}
    return pairs, [record for record in records if id(record) not in paired]


def read_settings(record: TrialRecord) -> dict[str, str]:
    """Return the settings that affect the record's result, by dotted name, except seeds, split and faces.

    Values are written as they are typed. Settings that this trial does not read are left out.

    Raises:
        FrontierError: the attention kind is unknown here, so its settings cannot be interpreted.
    """
    view = record.view
    # A record omits settings that were added later and not used. Their defaults must still match the partner's values.
    arch = get_added_defaults(ArchSpec) | view.get_written("arch")
    arch = {f"arch.{k}": v for k, v in arch.items() if k not in ("name", "attention")}
    # A recipe from a version with other fields is compared as written.
    recipe = select_effective(view.recipe) if view.is_exact("recipe") else view.get_written("recipe")
    recipe = get_added_defaults(RecipeSpec) | {name: value for name, value in recipe.items() if name != "name"}
    data = get_added_defaults(DataSpec) | view.get_written("data")
    views = {name: data[name.removeprefix("data.")] for name in VIEWS if name.removeprefix("data.") in data}
    pretraining = describe_pretraining(view)
    start: dict[str, Any] = {"pretrain.name": view.pretrain.name}
    start |= {"pretrain.settings": {k: v for k, v in pretraining.items() if k != "name"}} if pretraining else {}
    recipe = {f"recipe.{name}": value for name, value in recipe.items()}
    if taught := identify_teacher(record):
        start["teacher.vectors"] = taught
    settings = arch | _read_attention(view) | views | recipe | start
    return {name: write_value(value) for name, value in settings.items()}


def sort_levels(levels: Sequence[str] | dict[str, None]) -> list[str]:
    """Return numbers in ascending order; words in the given order, with `none` first."""
    try:
        return sorted(levels, key=float)
    except ValueError:
        return sorted(levels, key=lambda level: level != "none")


def shorten(factor: str) -> str:
    """Return the factor's name as typed."""
    return factor.removeprefix("arch.") if factor.startswith("arch.attention.") else factor


def read_names(record: TrialRecord) -> dict[str, str]:
    """Return the names of the record's network, recipe and pretraining, by factor."""
    names = {name: record.view.get_name(name.split(".")[0]) for name in NAMES}
    return {name: value for name, value in names.items() if value}


def _read_attention(view: TrialView) -> dict[str, Any]:
    try:
        attention = read_spec(AttentionSpec, view.get_written("arch").get("attention", {}))
        read = select_effective_attention(attention)
    except UNREADABLE as error:
        raise FrontierError(
            f"a record has attention.kind={view.arch.attention.kind}, which this version cannot read ({error}); its "
            "settings are unknown, so its trials cannot be paired"
        ) from None
    if "placement" in read:
        read["placement"] = _name_placement(view.arch, read["placement"])
    return {f"arch.attention.{name}": value for name, value in read.items()}


def _name_placement(arch: ArchSpec, placement: Any) -> Any:
    """Return the name of a list of bottlenecks if it has one: [0,13] of 14 is first_last."""
    if isinstance(placement, str):
        return placement
    try:
        blocks = arch.block_count
        indices = AttentionSpec(kind="eca", placement=placement).indices(blocks)
    except UNREADABLE:  # written by another version
        return placement
    named = ("first", "last", "first_last", "all")
    return next((n for n in named if AttentionSpec(kind="eca", placement=n).indices(blocks) == indices), list(indices))


def _find_settings_of_names(records: Sequence[TrialRecord], factor: str) -> set[str]:
    """Return the settings that the factor covers: itself or, for a name, all that never vary under one name."""
    group = NAMES.get(factor)
    if group is None:
        return {factor}
    seen: dict[tuple[str, str], set[str]] = {}
    for record in records:
        level = read_names(record).get(factor, "")
        for name, value in read_settings(record).items():
            if name.startswith(group):
                seen.setdefault((name, level), set()).add(value)
    varying = {name for (name, _), values in seen.items() if len(values) > 1}
    return {name for name, _ in seen} - varying


def _find_place(record: TrialRecord, factor: str) -> tuple[str, Run, str, int]:
    """Return what both trials of a pair share: protocol, run, images and number of tested images."""
    identity = identify(record)
    pictures = record.data_fingerprint
    if factor in VIEWS:
        # Another crop or size gives other pixels of the same images. Synthetic faces are redrawn.
        pictures = "" if record.synthetic else record.pictures_fingerprint
    # A trial without a pretraining has no pretraining seed to share.
    run = identity.run._replace(pretraining_seed=0) if factor.startswith("pretrain.") else identity.run
    return json.dumps(json.loads(identity.setting)[1]), run, pictures, record.tested or 0


def write_value(value: Any) -> str:
    """Return a setting's value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
