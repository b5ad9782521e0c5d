"""MLflow: every epoch once in its run, several processes at a database, a server that is away."""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stand_in_mlflow
from made_histories import History, be_killed, finish, log_all, make_record

from ffem_jax.records.record import TrialRecord
from ffem_jax.training import loggers
from ffem_jax.training.loggers.board import name_trial

MLFLOW = all(importlib.util.find_spec(library) for library in ("mlflow", "alembic", "sqlalchemy"))
needs_mlflow = pytest.mark.skipif(not MLFLOW, reason="pip install -c constraints.txt -e '.[mlflow]'")


@pytest.fixture
def records() -> list[TrialRecord]:
    return [make_record(seed) for seed in (0, 1)]


def read_runs(database: Path) -> list[tuple[str, str, dict[str, list[tuple[int, float]]]]]:
    """Name, status and metrics [(step, value)] of every run, in the order of their names."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("ffem")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    rows = []
    for run in runs:
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        metrics = {name: [(one.step, one.value) for one in values] for name, values in history.items()}
        rows.append((run.info.run_name, run.info.status, metrics))
    return sorted(rows, key=lambda row: row[:2])


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    if not MLFLOW:
        pytest.skip("pip install -c constraints.txt -e '.[mlflow]'")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


# A database takes five seconds to make, so that several cases share one.
@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_mlflow_reads_every_epoch_once(records: list[TrialRecord], sweep_dir: Path) -> None:
    from mlflow import MlflowClient

    log_all("mlflow", records, sweep_dir / "trial")
    runs = read_runs(sweep_dir / "mlflow.db")
    assert [run[:2] for run in runs] == [(name_trial(record), "FINISHED") for record in records]
    for seed, (_, _, metrics) in enumerate(runs):
        assert metrics["loss"] == [(epoch, v[seed]) for epoch, v in enumerate(History().loss, 1)]
        assert metrics["result.accuracy"] == [(2, pytest.approx(records[seed].accuracy))]
    client = MlflowClient(tracking_uri=f"sqlite:///{sweep_dir / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], f"tags.trial_key = '{records[0].trial_key}'")
    assert run.data.params["recipe.epochs"] == "30"
    assert run.data.tags["status"] == "done"
    assert not any("/home" in value for value in run.data.params.values())


def leave_behind(sweep_dir: Path, seed: int, history: History) -> tuple[list[TrialRecord], Path]:
    records, out_dir = [make_record(seed)], sweep_dir / f"trial-{seed}"
    be_killed("mlflow", records, out_dir, history)
    return records, out_dir


def find_runs(sweep_dir: Path, records: list[TrialRecord]) -> list[tuple[str, dict[str, list[tuple[int, float]]]]]:
    name = name_trial(records[0])
    return [(status, metrics) for found, status, metrics in read_runs(sweep_dir / "mlflow.db") if found == name]


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_resumed_trial_goes_on_in_its_run(sweep_dir: Path) -> None:
    records, out_dir = leave_behind(sweep_dir, 11, History([[3.0]], [[0.25]]))
    assert [status for status, _ in find_runs(sweep_dir, records)] == ["RUNNING"]
    log_all("mlflow", records, out_dir)
    ((status, metrics),) = find_runs(sweep_dir, records)
    assert (status, metrics["loss"]) == ("FINISHED", [(1, 3.0), (2, 2.0)])
    # Stopped and gone on with again, as a pruned one: what it came to there stays.
    longer = History([[3.0], [2.0], [1.0]], [[0.25], [0.5], [math.nan]])
    log_all("mlflow", records, out_dir, longer)
    ((status, metrics),) = find_runs(sweep_dir, records)
    assert (status, metrics["loss"]) == ("FINISHED", [(1, 3.0), (2, 2.0), (3, 1.0)])
    assert [step for step, _ in metrics["result.accuracy"]] == [2, 3]
    # And once more, with nothing new: not a number is written twice, a NaN neither.
    log_all("mlflow", records, out_dir, longer)
    ((_, metrics),) = find_runs(sweep_dir, records)
    assert {len(values) for name, values in metrics.items() if name in ("loss", "train_accuracy")} == {3}


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
@pytest.mark.parametrize(
    ("seed", "loss"), [(21, [[3.0], [2.25]]), (22, [[3.0], [2.0], [1.5]])], ids=["another value", "more epochs"]
)
def test_where_the_history_is_another_the_run_is_replaced(sweep_dir: Path, seed: int, loss: list[list[float]]) -> None:
    records, out_dir = leave_behind(sweep_dir, seed, History(loss, [[0.25], [0.5], [0.5]][: len(loss)]))
    log_all("mlflow", records, out_dir)
    ((status, metrics),) = find_runs(sweep_dir, records)
    assert (status, metrics["loss"]) == ("FINISHED", [(1, 3.0), (2, 2.0)])


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_trial_trained_again_and_one_of_another_folder_have_runs_of_their_own(sweep_dir: Path) -> None:
    records, out_dir = leave_behind(sweep_dir, 31, History([[3.0]], [[0.25]]))
    log_all("mlflow", records, out_dir, retrain=True)
    assert [status for status, _ in find_runs(sweep_dir, records)] == ["FINISHED", "KILLED"]
    log_all("mlflow", records, sweep_dir / "elsewhere")
    assert [status for status, _ in find_runs(sweep_dir, records)] == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_trial_that_raises_is_a_failed_run_until_it_goes_on(sweep_dir: Path) -> None:
    records, out_dir = [make_record(41)], sweep_dir / "trial-41"
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), loggers.open_logger("mlflow", records, out_dir, pytest.fail) as logger:
            logger.log_epoch(1, History())
            raise error
        ((found, metrics),) = find_runs(sweep_dir, records)
        assert (found, metrics["loss"]) == (status, [(1, 3.0)])
    log_all("mlflow", records, out_dir)
    ((found, metrics),) = find_runs(sweep_dir, records)
    assert (found, metrics["loss"]) == ("FINISHED", [(1, 3.0), (2, 2.0)])


def train_in_process(seed: int, sweep_dir: Path, stand_in: bool, start: Any, said: Any) -> None:
    """One of several processes: a trial of two epochs, from the moment all are ready."""
    if stand_in:
        stand_in_mlflow.install()
    records, history = [make_record(seed)], History([[3.0], [2.0]], [[0.25], [0.5]])
    import ffem_jax.training.loggers.mlflow_run  # noqa: F401  (seconds, which all have behind them when they start)

    start.wait(120)
    with loggers.open_logger("mlflow", records, sweep_dir / f"trial-{seed}", said.put) as logger:
        for epochs in (1, 2):
            logger.log_epoch(epochs, history)
        finish(records, history)


def run_together(sweep_dir: Path, seeds: range, stand_in: bool) -> list[str]:
    """What was said by processes that begin at one moment, a trial each."""
    context = multiprocessing.get_context("spawn")
    start, said = context.Barrier(len(seeds)), context.Queue()
    processes = [
        context.Process(target=train_in_process, args=(seed, sweep_dir, stand_in, start, said)) for seed in seeds
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * len(seeds)
    return [said.get(timeout=5) for _ in range(said.qsize())]


def leave_half_made(database: Path) -> None:
    """As an earlier release left it, whose processes broke each other's database."""
    with closing(sqlite3.connect(database)) as broken:
        broken.execute("CREATE TABLE metrics (name TEXT)")
        broken.execute("CREATE TABLE _alembic_tmp_tags (name TEXT)")
        broken.commit()


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_three_processes_at_once_lose_no_run_and_no_epoch(tmp_path: Path) -> None:
    leave_half_made(tmp_path / "mlflow.db")
    assert run_together(tmp_path, range(3), stand_in=False) == []
    runs = read_runs(tmp_path / "mlflow.db")
    assert [run[:2] for run in runs] == [(name_trial(make_record(seed)), "FINISHED") for seed in range(3)]
    assert all(metrics["loss"] == [(1, 3.0), (2, 2.0)] for _, _, metrics in runs)
    assert len(list(tmp_path.glob("mlflow.db.half-made-*"))) == 1


