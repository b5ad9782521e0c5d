"""The space of a search: choices in Hydra's syntax, some of which depend on others. No JAX; Hydra only parses values.

A point is a dict from a choice's name, which is an override's key, to the text of its value. It holds active choices
only: a network without attention has no placement of attention.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from ffem_jax.errors import FfemError
from ffem_jax.specs.trial import TrialSpec

if TYPE_CHECKING:
    import numpy as np

Point = dict[str, str]

# Fields of a spec that do not affect results: labels and paths.
LABELS = {
    ("arch", "name"),
    ("recipe", "name"),
    *((*group, "data", place) for group in ((), ("pretrain",)) for place in ("root", "cache_dir")),
    ("pretrain", "name"),
}


class SpaceError(FfemError):
    """An invalid space, or an invalid point of it. The message is one line and says what to do."""


@dataclass(frozen=True)
class Choice:
    """One dimension of a space.

    Args:
        name: an override's key, such as `arch.attention.kind`.
        values: the texts of its values, in order.
        when: conditions (choice, values): it is active only if each choice has one of its values.
        ordered: the values are numbers, so a sampler may treat neighbours as similar.
    """

    name: str
    values: tuple[str, ...]
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ordered: bool = False

    def is_active(self, point: Mapping[str, str]) -> bool:
        """Return whether this choice is active in `point`, which holds the active choices before it."""
        return all(point.get(name) in values for name, values in self.when)


@dataclass(frozen=True)
class SearchSpace:
    """All choices, each after those it depends on. Raises SpaceError if they contradict one another."""

    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        before: dict[str, Choice] = {}
        if not self.choices:
            raise SpaceError("the space has no choices; name some in hydra.sweeper.params")
        for choice in self.choices:
            if choice.name in before:
                raise SpaceError(f"the space has {choice.name} twice; leave one out")
            if not choice.values:
                raise SpaceError(f"{choice.name} has no values; give at least one")
            if len(set(choice.values)) < len(choice.values):
                twice = next(value for value in choice.values if choice.values.count(value) > 1)
                raise SpaceError(f"{choice.name} has the value {twice} twice; leave one out")
            for name, values in choice.when:
                if name not in before:
                    known = f"it may depend on: {', '.join(before)}" if before else "there is none before it"
                    raise SpaceError(f"{choice.name} depends on {name}, which is not a choice before it; {known}")
                if unknown := [value for value in values if value not in before[name].values]:
                    listed = ", ".join(before[name].values)
                    raise SpaceError(f"{choice.name} depends on {name}={unknown[0]}; choose one of: {listed}")
                if not values:
                    raise SpaceError(f"{choice.name} depends on {name} but lists no values for it; name some")
            before[choice.name] = choice

    @cached_property
    def by_name(self) -> dict[str, Choice]:
        """The choices by their names."""
        return {choice.name: choice for choice in self.choices}

    @cached_property
    def size(self) -> int:
        """The number of distinct points. Several of them may build the same network."""
        deciding = {name for choice in self.choices for name, _ in choice.when}
        controls = [choice for choice in self.choices if choice.name in deciding]
        others = [choice for choice in self.choices if choice.name not in deciding]
        return sum(
            math.prod(len(choice.values) for choice in others if choice.is_active(point))
            for point in _enumerate(controls)
        )

    def __iter__(self) -> Iterator[Point]:
        """Iterate over every point, the last choice varying fastest."""
        return _enumerate(self.choices)

    def sample(self, rng: np.random.Generator) -> Point:
        """Return a random point: each active choice in turn takes one of its values, with equal probability.

        So if attention is either none or one kind, half of the points have none, however many placements the kind has.
        """
        point: Point = {}
        for choice in self.choices:
            if choice.is_active(point):
                point[choice.name] = choice.values[int(rng.integers(len(choice.values)))]
        return point

    def get_active(self, point: Mapping[str, str]) -> Point:
        """Return `point` without its inactive choices. Raises SpaceError for an unknown choice or value."""
        if unknown := [name for name in point if name not in self.by_name]:
            raise SpaceError(f"{unknown[0]} is not a choice of this space; it has: {', '.join(self.by_name)}")
        active: Point = {}
        for choice in self.choices:
            if not choice.is_active(active):
                continue
            if choice.name not in point:
                raise SpaceError(f"{choice.name} is missing; choose one of: {', '.join(choice.values)}")
            if point[choice.name] not in choice.values:
                listed = ", ".join(choice.values)
                raise SpaceError(f"{choice.name}={point[choice.name]} is not in the space; choose one of: {listed}")
            active[choice.name] = point[choice.name]
        return active

    def to_overrides(self, point: Mapping[str, str]) -> list[str]:
        """Return the overrides that build `point`, in the order of the choices. Raises as `get_active` does."""
        return [f"{name}={value}" for name, value in self.get_active(point).items()]

    def read_point(self, spec: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Point | None:
        """Return the point of a record's `spec`, or None if it is outside the space.

        Args:
            spec: nested dicts, as `to_plain` returns them.
            base: the `spec` of any trial of the space. All settings except the choices, the seed, names and paths must
                then equal it. Without it only the choices are compared.
        """
        point: Point = {}
        for choice in self.choices:
            if not choice.is_active(point):
                continue
            found = _look_up(spec, choice.name)
            value = next((text for text in choice.values if _means(read_value(text), found)), None)
            if value is None:
                return None
            point[choice.name] = value
        if base is not None:
            chosen = set(self.by_name) | {"seed"}
            ours, theirs = _flatten(spec), _flatten(base)
            for path in ours.keys() | theirs.keys():
                name = ".".join(path)
                if path in LABELS or any(name == key or name.startswith(f"{key}.") for key in chosen):
                    continue
                if _get(ours, path) != _get(theirs, path):
                    return None
        return point


def _enumerate(choices: Sequence[Choice]) -> Iterator[Point]:
    def extend(point: Point, index: int) -> Iterator[Point]:
        while index < len(choices) and not choices[index].is_active(point):
            index += 1
        if index == len(choices):
            yield dict(point)
            return
        for value in choices[index].values:
            yield from extend({**point, choices[index].name: value}, index + 1)

    return extend({}, 0)


# ------------------------------------------------------------------------------------ reading


def read_space(config: Mapping[str, Any], replaced: Mapping[str, Any] | None = None) -> SearchSpace:
    """Return the space defined by a sweeper's config.

    Args:
        config: `params`, override keys with values in Hydra's syntax (`a,b`, `choice(a,b)` or `range(1,4)`; a single
            value is a choice of one), and `when`, choice -> {other choice: the value or list of values it must have}.
        replaced: values, in the same syntax, that replace those in `params`. Choices that can then never be active are
            left out.

    Raises:
        SpaceError: naming the choice that cannot be read.
    """
    replaced = replaced or {}
    params, conditions = {**(config.get("params") or {}), **replaced}, config.get("when") or {}
    if unknown := [name for name in conditions if name not in params]:
        raise SpaceError(
            f"hydra.sweeper.when names {unknown[0]}, which is not a choice; choose from: {', '.join(params)}"
        )
    values = {name: _read_values(name, text) for name, text in params.items()}
    choices = {
        name: Choice(
            name,
            texts,
            tuple((other, _read_condition(name, other, wanted)) for other, wanted in conditions.get(name, {}).items()),
            all(_is_number(read_value(text)) for text in texts),
        )
        for name, texts in values.items()
    }
    left: dict[str, Choice] = {}
    for name in _order(choices):
        choice = choices[name]
        # A condition on a replaced choice keeps those of its values that remain.
        when = tuple(
            (other, tuple(one for one in wanted if one in choices[other].values) if other in replaced else wanted)
            for other, wanted in choice.when
        )
        if all(wanted and (other in left or other not in choices) for other, wanted in when):
            left[name] = dataclasses.replace(choice, when=when)
    return SearchSpace(tuple(left.values()))


def _order(choices: Mapping[str, Choice]) -> list[str]:
    """Return the names, each after those it depends on, otherwise in the order of the config."""
    ordered: list[str] = []

    def place(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise SpaceError(f"hydra.sweeper.when is circular: {' -> '.join([*waiting, name])}")
        for other, _ in choices[name].when:
            if other in choices:
                place(other, (*waiting, name))
        if name not in ordered:
            ordered.append(name)

    for name in choices:
        place(name, ())
    return ordered


def _read_values(name: str, text: Any) -> tuple[str, ...]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not isinstance(text, str):
        text = str(text).lower() if isinstance(text, bool) or text is None else str(text)
        text = {"none": "null"}.get(text, text)
    try:
        override = OverridesParser.create().parse_override(f"{name}={text}")
        return tuple(override.sweep_string_iterator()) if override.is_sweep_override() else (text.strip(),)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise SpaceError(f"{name}: {text!r} is not a list of values ({reason}); write a,b or range(1,4)") from error


def _read_condition(name: str, other: str, wanted: Any) -> tuple[str, ...]:
    if isinstance(wanted, Mapping):
        raise SpaceError(f"hydra.sweeper.when: {name} needs a value or a list of values for {other}")
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        wanted = [wanted]
    return tuple(text for value in wanted for text in _read_values(other, value))


@lru_cache(maxsize=10_000)
def _parse_value(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import QuotedString

    value = OverridesParser.create().parse_override(f"key={text}").value()
    return value.text if isinstance(value, QuotedString) else value


def read_value(text: str) -> Any:
    """Return the value of a text in Hydra's grammar: a number, a bool, None, a string, a list or a dict."""
    return _parse_value(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _means(value: Any, found: Any) -> bool:
    """Return whether a spec with `found` was built with `value`; each item of a dict must match, as it is an
    override."""
    if isinstance(value, Mapping):
        return isinstance(found, Mapping) and all(_means(item, found.get(key)) for key, item in value.items())
    if isinstance(found, Mapping):  # a config group, identified by its name
        return "name" in found and found["name"] == value
    if isinstance(value, bool) or isinstance(found, bool):
        return value is found
    if isinstance(value, list):
        return isinstance(found, list) and len(value) == len(found) and all(map(_means, value, found))
    return bool(value == found)


@lru_cache(maxsize=1)
def _read_defaults() -> dict[str, Any]:
    return dataclasses.asdict(TrialSpec())


def _look_up(spec: Mapping[str, Any], name: str) -> Any:
    """Return the value at the dotted `name`; a field missing from the record has its default."""
    for root in (spec, _read_defaults()):
        node: Any = root
        for part in name.split("."):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                break
        else:
            return node
        # A missing stage must not be taken from the default table.
        if "stages" in name:
            break
    return None


def _flatten(node: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(node, Mapping):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple) and any(isinstance(item, Mapping) for item in node):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return {path: list(node) if isinstance(node, tuple) else node}
    return dict(itertools.chain.from_iterable(_flatten(value, (*path, key)).items() for key, value in items))


def _get(flat: Mapping[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    return flat[path] if path in flat else _look_up({}, ".".join(path))
