"""Log every epoch of a trial to a tracking service: TensorBoard, MLflow or Weights & Biases.

Loggers never influence or stop a trial.

A trial that was stopped continues in its own run, in this process or another. Each step appears there once, with the
value in the trial's final history. The loggers are declared in `specs/run.py`. A `Board` is the log of one trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.registry import resolve
from ffem_jax.specs.run import LOGGERS
from ffem_jax.training.loggers.board import CURVES, Board, BoardError, list_curves, list_results

FAILURES = 3  # consecutive failures after which a board is dropped


class EpochHistory(Protocol):
    """The interface of `trainer.History`: lists [epoch][seed]."""

    loss: list[list[float]]
    train_accuracy: list[list[float]]
    validation_accuracy: list[list[float]]


class TrialLogger:
    """The boards of the trials of one program, one per seed; a context manager around their training.

    An exception marks the runs as failed; KeyboardInterrupt and the like mark them as killed. If a board raises, `say`
    reports it and the board gets the missing numbers after the next epoch. After FAILURES failures in a row it is
    dropped.

    Args:
        records: filled in by the end of the block; each board then gets the results of its record.
        boards: one per record, None for one that could not be opened.
        say: shows the user one line.
    """

    def __init__(
        self, records: Sequence[TrialRecord], boards: Sequence[Board | None], say: Callable[[str], None]
    ) -> None:
        self.records, self.boards, self.say = list(records), list(boards), say
        self.failures = [0] * len(self.boards)

    def log_epoch(self, epochs: int, history: EpochHistory) -> None:
        """Write the first `epochs` epochs of the history to the boards, including those before a resumption."""
        for seed in range(len(self.boards)):
            curves = {name: [values[seed] for values in getattr(history, name)[:epochs]] for name in CURVES}
            self._try(seed, "write", list_curves(curves))

    def __enter__(self) -> TrialLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for seed in range(len(self.boards)):
            if kind is None:
                record = self.records[seed]
                curves = list_curves({name: getattr(record, name) for name in CURVES})
                self._try(seed, "close", {**curves, **list_results(record)}, record.status)
            else:
                self._try(seed, "close", {}, "failed" if issubclass(kind, Exception) else "killed")
        self.boards = []

    def _try(self, seed: int, method: str, *values: Any) -> None:
        board = self.boards[seed]
        if board is None:
            return
        try:
            getattr(board, method)(*values)
            self.failures[seed] = 0
        except Exception as error:
            self.failures[seed] += 1
            if method == "close":
                self.say(f"the logger lacks the end of the trial ({describe(error)})")
            elif self.failures[seed] == FAILURES:
                self.boards[seed] = None
                self.say(f"the logger stopped ({describe(error)}); the trial continues without it")
            elif self.failures[seed] == 1:
                self.say(f"the logger could not be written ({describe(error)}); it is tried again after the next epoch")


def open_logger(
    name: str, records: Sequence[TrialRecord], out_dir: Path, say: Callable[[str], None], *, retrain: bool = False
) -> TrialLogger:
    """Open the logger `name` of specs.run.LOGGERS for the trials of one program; use it in a `with` block.

    A board that cannot be opened is reported through `say` and skipped.

    Args:
        records: one per trial, filled in by the end of the block.
        out_dir: the folder of the program.
        retrain: whether the trials start from scratch; their earlier runs in this folder are then not continued.

    Raises:
        SpecError: the logger's library is not installed.
    """
    logger = LOGGERS[name]
    if logger.board is None:
        return TrialLogger(records, [], say)
    boards: list[Board | None] = []
    try:
        for record in records:
            boards.append(resolve(logger.board)(record, out_dir, retrain))
    except ImportError as error:
        raise SpecError(f"logger={name} needs {error.name}: {logger.install}") from error
    except Exception as error:
        say(f"logger={name} cannot be used ({describe(error)}); the trial continues without it")
    return TrialLogger(records, [*boards, *[None] * (len(records) - len(boards))], say)


def describe(error: BaseException) -> str:
    """Describe an exception in one line."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, BoardError) else f"{type(error).__name__}: {lines[0]}".removesuffix(": ")
