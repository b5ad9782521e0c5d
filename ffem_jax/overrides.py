"""The text of overrides and of what is wrong with them: values quoted, words suggested, errors in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path


def suggest(word: str, known: Iterable[str]) -> str:
    """` did you mean X?` where a known word is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" did you mean {close[0]}?" if close else ""


def quote_value(value: str | Path) -> str:
    """`value` as a quoted string of Hydra's override grammar."""
    # There a quote is escaped, and so are the backslashes that stand before a quote; no others are.
    escaped = re.sub(r"(\\*)'", r"\1\1\'", str(value))
    backslashes = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * backslashes + "'"


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
