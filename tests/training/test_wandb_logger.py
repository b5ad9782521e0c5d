"""Weights & Biases: offline without a key, each step once, a trial that goes on stays in its run."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from pathlib import Path
from typing import Any

import made_histories
import pytest
import stand_in_wandb
from made_histories import History
from made_records import build_record

from ffem_jax.records.record import TrialRecord
from ffem_jax.training import loggers

INSTALLED = importlib.util.find_spec("wandb") is not None


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, clean: None) -> stand_in_wandb.Library:
    monkeypatch.setitem(sys.modules, "wandb", None)  # puts back what was there
    return stand_in_wandb.install()


@pytest.fixture
def records() -> list[TrialRecord]:
    return [build_record(seed=seed, trial_key=f"key{seed}", data={"root": "/home/ann"}) for seed in (0, 1)]


def log_all(records: list[TrialRecord], folder: Path, history: History | None = None, **how: Any) -> None:
    made_histories.log_all("wandb", records, folder, history, **how)


def test_without_a_key_the_runs_are_offline_and_say_nothing_of_the_machine(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path
) -> None:
    log_all(records, tmp_path / "trial")
    first, second = library.opened
    assert (first.mode, first.wanted["project"], first.exit_code) == ("offline", "ffem", 0)
    assert second.rows == {1: {"loss": 4.0, "train_accuracy": 0.5}, 2: {"loss": 2.5, "train_accuracy": 0.75}}
    assert first.summary["status"] == "done"
    assert first.summary["result/accuracy"] == records[0].accuracy
    assert first.wanted["config"]["trial_key"] == "key0"
    assert "/home/ann" not in json.dumps(first.wanted)
    hidden = ("x_disable_meta", "x_disable_machine_info", "x_disable_stats", "disable_git", "disable_code")
    assert all(first.wanted["settings"][name] for name in hidden)
    assert len(list((tmp_path / "trial" / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.parametrize(
    ("has_key", "named", "mode"),
    [(False, "", "offline"), (True, "", "online"), (True, "offline", "offline"), (False, "Online", "online"),
     (True, "dryrun", "offline"), (True, "disabled", "disabled")],
)  # fmt: skip
def test_who_has_a_key_goes_online_and_the_environment_decides(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    has_key: bool, named: str, mode: str,
) -> None:  # fmt: skip
    library.has_key = has_key
    monkeypatch.setenv("WANDB_MODE", named)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log_all(records, tmp_path)
    assert [(run.mode, run.wanted["project"]) for run in library.opened] == [(mode, "mine")] * 2


def test_a_mode_that_there_is_not_is_said_and_the_trial_goes_on(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    said: list[str] = []
    with loggers.open_logger("wandb", records, tmp_path, said.append) as logger:
        logger.log_epoch(1, History())
    (line,) = said
    assert line.startswith(
        "logger=wandb cannot be used (WANDB_MODE=ofline is not a mode of Weights & Biases; set one of"
    )
    assert library.opened == []


def stop_after_one_epoch(records: list[TrialRecord], folder: Path) -> None:
    logger = loggers.open_logger("wandb", records, folder, pytest.fail)  # the process is killed: the block is not left
    logger.log_epoch(1, History())


def test_offline_a_trial_that_goes_on_is_one_run_with_all_steps(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path
) -> None:
    stop_after_one_epoch(records, tmp_path)
    log_all(records, tmp_path)
    killed, _, whole, _ = library.opened
    assert whole.id == killed.id
    assert sorted(whole.rows) == [1, 2]
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2  # one per seed: the killed ones are replaced


def test_online_a_trial_that_goes_on_logs_only_what_is_missing(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path
) -> None:
    library.has_key = True
    stop_after_one_epoch(records, tmp_path)
    log_all(records, tmp_path)
    killed, _, whole, _ = library.opened
    assert (whole.id, whole.dropped) == (killed.id, [])
    assert sorted(library.server[whole.id]) == [1, 2]


def test_online_other_numbers_begin_another_run(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path
) -> None:
    library.has_key = True
    stop_after_one_epoch(records[:1], tmp_path)
    log_all(records[:1], tmp_path, History(loss=[[3.5], [2.0]]))
    killed, ended, whole = library.opened
    assert (ended.id, ended.exit_code) == (killed.id, 1)
    assert whole.id != killed.id
    assert [row["loss"] for row in whole.rows.values()] == [3.5, 2.0]
    assert killed.rows[1]["loss"] == 3.0


@pytest.mark.parametrize("has_key", [False, True])
def test_a_retraining_and_lost_notes_begin_another_run(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path, has_key: bool
) -> None:
    library.has_key = has_key
    log_all(records[:1], tmp_path)
    log_all(records[:1], tmp_path, retrain=True)
    (notes,) = tmp_path.glob("wandb/*.json")
    notes.write_text('{"id": "x"')
    log_all(records[:1], tmp_path)
    assert len({run.id for run in library.opened}) == 3
    assert all(sorted(run.rows) == [1, 2] for run in library.opened)


def test_numbers_that_are_not_finite_are_the_same_numbers(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path
) -> None:
    library.has_key = True
    history = History(loss=[[float("nan")], [float("inf")]])
    log_all(records[:1], tmp_path, history)
    log_all(records[:1], tmp_path, history)
    assert len({run.id for run in library.opened}) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_trial_that_ends_in_the_middle_has_a_failed_run(
    library: stand_in_wandb.Library, records: list[TrialRecord], tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), loggers.open_logger("wandb", records[:1], tmp_path, pytest.fail):
        raise error
    (run,) = library.opened
    assert (run.exit_code, run.summary["status"]) == (1, "failed" if error is ValueError else "killed")


@pytest.mark.skipif(not INSTALLED, reason="pip install -c constraints.txt -e '.[wandb]'")
def test_the_real_library_writes_offline_and_keeps_the_host_to_itself(
    clean: None, records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_all(records, tmp_path / "trial")
    log_all(records, tmp_path / "trial")
    files = list(tmp_path.rglob("*.wandb"))
    assert len(files) == 2
    for path in files:
        data = path.read_bytes()
        assert b"train_accuracy" in data
        assert b"result/accuracy" in data
        assert b"/home/ann" not in data
        assert str(tmp_path).encode() not in data
        assert len(platform.node()) < 4 or platform.node().encode() not in data
