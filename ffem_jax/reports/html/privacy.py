"""What a shared page must not tell: folders and files, whose names are people's."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "[path]"
# A quoted text that begins like a path; one without quotes, up to what cannot stand in it (but no closing tag); a
# picture in a folder.
_PATHS = (
    re.compile(r"""(?P<quote>['"`])(?:[A-Za-z]:)?[~.]{0,2}[/\\][^'"`\n]*(?P=quote)"""),
    re.compile(r"""(?<![\w/\\<])(?:file:)?(?:[A-Za-z]:)?[~.]{0,2}[/\\][^\s'"`,;)\]]+"""),
    re.compile(r"""[^\s'"`(\[]+[/\\][^\s'"`,;)\]]*\.(?:jpe?g|png|webp|pgm|bmp|tiff?)\b""", re.IGNORECASE),
)


def remove_paths(text: str, known: Iterable[str] = ()) -> str:
    """`text` with `[path]` where a file or a folder was named. known: folders that it may name, spaces and all."""
    for folder in sorted(filter(None, known), key=len, reverse=True):
        below = r"(?:[/\\][^'\"`\n:;]*)?"
        text = re.sub(re.escape(folder) + below, REMOVED, text)
    for pattern in _PATHS:
        text = pattern.sub(REMOVED, text)
    return text
