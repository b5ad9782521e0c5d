"""Records of trials that never ran, for tests: sizes and accuracies are given, not measured."""

from __future__ import annotations

from typing import Any

from ffem_jax.metrics import compute_wilson_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, TrialSpec, to_plain, trial_key


def build_record(
    *,
    correct: int | None = 80,
    tested: int = 104,
    params: int | None = 2_200_448,
    status: str = "done",
    arch: dict[str, Any] | None = None,
    attention: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    recipe: dict[str, Any] | None = None,
    pretrain: dict[str, Any] | None = None,
    seed: int = 0,
    **fields: Any,
) -> TrialRecord:
    """A record of the given spec fields; sizes follow from `params`, the interval from `correct` of `tested`."""
    spec = TrialSpec(
        arch=ArchSpec(**(arch or {}), attention=AttentionSpec(**(attention or {}))),
        data=DataSpec(**{"resolution": 64, **(data or {})}),
        protocol=ProtocolSpec(**(protocol or {})),
        recipe=RecipeSpec(**(recipe or {})),
        pretrain=PretrainSpec(**(pretrain or {})),
        seed=seed,
    )
    record = TrialRecord(
        trial_key=trial_key(spec),
        spec=to_plain(spec),
        seed=seed,
        status=status,
        arch=spec.arch.name,
        data=spec.data.name,
        protocol=spec.protocol.name,
        recipe=spec.recipe.name,
        resolution=spec.data.resolution,
        synthetic=spec.data.name == "synthetic",
    )
    if params is not None:
        record.params, record.macs, record.peak_activation_bytes = params, 20 * params, 10**6
        record.bytes_float32, record.bytes_float16, record.bytes_int8 = 4 * params, 2 * params, params
    if status in ("done", "pruned") and correct is not None:
        record.correct = record.correct_gallery = correct
        record.tested, record.accuracy = tested, correct / tested
        record.accuracy_gallery = record.accuracy
        record.accuracy_low, record.accuracy_high = compute_wilson_interval(correct, tested)
    for name, value in fields.items():
        setattr(record, name, value)
    return record
