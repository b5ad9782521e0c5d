"""Normalisation and lookup of names of people and files. One name is one person."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping


def tidy_name(name: str) -> str:
    """Normalise a name for storage: Unicode NFC, no leading or trailing spaces, single spaces inside.

    macOS writes é as two code points and Linux as one; the two are the same name.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


# Invisible characters, as ranges of a regular expression; the only such list.
CONTROLS, LINE_ENDS = r"\x00-\x1f\x7f-\x9f", r"\u2028\u2029"
MARKS, TURNS = r"\u200e\u200f", r"\u202a-\u202e\u2066-\u2069"  # direction of writing
SPACES, SOFT_HYPHEN = r"\u200b\u2060\ufeff", r"\u00ad"
JOINERS = r"\u200c\u200d"  # needed by Persian, Indic scripts and emoji
HALVES = r"\ud800-\udfff"  # lone surrogates: undecodable bytes of file names

# Characters that could make one name look like another.
INVISIBLE = re.compile(f"[{MARKS}{TURNS}{SPACES}{SOFT_HYPHEN}{JOINERS}]")


def fold_name(name: str) -> str:
    """Return a key shared by names of possibly one person: `josé`, `José`, `JOSÉ`, full-width and narrow letters."""
    seen = INVISIBLE.sub("", name)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def decode_file_name(name: str) -> str:
    """Return a file's name as printable text: decoded as UTF-8, with invalid bytes as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def index_names(names: Iterable[str]) -> dict[str, int]:
    """Index the names for `find_name`: by the name itself, and by its NFC unless that equals another name."""
    places = {name: place for place, name in enumerate(names)}
    return {unicodedata.normalize("NFC", name): place for name, place in places.items()} | places


def find_name(name: str, index: Mapping[str, int]) -> int | None:
    """Return the index of `name`, else of the name with the same NFC, else None."""
    return index[name] if name in index else index.get(unicodedata.normalize("NFC", name))
