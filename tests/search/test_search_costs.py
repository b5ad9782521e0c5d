"""Every cost of the registry can be an objective of a search: peak memory, too, and none is listed a second time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from made_searches import CAP, make, make_record, measure
from made_searches import open_study as open_made_study

from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.records.costs import COST_FIELDS, MEASURED_FIELDS, format_cost
from ffem_jax.records.record import TrialRecord
from ffem_jax.search.candidates import Candidate, add_cost, price_recorded
from ffem_jax.search.settings import SearchSettings
from ffem_jax.search.workers.following import SearchFollower
from ffem_jax.search.workers.worker import MEASUREMENTS
from ffem_jax.specs.architecture import ArchSpec, SpecError, StageSpec
from ffem_jax.specs.trial import RunSpec, TrialSpec

SMALL = ArchSpec(
    name="small", stem_channels=8, stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2)), head_channels=0,
    embedding_dim=8,
)  # fmt: skip


def measure_all(candidate: Candidate) -> Candidate:
    """The costs of made_searches, and a peak that only the width decides, in bytes."""
    candidate = measure(candidate)
    if not candidate.costs:
        return candidate
    return dataclasses.replace(
        candidate, costs={**candidate.costs, "peak_activation_bytes": 1e5 * float(candidate.point["width"])}
    )


def open_study(folder: Path, **settings):
    study = open_made_study(folder, **settings)
    study.measure = measure_all
    return study


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "surrogate", "random"])
@pytest.mark.parametrize("others", [[], ["bytes_float32"]])
def test_a_search_by_accuracy_and_peak_memory(tmp_path, sampler, others):
    objectives = ["accuracy", "peak_activation_bytes", *others]
    study, lines = open_study(tmp_path, sampler=sampler, n_trials=22, objectives=objectives), []
    follower = SearchFollower(study, RunSpec(cap_mb=CAP / 1e6), lines.append)
    follower.start()
    while not study.is_over():
        if claim := study.claim("w"):
            assert study.tell_records(claim, [make_record(claim)])
    assert follower.look() == 22
    outcomes = [one for one in study.read_ledger().read_outcomes() if one.accuracy is not None]
    assert all(one.costs["peak_activation_bytes"] == 1e5 * float(one.point["width"]) for one in outcomes)
    trials = study.read_ledger().finished
    assert [trial.values[:2] for trial in trials] == [
        [one.accuracy, one.costs["peak_activation_bytes"]] for one in outcomes
    ]
    # Optuna's own frontier is that of the two numbers.
    if not others:
        front = find_pareto([one.costs["peak_activation_bytes"] for one in outcomes], [o.accuracy for o in outcomes])
        best = {trial.number for trial in study.study.best_trials}
        assert {trial.number for trial, stands in zip(trials, front, strict=True) if stands} <= best
    width = float(outcomes[-1].point["width"])
    assert f"{width / 10:.2f} MB of activations" in lines[-1]
    assert "hypervolume 0." in lines[-1]


@pytest.mark.slow
def test_the_sampler_goes_for_small_peaks(tmp_path):
    """By bytes a narrow, deep network is as good as a wide, shallow one; by peak memory it is better."""
    widths = {}
    for objective in ("peak_activation_bytes", "macs"):
        study = open_study(
            tmp_path / objective, sampler="surrogate", n_trials=40, objectives=["accuracy", objective], seed=1
        )
        while not study.is_over():
            if claim := study.claim("w"):
                study.tell_records(claim, [make_record(claim)])
        outcomes = [one for one in study.read_ledger().read_outcomes() if one.accuracy is not None]
        widths[objective] = sum(int(one.point["width"]) for one in outcomes[20:]) / len(outcomes[20:])
    assert widths["peak_activation_bytes"] < widths["macs"]


@pytest.mark.parametrize("field", COST_FIELDS)
def test_every_cost_of_the_registry_is_an_objective(field):
    assert SearchSettings(objectives=["accuracy", field]).costs == [field]
    assert field in {one.name for one in dataclasses.fields(TrialRecord)}


@pytest.mark.parametrize("objectives", [["accuracy", "peak"], ["accuracy", "peak_activation_bytes", "x"]])
def test_an_objective_that_is_none_is_told_the_names(objectives):
    with pytest.raises(SpecError, match=r"is not known; choose one of: .*peak_activation_bytes"):
        SearchSettings(objectives=objectives)


def test_what_is_known_before_training_is_known_of_a_candidate():
    trial = TrialSpec(arch=SMALL)
    costs = add_cost(Candidate({}, trial, RunSpec(), "key")).costs
    known = {name for name, axis in COST_FIELDS.items() if axis.known_before_training}
    assert known <= costs.keys()
    assert all(costs[name] > 0 for name in known)
    record = TrialRecord("key", {}, 0, "done", **{name: int(costs[name]) for name in known})
    record.latency_ms_wasm = 3.5
    assert price_recorded(Candidate({}, trial, RunSpec(), "key"), record).costs == {**costs, "latency_ms_wasm": 3.5}


def test_a_cost_that_is_measured_has_its_measurement():
    assert MEASUREMENTS.keys() == set(MEASURED_FIELDS)


def test_a_recorded_network_without_the_cost_is_not_taken_over(tmp_path):
    """A record of before peaks were recorded: training finds it again, with the peak of its network."""
    study = open_study(tmp_path, n_trials=3, objectives=["accuracy", "peak_activation_bytes"])
    point = {"width": "2", "depth": "2", "kind": "none"}
    old = dataclasses.replace(make(point), costs={"bytes_float32": 4.0, "macs": 2.0})
    assert not study.adopt(old, [TrialRecord("old", {}, 0, "done", accuracy=0.5, tested=9)])
    new = dataclasses.replace(old, costs={**old.costs, "peak_activation_bytes": 2e5})
    assert study.adopt(new, [TrialRecord("new", {}, 0, "done", accuracy=0.5, tested=9)])


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("bytes_float32", 1_234_567, "1.23 MB"),
        ("bytes_int8", 400_000, "0.40 MB (int8)"),
        ("macs", 12_340_000, "12.3 M MACs"),
        ("params", 2_000_000, "2.00 M parameters"),
        ("latency_ms_wasm", 3.14159, "3.14 ms"),
        ("peak_activation_bytes", 921_600, "0.92 MB of activations"),
    ],
)
def test_costs_in_their_units(field, value, told):
    assert format_cost(field, value) == told
