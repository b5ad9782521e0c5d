"""A board as an MLflow run, on a server or in a database file that several processes write to."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from ffem_jax.records.record import TrialRecord
from ffem_jax.training.loggers.board import CURVES, BoardError, Numbers, list_settings, name_trial

EXPERIMENT = "ffem"
STATUSES = {"done": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
LOCK_SECONDS = 120.0  # other processes may be creating the database, which takes about ten
# By default MLflow waits minutes per call for an unreachable server. Missing numbers follow after the next epoch.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
MOST_METRICS, MOST_PARAMS = 1000, 100  # MLflow's limits per call
LARGEST = sys.float_info.max  # MLflow's databases store this for infinity


class MlflowRun:
    """A run of the experiment `ffem` on the server of MLFLOW_TRACKING_URI, else in mlflow.db beside the trial's folder.

    A trial that resumes in its folder continues its run, whose tags identify trial and folder. The same trial in
    another folder has its own run. MLflow cannot overwrite a step. If a number differs from the stored one (the
    checkpoint was lost, or another processor computes), a new run replaces the old one, which is deleted;
    `mlflow runs restore` brings it back. `retrain` starts a new run and keeps earlier ones.
    """

    def __init__(self, record: TrialRecord, out_dir: Path, retrain: bool = False) -> None:
        from mlflow import MlflowClient

        # Failures are reported elsewhere, in one line each.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        own = out_dir.absolute().parent / "mlflow.db"
        address = os.environ.get("MLFLOW_TRACKING_URI") or make_address(own)
        database = find_database(address)
        self.record, self.tags = record, {"trial_key": record.trial_key, "trial_folder": identify_folder(out_dir)}
        self.lock: Any = FileLock(f"{database}.lock", timeout=LOCK_SECONDS) if database else nullcontext()
        if database:
            database.parent.mkdir(parents=True, exist_ok=True)
        with self.lock, name_database(database):
            if database == own:
                move_half_made(own)
            self.client = MlflowClient(tracking_uri=address)
            self.experiment = self._find_experiment()
            self.run_id, self.known = self._find_run(retrain)
            self._write_settings()

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (experiment := self.client.get_experiment_by_name(EXPERIMENT)) is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT))
            except MlflowException:  # another process was faster
                if (experiment := self.client.get_experiment_by_name(EXPERIMENT)) is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            number = experiment.experiment_id
            raise BoardError(f"MLflow's experiment {EXPERIMENT} is deleted: mlflow experiments restore -x {number}")
        return str(experiment.experiment_id)

    def _find_run(self, retrain: bool) -> tuple[str, dict[tuple[str, int], float] | None]:
        """Return the run to write to and its numbers; None if they must be read first."""
        wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in self.tags.items())
        runs = self.client.search_runs([self.experiment], wanted, order_by=["attributes.start_time DESC"])
        if runs and not retrain:
            self.client.update_run(runs[0].info.run_id, status="RUNNING")
            return runs[0].info.run_id, None
        for run in runs:
            if run.info.status == "RUNNING":  # the trial is locked: its process is dead
                self.client.set_terminated(run.info.run_id, "KILLED")
        return self._create_run(), {}

    def _create_run(self) -> str:
        return self.client.create_run(self.experiment, run_name=name_trial(self.record), tags=self.tags).info.run_id

    def _write_settings(self) -> None:
        from mlflow.entities import Param

        held = self.client.get_run(self.run_id).data.params
        missing = [Param(name, value) for name, value in list_settings(self.record).items() if name not in held]
        for some in _cut(missing, MOST_PARAMS):
            self.client.log_batch(self.run_id, params=some)

    def write(self, numbers: Numbers) -> None:
        """Write the missing numbers."""
        with self.lock:
            self._write(numbers)

    def _write(self, numbers: Numbers, whole: bool = False) -> None:
        """Write the missing numbers. whole: no epochs follow those of `numbers`."""
        from mlflow.entities import Metric

        wanted = {(name.replace("/", "."), step): value for (name, step), value in numbers.items()}
        if self.known is None:
            self.known = self._read()
        stale = [one for one in self.known if one[0] in CURVES and whole and one not in wanted]
        if stale or any(not _are_equal(self.known[one], value) for one, value in wanted.items() if one in self.known):
            self._replace()
        known, now = self.known, int(time.time() * 1000)
        missing = {one: value for one, value in wanted.items() if one not in known}
        metrics = [Metric(name, value, now, step) for (name, step), value in missing.items()]
        try:
            for some in _cut(metrics, MOST_METRICS):
                self.client.log_batch(self.run_id, metrics=some)
                known.update({(metric.key, metric.step): metric.value for metric in some})
        except Exception:
            self.known = None  # the batch may have arrived nevertheless
            raise

    def _read(self) -> dict[tuple[str, int], float]:
        names = self.client.get_run(self.run_id).data.metrics
        history = [metric for name in names for metric in self.client.get_metric_history(self.run_id, name)]
        return {(metric.key, metric.step): metric.value for metric in history}

    def _replace(self) -> None:
        old, self.run_id, self.known = self.run_id, self._create_run(), {}
        self._write_settings()
        self.client.delete_run(old)

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Write the missing numbers and how the trial ended."""
        from mlflow.entities import RunTag

        with self.lock:
            if numbers:
                self._write(numbers, whole=True)
            self.client.log_batch(self.run_id, tags=[RunTag("status", outcome)])
            self.client.set_terminated(self.run_id, STATUSES[outcome])


