"""What the commands that read records share: which files, which version of the faces, and what is left out, said."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.terminal import UsageError, say

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord


def add_records(parser: argparse.ArgumentParser) -> None:
    """The arguments RECORDS... and --faces."""
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    parser.add_argument(
        "--faces",
        default="",
        metavar="FINGERPRINT",
        help="the trials of these faces alone, where the data changed while trials were recorded (the newest)",
    )


def find_records(paths: Sequence[Path]) -> list[Path]:
    """The records files that `paths` name, folders searched. Raises UsageError for a path that holds none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a records file or a sweep's folder")
        files = sorted(path.rglob("records.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} holds no records.jsonl; give a records file or a sweep's folder")
        found += files
    return found


def read_all(paths: Iterable[Path]) -> list[TrialRecord]:
    """The latest record of every trial in the files."""
    from ffem_jax.records.record import latest_records, read_records

    return latest_records(record for path in paths for record in read_records(path))


def read_comparable(
    paths: Iterable[Path], faces: str, wanted: Callable[[TrialRecord], bool] = lambda _: True
) -> list[TrialRecord]:
    """The `wanted` records of the files that can stand on one axis; says what is left out.

    faces: as `select_comparable` has it. Raises FrontierError as it does.
    """
    from ffem_jax.analysis.comparability import select_comparable

    records, notes = select_comparable(filter(wanted, read_all(paths)), faces=faces)
    for note in notes:
        say(f"ffem: warning: {note}")
    return records
