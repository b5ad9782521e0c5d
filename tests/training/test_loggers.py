"""Loggers: every epoch once, with the real libraries where they are installed; one that fails stops nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from made_histories import History, be_killed, finish, log_all, make_record
from made_records import build_record

from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import DataSpec
from ffem_jax.training import loggers
from ffem_jax.training.loggers.board import list_results, list_settings, name_trial


@pytest.fixture
def records() -> list[TrialRecord]:
    return [make_record(seed) for seed in (0, 1)]


# --------------------------------------------------------------------------- whatever the board


class Kept:
    """A board that keeps what it is given, and raises what it is told to."""

    def __init__(self, errors: list[Exception | None] | None = None) -> None:
        self.errors, self.given, self.ended = errors or [], [], []

    def write(self, numbers: Any) -> None:
        self.given.append(numbers)
        if self.errors and (error := self.errors.pop(0)):
            raise error

    def close(self, numbers: Any, outcome: str) -> None:
        self.ended.append(outcome)
        self.write(numbers)


def test_no_logger_writes_nothing(records: list[TrialRecord], tmp_path: Path) -> None:
    log_all("none", records, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_board_is_given_all_epochs_each_time_and_at_the_end_what_the_record_says(records: list[TrialRecord]) -> None:
    boards = [Kept(), Kept()]
    with loggers.TrialLogger(records, boards, pytest.fail) as logger:
        logger.log_epoch(2, History())  # it was resumed: epoch 1 was another process'
        finish(records, History(), "pruned")
    assert boards[1].given[0] == {
        ("loss", 1): 4.0, ("loss", 2): 2.5, ("train_accuracy", 1): 0.5, ("train_accuracy", 2): 0.75,
    }  # fmt: skip
    assert boards[1].given[1].items() > boards[1].given[0].items()
    assert boards[1].given[1]["result/accuracy", 2] == records[1].accuracy
    assert [board.ended for board in boards] == [["pruned"], ["pruned"]]


def test_a_board_gets_what_was_measured_among_strangers_and_not_the_lists_behind_it() -> None:
    record = build_record()
    record.epochs, record.accuracy = 5, 0.5
    record.open_set = {"eer": 0.25, "eer_low": 0.125, "images": 40}
    record.verification = {"auc": 0.75, "threshold": None, "distances_same": [0.5, 1.0]}
    record.bins = {"lfw": {"accuracy": 0.875, "fingerprint": "ab12"}}
    found = {name: value for (name, epoch), value in list_results(record).items() if epoch == 5}
    measured = {name: value for name, value in found.items() if name.count("/") > 1}
    assert found["result/accuracy"] == 0.5
    assert measured == {
        "result/open_set/eer": 0.25, "result/open_set/eer_low": 0.125, "result/open_set/images": 40,
        "result/verification/auc": 0.75, "result/bins/lfw/accuracy": 0.875,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "outcome"), [(ValueError, "failed"), (KeyboardInterrupt, "killed"), (SystemExit, "killed")]
)
def test_a_trial_that_ends_in_the_middle_ends_its_run(
    records: list[TrialRecord], error: type[BaseException], outcome: str
) -> None:
    board = Kept()
    with pytest.raises(error), loggers.TrialLogger(records, [board], pytest.fail):
        raise error
    assert (board.ended, board.given) == ([outcome], [{}])


def test_a_logger_that_fails_once_gets_the_rest_later_and_one_that_goes_on_failing_is_left(
    records: list[TrialRecord],
) -> None:
    full = OSError("disk full\nand more")
    once, always, said = Kept([full]), Kept([full] * 9), []
    with loggers.TrialLogger(records, [once, always], said.append) as logger:
        for epochs in (1, 2, 2, 2):
            logger.log_epoch(epochs, History())
    assert said == [
        "the logger could not be written (OSError: disk full); it is tried again after the next epoch",
        "the logger could not be written (OSError: disk full); it is tried again after the next epoch",
        "the logger stopped (OSError: disk full); the trial continues without it",
    ]
    assert len(once.given) == 5
    assert ("loss", 1) in once.given[1]  # what failed is offered again
    assert (len(always.given), always.ended) == (3, [])


def test_an_end_that_cannot_be_written_is_said(records: list[TrialRecord]) -> None:
    said: list[str] = []
    with loggers.TrialLogger(records, [Kept([OSError("disk full")])], said.append):
        pass
    assert said == ["the logger lacks the end of the trial (OSError: disk full)"]


@pytest.mark.parametrize(
    ("name", "library"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_library_that_is_missing_is_named_with_the_way_to_it(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        SpecError, match=rf"needs {library}: in the checkout, pip install -c constraints.txt -e '\.\[{name}\]'"
    ):
        loggers.open_logger(name, records, tmp_path, print)


def test_settings_are_listed_by_name_without_a_folder_of_anybody() -> None:
    first = DataSpec(root="/home/eve", cache_dir="/home/eve/cache", resolution=64)
    record = build_record(
        data={"root": "/home/ann", "cache_dir": "/home/ann/cache"}, pretrain={"name": "first", "data": first}
    )
    settings = list_settings(record)
    assert settings["recipe.epochs"] == "30"
    assert settings["pretrain.data.resolution"] == "64"
    assert settings["arch.attention.kind"] == "none"
    assert not any("/home" in value for value in settings.values())


# ---------------------------------------------------------------------------------- TensorBoard


def read_events(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [(one.step, one.value) for one in EventAccumulator(str(folder)).Reload().Scalars(name)]


@pytest.fixture
def tensorboard() -> None:
    for library in ("tensorboardX", "tensorboard"):
        pytest.importorskip(library, reason="pip install -c constraints.txt -e '.[tensorboard]'")


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_reads_every_epoch_once(records: list[TrialRecord], tmp_path: Path) -> None:
    log_all("tensorboard", records, tmp_path)
    for seed, record in enumerate(records):
        folder = tmp_path / "tensorboard" / name_trial(record)
        assert read_events(folder, "loss") == [(epoch, v[seed]) for epoch, v in enumerate(History().loss, 1)]
        assert read_events(folder, "result/accuracy") == [(2, pytest.approx(record.accuracy))]


@pytest.mark.usefixtures("tensorboard")
@pytest.mark.parametrize("first", [[[3.0, 4.0]], [[3.0, 4.0], [2.25, 2.5], [1.0, 1.0]]], ids=["behind", "ahead"])
def test_after_a_resume_tensorboard_has_each_step_once_with_the_value_of_the_history(
    records: list[TrialRecord], tmp_path: Path, first: list[list[float]]
) -> None:
    """ahead: epochs were logged whose checkpoint was lost, and came out otherwise."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tensorboard" / name_trial(records[0])
    be_killed("tensorboard", records, tmp_path, History(first, first))
    live = EventAccumulator(str(folder)).Reload()  # a TensorBoard that stays open meanwhile
    assert len(live.Scalars("loss")) == len(first)
    log_all("tensorboard", records, tmp_path)
    wanted = [(1, 3.0), (2, 2.0)]
    assert read_events(folder, "loss") == wanted
    assert [(one.step, one.value) for one in live.Reload().Scalars("loss")] == wanted


@pytest.mark.usefixtures("tensorboard")
def test_a_clock_that_was_ahead_changes_nothing(records: list[TrialRecord], tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard" / name_trial(records[0])
    be_killed("tensorboard", records, tmp_path, History([[9.0, 9.0]], [[0.0, 0.0]]))
    (path,) = folder.iterdir()
    path.rename(folder / f"events.out.tfevents.{int(time.time()) + 3600}.elsewhere")
    log_all("tensorboard", records, tmp_path)
    assert read_events(folder, "loss") == [(1, 3.0), (2, 2.0)]


@pytest.mark.usefixtures("tensorboard")
def test_a_trial_killed_before_its_record_has_its_curve_too(records: list[TrialRecord], tmp_path: Path) -> None:
    """All epochs are in the checkpoint, so none is trained and none logged."""
    with loggers.open_logger("tensorboard", records, tmp_path, pytest.fail):
        finish(records, History())
    assert read_events(tmp_path / "tensorboard" / name_trial(records[1]), "loss") == [(1, 4.0), (2, 2.5)]
