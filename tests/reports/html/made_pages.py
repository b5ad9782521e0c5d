"""Records of trials that never ran, and the numbers of a written page."""

from __future__ import annotations

import json
import re
from typing import Any

from made_records import build_record

from ffem_jax.records.record import TrialRecord


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


def read_payload(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])