@pytest.mark.slow
def test_processes_that_share_a_database_take_turns_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without MLflow: twice, so that the second time each goes on in its run."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    leave_half_made(tmp_path / "mlflow.db")
    for _ in range(2):
        assert run_together(tmp_path, range(3), stand_in=True) == []
        client = stand_in_mlflow.Client(f"sqlite:///{tmp_path / 'mlflow.db'}")
        runs = client.search_runs(["1"])
        assert sorted(run.info.run_name for run in runs) == sorted(name_trial(make_record(seed)) for seed in range(3))
        for run in runs:
            assert run.info.status == "FINISHED"
            losses = client.get_metric_history(run.info.run_id, "loss")
            assert [(one.step, one.value) for one in losses] == [(1, 3.0), (2, 2.0)]
    assert len(list(tmp_path.glob("mlflow.db.half-made-*"))) == 1


@pytest.mark.usefixtures("mlflow")
@pytest.mark.parametrize("write", [lambda path: path.write_text("no database"), lambda path: path.mkdir()])
def test_a_database_that_cannot_be_used_is_one_line_and_stays(
    records: list[TrialRecord], tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "mlflow.db")
    said: list[str] = []
    started = time.perf_counter()
    with loggers.open_logger("mlflow", records, tmp_path / "trial", said.append) as logger:
        logger.log_epoch(2, History())
    assert len(said) == 1
    assert "\n" not in said[0]
    assert "mlflow.db" in said[0]
    assert "the trial continues without it" in said[0]
    assert time.perf_counter() - started < 30
    assert (tmp_path / "mlflow.db").exists()


