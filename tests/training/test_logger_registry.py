"""What every logger keeps to, whichever it is: a new entry in LOGGERS is tested the day it appears."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from made_records import build_record

from ffem_jax.config.compose import list_groups
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.run import LOGGERS, Logger, RunSpec
from ffem_jax.training import loggers


class Kept:
    """A board that keeps what it gets."""

    opened: ClassVar[list[Kept]] = []

    def __init__(self, record: TrialRecord, out_dir: Path, retrain: bool) -> None:
        self.record, self.numbers, self.outcome = record, {}, ""  # type: tuple[TrialRecord, dict[Any, float], str]
        Kept.opened.append(self)

    def write(self, numbers: Any) -> None:
        self.numbers = dict(numbers)

    def close(self, numbers: Any, outcome: str) -> None:
        self.numbers, self.outcome = dict(numbers) or self.numbers, outcome


class History:
    loss: ClassVar = [[2.0, 3.0], [1.0, 2.0]]
    train_accuracy: ClassVar = [[0.1, 0.2], [0.3, 0.4]]
    validation_accuracy: ClassVar = [[0.0, 0.1], [0.2, 0.3]]


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(LOGGERS.kinds)
    Kept.opened = []
    yield
    LOGGERS.kinds.clear()
    LOGGERS.kinds.update(before)


@pytest.mark.parametrize("name", LOGGERS.names)
def test_each_has_a_config_of_its_name_and_says_how_it_is_installed(name: str) -> None:
    logger = LOGGERS[name]
    assert name in list_groups()["logger"]
    assert RunSpec(logger=name).logger == name
    assert bool(logger.board) == bool(logger.library) == bool(logger.install)


@pytest.mark.parametrize("name", LOGGERS.names)
def test_each_takes_a_training_of_two_seeds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = LOGGERS[name].library
    if library and importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    records = [build_record(seed=seed, trial_key=f"key{seed}") for seed in range(2)]
    with loggers.open_logger(name, records, tmp_path / "sweep" / "trial", pytest.fail) as logger:
        for epochs in (1, 2):
            logger.log_epoch(epochs, History())
        for seed, record in enumerate(records):
            record.status, record.epochs = "done", 2
            record.loss = [epoch[seed] for epoch in History.loss]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bool(written) == bool(LOGGERS[name].board)


def test_a_logger_of_somebody_s_own_gets_every_epoch_and_the_end(registered: None, tmp_path: Path) -> None:
    LOGGERS.register(Logger("kept", Kept))
    assert RunSpec(logger="kept").logger == "kept"
    records = [build_record(seed=seed) for seed in range(2)]
    with loggers.open_logger("kept", records, tmp_path, pytest.fail) as logger:
        logger.log_epoch(1, History())
        assert Kept.opened[1].numbers[("loss", 1)] == 3.0
        for record in records:
            record.status = "done"
    assert [board.outcome for board in Kept.opened] == ["done", "done"]


def test_an_unknown_logger_is_one_line() -> None:
    with pytest.raises(
        SpecError, match=r"run\.logger='comet' is not known; choose one of: none, tensorboard, mlflow, w"
    ):
        RunSpec(logger="comet")
