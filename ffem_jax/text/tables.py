"""Tables and sentences on a terminal, in a pipe or in a file: the one place where rich is given anything to read.

A terminal gets what fits its width: the least important columns go first, and a line below says which; names are
broken between words. A pipe or a file gets every column and whole cells, as wide as they are.

Rich takes square brackets for markup and `:name:` for a picture, so every text becomes a `rich.text.Text` here. It is
imported when a table is printed.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from ffem_jax.text.display import show_unseen

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

NARROWEST_NAME = 22  # letters per line that a name is given before a column is dropped for it
LONGEST_WORD = 30  # letters; a longer word is broken
GAP, EDGES = 3, 2  # blanks between columns, and at both ends of a line together


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its head.
        right: numbers, their ends below one another.
        fold: a long text is broken between its words, so that all of it is shown.
        whole: never broken.
        rank: how little is lost without it: the highest goes first where a terminal is narrow; 0 always stays.
    """

    name: str
    right: bool = False
    fold: bool = False
    whole: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """Plain texts, each shown as it is. bold: one mark per row, or none at all."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    bold: tuple[bool, ...] = ()

    def select(self, kept: Sequence[int]) -> Table:
        """The table with the columns `kept` alone."""
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(tuple(self.columns[i] for i in kept), rows, self.title, self.bold)


def make_table(
    columns: Sequence[Column | str], rows: Iterable[Sequence[str]], *, title: str = "", bold: Sequence[bool] = ()
) -> Table:
    """A table of plain texts. Raises ValueError for a row of another length than `columns`."""
    heads = tuple(Column(column) if isinstance(column, str) else column for column in columns)
    cells = tuple(tuple(show_unseen(cell) for cell in row) for row in rows)
    for row in cells:
        if len(row) != len(heads):
            raise ValueError(f"a row has {len(row)} cells for {len(heads)} columns")
    return Table(heads, cells, show_unseen(title), tuple(bold))


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Write `table` to a terminal as wide as that is, to anything else with all its columns and no line broken.

    Where the encoding has no lines to draw with, they are drawn in ASCII.
    """
    file = sys.stdout if file is None else file
    width = find_width(file)
    dropped: list[str] = []
    if width is not None:
        table, dropped = fit_columns(table, width)
    if table.title:
        print_prose(table.title, file)
    if width is None:
        file.write(_draw_plain(table, getattr(file, "encoding", None) or "utf-8"))
    else:
        from rich.console import Console

        # A height, too: without one rich takes a terminal that says nothing of itself for 80 letters wide.
        console = Console(file=file, width=width, height=25, markup=False, emoji=False, highlight=False)
        console.print(_build(table, width))
    if dropped:
        print_prose(f"Not shown for want of room: {', '.join(dropped)}. A wider terminal or a pipe has them.", file)


def print_prose(text: str, file: TextIO | None = None, indent: int = 0) -> None:
    """Write `text` as a line, on a terminal broken between words; further lines begin with `indent` blanks."""
    file = sys.stdout if file is None else file
    print(wrap_prose(show_unseen(text), find_width(file), indent), file=file, flush=True)


def wrap_prose(text: str, width: int | None, indent: int = 0) -> str:
    """`text` in lines of at most `width` letters, broken between words and after `|`; further lines begin with `indent`
    blanks, and what goes with a `- ` stands below it."""
    if width is None or len(text) <= width:
        return text
    start = text[: len(text) - len(text.lstrip())]
    lines = textwrap.wrap(
        text.strip().replace("|", "|\0 "),
        width,
        initial_indent=start,
        subsequent_indent=" " * (2 if text.startswith("- ") else indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("|\0 ", "|").replace("|\0", "|")


def find_width(file: TextIO) -> int | None:
    """Letters per line of the terminal that `file` is, or what COLUMNS says of it; None where it is no terminal."""
    if not file.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    return max(20, int(columns) if columns.isdecimal() and int(columns) else shutil.get_terminal_size().columns)


# ------------------------------------------------------------------------------------- fitting


def fit_columns(table: Table, width: int) -> tuple[Table, list[str]]:
    """The table with the columns that fit `width`, and the names of those that do not.

    The column of the highest rank goes first, of equal ranks the last; one of rank 0 never goes.
    """
    kept = list(range(len(table.columns)))
    dropped: list[int] = []
    while sum(_measure_least(table, i) for i in kept) + GAP * (len(kept) - 1) + EDGES > width:
        rank, last = max((table.columns[i].rank, i) for i in kept)
        if not rank:
            break
        kept.remove(last)
        dropped.append(last)
    return table.select(kept), [table.columns[i].name for i in sorted(dropped)]


def _measure_least(table: Table, index: int) -> int:
    """The letters that a column needs: all of the widest cell, or of one that may be broken enough to read."""
    column = table.columns[index]
    cells = [column.name, *(row[index] for row in table.rows)]
    widest = max(map(_count_letters, cells))
    if column.whole or column.right or not column.fold:
        return widest
    longest_word = max((_count_letters(word) for cell in cells for word in cell.split()), default=0)
    return min(widest, max(NARROWEST_NAME, min(longest_word, LONGEST_WORD)))


def _count_letters(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _build(table: Table, width: int | None) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    built = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    least_widths = [_measure_least(table, index) for index in range(len(table.columns))]
    fits = width is not None and sum(least_widths) + GAP * (len(least_widths) - 1) + EDGES <= width
    for column, least in zip(table.columns, least_widths, strict=True):
        built.add_column(
            _read(column.name),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=width is None or column.whole or column.right,
            min_width=least if fits else None,
        )
    for number, cells in enumerate(table.rows):
        built.add_row(*map(_read, cells), style="bold" if table.bold and table.bold[number] else None)
    return built


def _draw_plain(table: Table, encoding: str) -> str:
    """The lines of the table, each as long as its text."""
    from rich.console import Console

    widths = [
        max(_count_letters(t) for t in (c.name, *(r[i] for r in table.rows))) for i, c in enumerate(table.columns)
    ]
    drawn = io.BytesIO()
    with io.TextIOWrapper(
        drawn, encoding=encoding, errors="backslashreplace", newline="\n", write_through=True
    ) as text:
        console = Console(
            file=text,
            # Letters that the encoding does not have come out longer than they are.
            width=sum(widths) + GAP * len(widths) + EDGES,
            color_system=None,
            force_terminal=False,
            markup=False,
            emoji=False,
            highlight=False,
        )
        console.print(_build(table, None))
        lines = drawn.getvalue().decode(encoding).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def _read(text: str) -> Text:
    from rich.text import Text

    return Text(show_unseen(text))