@pytest.mark.usefixtures("mlflow")
def test_a_server_that_is_away_costs_one_line_and_seconds(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in [name for name in os.environ if name.startswith("MLFLOW_HTTP")]:
        monkeypatch.delenv(name)
    said: list[str] = []
    started = time.perf_counter()
    with loggers.open_logger("mlflow", records, tmp_path / "trial", said.append) as logger:
        logger.log_epoch(2, History())
    assert len(said) == 1
    assert "the trial continues without it" in said[0]
    assert time.perf_counter() - started < 30


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_server_that_never_answers_is_not_waited_for_by_the_minute(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffem_jax.training.loggers import mlflow_run

    assert int(mlflow_run.PATIENCE["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 10
    monkeypatch.setattr(mlflow_run, "PATIENCE", {**mlflow_run.PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"})
    for name in [name for name in os.environ if name.startswith("MLFLOW_HTTP")]:
        monkeypatch.delenv(name)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.perf_counter()
        loggers.open_logger("mlflow", records, tmp_path / "trial", said.append)
    assert time.perf_counter() - started < 8  # twice a second, and what lies between
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow")
def test_a_deleted_experiment_is_said_with_the_way_back(sweep_dir: Path) -> None:
    from mlflow import MlflowClient

    log_all("mlflow", [make_record(51)], sweep_dir / "trial-51")
    client, said = MlflowClient(tracking_uri=f"sqlite:///{sweep_dir / 'mlflow.db'}"), []
    client.delete_experiment("1")
    try:
        loggers.open_logger("mlflow", [make_record(52)], sweep_dir / "trial-52", said.append)
    finally:
        client.restore_experiment("1")
    assert "experiment ffem is deleted: mlflow experiments restore -x 1" in said[0]


@pytest.mark.usefixtures("mlflow")
def test_a_folder_that_mlflow_cannot_have_is_refused_with_the_way_out(tmp_path: Path) -> None:
    said: list[str] = []
    loggers.open_logger("mlflow", [make_record(0)], tmp_path / "50% off" / "trial", said.append)
    assert "set MLFLOW_TRACKING_URI" in said[0]
    assert not list(tmp_path.rglob("*.db"))
