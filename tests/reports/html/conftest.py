"""What the tests of pages share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_pages import make_records, read_payload

from ffem_jax.records.record import TrialRecord


@pytest.fixture
def records() -> list[TrialRecord]:
    return make_records()


@pytest.fixture
def write_page(tmp_path: Path) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Writes a page and returns its text and its numbers."""
    from ffem_jax.reports.html import write_report

    def write(records: list[TrialRecord], **known: Any) -> tuple[str, dict[str, Any]]:
        path = tmp_path / "page" / "report.html"
        write_report(records, path, **known)
        page = path.read_text(encoding="utf-8")
        return page, read_payload(page)

    return write
