"""Names of people and files: how they are stored, and found again. One name is one person."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping


def tidy_name(name: str) -> str:
    """A name as it is stored: Unicode NFC, no space at its ends and single ones within.

    macOS writes é as two code points and Linux as one; the two are the same name.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


# Characters that a reader does not see, as ranges of a regular expression: the one list of them.
CONTROLS, LINE_ENDS = r"\x00-\x1f\x7f-\x9f", r"\u2028\u2029"
MARKS, TURNS = r"\u200e\u200f", r"\u202a-\u202e\u2066-\u2069"  # of the direction of writing
SPACES, SOFT_HYPHEN = r"\u200b\u2060\ufeff", r"\u00ad"
JOINERS = r"\u200c\u200d"  # which Persian, Indic scripts and emoji need
HALVES = r"\ud800-\udfff"  # of characters: bytes of file names that are in no encoding

# With which one name could be taken for another.
INVISIBLE = re.compile(f"[{MARKS}{TURNS}{SPACES}{SOFT_HYPHEN}{JOINERS}]")


def fold_name(name: str) -> str:
    """A key that is equal for names that may be one person's: `josé`, `José`, `JOSÉ`, full-width and narrow letters."""
    seen = INVISIBLE.sub("", name)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def decode_file_name(name: str) -> str:
    """A file's name as text that can be written anywhere: read as UTF-8, with invalid bytes as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def index_names(names: Iterable[str]) -> dict[str, int]:
    """The index of each name, for `find_name`: by the name itself, and by its NFC where no other name equals that."""
    places = {name: place for place, name in enumerate(names)}
    return {unicodedata.normalize("NFC", name): place for name, place in places.items()} | places


def find_name(name: str, index: Mapping[str, int]) -> int | None:
    """The index of `name` itself, else of the name with the same NFC, else None."""
    return index[name] if name in index else index.get(unicodedata.normalize("NFC", name))
