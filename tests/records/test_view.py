"""A record's spec as dataclasses: whatever version wrote it, it is read, and what cannot be read exactly says so."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.records.view import GROUPS, read_trial, view_spec
from ffem_jax.specs.architecture import ArchSpec, SpecError
from ffem_jax.specs.trial import DataSpec, to_plain

REPOSITORY = Path(__file__).resolve().parents[2]
# Records of benchmarks have the name of the file alone.
COMMITTED = [p for p in sorted(REPOSITORY.glob("results/**/records.jsonl")) if '"trial_key"' in p.open().readline()]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_records_are_read_exactly(path: Path) -> None:
    for record in read_records(path)[:40]:
        assert record.view.inexact == frozenset(), record.trial_key
        if {"arch", "data", "protocol", "recipe"} <= record.spec.keys():
            trial = read_trial(record.spec)
            assert (trial.arch, trial.data, trial.recipe) == (record.view.arch, record.view.data, record.view.recipe)


def test_what_a_record_leaves_out_is_at_its_default() -> None:
    view = view_spec({"arch": {"width_multiplier": 0.5}, "seed": 3})
    assert (view.arch.width_multiplier, view.arch.stages, view.seed) == (0.5, ArchSpec().stages, 3)
    assert (view.is_pretrained, view.folds, view.tests_pairs) == (False, 1, False)
    assert (view.get_name("arch"), view.has("arch", "width_multiplier"), view.has("data", "crop")) == ("", True, False)
    with pytest.raises(KeyError):
        _ = view_spec({}).network  # the default network would be made up


@pytest.mark.parametrize("group", GROUPS)
def test_a_field_of_tomorrow_costs_nothing_else(group: str) -> None:
    spec = build_record(pretrain={"name": "lfw_rest", "data": DataSpec(resolution=64)}).spec
    spec.setdefault(group, {})["a_field_of_tomorrow"] = 1
    view = view_spec(spec)
    assert view.inexact == {group}
    assert view.get_written(group)["a_field_of_tomorrow"] == 1
    assert view.pretrain.name == "lfw_rest"
    assert (view.data.resolution, view.recipe.epochs, view.protocol.folds) == (64, 30, 5)


def test_a_value_of_tomorrow_is_shown_and_not_built() -> None:
    spec = build_record(attention={"kind": "eca"}).spec
    spec["arch"]["attention"]["kind"] = "unheard_of"
    view = view_spec(spec)
    assert view.arch.attention.kind == "unheard_of"
    with pytest.raises(SpecError, match="unheard_of"):
        _ = view.network


@pytest.mark.parametrize("broken", [{"arch": []}, {"arch": {"stages": 5}}, {"arch": {"attention": "se"}}, {"data": 1}])
def test_anything_else_is_viewed_without_a_traceback(broken: dict) -> None:
    view = view_spec(broken)
    assert view.recipe.epochs == 30
    assert isinstance(view.arch, ArchSpec)


@pytest.mark.parametrize("group", ["arch", "data", "protocol", "recipe"])
def test_a_trial_without_a_group_is_none(group: str) -> None:
    row = to_plain(read_trial(build_record().spec))
    del row[group]
    with pytest.raises(KeyError):
        read_trial(row)


def test_thousands_are_cheap() -> None:
    records = [build_record(seed=seed, arch={"width_multiplier": 0.5 + seed % 50 / 100}) for seed in range(300)]
    started = time.perf_counter()
    for _ in range(20):
        assert all(record.view.data.resolution == 64 for record in records)
    assert time.perf_counter() - started < 3


def test_nobody_else_reads_a_spec_as_nested_dicts() -> None:
    words = ["git", "grep", "-lE", r"\bspec\.get\(|\bspec\[[\"']", "--", "ffem_jax/*.py"]
    found = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    assert set(found) <= {"ffem_jax/records/view.py"}


def test_a_record_keeps_the_cap_it_was_run_under() -> None:
    record = TrialRecord.from_json(build_record(cap_mb=2.185, cap_precision="int8").to_json())
    assert (record.cap_mb, record.cap_precision) == (2.185, "int8")
    old = '{"trial_key": "k", "spec": {}, "seed": 0, "status": "done"}'
    assert TrialRecord.from_json(old).cap_mb is None
