"""One column of a table of attributes, of numbers or of groups' names: an image has one value, and a value one name."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ffem_jax.data.listing import list_names
from ffem_jax.errors import FfemError
from ffem_jax.text.names import INVISIBLE, fold_name

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+", re.ASCII)
# 1,234 may be a thousand and some, or one and some; 0,234 and 12,5 are decimals.
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)

# What spreadsheets and programs write where a value is not known, in lower case.
UNKNOWN = frozenset({"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "unknown", "missing", "?", "-", "--"})

Value = TypeVar("Value", float, str)


class ColumnError(FfemError):
    """A column that can be read in two ways. The message names the lines."""


@dataclass(frozen=True)
class Cell:
    """What `line` of the table says of the image of index `image`; text: not empty, without spaces at its ends."""

    line: int
    image: int
    text: str

    def __str__(self) -> str:
        return f"{self.text!r} (line {self.line})"


def parse_column(cells: Sequence[Cell], names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """A column of a table as an array, and notes on what was repaired or passed over.

    Values that differ in case, spaces or normal form alone are one, written as most cells have it.

    Args:
        cells: the column's cells.
        names: the images', `person/file`.

    Returns:
        The array [image]: float64 with NaN where not known if more than half of the known values are numbers, else text
        with "" where not known. The notes, one line each.

    Raises:
        ColumnError: two rows give an image two values, or a comma may divide thousands.
    """
    known = [cell for cell in cells if cell.text.casefold() not in UNKNOWN]
    commas = [cell for cell in known if COMMA_NUMBER.fullmatch(cell.text)]
    numbers = [cell for cell in known if _is_number(cell.text)]
    if 2 * (len(numbers) + len(commas)) > len(known) or not known:
        return _parse_numbers(cells, commas, names)
    texts, notes = _merge_spellings(cells)
    unknown = [cell for cell in cells if cell.text.casefold() in UNKNOWN]
    if unknown:
        notes.append(f"{_count(unknown)} is a group of its own; leave the cell empty where a value is not known")
    if numbers:
        others = [cell for cell in known if not _is_number(cell.text)]
        notes.append(f"numbers, {_count(numbers)}, are mixed with text, {_count(others)}; all of it is text")
    values = np.zeros(len(names), object)
    values[:] = ""
    _place(values, cells, lambda cell: texts[cell.text], names)
    return values.astype(str), notes


def _parse_numbers(cells: Sequence[Cell], commas: list[Cell], names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    notes = []
    if commas and all(THOUSANDS.fullmatch(cell.text) for cell in commas):
        raise ColumnError(f"{commas[0]} may be thousands or decimals; write it without the comma, or with a point")
    if commas:
        notes.append(f"decimal commas are read as points: {_count(commas)}")
    points = {cell: cell.text.replace(",", ".") if COMMA_NUMBER.fullmatch(cell.text) else cell.text for cell in cells}
    read = [cell for cell in cells if _is_number(points[cell])]
    unknown = [cell for cell in cells if cell.text.casefold() in UNKNOWN]
    odd = [cell for cell in cells if not _is_number(points[cell]) and cell.text.casefold() not in UNKNOWN]
    if unknown:
        notes.append(f"taken as not known: {_count(unknown)}")
    if odd:
        notes.append(f"no numbers among numbers, taken as not known: {_count(odd)}")
    values = np.full(len(names), np.nan)
    _place(values, read, lambda cell: float(points[cell]), names)
    return values, notes


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text)) and math.isfinite(float(text))


def _count(cells: Sequence[Cell]) -> str:
    """The first cell with its line, and in how many more lines there is another such."""
    more = len(cells) - 1
    return f"{cells[0]}" + (f" and {more:,} more" if more else "")


def _merge_spellings(cells: Sequence[Cell]) -> tuple[dict[str, str], list[str]]:
    """The value that each text stands for, and a note on values of several spellings."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[str, int] = {}
    tidied = {cell.text: unicodedata.normalize("NFC", " ".join(cell.text.split())) for cell in cells}
    for cell in cells:
        text = tidied[cell.text]
        spellings[fold_name(text)][text] += 1
        first.setdefault(text, cell.line)
    chosen = {key: counts.most_common(1)[0][0] for key, counts in spellings.items()}
    several = [
        f"{', '.join(f'{_show(text)} (line {first[text]})' for text in counts)} are one value, {_show(chosen[key])}"
        for key, counts in spellings.items()
        if len(counts) > 1
    ]
    notes = [f"spelled in several ways: {list_names(several)}"] if several else []
    return {text: chosen[fold_name(tidy)] for text, tidy in tidied.items()}, notes


def _show(text: str) -> str:
    # With what nobody sees in it, as escapes.
    return ascii(text) if INVISIBLE.search(text) else repr(text)


def _place(values: np.ndarray, cells: Sequence[Cell], read: Callable[[Cell], Value], names: Sequence[str]) -> None:
    """Write each cell's value to its image's place. Raises ColumnError for an image of two values."""
    said: dict[int, Cell] = {}
    conflicts = []
    for cell in cells:
        before = said.setdefault(cell.image, cell)
        if read(before) != read(cell):
            conflicts.append((before, cell))
        values[cell.image] = read(before)
    if conflicts:
        before, cell = conflicts[0]
        images = len({cell.image for _, cell in conflicts})
        raise ColumnError(
            f"{list_names([names[cell.image]])} is {before.text!r} in line {before.line} and {cell.text!r} in line "
            f"{cell.line}{f', and {images - 1:,} images more are said twice' if images > 1 else ''}; keep one row each"
        )
