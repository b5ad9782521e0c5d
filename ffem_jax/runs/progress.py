"""How far a sweep is: a line for every trial, read from the records, wherever the trials run."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ffem_jax.analysis.labels import make_labels
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.specs.trial import TrialSpec, to_plain


def describe_record(record: TrialRecord, label: str = "") -> str:
    """A trial in one line: what it was, how right it was, how large."""
    name = f"{label or record.arch or record.trial_key} seed {record.seed}"
    size = "" if record.bytes_float32 is None else f", {record.bytes_float32 / 1e6:.2f} MB"
    if record.status == "failed":
        return f"{name}: failed, {record.error}"
    if record.status == "over_cap":
        return f"{name}: not trained, {record.error or f'over the cap{size}'}"
    if record.status == "pruned":
        epochs = record.spec.get("recipe", {}).get("epochs", "?")
        name += f", stopped after epoch {record.epochs} of {epochs}"
    if record.accuracy is None:
        return f"{name}: {record.status}{size}"
    interval = ""
    if record.accuracy_low is not None and record.accuracy_high is not None:
        interval = f" ({record.accuracy_low:.3f} to {record.accuracy_high:.3f})"
    return f"{name}: accuracy {record.accuracy:.3f}{interval}{size}"


def label_trials(trials: Sequence[TrialSpec]) -> dict[str, str]:
    """What tells the networks of `trials` apart, by `identify` of a spec."""
    specs = {identify(spec): spec for spec in map(to_plain, trials)}
    return dict(zip(specs, make_labels(list(specs.values())), strict=True))


def identify(spec: dict[str, Any]) -> str:
    """A trial's spec without its seed, fold and split, as text: the same for all trials that one label stands for.

    Where the faces lie is left out: a record has the folder's whole path, and a plan what was typed.
    """
    protocol = {name: value for name, value in spec["protocol"].items() if name not in ("fold", "split_seed")}
    kept = {name: value for name, value in spec.items() if name != "seed"} | {"protocol": protocol}
    kept["data"] = _leave_out_places(spec["data"])
    if "pretrain" in spec:
        kept["pretrain"] = {**spec["pretrain"], "data": _leave_out_places(spec["pretrain"]["data"])}
    return _to_text(kept)


def _leave_out_places(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in ("root", "cache_dir")}


def read_recorded(path: Path, keys: Collection[str]) -> list[TrialRecord]:
    """The latest record of each trial of `keys` at `path`; a file that is not there holds none."""
    if not path.exists():
        return []
    return [record for record in latest_records(read_records(path)) if record.trial_key in keys]


def _to_text(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


class Pace:
    """How fast things get finished, and so how long the rest takes. The clock runs from its making.

    After the first few the newer half counts: a sweep's first trials may hold a pretraining or a compilation each.
    """

    def __init__(self, finished: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.marks = [(clock(), finished)]

    def describe_rest(self, finished: int, total: int) -> str:
        """`; about 5 min left` once `finished` of `total` are done; empty where none or less than a minute is left."""
        self.marks.append((self.clock(), finished))
        since, before = self.marks[len(self.marks) // 2 if len(self.marks) > 6 else 0]
        seconds = (self.marks[-1][0] - since) / max(1, finished - before) * (total - finished)
        return f"; about {seconds / 60:.0f} min left" if finished < total and seconds >= 60 else ""


class RecordFollower(threading.Thread):
    """Reports each record appended to a file from now on, whichever process or machine writes it.

    trials, keys: those that are asked for, and what they are recorded under.
    jobs: trials at a time; given, every line also says how many are done, running, refused and failed. may_be_best:
    whether a trained trial counts for the best so far, such as for its size.
    """

    def __init__(
        self,
        path: Path,
        trials: Sequence[TrialSpec],
        keys: Collection[str],
        report: Callable[[str], None],
        every_seconds: float = 0.5,
        jobs: int = 0,
        may_be_best: Callable[[TrialRecord], bool] = lambda _: True,
    ) -> None:
        super().__init__(daemon=True)
        self.jobs, self.may_be_best = jobs, may_be_best
        self.path, self.report, self.every_seconds = path, report, every_seconds
        self.labels = label_trials(trials)
        self.keys, self.total = keys, len(keys)
        done = [record for record in read_recorded(path, keys) if record.status == "done"]
        self.statuses = {record.trial_key: record.status for record in done}
        self.best, self.pace = 0.0, Pace(len(done))
        self.offset = path.stat().st_size if path.exists() else 0
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        """Look again and again until stopped, and once more after that."""
        while not self.stopping.wait(self.every_seconds):
            self.read()
        self.read()

    def stop(self) -> None:
        """Report what is left and end the thread."""
        self.stopping.set()
        self.join()

    def read(self) -> None:
        """Report the whole lines that are new."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            try:
                record = TrialRecord.from_json(line.decode("utf-8-sig"))
            except (ValueError, TypeError):
                continue  # read_records names a broken line, with its number
            self.report_record(record)

    @property
    def finished(self) -> int:
        """How many trials have ended, each counted once however often it was recorded."""
        return len(self.statuses)

    def report_record(self, record: TrialRecord) -> None:
        """One line: how many are finished, this one, the best so far, the time left. Others' records are none of it."""
        if record.trial_key not in self.keys:
            return
        self.statuses[record.trial_key] = record.status
        if record.status == "done" and self.may_be_best(record):
            self.best = max(self.best, record.accuracy or 0.0)
        left = self.pace.describe_rest(self.finished, self.total)
        best = f"; best so far {self.best:.3f}" if self.best else ""
        described = describe_record(record, self.labels.get(identify(record.spec), ""))
        self.report(f"[{self.finished}/{self.total}] {described}{best}{self.count(self.total - self.finished)}{left}")

    def count(self, remaining: int) -> str:
        """What became of the trials so far, where `jobs` is known."""
        if not self.jobs:
            return ""
        counts = Counter(self.statuses.values())
        others = [f"{n} {status.replace('_', ' the ')}" for status, n in counts.items() if status != "done"]
        return "; " + ", ".join([f"{counts['done']} done", *others, f"{max(0, min(self.jobs, remaining))} running"])
