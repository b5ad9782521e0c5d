"""Records of the paper's networks that never ran: which images were right is given, not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ffem_jax.metrics import compute_wilson_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.paper.published import load_arch
from ffem_jax.specs.architecture import ArchSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, TrialSpec, to_plain, trial_key

IMAGES, FOLDS = 100, 5
BYTES = {
    "ffem": 8_800_000,
    "ffem_am": 8_800_032,
    "ffem_se": 9_270_000,
    "mobilenetv2": 9_560_000,
    "shufflenetv2": 5_670_000,
}


def build_trial(
    name: str,
    right: int | Sequence[bool] = 80,
    *,
    seed: int = 0,
    fold: int = 0,
    arch: ArchSpec | None = None,
    data: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    **fields: Any,
) -> TrialRecord:
    """One fold of IMAGES images; `right` says of all of them which are, or that the first so many are."""
    spec = TrialSpec(
        arch=arch or load_arch(name),
        data=DataSpec(**{"resolution": 64, **(data or {})}),
        protocol=ProtocolSpec(**(protocol or {"name": "kfold", "folds": FOLDS, "fold": fold})),
        recipe=RecipeSpec(**(recipe or {})),
        seed=seed,
    )
    images = np.arange(fold, IMAGES, FOLDS)
    hits = (np.arange(IMAGES) < right if isinstance(right, int) else np.asarray(right))[images]
    record = TrialRecord(trial_key(spec), to_plain(spec), seed, "done", arch=spec.arch.name, data=spec.data.name)
    record.data_fingerprint, record.pictures_fingerprint = "f" * 16, "p" * 16
    record.protocol, record.recipe, record.resolution = "kfold", spec.recipe.name, spec.data.resolution
    record.synthetic = spec.data.name == "synthetic"
    record.params, record.macs, record.bytes_float32 = BYTES.get(name, 1_000_000) // 4, 21_000_000, BYTES.get(name)
    record.test_images, record.hits = images.tolist(), "".join("1" if hit else "0" for hit in hits)
    record.correct, record.tested, record.accuracy = int(hits.sum()), len(hits), float(hits.mean())
    record.accuracy_low, record.accuracy_high = compute_wilson_interval(record.correct, record.tested)
    record.epochs, record.loss, record.validation_accuracy = 3, [3.0, 2.0, 1.0 + seed], [0.1, 0.5, record.accuracy]
    for field, value in fields.items():
        setattr(record, field, value)
    return record


def build_set(right: dict[str, Any], *, seeds: Sequence[int] = (0, 1), **settings: Any) -> list[TrialRecord]:
    """Every fold with every seed of the networks that `right` names."""
    return [
        build_trial(name, of, seed=seed, fold=fold, **settings)
        for seed in seeds
        for fold in range(FOLDS)
        for name, of in right.items()
    ]


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., TrialRecord]:
    return build_trial


@pytest.fixture(scope="session")
def make_set() -> Callable[..., list[TrialRecord]]:
    return build_set
