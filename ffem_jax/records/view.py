"""A record's spec as the dataclasses it was written from: the one reader of nested dicts. No JAX.

A record may be older or newer than this package. What cannot be read strictly is read leniently: known fields keep the
written value, whatever it is, missing ones their default, and `TrialView.is_exact` says so.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ffem_jax.specs.architecture import ArchSpec, NetworkSpec, SpecError, resolve_network
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, TeacherSpec, TrialSpec

Spec = TypeVar("Spec")

# What a spec's constructor raises for values that are none.
UNREADABLE = (SpecError, TypeError, ValueError, AttributeError, KeyError)
GROUPS: dict[str, type] = {
    "arch": ArchSpec,
    "data": DataSpec,
    "protocol": ProtocolSpec,
    "recipe": RecipeSpec,
    "pretrain": PretrainSpec,
    "teacher": TeacherSpec,
}
# Protocols whose trials test a part each: a run is all of them.
FOLDED = ("kfold", "view2", "open_set")


def read_spec(kind: type[Spec], row: Mapping[str, Any]) -> Spec:
    """The dataclass `kind` from nested dicts; a field that `row` leaves out is at its default.

    Raises:
        SpecError, TypeError, ValueError or AttributeError for a field that `kind` does not have or a value it refuses.
    """
    nested = _list_nested(typing.cast(Any, kind))
    return kind(**{name: _read_part(nested[name], value) if name in nested else value for name, value in row.items()})


def read_arch(arch: Mapping[str, Any]) -> ArchSpec:
    """A network's spec from its nested dicts. Raises as `read_spec` does."""
    return read_spec(ArchSpec, arch)


def read_trial(row: Mapping[str, Any]) -> TrialSpec:
    """The TrialSpec that `spec.to_plain` made `row` of. Raises KeyError for a group left out, else as `read_spec`."""
    for group in ("arch", "data", "protocol", "recipe"):
        row[group]  # a default would be another trial
    if "pretrain" in row:
        for group in ("data", "protocol", "recipe"):
            row["pretrain"][group]
    return read_spec(TrialSpec, row)


@dataclass(frozen=True)
class TrialView:
    """A record's spec, typed.

    Args:
        arch, data, protocol, recipe, pretrain, teacher, seed: as `TrialSpec` has them; what the record leaves out is
            at its default.
        written: the spec as the record has it: what may be compared or repeated, fields of other versions among it.
        inexact: the groups that this package cannot read strictly.
    """

    arch: ArchSpec
    data: DataSpec
    protocol: ProtocolSpec
    recipe: RecipeSpec
    pretrain: PretrainSpec
    teacher: TeacherSpec
    seed: int
    written: Mapping[str, Any]
    inexact: frozenset[str] = frozenset()

    def is_exact(self, group: str) -> bool:
        """Whether every field of `group` is one that this package has, at a value that it takes."""
        return group not in self.inexact

    def get_written(self, group: str) -> dict[str, Any]:
        """The fields of `group` as the record has them; empty where it has none."""
        return dict(self.written.get(group) or {})

    def has(self, group: str, field: str) -> bool:
        """Whether the record says what `field` of `group` is."""
        return field in (self.written.get(group) or {})

    def get_name(self, group: str) -> str:
        """The name that the record gives `group`; empty where it gives none."""
        return str((self.written.get(group) or {}).get("name", ""))

    @property
    def network(self) -> NetworkSpec:
        """The network as it is built. Raises one of UNREADABLE where this package builds no such network."""
        if "arch" not in self.written:
            raise KeyError("the record has no arch")
        if not self.is_exact("arch"):
            read_arch(self.get_written("arch"))  # says what is wrong with it
        return resolve_network(self.arch)

    @property
    def is_pretrained(self) -> bool:
        """Whether the network started from the weights of a pretraining."""
        return self.pretrain.name != "none"

    @property
    def tests_pairs(self) -> bool:
        """Whether the accuracy is of pairs (View 2) and not of images."""
        return self.protocol.name == "view2"

    @property
    def tests_strangers(self) -> bool:
        """Whether nobody who is tested was trained on (View 2, open_set, bins)."""
        return self.protocol.name in ("view2", "open_set", "bins")

    @property
    def folds(self) -> int:
        """How many trials make one run: the protocol's folds, or 1 where a trial tests everything."""
        return self.protocol.folds if self.protocol.name in FOLDED else 1


def view_spec(spec: Mapping[str, Any]) -> TrialView:
    """`spec`, the nested dicts of a record, as dataclasses; never raises for what another version wrote."""
    read = {group: _read_group(group, json.dumps(spec.get(group), sort_keys=True)) for group in GROUPS}
    parts: dict[str, Any] = {group: part for group, (part, _) in read.items()}
    inexact = frozenset(group for group, (_, exact) in read.items() if not exact)
    return TrialView(**parts, seed=spec.get("seed", 0), written=spec, inexact=inexact)


# Thousands of records share a few recipes and protocols.
@functools.lru_cache(maxsize=65536)
def _read_group(group: str, text: str) -> tuple[Any, bool]:
    """The dataclass of a group, given as JSON, and whether it could be read strictly."""
    row = json.loads(text)
    row = row if isinstance(row, dict) else {}
    try:
        return read_spec(GROUPS[group], row), True
    except UNREADABLE:
        return _read_leniently(GROUPS[group], row), False


@functools.cache
def _list_nested(kind: Any) -> dict[str, tuple[type, bool]]:
    """The fields of `kind` that hold dataclasses: which, and whether it is a tuple of them."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        several = typing.get_origin(hint) is tuple
        inner = typing.get_args(hint)[0] if several else hint
        if dataclasses.is_dataclass(inner):
            found[name] = (typing.cast(type, inner), several)
    return found


def _read_part(nested: tuple[type, bool], value: Any) -> Any:
    kind, several = nested
    return tuple(read_spec(kind, row) for row in value) if several else read_spec(kind, value)


def _read_leniently(kind: Any, row: Mapping[str, Any]) -> Any:
    """`kind` with the fields of `row` that it has, unchecked."""
    nested = _list_nested(kind)
    values = {f.name: getattr(kind(), f.name) for f in dataclasses.fields(kind)}
    for name, value in row.items():
        if name in nested:
            inner, several = nested[name]
            rows = value if several and isinstance(value, list | tuple) else [value]
            read = [_read_or_leave(inner, one) for one in rows]
            values[name] = tuple(read) if several else read[0]
        elif name in values:
            values[name] = value
    spec = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(spec, name, value)
    return spec


def _read_or_leave(kind: type, row: Any) -> Any:
    if not isinstance(row, Mapping):
        return kind()
    try:
        return read_spec(kind, row)
    except UNREADABLE:
        return _read_leniently(kind, row)
