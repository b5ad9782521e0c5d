"""Tables show the user's texts as they are, wherever they go; rich is called only where they are escaped."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from made_texts import NASTY
from rich.console import Console

from ffem_jax.text.tables import Column, make_table, print_table

PACKAGE = Path(__file__).resolve().parents[2] / "ffem_jax"


def draw(encoding: str = "utf-8", **settings: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="")
    table = make_table(
        [Column(name, fold=True) for name in NASTY],
        [NASTY, ["1"] * len(NASTY)],
        title=" ".join(NASTY),
        bold=[True, False],
    )
    print_table(table, file)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_every_text_is_shown_as_it_is() -> None:
    lines = draw().splitlines()
    for name in NASTY:
        shown = name.replace("\x1b", r"\x1b")
        assert sum(line.count(shown) for line in lines) >= 3, name  # title, head, cell
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_the_same_texts() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    print_table(make_table([Column("network", fold=True)], [[name] for name in NASTY], title="[/lab]"), file)
    for name in NASTY:
        assert name.replace("\x1b", r"\x1b") in file.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_lines_gets_ascii_ones(encoding: str) -> None:
    text = draw(encoding)
    assert r"\u2500" not in text
    assert "---" in text
    assert r"\u674e" in text
    assert ("ü" if encoding == "latin-1" else r"\xfc") in text


def test_a_long_name_is_shown_to_its_end() -> None:
    name = "n" * 300 + "end"
    file = io.StringIO()
    print_table(make_table([Column("network", fold=True), Column("%", right=True, whole=True)], [[name, "12.5"]]), file)
    assert "end" in file.getvalue()


def makes_tables(tree: ast.AST) -> bool:
    """Whether a module calls one of the classes that it imports from rich."""
    rich = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "")[:4] == "rich"]
    names = {alias.asname or alias.name for node in rich for alias in node.names}
    calls = {getattr(node.func, "id", "") for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return bool(names & calls) or any(
        isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "rich" for alias in node.names)
        for node in ast.walk(tree)
    )


def test_rich_is_given_texts_in_two_modules_alone() -> None:
    """A table or a bar made elsewhere would read names as markup."""
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in texts.items() if "rich" in text}
    makers = {path.relative_to(PACKAGE).as_posix() for path, tree in trees.items() if makes_tables(tree)}
    assert makers == {"text/tables.py", "text/progress.py"}, "use text.tables or text.progress"


def test_rich_itself_would_have_failed() -> None:
    """Why all this: the same text given to rich as it is."""
    from rich.errors import MarkupError

    with pytest.raises(MarkupError):
        Console(file=io.StringIO()).print("[/lab]")
