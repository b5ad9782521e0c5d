"""Escapes untrusted text (names, groups, folders, errors), so that terminals and Markdown show it literally.

Hand-written, because no library escapes for both Markdown and terminals.

A sentence may quote a name as Markdown does, between backticks: `quote_code` writes that, and `split_code` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.text.names import CONTROLS, HALVES, LINE_ENDS, SOFT_HYPHEN, SPACES, TURNS

# Control characters, marks that change the direction of writing, line separators, and lone surrogates, which represent
# undecodable bytes of file names.
_UNSEEN = re.compile(f"[{CONTROLS}{LINE_ENDS}{TURNS}{SPACES}{SOFT_HYPHEN}{HALVES}]")
# Markdown treats an underscore inside a word as a letter.
_MARKDOWN = re.compile(r"([\\`*\[\]<>|#&~!$]|(?<![^\W_])_|_(?![^\W_]))")
# Some Markdown renderers turn `:smile:` into an emoji, but not inside code.
_EMOJI = re.compile(r":(?=[\w+-]*[a-z+-]|100|1234)[\w+-]+:")
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


def show_unseen(text: str) -> str:
    """Return `text` with control characters as escapes such as `\\x1b`."""
    return _UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8; a lone surrogate becomes `\\udce9`, which is an escape in JSON too."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


# ----------------------------------------------------------------------------------- Markdown


def escape(text: str) -> str:
    """Return `text` on one line, with all Markdown syntax escaped."""
    shown = show_unseen(" ".join(text.split()))
    parts, end = [], 0
    for found in _EMOJI.finditer(shown):
        parts += [_MARKDOWN.sub(r"\\\1", shown[end : found.start()]), f"`{found.group()}`"]
        end = found.end()
    return "".join([*parts, _MARKDOWN.sub(r"\\\1", shown[end:])])


def quote_code(text: str) -> str:
    """Return `text` as Markdown code, between as many backticks as it needs."""
    shown = show_unseen(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown[0] == "`" or shown[-1] == "`" or (shown[0] == shown[-1] == " " and shown.strip()) else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def split_code(sentence: str) -> list[tuple[str, bool]]:
    """Split a sentence at backticks; return each piece with whether it was quoted as code."""
    pieces, end = [], 0
    for found in _CODE.finditer(sentence):
        code = found[2]
        padded = len(code) > 2 and code[0] == code[-1] == " " and code.strip()
        pieces += [(sentence[end : found.start()], False), (code[1:-1] if padded else code, True)]
        end = found.end()
    return [piece for piece in [*pieces, (sentence[end:], False)] if piece[0]]


def escape_sentence(sentence: str) -> str:
    """Return `sentence` as Markdown: quoted code stays code, everything else is escaped."""
    parts = []
    for piece, is_code in split_code(sentence):
        before, after = piece[: len(piece) - len(piece.lstrip())], piece[len(piece.rstrip()) :]
        parts.append(quote_code(piece) if is_code else f"{before}{escape(piece)}{after if piece.strip() else ''}")
    return "".join(parts)


def make_markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; cells must already be Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
