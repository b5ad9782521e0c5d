"""Settings, declared on their fields with bounds, choices, unit, meaning and source, and the check that reads these.

A spec is a frozen dataclass whose fields are made with `setting`. Its `__post_init__` calls `check_fields`, and adds
checks across fields as code. `list_settings` lists the settings from the same declarations.
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

# The check and the wording for each declared type. Other types are checked by their spec.
_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "true or false"),
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "str": (str, "text"),
}

# Prefix of a spec's settings while it is being created.
_above: ContextVar[str] = ContextVar("above", default="")


class SpecError(FfemError):
    """An invalid value in a spec. The message is one line and lists the valid choices."""


@dataclass(frozen=True)
class Setting:
    """One setting, for documentation.

    name: its command-line name; `N` stands for the number of a row. low, high: inclusive, None for no
    bound. choices: all current ones, including registered ones; empty for any value. default: None if each kind of spec
    has its own.
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
    """Declare a field of a spec, with its documentation and checks.

    Args:
        default: the default value; for a list or a spec, use `factory`.
        meaning: one sentence for users.
        low, high: the smallest and largest value, inclusive. For a list they apply to each item, as do `choices`.
            Without `high` a number must be finite; `high=math.inf` admits infinity.
        choices: the valid values, or a function that lists them if they can be registered.
        unit: that of the number, such as "pixels" or "degrees".
        source: the paper or library that the setting comes from.
        added: the field came after KEY_VERSION was last raised, with a default that keeps the earlier behaviour.
            If its spec does not use it (see `used`; by default, if it has its default value), it is in neither the key
            nor the record, so that older records are still found.
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
    """Check every field of `spec` against its declaration. Converts NumPy numbers to Python's, for JSON.

    Args:
        spec: a dataclass whose fields are made with `setting`; nested specs have checked
            themselves.
        prefix: prefix of its settings on the command line, such as `arch.attention`.

    Raises:
        SpecError: the message gives the setting, its value and the valid values.
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
    # Python counts True as a whole number.
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
    """Return the valid values of a field, including those registered so far; empty for any value."""
    choices = of.metadata.get("choices", ())
    return tuple(choices() if callable(choices) else choices)


@contextlib.contextmanager
def name_below(prefix: str) -> Iterator[None]:
    """Prefix settings in errors, for specs nested in another: `pretrain.data.resolution`."""
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
    """Raise SpecError unless low <= value <= high (NaN is rejected)."""
    if not low <= value <= high:
        wanted = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise SpecError(f"{_name_fully(name)}={value} must be {wanted}")


def added(default: Any, used: Callable[[Any], bool] | None = None) -> Any:
    """A field added later to a resolved network; see `setting`."""
    return field(default=default, metadata={"added": used})


def to_plain(spec: Any) -> dict[str, Any]:
    """Convert a spec to nested dicts, lists and numbers, ready for JSON; unused `added` fields are left out."""
    return json.loads(json.dumps(select_used(spec)))


def select_used(value: Any) -> Any:
    """Convert a spec to nested dicts and lists, without unused `added` fields."""
    if not dataclasses.is_dataclass(value):
        return [select_used(item) for item in value] if isinstance(value, tuple) else value
    return {f.name: select_used(getattr(value, f.name)) for f in dataclasses.fields(value) if _is_used(value, f)}


def get_added_defaults(kind: type) -> dict[str, Any]:
    """Return the values of `added` fields that a record leaves out: the defaults of those that every spec of this kind
    reads.

    Fields read only by some specs (the margin of a loss) are not included.
    """
    fields = [f for f in dataclasses.fields(kind) if "added" in f.metadata and f.metadata["added"] is None]
    return {f.name: f.default for f in fields}


def _is_used(spec: Any, of: dataclasses.Field) -> bool:
    if "added" not in of.metadata:
        return True
    used = of.metadata["added"]
    return bool(used(spec)) if used else getattr(spec, of.name) != of.default


def list_settings(spec_class: type, prefix: str = "") -> list[Setting]:
    """List every setting of a spec and of its nested specs, in field order.

    Args:
        spec_class: a dataclass whose fields are made with `setting`.
        prefix: prefix of its settings on the command line, such as `arch.attention`.
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
    """Return the declared type; for a list, that of its items."""
    name = of.type if isinstance(of.type, str) else getattr(of.type, "__name__", str(of.type))
    return name.removeprefix("tuple[").removesuffix(", ...]")


def _get_default(of: dataclasses.Field) -> Any:
    if of.default_factory is not dataclasses.MISSING:
        return of.default_factory()
    return None if of.default is dataclasses.MISSING else of.default
