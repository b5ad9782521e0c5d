"""Records of folds that never ran: distances are given, not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ffem_jax.metrics import compute_wilson_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, TrialSpec, to_plain, trial_key


def build_fold(
    fold: int,
    same: Sequence[float] = (0.1, 0.2),
    different: Sequence[float] = (0.6, 0.7),
    correct: int = 3,
    *,
    folds: int = 4,
    seed: int = 0,
    attention: str = "none",
    data: dict[str, Any] | None = None,
    **fields: Any,
) -> TrialRecord:
    """A record of one fold of View 2 that is done, with these distances of its pairs."""
    spec = TrialSpec(
        arch=ArchSpec(attention=AttentionSpec(kind=attention)),
        data=DataSpec(**{"name": "lfw", "resolution": 64, **(data or {})}),
        protocol=ProtocolSpec(name="view2", folds=folds, fold=fold),
        seed=seed,
    )
    record = TrialRecord(trial_key(spec), to_plain(spec), seed, "done", arch=spec.arch.name, data="lfw")
    record.protocol, record.resolution, record.params, record.bytes_float32 = "view2", 64, 2_200_448, 8_800_000
    record.tested = len(same) + len(different)
    record.correct, record.accuracy = correct, correct / record.tested
    record.accuracy_low, record.accuracy_high = compute_wilson_interval(correct, record.tested)
    record.verification = {"threshold": 0.4, "distances_same": list(same), "distances_different": list(different)}
    for name, value in fields.items():
        setattr(record, name, value)
    return record


@pytest.fixture(scope="session")
def make_fold() -> Callable[..., TrialRecord]:
    return build_fold
