"""Reads `attributes.csv`, often written manually or in spreadsheets: a row per image, a column per attribute.

Ambiguous content is refused with its line numbers; skipped or repaired content is reported.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import io
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.columns import Cell, ColumnError, parse_column
from ffem_jax.data.listing import list_names
from ffem_jax.text.display import show_unseen
from ffem_jax.text.names import find_name, index_names, tidy_name

SEPARATORS = (",", ";", "\t", "|")


class AttributesError(DataError):
    """An unusable table of attributes. The message is one line, and names the lines but not the file."""


@dataclass(frozen=True)
class _Row:
    """line: line number, from 1; cells: by column, stripped."""

    line: int
    path: str
    cells: dict[str, str]


def add_attributes(faces: Faces, path: Path, everybody: Collection[str]) -> Faces:
    """Add the columns of the table `path` to `faces`, if it exists, with notes; an unusable table becomes a note.

    Args:
        faces: without attributes.
        path: the table.
        everybody: names of all images that rows may refer to, of which `faces` may be a subset.
    """
    if not faces.names or not (path.exists() or path.is_symlink()):
        return faces
    try:
        attributes, notes = read_attributes(path, faces.names, everybody)
    except AttributesError as error:
        return dataclasses.replace(faces, notes=(*faces.notes, f"{path.name} ignored: {error}"))
    known = [values != "" if values.dtype.kind == "U" else ~np.isnan(values) for values in attributes.values()]
    missing = [faces.names[image] for image in np.flatnonzero(~np.any(known, axis=0))] if known else []
    if missing:
        some = f"{len(missing):,} of {len(faces.names):,} images"
        notes += (f"{path.name}: {some} have no value, such as {list_names(missing[:1])}",)
    return dataclasses.replace(faces, attributes=attributes, notes=(*faces.notes, *notes))


def read_attributes(
    path: Path, names: Sequence[str], everybody: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read the columns of a CSV file for some images, with notes on anomalies.

    Separators are commas, semicolons, tabs or bars; encodings are UTF-8, UTF-16 and Windows-1252.

    Args:
        path: the file. Its column `path` names the image (`person/file` in NFC or NFD, optionally below a leading
            folder common to all rows).
        names: names of the images.
        everybody: further images that rows may refer to.

    Returns:
        Each other column by name, as an array [image]: float64 with NaN for unknown values if they are numbers, else
        text with "" for unknown values. The notes, one line each.

    Raises:
        AttributesError: the file is unreadable, has no column `path`, a duplicate column or a row longer than the
            first, names none of the images, or contradicts itself.
    """
    text, notes = _read_text(path)
    columns, rows, trouble = _read_rows(text)
    notes += trouble
    matched, trouble = _match_rows(rows, names, everybody)
    notes += trouble
    attributes = {}
    for column in columns:
        cells = [Cell(row.line, image, row.cells[column]) for row, image in matched if row.cells[column]]
        try:
            attributes[column], trouble = parse_column(cells, names)
        except ColumnError as error:
            raise AttributesError(f"column {show_unseen(column)}: {error}") from None
        notes += [f"column {show_unseen(column)}: {note}" for note in trouble]
    return attributes, tuple(f"{path.name}: {note}" for note in notes)


def _read_text(path: Path) -> tuple[str, list[str]]:
    if not path.is_file():
        raise AttributesError("it is not a file" if path.exists() else "it does not exist")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AttributesError(f"it cannot be read ({error.strerror})") from None
    notes = []
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise AttributesError(f"line {line} is neither UTF-8 nor Windows-1252; save it as UTF-8") from None
        notes.append(f"line {line} is not UTF-8, so the file is read as Windows-1252; save it as UTF-8")
    if "\0" in text:
        raise AttributesError("it is not UTF-8 text; save it as CSV in UTF-8")
    return text, notes


