"""Prints tables and sentences to a terminal, a pipe or a file, through rich.

On a terminal the table is fitted to the width: the least important columns are dropped and listed below it, and names
are wrapped between words. A pipe or a file gets every column, with unwrapped cells.

Rich interprets square brackets as markup and `:name:` as an emoji, so every text becomes a `rich.text.Text` here. It
is imported when a table is printed.
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

NARROWEST_NAME = 22  # minimum width of a name, in letters; below it a column is dropped instead
LONGEST_WORD = 30  # letters; a longer word is broken
GAP, EDGES = 3, 2  # blanks between columns, and in total at the two ends of a line


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: the header.
        right: right-aligned, for numbers.
        fold: long text is wrapped between words, so that all of it is shown.
        whole: never wrapped.
        rank: order of dropping on a narrow terminal: the highest is dropped first; 0 is always kept.
    """

    name: str
    right: bool = False
    fold: bool = False
    whole: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """Rows of literal text. bold: one flag per row, or empty."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    bold: tuple[bool, ...] = ()

    def select(self, kept: Sequence[int]) -> Table:
        """Return the table with only the columns `kept`."""
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(tuple(self.columns[i] for i in kept), rows, self.title, self.bold)


def make_table(
    columns: Sequence[Column | str], rows: Iterable[Sequence[str]], *, title: str = "", bold: Sequence[bool] = ()
) -> Table:
    """Build a table of literal texts. Raises ValueError for a row that does not match `columns`."""
    heads = tuple(Column(column) if isinstance(column, str) else column for column in columns)
    cells = tuple(tuple(show_unseen(cell) for cell in row) for row in rows)
    for row in cells:
        if len(row) != len(heads):
            raise ValueError(f"a row has {len(row)} cells for {len(heads)} columns")
    return Table(heads, cells, show_unseen(title), tuple(bold))


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print `table`, fitted to the width of a terminal; to anything else with all columns and unwrapped.

    Rules are drawn in ASCII if the encoding has no box-drawing characters.
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

        # Pass a height too: without one rich assumes 80 columns for a terminal that reports no size.
        console = Console(file=file, width=width, height=25, markup=False, emoji=False, highlight=False)
        console.print(_build(table, width))
    if dropped:
        print_prose(f"Columns dropped to fit: {', '.join(dropped)}. A wider terminal or a pipe shows them.", file)


def print_prose(text: str, file: TextIO | None = None, indent: int = 0) -> None:
    """Print `text` as a line, wrapped on a terminal; continuation lines start with `indent` blanks."""
    file = sys.stdout if file is None else file
    print(wrap_prose(show_unseen(text), find_width(file), indent), file=file, flush=True)


def wrap_prose(text: str, width: int | None, indent: int = 0) -> str:
    """Wrap `text` to `width` letters, between words and after `|`. Continuation lines start with `indent` blanks, and
    those of a `- ` item are aligned with its text."""
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
    """Return the width of the terminal `file`, or the value of COLUMNS; None if `file` is not a terminal."""
    if not file.isatty():
        return None
    columns = os.environ.get("COLUMNS", "")
    return max(20, int(columns) if columns.isdecimal() and int(columns) else shutil.get_terminal_size().columns)


# ------------------------------------------------------------------------------------- fitting


def fit_columns(table: Table, width: int) -> tuple[Table, list[str]]:
    """Return the table with the columns that fit `width`, and the names of those dropped.

    The column with the highest rank is dropped first, the last one among equals; rank 0 is never dropped.
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
    """Return the minimum width of a column: its widest cell or, if cells may wrap, a readable width."""
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
    """Return the lines of the table, without trailing blanks."""
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
            # Letters missing from the encoding are escaped, and become longer.
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
