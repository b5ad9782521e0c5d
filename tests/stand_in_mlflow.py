"""As much of MLflow as loggers use, in a database that breaks as MLflow's does where two processes make it at once.

For where MLflow is not installed: what several processes do to one file is then tested all the same.
"""

from __future__ import annotations

import itertools
import sqlite3
import sys
import time
import types
import uuid
from contextlib import closing
from typing import Any, NamedTuple

TABLES = {
    "metrics": "run TEXT, name TEXT, value REAL, step INTEGER",
    "params": "run TEXT, name TEXT, value TEXT",
    "runs": "run TEXT, name TEXT, status TEXT, started INTEGER",
    "tags": "run TEXT, name TEXT, value TEXT",
    "experiments": "number TEXT, name TEXT",
}


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Pair(NamedTuple):
    key: str
    value: str


class MlflowException(Exception):
    pass


class Client:
    """MlflowClient. Every statement is a transaction of its own, and a table takes its time to be made."""

    def __init__(self, tracking_uri: str) -> None:
        self.path = tracking_uri.removeprefix("sqlite:///")
        if not self.ask("SELECT name FROM sqlite_master WHERE name = 'experiments'"):
            for name, columns in TABLES.items():
                self.ask(f"CREATE TABLE {name} ({columns})")  # an error where another process is at it as well
                time.sleep(0.02)
            self.ask("INSERT INTO experiments VALUES ('0', 'Default')")

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def get_experiment_by_name(self, name: str) -> Any:
        rows = self.ask("SELECT number FROM experiments WHERE name = ?", name)
        return types.SimpleNamespace(experiment_id=rows[0][0], lifecycle_stage="active") if rows else None

    def create_experiment(self, name: str) -> str:
        if self.get_experiment_by_name(name):
            raise MlflowException(f"{name} exists")
        self.ask("INSERT INTO experiments VALUES ('1', ?)", name)
        return "1"

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run = uuid.uuid4().hex
        self.ask("INSERT INTO runs VALUES (?, ?, 'RUNNING', ?)", run, run_name, time.time_ns())
        for name, value in tags.items():
            self.ask("INSERT INTO tags VALUES (?, ?, ?)", run, name, value)
        return self.get_run(run)

    def get_run(self, run: str) -> Any:
        ((name, status),) = self.ask("SELECT name, status FROM runs WHERE run = ?", run)
        names = {row[0] for row in self.ask("SELECT name FROM metrics WHERE run = ?", run)}
        params = dict(self.ask("SELECT name, value FROM params WHERE run = ?", run))
        info = types.SimpleNamespace(run_id=run, run_name=name, status=status)
        return types.SimpleNamespace(info=info, data=types.SimpleNamespace(params=params, metrics=dict.fromkeys(names)))

    def search_runs(self, experiments: list[str], wanted: str = "", order_by: Any = None) -> list[Any]:
        found = [row[0] for row in self.ask("SELECT run FROM runs ORDER BY started DESC")]
        for condition in filter(None, wanted.split(" and ")):
            name, _, value = condition.removeprefix("tags.").partition(" = ")
            tagged = self.ask("SELECT run FROM tags WHERE name = ? AND value = ?", name, value.strip("'"))
            found = [run for run in found if (run,) in tagged]
        return list(map(self.get_run, found))

    def get_metric_history(self, run: str, name: str) -> list[Metric]:
        rows = self.ask("SELECT name, value, 0, step FROM metrics WHERE run = ? AND name = ? ORDER BY step", run, name)
        return list(itertools.starmap(Metric, rows))

    def log_batch(self, run: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        for metric in metrics:
            self.ask("INSERT INTO metrics VALUES (?, ?, ?, ?)", run, metric.key, metric.value, metric.step)
        for table, pairs in (("params", params), ("tags", tags)):
            for pair in pairs:
                self.ask(f"INSERT INTO {table} VALUES (?, ?, ?)", run, *pair)

    def update_run(self, run: str, status: str) -> None:
        self.ask("UPDATE runs SET status = ? WHERE run = ?", status, run)

    set_terminated = update_run

    def delete_run(self, run: str) -> None:
        self.ask("DELETE FROM runs WHERE run = ?", run)


def install() -> None:
    """Put the stand-in where the package looks."""
    parts = {
        "mlflow": {"MlflowClient": Client},
        "mlflow.entities": {"Metric": Metric, "Param": Pair, "RunTag": Pair},
        "mlflow.exceptions": {"MlflowException": MlflowException},
    }
    for name, values in parts.items():
        sys.modules[name] = module = types.ModuleType(name)
        module.__dict__.update(values)
