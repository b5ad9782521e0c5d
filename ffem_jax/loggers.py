"""Every epoch of a trial for boards that people have already: TensorBoard, MLflow. They decide and stop nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ffem_jax.arch import SpecError
from ffem_jax.records import TrialRecord
from ffem_jax.spec import LOGGERS

# What a trial came to, written at its end; the record has the rest.
RESULTS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery", "bytes_float32", "params", "macs")
EXPERIMENT = "ffem"


class EpochHistory(Protocol):
    """As `train.History`: lists [epoch][seed]."""

    loss: list[list[float]]
    train_accuracy: list[list[float]]
    validation_accuracy: list[list[float]]


class Board(Protocol):
    """Where one trial's numbers go."""

    def add(self, name: str, value: float, epoch: int) -> None:
        """Write one number."""

    def close(self, record: TrialRecord) -> None:
        """Write what the trial came to, and let go."""


class TrialLogger:
    """Boards of the trials of one program, one a seed. A board that raises is named through `say` and left alone."""

    def __init__(self, boards: Sequence[Board], say: Callable[[str], None]) -> None:
        self.boards: list[Board | None] = list(boards)
        self.say = say
        self.logged = 0

    def log_epoch(self, epochs: int, history: EpochHistory) -> None:
        """Write the epochs that this process has not written; after a resumption, those before it as well."""
        for name in ("loss", "train_accuracy", "validation_accuracy"):
            for epoch, values in enumerate(getattr(history, name)[self.logged : epochs], self.logged + 1):
                for seed, value in enumerate(values):
                    self._try(seed, "add", name, value, epoch)
        self.logged = epochs

    def close(self, records: Sequence[TrialRecord]) -> None:
        """Write what each trial came to."""
        for seed, record in enumerate(records):
            self._try(seed, "close", record)
        self.boards = []

    def _try(self, seed: int, method: str, *values: Any) -> None:
        board = self.boards[seed] if self.boards else None
        if board is None:
            return
        try:
            getattr(board, method)(*values)
        except Exception as error:
            self.boards[seed] = None
            self.say(f"the logger stopped ({type(error).__name__}: {error}); the trial goes on without it")


def open_logger(name: str, records: Sequence[TrialRecord], out_dir: Path, say: Callable[[str], None]) -> TrialLogger:
    """The logger `name` of LOGGERS for the trials of one program, whose folder is `out_dir`.

    Raises SpecError where its library is not installed; a board that cannot be opened is named and left alone.
    """
    makers: dict[str, Callable[[TrialRecord, Path], Board]] = {"tensorboard": EventFiles, "mlflow": MlflowRun}
    if name == LOGGERS[0]:
        return TrialLogger([], say)
    try:
        return TrialLogger([makers[name](record, out_dir) for record in records], say)
    except ImportError as error:
        raise SpecError(f"logger={name} needs {error.name}: pip install 'ffem-jax[{name}]'") from error
    except Exception as error:
        say(f"logger={name} cannot be used ({type(error).__name__}: {error}); the trial goes on without it")
        return TrialLogger([], say)


def name_trial(record: TrialRecord) -> str:
    """What a board calls the trial."""
    return f"{record.arch}-seed{record.seed}-{record.trial_key}"


def list_settings(record: TrialRecord) -> dict[str, str]:
    """The settings of the trial by dotted names, but for where the faces lie."""
    groups = {group: values for group, values in record.spec.items() if isinstance(values, dict)}
    named = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    return {name: str(value) for name, value in named.items() if name not in ("data.root", "data.cache_dir")}


def list_results(record: TrialRecord) -> dict[str, float]:
    """The RESULTS that the trial has."""
    values: dict[str, Any] = {name: getattr(record, name) for name in RESULTS}
    return {f"result/{name}": float(value) for name, value in values.items() if value is not None}


class EventFiles:
    """Event files in `tensorboard/` in the trial's folder, a folder a trial: tensorboard --logdir outputs."""

    def __init__(self, record: TrialRecord, out_dir: Path) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(out_dir / "tensorboard" / name_trial(record)))

    def add(self, name: str, value: float, epoch: int) -> None:
        """Write one number, where a reader finds it at once."""
        self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self, record: TrialRecord) -> None:
        """Write what the trial came to."""
        for name, value in list_results(record).items():
            self.writer.add_scalar(name, value, record.epochs)
        self.writer.close()


class MlflowRun:
    """A run of the experiment `ffem` on the server of MLFLOW_TRACKING_URI, else in mlflow.db beside the trial's folder.

    A resumed trial is another run, with the epochs before the stop in it as well.
    """

    def __init__(self, record: TrialRecord, out_dir: Path) -> None:
        from mlflow import MlflowClient

        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out_dir.absolute().parent / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=address)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT)
        run = self.client.create_run(number, run_name=name_trial(record), tags={"trial_key": record.trial_key})
        self.run_id = run.info.run_id
        for name, value in list_settings(record).items():
            self.client.log_param(self.run_id, name, value)

    def add(self, name: str, value: float, epoch: int) -> None:
        """Write one number."""
        self.client.log_metric(self.run_id, name, value, step=epoch)

    def close(self, record: TrialRecord) -> None:
        """Write what the trial came to, and whether it failed."""
        for name, value in list_results(record).items():
            self.client.log_metric(self.run_id, name.replace("/", "."), value, step=record.epochs)
        self.client.set_terminated(self.run_id, "FAILED" if record.status == "failed" else "FINISHED")
