"""Every cost that is declared is a column, an axis, a heading, a choice of the page and an objective of a search."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax.records.costs import COST_AXES, COST_FIELDS, MEASURED_FIELDS, CostAxis, format_cost
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.search.settings import ACCURACY, SearchSettings
from ffem_jax.specs.trial import PRECISIONS

WASM = {"runtime": "tfjs", "processor": "one", "busy_cores": 0.0, "calls": 9}


def make_networks() -> list[TrialRecord]:
    """Three networks of which each cost orders them alike."""
    return [
        build_record(
            correct=60 + 10 * i, params=5 * 10**5 * (i + 1), arch={"name": name, "width_multiplier": 0.5 + i / 4},
            peak_activation_bytes=10**6 * (i + 1), latency_ms_wasm=1.0 + i, latency_wasm=WASM,
        )
        for i, name in enumerate(("small", "middle", "large"))
    ]  # fmt: skip


@pytest.mark.parametrize("axis", COST_AXES.values(), ids=COST_AXES.keys())
def test_an_axis_is_everywhere(axis: CostAxis, tmp_path: Path) -> None:
    records = make_networks()
    result = write_frontier(records, tmp_path, against=axis.name, style="paper")
    assert [network.label for network in result.networks] == ["small", "middle", "large"]
    assert all(result.on_frontier)
    label = result.question.describe_axis()
    assert "{" not in label
    assert label in (tmp_path / "frontier.svg").read_text(encoding="utf-8")
    for suffix in ("svg", "pdf"):
        assert (tmp_path / f"frontier_paper.{suffix}").stat().st_size
    text = (tmp_path / "frontier.md").read_text(encoding="utf-8")
    assert text.startswith(f"# Accuracy against {axis.noun}: ")
    heads = [column.name for column in result.table.columns]
    assert axis.head.format(precision="float32") in heads
    assert json.loads((tmp_path / "frontier.json").read_text())["against"] == axis.name


@pytest.mark.parametrize("field", COST_FIELDS)
def test_a_cost_is_an_objective(field: str) -> None:
    settings = SearchSettings(objectives=[ACCURACY, field])
    assert settings.costs == [field]
    assert hasattr(build_record(), field)
    assert format_cost(field, 2_500_000.0)[0].isdigit()


def test_what_is_known_before_training_is_what_the_cost_model_gives() -> None:
    from ffem_jax.cost.cost import compute_cost
    from ffem_jax.specs.architecture import ArchSpec

    given = compute_cost(ArchSpec(width_multiplier=0.25), 32).to_dict()
    assert set(COST_FIELDS) - set(MEASURED_FIELDS) <= given.keys()
    assert not set(MEASURED_FIELDS) & given.keys()


@pytest.mark.parametrize("axis", COST_AXES.values(), ids=COST_AXES.keys())
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_field_is_one_of_the_record(axis: CostAxis, precision: str) -> None:
    assert hasattr(build_record(), axis.name_field(precision))
    assert axis.known_before_training == (not axis.measured_by)


@pytest.mark.parametrize("axis", [a for a in COST_AXES.values() if not a.by_precision], ids=lambda axis: axis.name)
def test_a_cost_that_is_not_recorded_is_named_and_not_drawn(axis: CostAxis, tmp_path: Path) -> None:
    records = make_networks()
    setattr(records[0], axis.field, None)
    result = write_frontier(records, tmp_path, against=axis.name)
    assert math.isnan(result.question.get_cost(result.networks[-1]))
    assert f"because the records have no {axis.noun}" in (tmp_path / "frontier.md").read_text(encoding="utf-8")


def test_a_cost_is_written_with_its_unit() -> None:
    assert [format_cost(name, 2_184_000) for name in ("bytes_float32", "bytes_int8", "macs")] == [
        "2.18 MB", "2.18 MB (int8)", "2.2 M MACs",
    ]  # fmt: skip
    assert format_cost("latency_ms_wasm", 1.234) == "1.23 ms"
