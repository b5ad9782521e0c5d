"""Reads records files for a page, with a line for everything that is left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.reports.html.privacy import remove_paths

LISTED = 5  # maximum number of lines listed per file and reason


def read_for_report(paths: Sequence[Path]) -> tuple[list[TrialRecord], list[str]]:
    """Return the records of all files, and what was left out: file name without its folder, lines and reason."""
    records: list[TrialRecord] = []
    left_out = []
    for path in paths:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records += read_records(path)
        reasons: dict[str, list[str]] = {}
        for warning in caught:
            # The warning of read_records is `FOLDER/records.jsonl:3: skipped, ...`.
            line, _, reason = str(warning.message).removeprefix(f"{path}:").partition(": ")
            reasons.setdefault(remove_paths(reason), []).append(line)
        for reason, lines in reasons.items():
            more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
            noun = "line" if len(lines) == 1 else "lines"
            left_out.append(f"{path.name}, {noun} {', '.join(lines[:LISTED])}{more}: {reason}")
    return records, left_out
