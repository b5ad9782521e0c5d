"""`benchmarks.sweep` measures what is missing: who is called, in which order, and what is kept."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import harness, sweep

WORDS = "--data synthetic --resolution 32 --networks 2 --seeds 1 --epochs 1 --ours basic".split()


@pytest.fixture
def calls(monkeypatch):
    """The measurements that are taken, in order; none of them trains anything, and the fourth meets other work."""
    taken, busy = [], itertools.count()

    def measure_peer(peer, folder, options):
        taken.append(peer)
        return {"seconds": 9.0, "accuracies": [0.5, 0.5], "threads": 2}

    def measure_ours(variant, folder, cache, options):
        compiled = (cache / "program").exists()
        taken.append("second" if compiled else "first")
        (cache / "program").touch()
        return {"seconds": 6.0, "accuracies": [0.5, 0.5], "compile_seconds": 1.0}

    monkeypatch.setattr(sweep, "measure_peer", measure_peer)
    monkeypatch.setattr(sweep, "measure_ours", measure_ours)
    monkeypatch.setattr(sweep, "has_peer", lambda: True)
    monkeypatch.setattr(sweep, "load_split", lambda data, protocol: None)
    # Read before and after each measurement: busy seconds that are not this process's own.
    monkeypatch.setattr(sweep, "read_busy_seconds", lambda: 1e6 if next(busy) == 7 else 0.0)
    monkeypatch.setattr(sweep, "read_own_seconds", lambda: 0.0)
    return taken


@pytest.mark.slow
def test_what_is_missing_is_measured_in_turn_and_what_met_other_work_again(calls, tmp_path):
    words = [*WORDS, "--out", str(tmp_path)]
    sweep.main(words)
    assert calls == ["peer as installed", "peer", "first", "second"]
    rows = harness.read_lines(tmp_path / "sweep.jsonl")
    assert [(row["contestant"], row["cache"], row["round"]) for row in rows] == [
        ("peer as installed", "", 0), ("peer", "", 0), ("basic", "first sweep", 0), ("basic", "second sweep", 0),
    ]  # fmt: skip
    assert [row["busy_cores"] > 1 for row in rows] == [False, False, False, True]
    assert "**That is too much" in (tmp_path / "sweep.md").read_text()
    # The second sweep met other work: taken again, after a first one that leaves it compiled programs, unrecorded.
    calls.clear()
    sweep.main(words)
    assert calls == ["first", "second"]
    assert len(harness.read_lines(tmp_path / "sweep.jsonl")) == 5
    assert "**That is too much" not in (tmp_path / "sweep.md").read_text()
    calls.clear()
    sweep.main([*words, "--rounds", "2"])
    assert calls == ["peer as installed", "peer", "first", "second"]
    assert {row["round"] for row in harness.read_lines(tmp_path / "sweep.jsonl")[5:]} == {1}


def test_a_sweep_that_lost_trials_is_not_recorded(calls, monkeypatch, tmp_path):
    lost = {"seconds": 9.0, "accuracies": [0.5]}
    monkeypatch.setattr(sweep, "measure_peer", lambda *_: lost)
    with pytest.raises(SystemExit, match="1 of 2 trials"):
        sweep.main([*WORDS, "--out", str(tmp_path)])
    assert not (tmp_path / "sweep.jsonl").exists()
