"""How far a sweep is: a line per trial and per pretraining, read from the records, wherever the trials run."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ffem_jax.analysis.labels import make_labels
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.records.view import view_spec
from ffem_jax.specs.trial import TrialSpec, to_plain

# Beside the records of the trials that start from them: the pretrainings' folders, and in it their records.
PRETRAINING_FOLDER, PRETRAINING_RECORDS = "pretraining", "pretraining.jsonl"


def describe_record(record: TrialRecord, label: str = "") -> str:
    """A trial in one line: what it was, how right it was, how large."""
    name = f"{label or record.arch or record.trial_key} seed {record.seed}"
    size = "" if record.bytes_float32 is None else f", {record.bytes_float32 / 1e6:.2f} MB"
    if record.status == "failed":
        return f"{name}: failed, {record.error}"
    if record.status == "over_cap":
        return f"{name}: not trained, {record.error or f'over the cap{size}'}"
    if record.status == "pruned":
        epochs = record.view.recipe.epochs if record.view.has("recipe", "epochs") else "?"
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
    view = view_spec(spec)
    protocol = {k: v for k, v in view.get_written("protocol").items() if k not in ("fold", "split_seed")}
    kept = {name: value for name, value in spec.items() if name != "seed"} | {"protocol": protocol}
    kept["data"] = _leave_out_places(view.get_written("data"))
    if "pretrain" in spec:
        first = view.get_written("pretrain")
        kept["pretrain"] = first | {"data": _leave_out_places(first.get("data", {}))}
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


class RecordTail:
    """The records appended to a file, from now on, whichever process or machine writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0

    def read(self) -> list[TrialRecord]:
        """Those of the whole lines that are new."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        records = []
        for line in whole.splitlines():
            try:
                records.append(TrialRecord.from_json(line.decode("utf-8-sig")))
            except (ValueError, TypeError):
                continue  # read_records names a broken line, with its number
        return records


def describe_rest(seconds: float, left: int) -> str:
    """`; about 5 min left`; empty where nothing, or less than a minute, is left."""
    return f"; about {seconds / 60:.0f} min left" if left and seconds >= 60 else ""


class Pace:
    """How fast things of one kind get finished, and so how long the rest takes. The clock runs from its making.

    After the first few the newer half counts: the first trials of a sweep may hold a compilation each.
    """

    def __init__(self, finished: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.marks = [(clock(), finished)]

    def describe_rest(self, finished: int, total: int) -> str:
        """The time left once `finished` of `total` are done, as `describe_rest` has it."""
        self.marks.append((self.clock(), finished))
        since, before = self.marks[len(self.marks) // 2 if len(self.marks) > 6 else 0]
        seconds = (self.marks[-1][0] - since) / max(1, finished - before) * (total - finished)
        return describe_rest(seconds, total - finished)


class Pretrainings:
    """The pretrainings that the trials of a sweep start from: work of another kind than the trials.

    Args:
        path: their records.
        keys: trial key -> the key of its pretraining.
    """

    def __init__(self, path: Path, keys: Mapping[str, str]) -> None:
        self.keys, self.tail = keys, RecordTail(path)
        wanted = frozenset(keys.values())
        recorded = read_recorded(path, wanted) if wanted else []
        self.done = {record.trial_key: record for record in recorded if record.status == "done"}
        self.own: dict[str, tuple[float, int]] = {}  # folder of a program -> its own seconds, its records

    def read(self) -> list[TrialRecord]:
        """Those that ended since the last call."""
        wanted = frozenset(self.keys.values())
        new = [record for record in self.tail.read() if record.trial_key in wanted] if wanted else []
        self.done |= {record.trial_key: record for record in new if record.status == "done"}
        return new

    def find_missing(self, unfinished: Iterable[str]) -> set[str]:
        """The keys of those that trials of the keys `unfinished` still wait for."""
        return {self.keys[key] for key in unfinished if key in self.keys} - self.done.keys()

    def add_trial(self, record: TrialRecord) -> None:
        """Learn from a trained trial how long one takes without its pretraining."""
        if not record.epochs or record.wall_seconds is None:
            return
        seconds, first = record.wall_seconds, self.done.get(self.keys.get(record.trial_key, ""))
        if first is not None and first.started_at and record.started_at:
            # Whether it trained the pretraining itself or waited for another process: until that one's end.
            began, first_began = map(datetime.fromisoformat, (record.started_at, first.started_at))
            until = (first_began - began).total_seconds() + (first.wall_seconds or 0.0)
            seconds -= min(max(until, 0.0), seconds)
        # The seeds of one program share its folder, and their seconds.
        self.own[record.trial_dir] = seconds, self.own.get(record.trial_dir, (0.0, 0))[1] + 1

    def estimate_rest(self, unfinished: Collection[str], jobs: int) -> float | None:
        """The seconds that `jobs` at a time need for the trials of the keys `unfinished` and for what they wait for.

        None before a trial was trained, or a pretraining while some are missing.
        """
        missing = self.find_missing(unfinished)
        taken = [record.wall_seconds for record in self.done.values() if record.wall_seconds]
        if not self.own or (missing and not taken):
            return None
        seconds, records = (sum(values) for values in zip(*self.own.values(), strict=True))
        pretraining = len(missing) * sum(taken) / len(taken) if missing else 0.0
        return (len(unfinished) * seconds / records + pretraining) / max(1, min(jobs, len(unfinished)))


class RecordFollower(threading.Thread):
    """Reports each record appended to a file from now on, whichever process or machine writes it.

    Args:
        path: the file.
        trials, keys: those that are asked for, and what they are recorded under.
        report: is given each line.
        jobs: trials at a time. counted: every line also says how many are done, running, refused and failed.
        may_be_best: whether a trained trial counts for the best so far, such as for its size.
        pretraining_keys: trial key -> the key of its pretraining; empty without any.
    """

    def __init__(
        self,
        path: Path,
        trials: Sequence[TrialSpec],
        keys: Collection[str],
        report: Callable[[str], None],
        every_seconds: float = 0.5,
        jobs: int = 1,
        counted: bool = False,
        may_be_best: Callable[[TrialRecord], bool] = lambda _: True,
        pretraining_keys: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(daemon=True)
        self.jobs, self.counted, self.may_be_best = jobs, counted, may_be_best
        self.report, self.every_seconds = report, every_seconds
        pretrainings = [trial.pretraining for trial in trials if trial.pretraining]
        self.labels = label_trials(pretrainings) | label_trials(trials)
        self.keys, self.total = keys, len(keys)
        done = [record for record in read_recorded(path, keys) if record.status == "done"]
        self.statuses = {record.trial_key: record.status for record in done}
        self.tail = RecordTail(path)
        self.pretrainings = Pretrainings(path.parent / PRETRAINING_FOLDER / PRETRAINING_RECORDS, pretraining_keys or {})
        self.best, self.pace = 0.0, Pace(len(done))
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
        """Report what is new. A pretraining is recorded before the trials that start from it."""
        for record in self.pretrainings.read():
            self.report_pretraining(record)
        for record in self.tail.read():
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
        self.pretrainings.add_trial(record)
        if record.status == "done" and self.may_be_best(record):
            self.best = max(self.best, record.accuracy or 0.0)
        left = self.describe_rest()
        best = f"; best so far {self.best:.3f}" if self.best else ""
        described = describe_record(record, self.labels.get(identify(record.spec), ""))
        self.report(f"[{self.finished}/{self.total}] {described}{best}{self.count(self.total - self.finished)}{left}")

    def report_pretraining(self, record: TrialRecord) -> None:
        """One line: how many pretrainings are done, this one, the time left."""
        done, missing = len(self.pretrainings.done), len(self.pretrainings.find_missing(self.find_unfinished()))
        described = describe_record(record, self.labels.get(identify(record.spec), ""))
        described = f"pretraining {done} of {done + missing} on {record.data}: {described}"
        self.report(f"[{self.finished}/{self.total}] {described}{self.describe_rest()}")

    def find_unfinished(self) -> list[str]:
        """The keys of the trials that have not ended."""
        return [key for key in self.keys if key not in self.statuses]

    def describe_rest(self) -> str:
        """The time left, in words: pretrainings are work of another kind than the trials that start from them."""
        if not self.pretrainings.keys:
            return self.pace.describe_rest(self.finished, self.total)
        unfinished = self.find_unfinished()
        return describe_rest(self.pretrainings.estimate_rest(unfinished, self.jobs) or 0.0, len(unfinished))

    def count(self, remaining: int) -> str:
        """What became of the trials so far, where that is asked for."""
        if not self.counted:
            return ""
        counts = Counter(self.statuses.values())
        others = [f"{n} {status.replace('_', ' the ')}" for status, n in counts.items() if status != "done"]
        return "; " + ", ".join([f"{counts['done']} done", *others, f"{max(0, min(self.jobs, remaining))} running"])
