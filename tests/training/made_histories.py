"""Trainings that never ran, for loggers: records, the history of two seeds, and a logger that is told of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.records.record import TrialRecord
from ffem_jax.training import loggers


@dataclass
class History:
    loss: list[list[float]] = field(default_factory=lambda: [[3.0, 4.0], [2.0, 2.5]])
    train_accuracy: list[list[float]] = field(default_factory=lambda: [[0.25, 0.5], [0.5, 0.75]])
    validation_accuracy: list[list[float]] = field(default_factory=list)


def make_record(seed: int) -> TrialRecord:
    return build_record(seed=seed, data={"root": "/home/ann"})


def finish(records: list[TrialRecord], history: History, status: str = "done") -> None:
    """Fill in what training would."""
    for seed, record in enumerate(records):
        record.status, record.epochs = status, len(history.loss)
        record.loss = [values[seed] for values in history.loss]
        record.train_accuracy = [values[seed] for values in history.train_accuracy]


def log_all(name: str, records: list[TrialRecord], out_dir: Path, history: History | None = None, **how: Any) -> None:
    """A whole training of two epochs, or of the epochs of `history`; what the logger says is a failure."""
    history = history or History()
    with loggers.open_logger(name, records, out_dir, pytest.fail, **how) as logger:
        for epochs in range(1, len(history.loss) + 1):
            logger.log_epoch(epochs, history)
        finish(records, history)


def be_killed(name: str, records: list[TrialRecord], out_dir: Path, history: History) -> None:
    """As a process that is killed after the last epoch of `history`: the block is never left."""
    logger = loggers.open_logger(name, records, out_dir, pytest.fail)
    for epochs in range(1, len(history.loss) + 1):
        logger.log_epoch(epochs, history)
    if name == "tensorboard":
        time.sleep(1.5)  # its writer is a thread, and names a file by the second