def _read_rows(text: str) -> tuple[list[str], list[_Row], list[str]]:
    """Return the names of the columns except `path`, the rows, and notes."""
    header, records = _split(text)
    twice = [column for column, count in Counter(filter(None, header)).items() if count > 1]
    if twice:
        raise AttributesError(f"its first line names {list_names(twice)} more than once; rename or remove one of them")
    rows, short, unnamed, nowhere = [], [], [], []
    for line, cells in records:
        if any(cells[len(header) :]):
            raise AttributesError(
                f"line {line} has {len(cells)} cells where the first line names {len(header)}; quote cells that "
                "contain a separator"
            )
        if len(cells) < len(header):
            short.append(str(line))
        named = dict(zip(header, cells + [""] * len(header), strict=False))
        if any(cell for column, cell in zip(header, cells, strict=False) if not column):
            unnamed.append(str(line))
        path = named.pop("path")
        named.pop("", None)
        if path:
            rows.append(_Row(line, path, named))
        elif any(named.values()):
            nowhere.append(str(line))
    said = {
        "rows with fewer cells than the first line, the missing ones counted as unknown": short,
        "cells skipped because their column has no name": unnamed,
        "rows skipped because they have no path": nowhere,
    }
    notes = [f"{what}: {len(lines):,}, lines {list_names(lines)}" for what, lines in said.items() if lines]
    return [column for column in header if column not in ("", "path")], rows, notes


def _split(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the normalised names in the first line, and (line, cells) of each further non-empty row."""
    found: list[str] = []
    for separator in SEPARATORS:
        records = _iterate(text, separator)
        _, header = next(records, (1, []))
        header = [tidy_name(cell) for cell in header]
        if "path" in header:
            return header, records
        found = found or header
    there = f"; it has {list_names(list(filter(None, found)))}" if any(found) else ""
    raise AttributesError(f"its first line names no column `path`{there}")


def _iterate(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if reader.line_num > line and any("\n" in cell or "\r" in cell for cell in cells):
                raise AttributesError(f'lines {line} to {reader.line_num} are one row: a " in line {line} stays open')
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise AttributesError(f'line {line} cannot be read ({error}); is a " left open?') from None


def _match_rows(
    rows: Sequence[_Row], names: Sequence[str], everybody: Collection[str]
) -> tuple[list[tuple[_Row, int]], list[str]]:
    """Return each row that refers to one of the images `names`, with its index, and notes on the others."""
    index, known = index_names(names), index_names(everybody)
    found = {row.line: _find(row.path, index) for row in rows}
    lost = [row for row in rows if found[row.line] is None and _find(row.path, known) is None]
    notes = []
    above = {_clean(row.path).rpartition("/")[0].rpartition("/")[0] for row in lost} - {""}
    if len(above) == 1:
        folder = above.pop()
        below = {row.line: _clean(row.path).removeprefix(f"{folder}/") for row in lost}
        found |= {line: _find(path, index) for line, path in below.items()}
        still = [row for row in lost if found[row.line] is None and _find(below[row.line], known) is None]
        if len(still) < len(lost):
            notes.append(f"paths are relative to {list_names([folder])}")
        lost = still
    matched = [(row, image) for row in rows if (image := found[row.line]) is not None]
    if not matched:
        raise AttributesError(f"its column `path` names none of the images, such as {list_names(names[:1])}")
    if lost:
        strange = [f"{row.path} (line {row.line})" for row in lost]
        notes.append(f"rows that match no image ({len(lost):,}): {list_names(strange)}")
    lines = defaultdict(list)
    for row, image in matched:
        lines[image].append(row.line)
    twice = [f"{names[image]} (lines {', '.join(map(str, own))})" for image, own in lines.items() if len(own) > 1]
    if twice:
        notes.append(f"images with several rows, which agree ({len(twice):,}): {list_names(twice)}")
    return matched, notes


def _clean(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))


def _find(path: str, index: Mapping[str, int]) -> int | None:
    """Find the image at `path` as written, else normalised, else as the escaped form of a name that is not UTF-8.

    The bytes of such a name were decoded as Windows-1252, like the rest of the table.
    """
    found = find_name(path, index)
    if found is None:
        found = find_name(_clean(path), index)
    if found is None:
        with contextlib.suppress(UnicodeEncodeError):
            found = find_name(_clean(path).encode("cp1252").decode("utf-8", "backslashreplace"), index)
    return found
