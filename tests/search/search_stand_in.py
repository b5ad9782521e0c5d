"""A stand-in for training and costing in the workers of a search: other processes get it by `write_environment`.

FFEM_STAND_IN_SECONDS is how long a training takes.
"""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord, append_record, latest_records, read_records
from ffem_jax.specs.architecture import ArchSpec, resolve_network
from ffem_jax.specs.trial import RunSpec, TrialSpec, to_plain, trial_key

FINGERPRINT = "drawn"


class Cost:
    """Bytes as four times the weights of the 1x1 convolutions."""

    def __init__(self, arch: ArchSpec) -> None:
        blocks = resolve_network(arch).blocks
        params = sum(block.hidden_channels * (block.in_channels + block.out_channels) for block in blocks)
        self.values = {"params": params, "macs": 10 * params, "peak_activation_bytes": 1000}
        self.values |= {"bytes_float32": 4 * params, "bytes_float16": 2 * params, "bytes_int8": params}

    def get_bytes(self, precision: str) -> int:
        return self.values[f"bytes_{precision}"]

    def to_dict(self) -> dict[str, int]:
        return self.values


def make_record(trial: TrialSpec, out_dir: Path) -> TrialRecord:
    record = TrialRecord(trial_key(trial, FINGERPRINT), to_plain(trial), trial.seed, "done", arch=trial.arch.name)
    record.data, record.protocol, record.trial_dir = trial.data.name, trial.protocol.name, out_dir.name
    record.resolution, record.synthetic = trial.data.resolution, True
    for name, value in Cost(trial.arch).values.items():
        setattr(record, name, value)
    return record


def run_trials(trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path) -> list[TrialRecord]:
    """As the real one: a recorded trial is found, another takes its time and is recorded."""
    record = make_record(trial, out_dir)
    known = latest_records(read_records(records_path)) if records_path.exists() else []
    for one in known:
        if one.trial_key == record.trial_key and (one.status == "done" or 0 < run.stop_epoch <= one.epochs):
            return [one]
    with open(records_path.parent / "trainings.txt", "a") as file:
        file.write(f"{os.getpid()} {record.trial_key}:{run.stop_epoch}\n")
    time.sleep(float(os.environ.get("FFEM_STAND_IN_SECONDS", "0")))
    record.accuracy = round(0.9 - 0.5 / (1 + (record.params or 0) / 2e5) + 0.02 * trial.arch.stem_stride, 6)
    record.tested, record.correct = 1000, round(1000 * record.accuracy)
    record.accuracy_low, record.accuracy_high = record.accuracy - 0.03, record.accuracy + 0.03
    record.epochs = min(run.stop_epoch or trial.recipe.epochs, trial.recipe.epochs)
    if record.epochs < trial.recipe.epochs:
        record.status = "pruned"
    append_record(records_path, record)
    return [record]


def record_failure(trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path, error: str) -> list[TrialRecord]:
    """As the real one: where a worker was killed after its record was written, that record stands."""
    record = make_record(trial, out_dir)
    for one in read_records(records_path) if records_path.exists() else []:
        if one.trial_key == record.trial_key:
            return [one]
    record.status, record.error = "failed", error
    append_record(records_path, record)
    return [record]


def install() -> None:
    """Put the stand-ins where the package looks."""
    from ffem_jax.data import protocols

    def put(name: str, **values: Any) -> None:
        sys.modules[name] = module = types.ModuleType(name)
        module.__dict__.update(values)

    put(
        "ffem_jax.runs.trial",
        run_trials=run_trials,
        record_failure=record_failure,
        discard_checkpoint=lambda folder: None,
        compute_key=lambda trial: trial_key(trial, FINGERPRINT),
    )
    put("ffem_jax.cost.cost", compute_cost=lambda arch, resolution: Cost(arch))
    put("ffem_jax.machine.devices", use_cpu_cores=lambda cores: None, release_memory=lambda: None)
    nothing = types.SimpleNamespace(notes=(), synthetic=True)
    protocols.load_split = lambda data, protocol: (nothing, nothing)  # type: ignore[assignment,return-value]


def write_environment(folder: Path, seconds: float = 0.0) -> dict[str, str]:
    """An environment in which every Python process starts with the stand-ins installed."""
    (folder / "sitecustomize.py").write_text("import search_stand_in\n\nsearch_stand_in.install()\n")
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(folder), str(here), str(here.parent.parent)])
    return {**os.environ, "PYTHONPATH": path, "FFEM_STAND_IN_SECONDS": str(seconds)}
