"""What the tests of pages share: records of trials that never ran, and the numbers of a written page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.records import TrialRecord


def make_records() -> list[TrialRecord]:
    """Two seeds of five networks: three trained, one over the cap, one that failed."""
    records = []
    for seed in (0, 1):
        curves = {
            "epochs": 3,
            "loss": [3.0, 2.0, 1.0 + seed],
            "train_accuracy": [0.2, 0.5, 0.9],
            "validation_accuracy": [0.1, 0.4, 0.6 + 0.1 * seed],
            "device": "a processor",
            "versions": {"jax": "0.10.2"},
            "wall_seconds": 60.0,
            "started_at": f"2026-11-22T0{seed}:00:00+00:00",
            "data_fingerprint": "abc",
        }
        for kind, params, correct in (("none", 1_000_000, 60), ("eca", 1_500_000, 66 + seed), ("se", 2_000_000, 90)):
            made = build_record(seed=seed, params=params, correct=correct, attention={"kind": kind}, **curves)
            made.trial_dir = f"ffem-{kind}-seed{seed}-{made.trial_key}"
            records.append(made)
        records.append(build_record(seed=seed, status="over_cap", params=3_000_000, arch={"width_multiplier": 1.4}))
        records.append(
            build_record(
                seed=seed,
                status="failed",
                params=1_200_000,
                arch={"width_multiplier": 0.5},
                error="loss is NaN at step 7",
            )
        )
    return records


@pytest.fixture
def records() -> list[TrialRecord]:
    return make_records()


@pytest.fixture
def write_page(tmp_path: Path) -> Callable[..., tuple[str, dict[str, Any]]]:
    """Writes a page and returns its text and its numbers."""
    from ffem_jax.report import write_report

    def write(records: list[TrialRecord], **known: Any) -> tuple[str, dict[str, Any]]:
        path = tmp_path / "page" / "report.html"
        write_report(records, path, **known)
        page = path.read_text(encoding="utf-8")
        return page, read_payload(page)

    return write


def read_payload(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])
