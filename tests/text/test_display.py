"""Text that others chose: read back by a reader of Markdown it is what it was, whatever stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ffem_jax.text.display import (
    escape,
    escape_sentence,
    make_markdown_table,
    quote_code,
    show_unseen,
    split_code,
    write_text,
)

READER = MarkdownIt("commonmark").enable("table")
SIGNS = st.text(st.sampled_from("[]()<>/\\`*_|#&~!$:^-+.=\"'{}; 1aü李\u00a0"), min_size=1, max_size=14)
NAMES = st.one_of(SIGNS, st.text(min_size=1, max_size=14))


def read_inline(markdown: str) -> tuple[str, set[str]]:
    """The text that a reader sees, and the kinds of marks it found."""
    (token,) = (token for token in READER.parse(f"x {markdown} x") if token.type == "inline")
    text = "".join(child.content for child in token.children if child.type in ("text", "code_inline", "text_special"))
    return text[2:-2], {child.type for child in token.children} - {"text", "text_special"}


@given(NAMES)
@example("[front]")
@example("a|b*<script>$x$[y](z)")
@example("&amp;")
@example("`` ` ``")
@example("a :smile: b")
def test_escaped_text_is_read_as_it_was_and_as_nothing_else(text: str) -> None:
    shown, kinds = read_inline(escape(text))
    assert shown == show_unseen(" ".join(text.split()))
    assert kinds <= {"code_inline"}
    assert not (kinds and not re.search(r":[\w+-]+:", text))


@given(NAMES)
@example("a`b")
@example("`")
@example(" a ")
@example("``x`")
def test_quoted_code_is_read_as_it_was(text: str) -> None:
    shown, kinds = read_inline(quote_code(text))
    assert (shown, kinds) == (show_unseen(text), {"code_inline"})


@given(st.lists(st.tuples(st.text(st.sampled_from("ab :;,.[]<*"), min_size=1, max_size=8), NAMES), max_size=4))
def test_a_sentence_comes_apart_into_what_it_was_made_of(parts: list[tuple[str, str]]) -> None:
    sentence = "".join(f"{before} {quote_code(name)} " for before, name in parts)
    pieces = split_code(sentence)
    assert [piece for piece, code in pieces if code] == [show_unseen(name) for _, name in parts]
    assert "".join(f"{piece}" for piece, _ in pieces) == "".join(f"{b} {show_unseen(name)} " for b, name in parts)
    if sentence.strip():
        assert read_inline(escape_sentence(sentence))[1] <= {"code_inline"}


@given(st.lists(st.lists(NAMES, min_size=3, max_size=3), min_size=1, max_size=3))
def test_no_cell_adds_a_column(rows: list[list[str]]) -> None:
    lines = make_markdown_table(["a", "b", "c"], [list(map(escape, row)) for row in rows])
    tokens = READER.parse("\n".join(lines))
    cells = [token for token, before in zip(tokens[1:], tokens, strict=False) if before.type == "td_open"]
    assert len(cells) == 3 * len(rows)
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(rows)


def test_escaped_text_is_one_line() -> None:
    assert escape("a\nb | c_d _e_") == r"a b \| c_d \_e\_"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\t", r"two\nlines\t"),
        ("net\udce9", r"net\udce9"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("Müller 李 👩\u200d💻 מ\u200f", "Müller 李 👩\u200d💻 מ\u200f"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert show_unseen(text) == shown


def test_a_name_in_no_encoding_still_makes_a_file(tmp_path: Path) -> None:
    write_text(tmp_path / "page", "ü \udce9")
    assert (tmp_path / "page").read_bytes() == b"\xc3\xbc \\udce9"
