"""Which names people may be enrolled under, and how a name is stored."""

from __future__ import annotations

import re

from ffem_jax.errors import FfemError
from ffem_jax.text.names import CONTROLS, LINE_ENDS, MARKS, SPACES, TURNS, tidy_name

MAX_NAME = 100
# A name has something to see, and no control character, line separator, invisible space or mark that turns the
# direction of writing, with which one name could pass for another.
_BAD = f"{CONTROLS}{LINE_ENDS}{MARKS}{TURNS}{SPACES}"
# For a JSON schema too: what it takes, `normalize_name` takes.
NAME_PATTERN = rf"^[^{_BAD}]*[^\s{_BAD}][^{_BAD}]*$"


class NameRefusedError(FfemError):
    """A name that nobody can be enrolled under. The message is one line and does not quote it."""


def normalize_name(name: str) -> str:
    """A name as it is stored: Unicode NFC, no space at its ends and single ones within, so that one name is one person.

    Raises NameRefusedError for a name with nothing to see, over MAX_NAME characters or with a control character.
    """
    if len(name) > MAX_NAME or not re.fullmatch(NAME_PATTERN, name) or not _is_encodable(name):
        raise NameRefusedError(f"a name has 1 to {MAX_NAME} characters, something to see and no control characters")
    return tidy_name(name)


def _is_encodable(name: str) -> bool:
    # Half a surrogate pair, from JSON's escapes or from a file name that is no UTF-8.
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in name)
