"""The pairs of LFW's View 2: `pairs.txt`, resolved to the available images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError
from ffem_jax.text.names import find_name, index_names, tidy_name


@dataclass(frozen=True)
class Pairs:
    """Pairs of images, in the file's order. Arrays are [pair].

    Args:
        first: int, indices of images.
        second: int, indices of images.
        same: bool, whether both show one person.
        fold: int, from 0.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray

    @property
    def folds(self) -> int:
        """The number of folds."""
        return int(self.fold.max()) + 1


def read_pairs(path: Path, names: Sequence[str]) -> Pairs:
    """Read a file of pairs in View 2's format.

    The first line has the numbers of folds and of pairs; then each fold has that many rows `person a b`, two images of
    one person, and as many `person a other b`, images of two people. Columns are separated by tabs.

    Args:
        path: the file.
        names: names of the images (`person/file`), which the pairs index.

    Raises:
        DataError: the file is missing or malformed, or names a missing image; the message gives file and line.

    References:
        Huang et al., Labeled Faces in the Wild, technical report 07-49, 2007, section III (View 2).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"{path} cannot be read ({reason}); put LFW's View 2 there") from None
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip()]
    folds, each = _read_head(path, rows)
    if len(rows) - 1 != folds * 2 * each:
        raise DataError(f"{path} has {len(rows) - 1} pairs, but its first line announces {folds * 2 * each}")
    index = index_names(names)
    found = []
    for position, (number, row) in enumerate(rows[1:]):
        same = position % (2 * each) < each
        try:
            if len(row) != (3 if same else 4) or (not same and tidy_name(row[0]) == tidy_name(row[2])):
                raise ValueError
            pictures = (row[0], int(row[1])), (row[0 if same else 2], int(row[-1]))
        except ValueError:
            wanted = "person, number, number" if same else "person, number, another person, number"
            raise DataError(f"{path} line {number}: {' '.join(row)!r} is not {wanted}, separated by tabs") from None
        pair = [f"{person}/{person}_{picture:04d}.jpg" for person, picture in pictures]
        places = [find_name(name, index) for name in pair]
        for name, place in zip(pair, places, strict=True):
            if place is None:
                raise DataError(f"{path} line {number}: {name} is not among the {len(names):,} readable images")
        if places[0] == places[1]:
            raise DataError(f"{path} line {number}: {pair[0]} is paired with itself")
        found.append((*places, same, position // (2 * each)))
    first, second, same_column, fold = (np.asarray(column) for column in zip(*found, strict=True))
    return Pairs(first, second, same_column, fold)


def _read_head(path: Path, rows: Sequence[tuple[int, list[str]]]) -> tuple[int, int]:
    """Return the number of folds, and of same and of different pairs in each."""
    try:
        folds, each = map(int, rows[0][1])
        if folds < 2 or each < 1:
            raise ValueError
    except (ValueError, IndexError):
        raise DataError(
            f"{path} line {rows[0][0] if rows else 1} must be the number of folds, a tab, and of pairs per kind"
        ) from None
    return folds, each
