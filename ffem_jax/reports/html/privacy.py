"""Removes paths from a page that may be shared, because names of folders and files may be names of people."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "[path]"
# A quoted text that begins like a path; an unquoted one, up to a character that cannot be part of it (but not a closing
# tag); an image in a folder.
_PATHS = (
    re.compile(r"""(?P<quote>['"`])(?:[A-Za-z]:)?[~.]{0,2}[/\\][^'"`\n]*(?P=quote)"""),
    re.compile(r"""(?<![\w/\\<])(?:file:)?(?:[A-Za-z]:)?[~.]{0,2}[/\\][^\s'"`,;)\]]+"""),
    re.compile(r"""[^\s'"`(\[]+[/\\][^\s'"`,;)\]]*\.(?:jpe?g|png|webp|pgm|bmp|tiff?)\b""", re.IGNORECASE),
)


def remove_paths(text: str, known: Iterable[str] = ()) -> str:
    """Replace files and folders in `text` by `[path]`. known: folders that it may contain, possibly with spaces."""
    for folder in sorted(filter(None, known), key=len, reverse=True):
        below = r"(?:[/\\][^'\"`\n:;]*)?"
        text = re.sub(re.escape(folder) + below, REMOVED, text)
    for pattern in _PATHS:
        text = pattern.sub(REMOVED, text)
    return text
