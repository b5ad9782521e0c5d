"""What a search says while it runs, and how it tells workers where to run and why they died."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from pathlib import Path

import pytest
from made_searches import CAP, make_record, open_study

from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.search.model.volume import compute_volume
from ffem_jax.search.study import SearchError
from ffem_jax.search.workers import launch
from ffem_jax.search.workers.following import SearchFollower
from ffem_jax.search.workers.launch import LocalWorkers, assign_accelerator, describe_status, read_last_line
from ffem_jax.search.workers.worker import Worker, measure_latency
from ffem_jax.specs.trial import RunSpec


def test_a_line_for_each_network_with_the_best_and_the_hypervolume_so_far(tmp_path: Path) -> None:
    study, lines = open_study(tmp_path, n_trials=6, seed=1), []
    follower = SearchFollower(study, RunSpec(cap_mb=CAP / 1e6), lines.append)
    follower.start()
    worker = Worker("w", study, lambda claim: [make_record(claim, "failed" if claim.number == 2 else "done")])
    worker.run()
    follower.look()
    assert [line.split()[0] for line in lines] == [f"[{number}/6]" for number in range(1, 7)]
    told = [one for one in study.read_ledger().read_outcomes() if one.accuracy is not None]
    volume = compute_hypervolume([one.costs["bytes_float32"] for one in told], [one.accuracy for one in told], CAP, 0.0)
    best = max(one.accuracy for one in told)
    assert f"best so far {best:.3f}, hypervolume {volume / CAP:.4f}" in lines[-1]
    refused = study.read_ledger().count("refused")
    assert refused
    assert f"{refused} refused, 1 failed" in lines[-1]
    # By the number of its trial and by the key of its record, as tables and pages have it.
    failed = study.read_ledger().trials[2].user_attrs["claim"]["key"]
    line = next(line for line in lines if "network 2 " in line)
    assert f"network 2 [{failed}]: failed, FloatingPointError: loss is NaN; " in line
    # The first line tells of the first network alone.
    assert f"best so far {told[0].accuracy:.3f}, " in lines[0]


def test_a_follower_that_starts_later_tells_what_is_new(tmp_path: Path) -> None:
    Worker("w", open_study(tmp_path, n_trials=3), lambda claim: [make_record(claim)]).run()
    study, lines = open_study(tmp_path, n_trials=5), []
    follower = SearchFollower(study, RunSpec(), lines.append)
    assert len(follower.start().finished) == 3
    Worker("w", study, lambda claim: [make_record(claim)]).run()
    assert follower.look() == 2
    assert follower.look() == 0
    assert [line.split()[0] for line in lines] == ["[4/5]", "[5/5]"]


@pytest.mark.parametrize("objectives", [["bytes_float32", "macs"], ["macs", "bytes_float32"], ["macs"]])
def test_the_hypervolume_is_of_all_objectives(tmp_path: Path, objectives: list[str]) -> None:
    study, lines = open_study(tmp_path, n_trials=6, seed=1, objectives=["accuracy", *objectives]), []
    follower = SearchFollower(study, RunSpec(cap_mb=CAP / 1e6, cap_mmacs=9e-6), lines.append)
    follower.start()
    Worker("w", study, lambda claim: [make_record(claim)]).run()
    follower.look()
    told = [one for one in study.read_ledger().read_outcomes() if one.accuracy is not None]
    costs, caps = [[one.costs[name] for name in objectives] for one in told], {"bytes_float32": CAP, "macs": 9.0}
    volume = compute_volume(costs, [one.accuracy for one in told], [caps[name] for name in objectives])
    assert f"hypervolume {volume:.4f}" in lines[-1]


def test_a_line_names_the_keys_of_all_seeds(tmp_path: Path) -> None:
    study, lines = open_study(tmp_path, n_trials=1), []
    follower = SearchFollower(study, RunSpec(cap_mb=CAP / 1e6), lines.append)
    follower.start()
    claim = study.claim("w")
    records = [dataclasses.replace(make_record(claim), trial_key=key, seed=seed) for seed, key in enumerate("ab")]
    assert study.tell_records(claim, records)
    follower.look()
    assert lines[0].startswith(f"[1/1] network {claim.number} [a, b]: accuracy 0.")
    # A study of before its outcomes held keys.
    outcome = dict(study.read_ledger().trials[claim.number].user_attrs["outcome"])
    del outcome["trials"]
    old = types.SimpleNamespace(number=0, user_attrs={"outcome": outcome})
    assert "network 0: accuracy 0." in follower.describe(old, study.read_ledger())


def test_one_accelerator_a_worker() -> None:
    def assign(place: int, workers: int, named: str) -> dict[str, str]:
        return assign_accelerator(place, workers, {"CUDA_VISIBLE_DEVICES": named})

    assert [assign(place, 2, "4,7")["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["4", "7"]
    shared = assign(2, 3, "4,7")
    assert shared == {"CUDA_VISIBLE_DEVICES": "4", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert assign(0, 2, "") == {"CUDA_VISIBLE_DEVICES": ""}


def make_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> LocalWorkers:
    """One local worker that runs `script` instead of working."""
    plan = types.SimpleNamespace(folder=tmp_path)
    start = subprocess.Popen

    def popen(_command: list[str], **options: object) -> subprocess.Popen:
        return start([sys.executable, "-c", script], **options)

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    return LocalWorkers(plan, open_study(tmp_path), 1)


def test_a_mistake_in_the_request_is_told_as_the_worker_told_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "2026-01-01 12:00:00,000 error: no faces in /nowhere"
    workers = make_workers(tmp_path, monkeypatch, f"import sys; print({line!r}); sys.exit(2)")
    with pytest.raises(SearchError, match="^no faces in /nowhere$"), workers.keep_running():
        watch(workers)


def test_workers_that_only_die_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = make_workers(tmp_path, monkeypatch, "import os; os.kill(os.getpid(), 9)")
    told = r"^7 workers died \(killed by signal 9\) before a network was finished; see .*\.log$"
    with pytest.raises(SearchError, match=told), workers.keep_running():
        watch(workers)
    assert workers.started == 7


def watch(workers: LocalWorkers) -> None:
    while True:
        for process in list(workers.processes.values()):
            process.wait(60)
        workers.look()


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_last_line(path) == ""
    path.write_text("2026-01-01 12:00:00,000 error: no faces\n\n")
    assert read_last_line(path) == "error: no faces"
    assert describe_status(-9) == "killed by signal 9"
    assert describe_status(3) == "exit status 3"


def test_latency_is_measured_where_it_is_an_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ffem_jax.latency import measure
    from ffem_jax.records.record import append_record

    study = open_study(tmp_path, n_trials=2, objectives=["accuracy", "latency_ms_wasm"])
    path, asked = tmp_path / "records.jsonl", []

    def measure_records(paths: list[Path]) -> None:
        asked.append(paths)
        record.latency_ms_wasm = 4.5
        append_record(path, record)

    monkeypatch.setattr(measure, "measure_records", measure_records)
    claim = study.claim("w")
    record = make_record(claim)
    append_record(path, record)
    assert study.tell_records(claim, measure_latency(path, [record]))
    assert asked == [[path]]
    (trial,) = study.read_ledger().finished
    assert trial.values == [record.accuracy, 4.5]
    claim = study.claim("w")
    study.tell_records(claim, [make_record(claim)])
    assert study.read_ledger().finished[1].user_attrs["outcome"]["error"] == "its latency could not be measured"


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.check_identity({"recipe": {"epochs": 8}, "run.cap_mb": 10.0})
    study.check_identity({"recipe": {"epochs": 8}, "run.cap_mb": 10.0})
    message = (
        r"^the study made was started with other settings: recipe.epochs \(8 then, 9 now\); use those settings, or"
    )
    with pytest.raises(SearchError, match=message):
        open_study(tmp_path).check_identity({"recipe": {"epochs": 9}, "run.cap_mb": 10.0})
