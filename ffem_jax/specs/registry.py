"""Registries of attentions, blocks, losses, data sets and loggers. Each entry is declared once, and everything else
reads the declaration."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.own_code import VARIABLE, load_plugins

# A function or class, or its location, `package.module:name`, which is imported on first use to keep specs light.
Reference = str | Callable[..., Any]


class Named(Protocol):
    """A declaration."""

    @property
    def name(self) -> str:
        """The value of the setting that chooses it."""


Kind = TypeVar("Kind", bound=Named)


class Registry(Generic[Kind]):
    """Declarations by name, in the order in which they were registered.

    setting: the setting that chooses among them, such as `recipe.loss`.
    """

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.kinds: dict[str, Kind] = {}

    def register(self, kind: Kind) -> Kind:
        """Add `kind` and return it.

        Raises:
            SpecError: the name is invalid or taken.
        """
        name = kind.name
        if not (isinstance(name, str) and name.isidentifier()):
            raise SpecError(f"{self.setting}={name!r} cannot be registered; a name is letters, digits and _")
        if self.kinds.setdefault(name, kind) != kind:
            raise SpecError(f"{self.setting}={name} is already registered; choose another name")
        return kind

    def __getitem__(self, name: str) -> Kind:
        """Return the declaration `name`; user files are loaded if the package does not define it.

        Raises:
            SpecError: it is not declared; the message lists the names.
        """
        if name not in self.kinds:
            load_plugins()
        if name not in self.kinds:
            raise SpecError(
                f"{self.setting}={name!r} is not known; choose one of: {', '.join(self.kinds)}; for one of your own, "
                f"give its folder with --config-dir DIR, or with {VARIABLE}=PATH before the command"
            )
        return self.kinds[name]

    @property
    def names(self) -> tuple[str, ...]:
        """All names declared so far."""
        return tuple(self.kinds)


def resolve(reference: Reference) -> Callable[..., Any]:
    """Return the object of `reference`, importing its module if necessary."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def find_module(reference: Reference) -> str:
    """Return the name of the module that defines `reference`."""
    return reference.partition(":")[0] if isinstance(reference, str) else reference.__module__


def check_signature(called: str, function: Reference, parameters: tuple[str, ...]) -> None:
    """Raise SpecError unless `function` can be called with `parameters` by position.

    called: its name in the message. A reference is checked on first use.
    """
    if isinstance(function, str):
        return
    wanted = f"its function is called with ({', '.join(parameters)})"
    if not callable(function):
        raise SpecError(f"{called} is registered with {function!r}; {wanted}")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        raise SpecError(f"{called} is registered with a function of another signature ({error}); {wanted}") from None
