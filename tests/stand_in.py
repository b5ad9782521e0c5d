"""A stand-in for training: `ffem_jax.runs.trial` and the frontier's report, answering in microseconds.

`install()` puts both where the package looks for them. Other processes get them as well when this folder is on
PYTHONPATH and `write_sitecustomize` has been called. An SE network in the last bottleneck fails; one in the
first is over the cap; FFEM_STAND_IN=interrupt is Ctrl-C in the middle of the second trial.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord, append_record, read_records
from ffem_jax.reports import frontier
from ffem_jax.specs.trial import RunSpec, TrialSpec, to_plain, trial_key
from ffem_jax.text.tables import make_table


def run_trials(trial: TrialSpec, run: RunSpec, out_dir: Path, records_path: Path) -> list[TrialRecord]:
    """Record each seed of `trial`, as the real one does, without training anything."""
    print("a library prints to standard output")
    recorded = read_records(records_path) if records_path.exists() else []
    if os.environ.get("FFEM_STAND_IN") == "interrupt" and recorded:
        raise KeyboardInterrupt
    if trial.data.min_images == 1000:
        from ffem_jax.data import DataError

        raise DataError("nobody has 1000 images; lower data.min_images")
    if trial.recipe.epochs == 1000:
        raise RuntimeError("a mistake in the package")
    records = []
    for seed in run.seeds or (trial.seed,):
        record = make_record(dataclasses.replace(trial, seed=seed), out_dir)
        if record.status == "done" and 0 < run.stop_epoch < trial.recipe.epochs:
            record.status, record.epochs = "pruned", run.stop_epoch
        known = [r for r in recorded if r.trial_key == record.trial_key and r.status == "done"]
        if not known:
            append_record(records_path, record)
        records.append(known[-1] if known else record)
    return records


def make_record(trial: TrialSpec, out_dir: Path) -> TrialRecord:
    """A plausible record of `trial`."""
    attention = trial.arch.attention
    status = {"first": "over_cap", "last": "failed"}.get(attention.placement, "done")
    record = TrialRecord(trial_key(trial), to_plain(trial), trial.seed, status if attention.kind == "se" else "done")
    record.arch, record.trial_dir, record.bytes_float32 = trial.arch.name, str(out_dir), 8_800_000
    if record.status == "done":
        record.accuracy, record.accuracy_low, record.accuracy_high = 0.75, 0.65, 0.85
        record.correct, record.tested = 75, 100
    if record.status == "failed":
        record.error = "FloatingPointError: loss is NaN at step 7"
    return record


class Drawn:
    """As the real FrontierResult."""

    def __init__(self, records: list[TrialRecord]) -> None:
        done = sum(record.status == "done" for record in records)
        self.table = make_table(["network"], [], title=f"a frontier of {done}")
        self.records = records
        self.agreement, self.notes = types.SimpleNamespace(describe=lambda: ""), ()
        self.networks = ()

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return {"trials": len(self.records)}


def write_frontier(records: list[TrialRecord], out: Path, **_: Any) -> Drawn:
    """Draw nothing."""
    if not any(record.status == "done" for record in records):
        raise frontier.FrontierError("no trial is done")
    return Drawn(list(records))


def install() -> None:
    """Put the stand-ins where the package looks."""
    from ffem_jax.data import protocols

    sys.modules["ffem_jax.runs.trial"] = trial = types.ModuleType("ffem_jax.runs.trial")
    trial.__dict__["run_trials"] = run_trials
    frontier.write_frontier = write_frontier  # type: ignore[assignment]
    nothing = types.SimpleNamespace(notes=(), fingerprint="", digest="")
    protocols.load_split = lambda data, protocol: (nothing, nothing)  # type: ignore[assignment,return-value]


def write_sitecustomize(folder: Path) -> dict[str, str]:
    """An environment in which every Python process starts with the stand-ins installed."""
    (folder / "sitecustomize.py").write_text("import stand_in\n\nstand_in.install()\n")
    repository = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(folder), str(Path(__file__).parent), str(repository)])
    return {**os.environ, "PYTHONPATH": path}
