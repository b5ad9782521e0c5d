"""The study that workers share: budgets, refusals, repetitions, dead workers; every network accounted for once."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_searches import CAP, SPACE, compute_accuracy, make, make_record, measure, open_study, train_into
from optuna.trial import TrialState

from ffem_jax.config.compose import ConfigError
from ffem_jax.records.record import read_records
from ffem_jax.search import samplers
from ffem_jax.search import study as study_module
from ffem_jax.search.ledger import Ledger, read_status
from ffem_jax.search.space import read_space
from ffem_jax.search.storage import open_storage
from ffem_jax.search.study import Claim, SearchError, SearchStudy
from ffem_jax.search.workers.worker import Worker


def search(study: SearchStudy, name: str = "w", path: Path | None = None) -> Ledger:
    """One worker, to the end."""
    worker = Worker(name, study, lambda claim: [make_record(claim)] if path is None else train_into(path, claim))
    worker.poll_seconds = 0.01
    worker.run()
    return study.read_ledger()


def keys(ledger: Ledger) -> list[str]:
    return [trial.user_attrs["claim"]["key"] for trial in ledger.finished]


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe", "grid", "surrogate"])
def test_a_search_trains_as_many_different_networks_as_asked(tmp_path: Path, sampler: str) -> None:
    ledger = search(open_study(tmp_path, sampler=sampler, n_trials=30))
    assert len(set(keys(ledger))) == len(ledger.finished) == 30
    for trial in ledger.finished:
        point = trial.user_attrs["claim"]["point"]
        assert trial.values == [compute_accuracy(point), int(point["width"]) * int(point["depth"])]
        assert trial.values[1] <= CAP
    refused = [trial for trial in ledger.trials if read_status(trial) == "refused"]
    assert refused
    for trial in refused:
        point = trial.user_attrs["claim"]["point"]
        assert point["depth"] == "8" or int(point["width"]) * int(point["depth"]) > CAP
        assert trial.system_attrs["constraints"][0] > 0
        assert trial.values[0] == 0
    assert all(trial.system_attrs["constraints"][0] <= 0 for trial in ledger.finished)


def test_a_gaussian_process_searches_too(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="hydra.sweeper.sampler=gp needs torch")
    pytest.importorskip("scipy", reason="hydra.sweeper.sampler=gp needs scipy")
    ledger = search(open_study(tmp_path, sampler="gp", n_trials=14))  # the first ten are random
    assert len(set(keys(ledger))) == 14


def test_a_sampler_without_its_library_or_with_a_wrong_option_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^hydra.sweeper.sampler_options: .*'populaton_size'"):
        samplers.check_sampler("nsga2", {"populaton_size": 5}, SPACE)
    monkeypatch.setattr(samplers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="^hydra.sweeper.sampler=gp needs torch and scipy; pip install torch scipy$"):
        samplers.check_sampler("gp", {}, SPACE)


def test_a_grid_is_for_small_spaces() -> None:
    large = read_space({"params": {f"c{number}": "range(0,10)" for number in range(6)}})
    with pytest.raises(
        ConfigError, match=r"^hydra.sweeper.sampler=grid is for at most 100000 points and this .* 1e\+06"
    ):
        samplers.check_sampler("grid", {}, large)


def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with pytest.raises(ConfigError, match="^hydra.sweeper.storage cannot be opened: .*refused") as caught:
        open_storage("postgresql+psycopg://me:secret@127.0.0.1:1/faces", "made", tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_psycopg_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ConfigError, match=r"^hydra.sweeper.storage needs psycopg; in the checkout, .*'\.\[postgres\]'$"
    ):
        open_storage("postgresql+psycopg://127.0.0.1:1/faces", "made", tmp_path)


def test_resuming_goes_on_to_the_total_with_another_sampler_too(tmp_path: Path) -> None:
    assert len(search(open_study(tmp_path, n_trials=10)).finished) == 10
    before = search(open_study(tmp_path, n_trials=10))
    assert len(before.finished) == 10
    after = search(open_study(tmp_path, n_trials=25, sampler="nsga2"))
    assert len(set(keys(after))) == 25
    assert keys(after)[:10] == keys(before)


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe", "surrogate", "grid"])
def test_a_recorded_network_is_taken_over_once_and_counts(tmp_path: Path, sampler: str) -> None:
    trained = search(open_study(tmp_path / "lost", n_trials=12))
    study = open_study(tmp_path / "new", n_trials=20, sampler=sampler)
    for expected in (True, False):
        for trial in trained.finished:
            candidate = measure(make(trial.user_attrs["claim"]["point"]))
            assert study.adopt(candidate, [make_record(Claim(0, candidate))]) == expected
    told = study.read_ledger().read_outcomes()
    assert [(one.point, one.accuracy, one.costs) for one in told] == [
        (one.point, one.accuracy, one.costs) for one in trained.read_outcomes() if one.accuracy is not None
    ]
    after = search(study)
    assert len(set(keys(after))) == 20
    assert keys(after)[:12] == keys(trained)
    assert all(trial.state == TrialState.COMPLETE and trial.values for trial in after.finished)


def test_what_is_over_the_cap_or_lacks_a_cost_is_not_taken_over(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    large = measure(make({"width": "7", "depth": "7", "kind": "none"}))
    unpriced = make({"width": "1", "depth": "1", "kind": "none"})
    assert [study.adopt(one, [make_record(Claim(0, one))]) for one in (large, unpriced)] == [False, False]
    assert not study.read_ledger().trials


def test_the_same_seed_asks_for_the_same_networks_however_many_processes_ask(tmp_path: Path) -> None:
    first = search(open_study(tmp_path / "a", n_trials=12, sampler="nsga2", seed=3))
    for total in (5, 9, 12):
        second = search(open_study(tmp_path / "b", n_trials=total, sampler="nsga2", seed=3))
    assert keys(first) == keys(second)
    assert keys(first) != keys(search(open_study(tmp_path / "c", n_trials=12, sampler="nsga2", seed=4)))


def test_several_workers_share_one_budget(tmp_path: Path) -> None:
    studies = [open_study(tmp_path, n_trials=25) for _ in range(3)]
    threads = [threading.Thread(target=search, args=(study, f"w{index}")) for index, study in enumerate(studies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = studies[0].read_ledger()
    assert len(set(keys(ledger))) == len(ledger.finished) == 25
    assert not ledger.running


def test_a_space_with_nothing_left_ends(tmp_path: Path) -> None:
    small = read_space({"params": {"width": "1,2", "depth": "2,3", "kind": "none,se", "placement": "first,last"}})
    for sampler in ("random", "grid"):
        ledger = search(open_study(tmp_path / sampler, small, sampler=sampler, n_trials=100))
        # 2 x 2 x (2 placements of nothing, and se, whose two placements build one network).
        assert len(ledger.finished) == 2 * 2 * 3


def test_where_everything_is_over_the_cap_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "REFUSALS_IN_A_ROW", 5)
    large = read_space({"params": {"width": "7,8", "depth": "7", "kind": "none,eca,se", "placement": "first,last"}})
    with pytest.raises(SearchError, match="^5 networks were all refused, the last because over the cap; raise run.cap"):
        search(open_study(tmp_path, large))


def test_a_failed_network_counts_and_is_not_tried_again(tmp_path: Path) -> None:
    study = open_study(tmp_path, n_trials=6)
    worker = Worker("w", study, lambda claim: [make_record(claim, "failed" if claim.number % 2 else "done")])
    worker.run()
    ledger = study.read_ledger()
    assert len(ledger.finished) == 6
    assert ledger.count("failed") > 0
    assert all(trial.state == TrialState.FAIL for trial in ledger.finished if read_status(trial) == "failed")
    assert len(set(keys(ledger))) == 6


def test_an_exception_in_training_is_a_failure_and_a_mistake_in_the_request_is_raised(tmp_path: Path) -> None:
    def burst(claim: object) -> list:
        raise RuntimeError("a mistake in the package")

    def full(claim: object) -> list:
        raise OSError("no space left")

    study = open_study(tmp_path, n_trials=2)
    Worker("w", study, burst).run()
    assert [trial.user_attrs["outcome"]["error"] for trial in study.read_ledger().finished] == [
        "RuntimeError: a mistake in the package"
    ] * 2
    again = open_study(tmp_path, n_trials=3)
    with pytest.raises(OSError, match="no space left"):
        Worker("w", again, full).run()
    assert again.read_ledger().count("released") == 1
    assert len(search(again).finished) == 3


# ------------------------------------------------------------------------------- dead workers


def test_the_network_of_a_silent_worker_is_trained_once_more(tmp_path: Path) -> None:
    settings = {"n_trials": 3, "heartbeat_seconds": 0.05, "stale_seconds": 0.2}
    dead = open_study(tmp_path, **settings)
    claim = dead.claim("dead")
    assert claim is not None
    dead.beat(claim.number, 1)
    ledger = search(open_study(tmp_path, **settings))  # waits until the silence is long enough
    assert ledger.count("lost") == 1
    assert len(set(keys(ledger))) == len(ledger.finished) == 3
    again = next(trial for trial in ledger.finished if trial.user_attrs["claim"]["key"] == claim.candidate.key)
    assert again.user_attrs["claim"]["attempt"] == 2
    # The dead one comes back and tells: too late, nothing is counted twice.
    assert not dead.tell_records(claim, [make_record(claim)])
    assert len(dead.read_ledger().finished) == 3


def test_a_worker_that_beats_keeps_its_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(study_module.time, "monotonic", lambda: clock[0])
    study, other = open_study(tmp_path, n_trials=2), open_study(tmp_path, n_trials=2)
    claim = study.claim("alive")
    assert claim is not None
    for count in range(10):
        study.beat(claim.number, count)
        other.reap_silent()
        clock[0] += 50  # of the 60 seconds that are allowed
    assert not other.read_ledger().owed
    assert study.tell_records(claim, [make_record(claim)])
    claim = study.claim("dead")
    other.reap_silent()
    clock[0] += 61
    other.reap_silent()
    assert other.read_ledger().count("lost") == 1


def test_killed_twice_a_network_has_failed_and_is_recorded_so(tmp_path: Path) -> None:
    study = open_study(tmp_path, n_trials=1)
    given_up = []

    def give_up(point: object, reason: str) -> list:
        given_up.append((point, reason))
        return []

    study.on_abandoned = give_up
    first = study.claim("a")
    study.reap_worker("a")
    second = study.claim("b")
    assert first is not None
    assert second is not None
    assert (second.candidate.key, second.attempt) == (first.candidate.key, 2)
    study.reap_worker("b")
    assert study.claim("c") is None
    assert study.is_over()
    assert given_up == [(first.candidate.point, "its worker was killed, 2 times")]
    assert study.read_ledger().count("failed") == 1


@pytest.mark.parametrize("stop_epoch", [0, 2])
def test_killed_twice_after_its_record_was_written_a_network_is_done(tmp_path: Path, stop_epoch: int) -> None:
    study = open_study(tmp_path, n_trials=1)
    study.rungs = (stop_epoch, 6) if stop_epoch else ()
    study.claim("a")
    study.reap_worker("a")
    claim = study.claim("b")
    assert claim is not None
    record = make_record(claim)
    if stop_epoch:
        record.status, record.epochs = "pruned", stop_epoch
    study.on_abandoned = lambda point, reason: [record]
    study.reap_worker("b")
    ledger = study.read_ledger()
    assert ledger.count("failed") == 0
    (finished,) = ledger.finished
    assert finished.user_attrs["outcome"]["accuracy"] == record.accuracy
    assert finished.user_attrs["outcome"]["costs"] == dict(claim.candidate.costs)


def test_of_a_network_killed_on_its_way_to_a_rung_the_record_of_the_rung_before_counts_for_nothing(
    tmp_path: Path,
) -> None:
    study = open_study(tmp_path, n_trials=1)
    study.rungs = (4, 6)
    study.claim("a")
    study.reap_worker("a")
    claim = study.claim("b")
    assert claim is not None
    record = make_record(claim)
    record.status, record.epochs = "pruned", 2
    study.on_abandoned = lambda point, reason: [record]
    study.reap_worker("b")
    assert study.read_ledger().count("failed") == 1


def test_killed_twice_before_it_had_a_cost_a_network_has_failed_whatever_is_recorded(tmp_path: Path) -> None:
    study = open_study(tmp_path, n_trials=1)
    for name in "ab":
        claim = study._propose(study.read_ledger(), name)
        assert claim is not None
        record = make_record(claim)
        study.on_abandoned = lambda point, reason, record=record: [record]
        study.reap_worker(name)
        study.reap_silent()
    assert study.read_ledger().count("failed") == 1


def test_a_stopped_worker_s_network_is_claimed_again_as_often_as_it_takes(tmp_path: Path) -> None:
    study = open_study(tmp_path, n_trials=1)
    for name in "abcd":
        claim = study.claim(name)
        assert claim is not None
        assert claim.attempt == 1
        study.reap_worker(name, stopped=True)
    assert len(search(study).finished) == 1


def test_whoever_dies_in_the_middle_of_a_proposal_leaves_nothing_behind(tmp_path: Path) -> None:
    study = open_study(tmp_path, n_trials=2)
    study.study.ask()  # and no claim
    ledger = search(study)
    assert len(ledger.finished) == 2
    assert not ledger.running


def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path: Path) -> None:
    search(open_study(tmp_path, n_trials=3))
    journal = tmp_path / "study.journal"
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 4, "study')
    assert len(open_study(tmp_path, n_trials=3).read_ledger().finished) == 3
    assert len(search(open_study(tmp_path, n_trials=5)).finished) == 5
    assert b'"study{' not in journal.read_bytes()


class Killed(BaseException):
    """Stands for kill -9: nothing of the worker runs after it."""


def test_twenty_kills_anywhere_and_every_network_is_accounted_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write to the study, and each record, may be the last thing a worker does."""
    records, rng, left = tmp_path / "records.jsonl", np.random.default_rng(0), [20]
    settings = {"n_trials": 30, "heartbeat_seconds": 0.05, "stale_seconds": 0.2, "sampler": "nsga2"}

    def die_sometimes() -> None:
        here = threading.current_thread() is threading.main_thread()
        if here and left[0] and rng.random() < 0.04:
            left[0] -= 1
            raise Killed

    class Mortal(SearchStudy):
        def release(self, claim: object) -> None:
            raise AssertionError("a killed worker gives nothing back")

    def train(claim: object) -> list:
        die_sometimes()
        done = {record.trial_key: record for record in read_records(records)} if records.exists() else {}
        trained = [done[claim.candidate.key]] if claim.candidate.key in done else train_into(records, claim)
        die_sometimes()
        return trained

    deaths = 0
    while True:
        study = open_study(tmp_path, **settings)
        study.__class__ = Mortal
        study.on_abandoned = lambda point, reason: ()
        write = study.storage._backend.append_logs

        def append(logs: list, write: object = write) -> None:
            die_sometimes()
            write(logs)
            die_sometimes()

        monkeypatch.setattr(study.storage._backend, "append_logs", append)
        worker = Worker(f"w{deaths}", study, train, poll_seconds=0.01)
        try:
            worker.run()
            break
        except Killed:
            deaths += 1
    assert deaths == 20
    ledger = open_study(tmp_path, **settings).read_ledger()
    assert not ledger.running
    assert not ledger.waiting
    assert not ledger.owed
    assert Counter(keys(ledger)).most_common(1)[0][1] == 1
    assert len(ledger.finished) == 30
    recorded = [record.trial_key for record in read_records(records)]
    done = [trial.user_attrs["claim"]["key"] for trial in ledger.finished if read_status(trial) == "done"]
    assert len(recorded) == len(set(recorded))
    assert set(done) <= set(recorded)


def test_the_points_told_are_those_of_the_space(tmp_path: Path) -> None:
    ledger = search(open_study(tmp_path, n_trials=15))
    for told in ledger.read_outcomes():
        assert SPACE.get_active(told.point) == told.point
    assert sum(told.accuracy is not None for told in ledger.read_outcomes()) == 15
