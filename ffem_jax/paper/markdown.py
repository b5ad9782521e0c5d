"""Text from records in Markdown: names and errors that others chose, shown as they are and read as nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown reads escaped."""
    return re.sub(r"([\\`*_\[\]<>|#&~!$])", r"\\\1", " ".join(text.split()))


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table; the cells are Markdown already."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
