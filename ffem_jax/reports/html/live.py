"""The page of a running sweep: rewritten as records arrive, but so rarely that the sweep is not slowed down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ffem_jax.analysis.summary import FrontierError
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.html.page import ReportError, write_report

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
SHARE = 0.02  # of the sweep's time that writing may take


class LivePage:
    """The page at `path` for a sweep of `planned` trials, from the records that `read` returns.

    If the page cannot be written, `say` reports it once; a sweep never stops for it. `known` is passed to
    `write_report`.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[], Sequence[TrialRecord]],
        planned: int,
        say: Callable[[str], None],
        **known: Any,
    ) -> None:
        self.path, self.read, self.planned, self.say, self.known = path, read, planned, say, known
        self.next_time = time.monotonic() + EVERY_SECONDS
        self.complaint = ""

    def follow(self, line: str) -> None:
        """Report the line of a new record; rewrite the page if the last write was long enough ago."""
        self.say(line)
        if time.monotonic() >= self.next_time:
            started = time.monotonic()
            self.write(self.read(), planned=self.planned)
            took = time.monotonic() - started
            self.next_time = time.monotonic() + max(EVERY_SECONDS, took / SHARE)

    def write(self, records: Sequence[TrialRecord], planned: int = 0) -> bool:
        """Write the page and return whether that succeeded. planned: trials of a running sweep, else 0."""
        try:
            # A sweep may have several protocols.
            write_report(records, self.path, mixed=True, planned=planned, **self.known)
        except Exception as error:
            # Even a bug in the page must not stop a sweep.
            expected = isinstance(error, ReportError | FrontierError | OSError)
            complaint = str(error) if expected else f"{type(error).__name__}: {error}"
            if complaint != self.complaint:
                self.say(f"no report: {complaint}")
                if not expected:
                    log.error("no report", exc_info=True)
            self.complaint = complaint
            return False
        return True
