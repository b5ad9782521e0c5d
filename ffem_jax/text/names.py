"""One name is one person: how the name of a person or of a file is stored, and found again."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping


def tidy_name(name: str) -> str:
    """A name as it is stored: Unicode NFC, no space at its ends and single ones within.

    A Mac writes é as two code points and Linux as one; both names are one.
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


# Marks that nobody sees, with which one name could pass for another.
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\u2066-\u2069\u202a-\u202e\ufeff]")


def fold_name(name: str) -> str:
    """What names that may be one person's have in common: `josé`, `José` and `JOSÉ`, full-width and narrow letters."""
    seen = INVISIBLE.sub("", name)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())


def decode_file_name(name: str) -> str:
    """A file's name as text that can be written anywhere: read as UTF-8, and a byte that is none as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def index_names(names: Iterable[str]) -> dict[str, int]:
    """The place of each name, for `find_name`: by the name as it is, and in NFC where no other name is that."""
    places = {name: place for place, name in enumerate(names)}
    return {unicodedata.normalize("NFC", name): place for name, place in places.items()} | places


def find_name(name: str, index: Mapping[str, int]) -> int | None:
    """The place of `name` as it is, else of that which is it in NFC, else None."""
    return index[name] if name in index else index.get(unicodedata.normalize("NFC", name))
