"""Which recorded trials differ in one factor and in nothing else that decides a result."""

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

# A name stands for the settings that are the same wherever it is used.
NAMES = {"arch.name": "arch.", "recipe.name": "recipe.", "pretrain.name": "pretrain."}
# Of the data's settings those that change no picture, only how it is seen.
VIEWS = ("data.resolution", "data.crop", "data.fit")


@dataclass(frozen=True)
class Pair:
    """Two trials of levels `levels`, trained with one seed on one split of one data set.

    context: every setting of either, but for the factor. run: of both, fold 0 for all folds. pictures: which pictures
    the indices of both mean; empty where that is not known. start: the seeds of their pretrainings, None for the one
    without; None where neither has any.
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
    """Every factor of `records` in full, names among them, and its levels."""
    levels: dict[str, set[str]] = {}
    for record in records:
        for name, value in (read_settings(record) | read_names(record)).items():
            levels.setdefault(name, set()).add(value)
    return levels


def find_factor(records: Sequence[TrialRecord], factor: str) -> str:
    """`factor` in full (`attention.kind` is `arch.attention.kind`).

    Raises FrontierError, naming the factors that vary in these records, unless it is one of them.
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
    """All pairs of `records` that differ in `factor` (in full) alone, and the records that are in none.

    A setting that only one of two trials has decides nothing for the other: no attention has no placement, so it
    pairs with every placement. Names decide nothing either, unless the name is the factor. With `against` that level
    is the first of every pair.

    Raises FrontierError, naming the levels there are, where `against` is none of them.
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
                f"against={against!r} is no level of {shorten(factor)} here; choose one of: {', '.join(order)}"
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
    """What decides the record's result, but for seeds, split and faces: dotted name -> value as it is typed.

    Settings that this trial does not read are left out. Raises FrontierError for an attention that is not known here,
    since nothing tells which of its settings it reads.
    """
    view = record.view
    # A record leaves out what came later and was not used: that is a value too, and no partner's other one.
    arch = get_added_defaults(ArchSpec) | view.get_written("arch")
    arch = {f"arch.{k}": v for k, v in arch.items() if k not in ("name", "attention")}
    # A recipe of a package with other fields counts as it is written.
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
    """Numbers by size; words as they come, `none` first."""
    try:
        return sorted(levels, key=float)
    except ValueError:
        return sorted(levels, key=lambda level: level != "none")


def shorten(factor: str) -> str:
    """A factor as it is typed."""
    return factor.removeprefix("arch.") if factor.startswith("arch.attention.") else factor


def read_names(record: TrialRecord) -> dict[str, str]:
    """The names of the record's network, recipe and pretraining, by factor."""
    names = {name: record.view.get_name(name.split(".")[0]) for name in NAMES}
    return {name: value for name, value in names.items() if value}


def _read_attention(view: TrialView) -> dict[str, Any]:
    try:
        attention = read_spec(AttentionSpec, view.get_written("arch").get("attention", {}))
        read = select_effective_attention(attention)
    except UNREADABLE as error:
        raise FrontierError(
            f"a record has attention.kind={view.arch.attention.kind}, which cannot be read here ({error}); what it "
            "reads is not known, so nothing can be said to be equal in all else"
        ) from None
    if "placement" in read:
        read["placement"] = _name_placement(view.arch, read["placement"])
    return {f"arch.attention.{name}": value for name, value in read.items()}


def _name_placement(arch: ArchSpec, placement: Any) -> Any:
    """A list of bottlenecks by its name where it has one: [0,13] of 14 is first_last."""
    if isinstance(placement, str):
        return placement
    try:
        blocks = arch.block_count
        indices = AttentionSpec(kind="eca", placement=placement).indices(blocks)
    except UNREADABLE:  # of another package
        return placement
    named = ("first", "last", "first_last", "all")
    return next((n for n in named if AttentionSpec(kind="eca", placement=n).indices(blocks) == indices), list(indices))


def _find_settings_of_names(records: Sequence[TrialRecord], factor: str) -> set[str]:
    """The settings that go with the factor: itself, or, of a name, those that nowhere vary under one name."""
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
    """What both of a pair share: the protocol, the run, the pictures and how many were tested."""
    identity = identify(record)
    pictures = record.data_fingerprint
    if factor in VIEWS:
        # Another crop or size is other pixels of the same pictures. Drawn faces are drawn anew.
        pictures = "" if record.synthetic else record.pictures_fingerprint
    # Without a pretraining there is no seed of one that both could share.
    run = identity.run._replace(pretraining_seed=0) if factor.startswith("pretrain.") else identity.run
    return json.dumps(json.loads(identity.setting)[1]), run, pictures, record.tested or 0


def write_value(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
