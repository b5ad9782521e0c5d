"""What a setting is, declared on its field: bounds, choices, unit, meaning, source; and the one check that reads them.

A spec is a frozen dataclass whose fields are made with `setting`. Its `__post_init__` calls `check_fields`, and keeps
as code what concerns several fields at once. The same declarations list the settings for people: `list_settings`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import numbers
import typing
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.errors import FfemError
from ffem_jax.specs.own_code import load_plugins

# What a value of each declared type must be, and how a message says so. Other types are checked by their spec.
_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "str": (str, "text"),
}

# What the settings of a spec are below, while it is made.
_above: ContextVar[str] = ContextVar("above", default="")


class SpecError(FfemError):
    """A value that no spec may have. The message is one line and names the valid choices."""


@dataclass(frozen=True)
class Setting:
    """One setting as a table for people has it.

    name: as it is typed on the command line; `N` stands for the number of a row. low, high: inclusive, None for no
    bound. choices: all of today, registered ones among them; empty for any value. default: None where each kind of
    spec has its own.
    """

    name: str
    type: str
    default: Any
    low: float | None
    high: float | None
    choices: tuple[Any, ...]
    unit: str
    meaning: str
    source: str


def setting(
    default: Any = dataclasses.MISSING,
    meaning: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[Any] | Callable[[], Sequence[Any]] = (),
    unit: str = "",
    source: str = "",
    factory: Any = dataclasses.MISSING,
    added: bool = False,
    used: Callable[[Any], bool] | None = None,
) -> Any:
    """The field of a spec, with all that is known of it.

    Args:
        default: its value where nothing else is said; of a list or a spec, `factory` makes it.
        meaning: one sentence for users.
        low, high: the smallest and largest value, inclusive. Of a list, each item must keep to them, and to `choices`.
            Without `high` a number must be finite; `high=math.inf` admits infinity.
        choices: the values there are, or a function that lists them, where they can be registered.
        unit: of the number, such as "pixels" or "degrees".
        source: the paper or library that the setting comes from.
        added: the field came after KEY_VERSION was last raised, with a default that does what was done before. Where
            it is not `used` by its spec (at its default, unless said otherwise) it stands neither in a key nor in a
            record, so that older records are still found.
    """
    about: dict[str, Any] = {
        "meaning": meaning,
        "low": low,
        "high": high,
        "choices": choices,
        "unit": unit,
        "source": source,
    }
    if added:
        about["added"] = used
    return field(default=default, default_factory=factory, metadata=about, hash=False if factory is dict else None)


def check_fields(spec: Any, prefix: str = "") -> None:
    """Check every field of `spec` against its own declaration. NumPy's numbers become Python's, which JSON takes.

    Args:
        spec: a dataclass whose fields are made with `setting`; fields that are specs themselves have checked
            themselves.
        prefix: what its settings are called by on the command line, such as `arch.attention`.

    Raises:
        SpecError: naming the setting, its value and what it must be.
    """
    for of in dataclasses.fields(spec):
        value, name = getattr(spec, of.name), f"{prefix}.{of.name}" if prefix else of.name
        for item in value if isinstance(value, list | tuple) else (value,):
            _check_value(name, item, of)
        if type(value) not in (int, float, bool) and isinstance(value, numbers.Real):
            plain = int(value) if isinstance(value, numbers.Integral) else float(value)
            object.__setattr__(spec, of.name, plain)


def _check_value(name: str, value: Any, of: dataclasses.Field) -> None:
    kind: Any
    kind, wanted = _TYPES.get(_name_type(of), (object, ""))
    low, high = of.metadata.get("low"), of.metadata.get("high")
    # True is a whole number to Python.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (numbers.Integral, numbers.Real)):
        raise SpecError(f"{_name_fully(name)}={value!r} must be {wanted}")
    choices = list_choices(of)
    if choices and value not in choices and callable(of.metadata["choices"]):
        load_plugins()
        choices = list_choices(of)
    if choices:
        check_choice(name, value, choices)
    if low is not None or high is not None:
        check_range(name, value, -math.inf if low is None else low, math.inf if high is None else high)
    if isinstance(value, float) and not math.isfinite(value) and not (high == math.inf and value == high):
        raise SpecError(f"{_name_fully(name)}={value} must be finite")


def list_choices(of: dataclasses.Field) -> tuple[Any, ...]:
    """The values that a field may have, those registered by now among them; empty for any value."""
    choices = of.metadata.get("choices", ())
    return tuple(choices() if callable(choices) else choices)


@contextlib.contextmanager
def name_below(prefix: str) -> Iterator[None]:
    """Name settings below `prefix` in errors, for specs that are parts of another: `pretrain.data.resolution`."""
    token = _above.set(prefix)
    try:
        yield
    finally:
        _above.reset(token)


def _name_fully(name: str) -> str:
    above = _above.get()
    return name if name.startswith(above) else f"{above}.{name}"


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise SpecError unless `value` is one of `choices`."""
    if value in choices:
        return
    name = _name_fully(name)
    if all(isinstance(choice, str) for choice in choices):
        raise SpecError(f"{name}={value!r} is not known; choose one of: {', '.join(choices)}")
    raise SpecError(f"{name}={value} must be {' or '.join(map(str, choices))}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise SpecError unless low <= value <= high (NaN is refused)."""
    if not low <= value <= high:
        wanted = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise SpecError(f"{_name_fully(name)}={value} must be {wanted}")


def added(default: Any, used: Callable[[Any], bool] | None = None) -> Any:
    """A field of a resolved network that came later; see `setting`."""
    return field(default=default, metadata={"added": used})


def to_plain(spec: Any) -> dict[str, Any]:
    """A spec as nested dicts, lists and numbers, ready for JSON; `added` fields that it does not use are left out."""
    return json.loads(json.dumps(select_used(spec)))


def select_used(value: Any) -> Any:
    """A spec as nested dicts and lists, without the `added` fields that it does not use."""
    if not dataclasses.is_dataclass(value):
        return [select_used(item) for item in value] if isinstance(value, tuple) else value
    return {f.name: select_used(getattr(value, f.name)) for f in dataclasses.fields(value) if _is_used(value, f)}


def get_added_defaults(kind: type) -> dict[str, Any]:
    """What a record means that leaves out `added` fields: those that every spec of this kind reads, at their defaults.

    Fields that only some read (the margin of a loss that has one) are not among them.
    """
    fields = [f for f in dataclasses.fields(kind) if "added" in f.metadata and f.metadata["added"] is None]
    return {f.name: f.default for f in fields}


def _is_used(spec: Any, of: dataclasses.Field) -> bool:
    if "added" not in of.metadata:
        return True
    used = of.metadata["added"]
    return bool(used(spec)) if used else getattr(spec, of.name) != of.default


def list_settings(spec_class: type, prefix: str = "") -> list[Setting]:
    """Every setting of a spec and of the specs in it, in the order of their fields.

    Args:
        spec_class: a dataclass whose fields are made with `setting`.
        prefix: what its settings are called by on the command line, such as `arch.attention`.
    """
    types = typing.get_type_hints(spec_class)
    found: list[Setting] = []
    for of in dataclasses.fields(spec_class):
        name = f"{prefix}.{of.name}" if prefix else of.name
        if dataclasses.is_dataclass(types[of.name]):
            found += list_settings(types[of.name], name)
            continue
        found.append(_describe(name, of))
        for row in typing.get_args(types[of.name]):
            if dataclasses.is_dataclass(row):
                found += list_settings(row, f"{name}.N")  # type: ignore[arg-type]
    return found


def _describe(name: str, of: dataclasses.Field) -> Setting:
    about = of.metadata
    low, high = about.get("low"), about.get("high")
    meaning, unit, source = (about.get(key, "") for key in ("meaning", "unit", "source"))
    return Setting(name, str(of.type), _get_default(of), low, high, list_choices(of), unit, meaning, source)


def _name_type(of: dataclasses.Field) -> str:
    """The declared type; of a list, that of its items."""
    name = of.type if isinstance(of.type, str) else getattr(of.type, "__name__", str(of.type))
    return name.removeprefix("tuple[").removesuffix(", ...]")


def _get_default(of: dataclasses.Field) -> Any:
    if of.default_factory is not dataclasses.MISSING:
        return of.default_factory()
    return None if of.default is dataclasses.MISSING else of.default
