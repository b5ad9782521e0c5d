"""The size limit under which trials were recorded, so that reports use the limit of their sweep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.trial import PRECISIONS

# The message of a refused trial with its size and cap, for records without these fields.
REFUSAL = re.compile(r"([\d.]+) MB is over the cap of ([\d.e+-]+) MB")


class Cap(NamedTuple):
    """A size limit in MB of 10**6 bytes, and its precision."""

    megabytes: float = 10.0
    precision: str = "float32"

    def __str__(self) -> str:
        return f"{self.megabytes:g} MB at {self.precision}"


def find_cap(records: Iterable[TrialRecord]) -> tuple[Cap | None, list[str]]:
    """Return the cap of the newest trial that has one, or None, and a note if several caps were recorded."""
    counts: Counter[Cap] = Counter()
    newest: tuple[str, Cap] | None = None
    for record in records:
        cap = read_cap(record)
        if cap is None:
            continue
        counts[cap] += 1
        # At equal times the later line wins.
        if newest is None or (record.started_at or "") >= newest[0]:
            newest = record.started_at or "", cap
    if newest is None:
        return None, []
    listed = ", ".join(f"{cap} ({count} trials)" for cap, count in counts.items())
    notes = [f"trials were recorded under several size limits: {listed}; the newest, {newest[1]}, is used here; "
             "choose another with --cap-mb"] if len(counts) > 1 else []  # fmt: skip
    return newest[1], notes


def choose_cap(
    records: Iterable[TrialRecord], megabytes: float | None = None, precision: str | None = None
) -> tuple[Cap, list[str]]:
    """Return the cap for a report: the given one, else that of the records, else 10 MB at float32.

    The rule is shared by all commands. Also returns a note if the records have several caps and `megabytes` is None.
    """
    recorded, notes = find_cap(records)
    cap = recorded or Cap()
    cap = Cap(cap.megabytes if megabytes is None else megabytes, precision or cap.precision)
    return cap, notes if megabytes is None else []


def read_cap(record: TrialRecord) -> Cap | None:
    """Return the cap of the trial; None if the record does not have it."""
    if record.cap_mb and record.cap_precision in PRECISIONS:
        return Cap(float(record.cap_mb), record.cap_precision)
    found = REFUSAL.search(record.error) if record.status == "over_cap" else None
    if not found:
        return None
    sizes = {precision: getattr(record, f"bytes_{precision}") for precision in PRECISIONS}
    of = [precision for precision, size in sizes.items() if size and f"{size / 1e6:.2f}" == found[1]]
    return Cap(float(found[2]), of[0] if of else Cap().precision)
