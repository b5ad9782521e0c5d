"""A column of an attribute table, with numbers or group names: one value per image, one spelling per value."""

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
# 1,234 is ambiguous between thousands and decimals; 0,234 and 12,5 are decimals.
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)

# Spellings of an unknown value in spreadsheets and programs, in lower case.
UNKNOWN = frozenset({"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "unknown", "missing", "?", "-", "--"})

Value = TypeVar("Value", float, str)


class ColumnError(FfemError):
    """An ambiguous column. The message names the lines."""


@dataclass(frozen=True)
class Cell:
    """The value in `line` of the table for the image with index `image`; text: non-empty and stripped."""

    line: int
    image: int
    text: str

    def __str__(self) -> str:
        return f"{self.text!r} (line {self.line})"


def parse_column(cells: Sequence[Cell], names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Convert a column to an array, with notes on repaired or skipped values.

    Values that differ only in case, spaces or Unicode normal form are merged, with the most frequent spelling.

    Args:
        cells: the column's cells.
        names: names of the images, `person/file`.

    Returns:
        The array [image]: float64 with NaN for unknown if more than half of the known values are numbers, else text
        with "" for unknown. The notes, one line each.

    Raises:
        ColumnError: two rows give different values for one image, or a comma may be a thousands separator.
    """
    known = [cell for cell in cells if cell.text.casefold() not in UNKNOWN]
    commas = [cell for cell in known if COMMA_NUMBER.fullmatch(cell.text)]
    numbers = [cell for cell in known if _is_number(cell.text)]
    if 2 * (len(numbers) + len(commas)) > len(known) or not known:
        return _parse_numbers(cells, commas, names)
    texts, notes = _merge_spellings(cells)
    unknown = [cell for cell in cells if cell.text.casefold() in UNKNOWN]
    if unknown:
        notes.append(f"{_count(unknown)} is a group of its own; leave the cell empty if a value is unknown")
    if numbers:
        others = [cell for cell in known if not _is_number(cell.text)]
        notes.append(f"numbers, {_count(numbers)}, are mixed with text, {_count(others)}; all are read as text")
    values = np.zeros(len(names), object)
    values[:] = ""
    _place(values, cells, lambda cell: texts[cell.text], names)
    return values.astype(str), notes


def _parse_numbers(cells: Sequence[Cell], commas: list[Cell], names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    notes = []
    if commas and all(THOUSANDS.fullmatch(cell.text) for cell in commas):
        raise ColumnError(f"{commas[0]} may mean thousands or decimals; write it without the comma, or with a point")
    if commas:
        notes.append(f"decimal commas are read as points: {_count(commas)}")
    points = {cell: cell.text.replace(",", ".") if COMMA_NUMBER.fullmatch(cell.text) else cell.text for cell in cells}
    read = [cell for cell in cells if _is_number(points[cell])]
    unknown = [cell for cell in cells if cell.text.casefold() in UNKNOWN]
    odd = [cell for cell in cells if not _is_number(points[cell]) and cell.text.casefold() not in UNKNOWN]
    if unknown:
        notes.append(f"read as unknown: {_count(unknown)}")
    if odd:
        notes.append(f"non-numbers among numbers, read as unknown: {_count(odd)}")
    values = np.full(len(names), np.nan)
    _place(values, read, lambda cell: float(points[cell]), names)
    return values, notes


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text)) and math.isfinite(float(text))


def _count(cells: Sequence[Cell]) -> str:
    """Describe the first cell with its line, and the number of further lines."""
    more = len(cells) - 1
    return f"{cells[0]}" + (f" and {more:,} more" if more else "")


def _merge_spellings(cells: Sequence[Cell]) -> tuple[dict[str, str], list[str]]:
    """Return the value of each text, and a note on values with several spellings."""
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
    # With invisible characters escaped.
    return ascii(text) if INVISIBLE.search(text) else repr(text)


def _place(values: np.ndarray, cells: Sequence[Cell], read: Callable[[Cell], Value], names: Sequence[str]) -> None:
    """Store each cell's value at its image's index. Raises ColumnError for an image with two values."""
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
            f"{cell.line}{f', and {images - 1:,} more images have two values' if images > 1 else ''}; keep one row each"
        )