def _cut(items: list[Any], length: int) -> Iterator[list[Any]]:
    return (items[start : start + length] for start in range(0, len(items), length))


def _are_equal(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    a, b = (min(max(value, -LARGEST), LARGEST) for value in (a, b))
    return math.isclose(a, b, rel_tol=1e-9)


def identify_folder(folder: Path) -> str:
    """Return a unique, permanent name of `folder`, stored in its mlflow_folder.txt."""
    path = folder / "mlflow_folder.txt"
    if path.exists() and (name := path.read_text().strip()):
        return name
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    begun = path.with_name(path.name + ".new")
    begun.write_text(name + "\n")
    begun.replace(path)
    return name


def make_address(database: Path) -> str:
    """Return MLflow's address of a database file. Raises BoardError for a path that MLflow cannot use."""
    if {"%", "?"} & set(str(database)):
        raise BoardError(
            f"MLflow cannot use a database below a folder with % or ? in its name ({database.parent}); choose another "
            "hydra.sweep.dir (hydra.run.dir), or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{database}"


def find_database(address: str) -> Path | None:
    """Return the database file of MLflow's `address`; None if it is a server or otherwise not a file."""
    scheme, _, path = address.partition(":///")
    path = path.partition("?")[0]
    return Path(path) if scheme.partition("+")[0] == "sqlite" and path and path != ":memory:" else None


@contextmanager
def name_database(database: Path | None) -> Iterator[None]:
    """Turn an error with a database file into a BoardError that says what to do."""
    try:
        yield
    except (BoardError, ImportError):
        raise
    except Exception as error:
        if database is None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise BoardError(
            f"{database} cannot be opened: {reason}; if another MLflow wrote it, back it up and run "
            f"`mlflow db upgrade sqlite:///{database}`, else move it away"
        ) from error
    if database and not database.exists():
        raise BoardError(f"{database} was deleted while this process had it open; start again in a new process")


def move_half_made(database: Path) -> None:
    """Move away a database whose creation was interrupted: it lacks even MLflow's default experiment.

    Nothing was ever logged in it, and MLflow can neither use nor repair it.
    """
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables or ("experiments" in tables and connection.execute("SELECT 1 FROM experiments").fetchone()):
            return
    kept = database.with_name(f"{database.name}.half-made-{uuid.uuid4().hex[:6]}")
    # Move the journal too: left behind, it would be replayed into the next database.
    for ending in ("-journal", "-wal", "-shm", ""):
        beside = database.with_name(database.name + ending)
        if beside.exists():
            beside.replace(kept.with_name(kept.name + ending))
