"""Loggers: every epoch once, with the real libraries where they are installed; one that fails stops nothing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax import loggers
from ffem_jax.arch import SpecError
from ffem_jax.records import TrialRecord


@dataclass
class History:
    loss: list[list[float]] = field(default_factory=lambda: [[3.0, 4.0], [2.0, 2.5]])
    train_accuracy: list[list[float]] = field(default_factory=lambda: [[0.25, 0.5], [0.5, 0.75]])
    validation_accuracy: list[list[float]] = field(default_factory=list)


@pytest.fixture
def records() -> list[TrialRecord]:
    return [build_record(seed=seed, data={"root": "/home/ann"}, epochs=2) for seed in (0, 1)]


def log_all(name: str, records: list[TrialRecord], out_dir: Path) -> list[str]:
    said: list[str] = []
    logger = loggers.open_logger(name, records, out_dir, said.append)
    history = History()
    for epochs in (1, 2):
        logger.log_epoch(epochs, history)
    logger.close(records)
    return said


def test_no_logger_writes_nothing(records: list[TrialRecord], tmp_path: Path) -> None:
    assert log_all("none", records, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_trial_writes_the_epochs_before_it_too(records: list[TrialRecord]) -> None:
    written: list[tuple[str, float, int]] = []

    class Board:
        def add(self, *number: object) -> None:
            written.append(number)  # type: ignore[arg-type]

        def close(self, record: TrialRecord) -> None:
            written.append(("closed", record.seed, 0))

    logger = loggers.TrialLogger([Board(), Board()], print)
    logger.log_epoch(2, History())
    logger.log_epoch(2, History())
    logger.close(records)
    assert [one for one in written if one[0] == "loss"] == [
        ("loss", 3.0, 1), ("loss", 4.0, 1), ("loss", 2.0, 2), ("loss", 2.5, 2),
    ]  # fmt: skip
    assert written[-2:] == [("closed", 0, 0), ("closed", 1, 0)]


def test_a_logger_that_fails_is_named_once_and_stops_nothing(records: list[TrialRecord]) -> None:
    class Broken:
        def add(self, *_: object) -> None:
            raise OSError("disk full")

        def close(self, record: TrialRecord) -> None:
            raise OSError("disk full")

    said: list[str] = []
    logger = loggers.TrialLogger([Broken()], said.append)
    logger.log_epoch(1, History([[1.0]], [[0.5]]))
    logger.close(records[:1])
    assert said == ["the logger stopped (OSError: disk full); the trial goes on without it"]


@pytest.mark.parametrize(("name", "library"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_a_library_that_is_missing_is_named_with_the_way_to_it(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SpecError, match=rf"pip install 'ffem-jax\[{name}\]'"):
        loggers.open_logger(name, records, tmp_path, print)


def test_tensorboard_reads_every_epoch_once(records: list[TrialRecord], tmp_path: Path) -> None:
    for library in ("tensorboardX", "tensorboard"):
        pytest.importorskip(library, reason="pip install 'ffem-jax[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert log_all("tensorboard", records, tmp_path) == []
    for seed, record in enumerate(records):
        events = EventAccumulator(str(tmp_path / "tensorboard" / loggers.name_trial(record))).Reload()
        assert [(one.step, one.value) for one in events.Scalars("loss")] == [
            (epoch, values[seed]) for epoch, values in enumerate(History().loss, 1)
        ]
        assert events.Scalars("result/accuracy")[0].value == pytest.approx(record.accuracy)


@pytest.mark.slow
def test_mlflow_reads_every_epoch_once(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(importlib.util.find_spec(library) is None for library in ("mlflow", "alembic", "sqlalchemy")):
        pytest.skip("pip install 'ffem-jax[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    assert log_all("mlflow", records, tmp_path / "trial") == []
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ffem")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(map(loggers.name_trial, records))
    for seed, record in enumerate(records):
        run = runs[loggers.name_trial(record)]
        assert run.info.status == "FINISHED"
        assert run.data.params["recipe.epochs"] == "30"
        assert not any("/home" in value for value in run.data.params.values())
        losses = client.get_metric_history(run.info.run_id, "loss")
        assert [(one.step, one.value) for one in losses] == [(e, v[seed]) for e, v in enumerate(History().loss, 1)]
        assert run.data.metrics["result.accuracy"] == pytest.approx(record.accuracy)
