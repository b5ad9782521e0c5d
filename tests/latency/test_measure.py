"""`ffem latency`: numbers into records files that lose nothing, and the frontier against them."""

import dataclasses
import json
import shutil
import warnings

import pytest
from made_records import build_record
from stand_in_runtime import StandInRuntime

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.cli import main
from ffem_jax.export.tfjs import find_node_packages
from ffem_jax.latency import measure, turns
from ffem_jax.latency.measure import measure_records
from ffem_jax.records.record import TrialRecord, append_record, latest_records, read_records
from ffem_jax.records.view import read_arch
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.specs.architecture import resolve_network

WIDE, NARROW = build_record(), build_record(arch={"width_multiplier": 0.5}, params=600_000, correct=60)
RECORDS = [
    WIDE,
    build_record(seed=1),
    NARROW,
    build_record(arch={"width_multiplier": 1.5}, params=4_000_000, status="over_cap"),
    build_record(arch={"width_multiplier": 0.25}, params=None, status="failed", error="NaN loss"),
]


@pytest.fixture
def runtime(monkeypatch):
    """In place of Node and of networks; the first network takes 8 ms, the second 3."""
    stand_in = StandInRuntime({"network0": [8.0], "network1": [3.0]})
    monkeypatch.setattr(measure, "start_node", lambda: stand_in)
    monkeypatch.setattr(measure, "write_untrained", lambda *_: None)
    monkeypatch.setattr(turns, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(turns, "SETTLE_SECONDS", 0.0)
    return stand_in


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "records.jsonl"
    for record in RECORDS:
        append_record(path, record)
    return path


def test_each_network_is_timed_once_and_no_line_is_lost(runtime, path):
    before = path.read_bytes()
    files, networks, _ = measure_records([path], rounds=2)
    assert path.read_bytes().startswith(before)
    assert [(file.updated, file.kept) for file in files] == [(3, 0)]
    assert [(network.name, network.timing.median) for network in networks] == [("width 1", 8.0), ("width 0.5", 3.0)]
    assert [model.resolution for model in runtime.loaded] == [64, 64]
    latest = latest_records(read_records(path))
    assert [record.latency_ms_wasm for record in latest] == [8.0, 8.0, 3.0, None, None]
    for old, new in zip(RECORDS, latest, strict=True):
        assert dataclasses.replace(new, latency_ms_wasm=None, latency_wasm={}) == old
    facts = latest[0].latency_wasm
    assert (facts["runtime"], facts["calls"], facts["quartiles_ms"]) == ("stand-in 1, 1 thread", 2, [8.0, 8.0])


def test_what_is_measured_stays_unless_asked_again(runtime, path):
    measure_records([path], rounds=1)
    before = path.read_bytes()
    files, networks, _ = measure_records([path], rounds=1)
    assert (path.read_bytes(), networks) == (before, [])
    assert [(file.updated, file.kept) for file in files] == [(0, 3)]
    runtime.milliseconds = {"network0": [80.0], "network1": [30.0]}
    measure_records([path], rounds=1, again=True)
    assert [record.latency_ms_wasm for record in latest_records(read_records(path))][:3] == [80.0, 80.0, 30.0]


def test_a_trial_trained_anew_meanwhile_keeps_its_new_result(runtime, path, monkeypatch):
    newer = dataclasses.replace(WIDE, correct=99, accuracy=99 / 104)
    described = runtime.describe

    def describe():
        append_record(path, newer)
        return described()

    monkeypatch.setattr(runtime, "describe", describe)
    measure_records([path], rounds=1)
    (record,) = (r for r in latest_records(read_records(path)) if r.trial_key == WIDE.trial_key)
    assert (record.correct, record.latency_ms_wasm) == (99, 8.0)


def test_records_of_before_there_was_a_latency_still_load():
    row = json.loads(WIDE.to_json())
    del row["latency_ms_wasm"], row["latency_wasm"]
    assert TrialRecord.from_json(json.dumps(row)) == WIDE


def test_the_command_prints_json_and_nothing_else(runtime, path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "time_in_turn", lambda *words: (turns.time_in_turn(*words)[0], turns.Busy(0.75, 1.0)))
    assert main(["latency", str(path), "--rounds", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert [network["latency_ms_wasm"] for network in printed["networks"]] == [8.0, 3.0]
    assert "other processes used 0.75 cores" in err
    assert main(["latency", str(path), "--rounds", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err


# ------------------------------------------------------------------------- the frontier against it


def measured(record, milliseconds, **setting):
    facts = {"runtime": "wasm", "processor": "a processor", "busy_cores": 0.02, "calls": 30}
    return dataclasses.replace(record, latency_ms_wasm=milliseconds, latency_wasm={**facts, **setting})


def test_the_frontier_is_drawn_against_milliseconds(tmp_path):
    # The wide network is the faster one here, so that bytes cannot stand in for time.
    records = [measured(WIDE, 2.0), measured(NARROW, 5.0)]
    result = write_frontier(records, tmp_path, against="latency_ms_wasm")
    assert [network.latency_ms_wasm for network in result.networks] == [2.0, 5.0]
    assert result.on_frontier == (True, False)
    assert write_frontier(records, tmp_path / "bytes").on_frontier == (True, True)
    text = (tmp_path / "frontier.md").read_text()
    assert "Accuracy against milliseconds in wasm" in text
    assert "at least 30 calls, wasm on a processor; other processes used 0.02 cores" in text
    assert "| 2.00 |" in text
    assert {file.name for file in result.files} >= {"frontier.png", "frontier_params.png"}


def test_what_was_not_timed_is_named_and_not_placed(tmp_path):
    result = write_frontier([measured(WIDE, 2.0), NARROW], tmp_path, against="latency_ms_wasm")
    assert result.on_frontier == (True, False)
    assert (
        "Not on the frontier, because the records have no milliseconds in wasm (`ffem latency` measures it): "
        "`width 0.5`." in (tmp_path / "frontier.md").read_text()
    )


def test_milliseconds_that_cannot_share_an_axis_are_refused(tmp_path):
    with pytest.raises(FrontierError, match="ffem latency RECORDS"):
        write_frontier([WIDE, NARROW], tmp_path, against="latency_ms_wasm")
    mixed = [measured(WIDE, 2.0), measured(NARROW, 5.0, processor="another")]
    with pytest.raises(FrontierError, match="--again"):
        write_frontier(mixed, tmp_path, against="latency_ms_wasm")


def test_seeds_of_one_network_give_their_median(tmp_path):
    trials = [build_record(seed=seed) for seed in range(3)]
    records = [measured(trial, value) for trial, value in zip(trials, (1.0, 9.0, 2.0), strict=True)]
    result = write_frontier([*records, measured(NARROW, 1.5)], tmp_path, against="latency_ms_wasm")
    assert sorted(network.latency_ms_wasm for network in result.networks) == [1.5, 2.0]


def test_a_recorded_network_is_the_one_that_is_timed():
    network, resolution = measure.identify(NARROW)
    assert (network, resolution) == (resolve_network(read_arch(NARROW.spec["arch"])), 64)
    with warnings.catch_warnings(), pytest.raises(measure.LatencyError, match="another version"):
        measure.identify(dataclasses.replace(NARROW, spec={"arch": {"unknown": 1}}))


@pytest.mark.slow
def test_a_recorded_network_is_built_and_timed_in_node(tmp_path):
    if not shutil.which("node") or find_node_packages() is None:
        pytest.skip("Node or its TensorFlow.js is not installed: npm install in ffem_jax/export/node")
    path = tmp_path / "records.jsonl"
    for width in (0.25, 0.5):
        append_record(path, build_record(arch={"width_multiplier": width}, data={"resolution": 32}))
    _, networks, _ = measure_records([path], rounds=2)
    assert [network.name for network in networks] == ["width 0.25", "width 0.5"]
    for record in latest_records(read_records(path)):
        assert record.latency_ms_wasm > 0
        assert "wasm" in record.latency_wasm["runtime"]
