"""The text of overrides and of what is wrong with them: values settled, quoted, words suggested, errors in one line.

Hydra's grammar keeps signs for itself that names and folders have: `( ) [ ] { } , = : ' "`, letters beyond ASCII; and
it takes `1e3` for a number. Where a key holds a text, `settle_override` finds what the user's shell handed over.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.errors import FfemError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Where faces lie: of several values, a sweep. Where something is written: one value always.
SOURCES = ("data.root", "protocol.bins_root", "pretrain.data.root", "pretrain.protocol.bins_root")
# What a job must find from any working folder.
FOLDERS = (*SOURCES, "teacher.path")
PLACES = ("run.records", "data.cache_dir", "pretrain.data.cache_dir", "hydra.run.dir", "hydra.sweep.dir")
# What Hydra's own node holds that users name; the rest of its keys are left to its grammar.
TEXTS_OF_HYDRA = ("hydra.sweeper.study", "hydra.sweeper.storage")
# A value that no reader of overrides takes for anything but a text.
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_][\w./-]*", re.IGNORECASE | re.ASCII)
_SPECIAL = re.compile(r"""['"()\[\]{}\\]""")


class ConfigError(FfemError):
    """An override, a folder or a sweep that cannot be used. The message is one line and says what to do."""


def suggest(word: str, known: Iterable[str]) -> str:
    """` did you mean X?` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]}?" if close else ""


def quote_value(value: str | Path) -> str:
    """`value` as a quoted string of Hydra's override grammar that means itself, a `${` in it too."""
    # OmegaConf's escape: a backslash before `${`, and those before that one doubled.
    return _quote(re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value)))


def write_value(value: str) -> str:
    """`value` as Hydra's grammar reads it back: as it stands where that will do, else quoted."""
    return value if _PLAIN.fullmatch(value) else quote_value(value)


def _quote(text: str) -> str:
    # There a quote is escaped, and so are the backslashes that stand before a quote; no others are.
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    backslashes = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * backslashes + "'"


# ----------------------------------------------------------------------------------- settling


def settle_override(line: str, schema: type) -> str:
    """`line` as Hydra's grammar reads it, with the value that the user meant; settled again, it stays as it is.

    The value of a key that holds a text is, in this order: what it says within quotes; the folder or file of that
    name, where the key holds a path and there is one; what the grammar makes of it, if that is a text, an
    interpolation or a list of values to sweep over; else the text itself. schema: the dataclass of the config's root.

    Raises ConfigError for a line that is no override, and where another key's value cannot be read.
    """
    key, equal, value = line.partition("=")
    parsed = parse_line(line)
    if not equal or key.startswith("~"):
        settled = line
    elif (kind := _find_kind(key.lstrip("+").partition("@")[0], schema)) != "value":
        settled = f"{key}={_settle_value(value, kind, parsed)}"
    elif parsed is None:
        raise ConfigError(f"{line!r} cannot be read as key=value; {advise_quotes(line)}")
    else:
        return line
    if not key or parse_line(settled) is None:
        raise ConfigError(f"{line!r} cannot be read as key=value, such as arch=ffem_am")
    return settled


def advise_quotes(line: str) -> str:
    """How to write the value of `line` for a shell and for Hydra so that it is one text."""
    key, _, value = line.partition("=")
    word = f"{key}={quote_value(value)}"
    typed = f'"{word}"' if not re.search(r'["$`\\!]', word) else shlex.quote(word)
    return f"to give it as one text, quote it: {typed}"


def _settle_value(value: str, kind: str, parsed: Override | None) -> str:
    from hydra.core.override_parser.types import QuotedString

    found: Any = parsed._value if parsed else None
    if isinstance(found, QuotedString):
        return value
    if kind in ("source", "place") and _exists(value):
        return quote_value(value)
    parts = value.split(",")
    if parsed is None:
        if len(parts) > 1 and kind == "group":
            return ",".join(quote_value(part.strip()) for part in parts)
        if len(parts) > 1 and kind == "source" and all(map(_exists, parts)):
            return ",".join(map(quote_value, parts))
        return _quote(value) if _is_interpolation(value) else quote_value(value)
    if parsed.is_sweep_override():
        if kind == "place" and not re.search("['\"]", value):
            return quote_value(value)
        plain = kind != "group" and parsed.is_choice_sweep() and not _SPECIAL.search(value)
        return ",".join(map(_keep_text, parts, parsed.sweep_iterator())) if plain else value
    # A group may be given as a list of its choices.
    kept = (str, list, dict) if kind == "group" else str
    return value if found is None or isinstance(found, kept) else _keep_text(value, found)


def _keep_text(text: str, found: Any) -> str:
    """`text`, quoted where the grammar took it for something that is written otherwise: 1e3 for 1000.0."""
    return text if str(found) == text.strip() else quote_value(text.strip())


def _find_kind(key: str, schema: type) -> str:
    """What the value of `key` is: a source, a place, a text, the choice of a group, or another value."""
    if key in SOURCES:
        return "source"
    if key in PLACES:
        return "place"
    if key in TEXTS_OF_HYDRA:
        return "text"
    node: Any = schema
    for part in key.split("."):
        field = next((f for f in dataclasses.fields(node) if f.name == part), None)
        if field is None:
            return "value" if "." in key else "group"
        node = field.default_factory if field.default is dataclasses.MISSING else field.type
        if not (isinstance(node, type) and dataclasses.is_dataclass(node)):
            return "text" if part == key.rpartition(".")[2] and field.type in ("str", "str | None") else "value"
    return "value" if "." in key else "group"


@functools.lru_cache(maxsize=4096)
def parse_line(line: str) -> Override | None:
    """The override that `line` is, or None where Hydra's grammar cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(line)
    except HydraException:
        return None


def refuse_sweeps(overrides: Iterable[str]) -> None:
    """Raise ConfigError for the first of the settled `overrides` that has several values."""
    for line in overrides:
        parsed = parse_line(line)
        if parsed and parsed.is_sweep_override():
            typed = line
            if parsed.is_choice_sweep() and "(" not in line:
                typed = f"{line.partition('=')[0]}={','.join(map(str, list_values(parsed)))}"
            raise ConfigError(
                f"{typed} has several values; add -m to train them all, or write a list as key=[a,b]; "
                f"{advise_quotes(typed)}"
            )


def list_values(override: Override) -> list[Any]:
    """The values of an override, without their quotes."""
    from hydra.core.override_parser.types import QuotedString

    if not override.is_sweep_override():
        return [override.value()]
    return [value.text if isinstance(value, QuotedString) else value for value in override.sweep_iterator()]


def _exists(path: str) -> bool:
    return bool(path) and os.path.exists(os.path.expanduser(path))


def _is_interpolation(text: str) -> bool:
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    try:
        return "${" in text and bool(parse(text))
    except GrammarParseError:
        return False


# ----------------------------------------------------------------------------------- messages


def explain_error(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line, with the key it is about."""
    from omegaconf.errors import OmegaConfBaseException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {to_line(str(cause.msg or cause).splitlines()[0])}"
        error, cause = cause, cause.__cause__
    return to_line(str(error))


def to_line(text: str) -> str:
    """The lines of a message as one, without those that point to web pages and environment variables."""
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("See http", "Set the environment")))
