"""Tables on a terminal, in a pipe or in a file: the one place where rich is given anything to read.

Rich takes square brackets for markup and `:name:` for a picture, so every text becomes a `rich.text.Text` here. It is
imported when a table is made.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from ffem_jax.text.display import show_unseen

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

PLAIN_WIDTH = 240  # of output that is no terminal; lines end where their text does


@dataclass(frozen=True)
class Column:
    """A column's head; right: numbers, their ends below one another; fold: a long text is broken anywhere, so that all
    of it is shown; whole: never broken."""

    name: str
    right: bool = False
    fold: bool = False
    whole: bool = False


def make_table(
    columns: Sequence[Column | str], rows: Iterable[Sequence[str]], *, title: str = "", bold: Sequence[bool] = ()
) -> Table:
    """A table of plain texts, each shown as it is. bold: one mark for each row, or none at all."""
    from rich import box
    from rich.table import Table

    table = Table(title=_read(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        column = Column(column) if isinstance(column, str) else column
        table.add_column(
            _read(column.name),
            justify="right" if column.right else "left",
            overflow="fold" if column.fold else "ellipsis",
            no_wrap=column.whole,
        )
    for number, cells in enumerate(rows):
        table.add_row(*map(_read, cells), style="bold" if bold and bold[number] else None)
    return table


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Write `table` to a terminal as it can show it, to anything else as plain lines of their full width.

    Where the encoding has no lines to draw with, they are drawn in ASCII.
    """
    from rich.console import Console

    file = sys.stdout if file is None else file
    if file.isatty():
        Console(file=file, markup=False, emoji=False, highlight=False).print(table)
        return
    encoding = getattr(file, "encoding", None) or "utf-8"
    drawn = io.BytesIO()
    with io.TextIOWrapper(
        drawn, encoding=encoding, errors="backslashreplace", newline="\n", write_through=True
    ) as text:
        console = Console(
            file=text,
            width=PLAIN_WIDTH,
            color_system=None,
            force_terminal=False,
            markup=False,
            emoji=False,
            highlight=False,
        )
        console.print(table)
        lines = drawn.getvalue().decode(encoding).split("\n")
    file.write("\n".join(line.rstrip() for line in lines))


def _read(text: str) -> Text:
    from rich.text import Text

    return Text(show_unseen(text))
