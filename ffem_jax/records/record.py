"""The record of a trial: one JSON line, appended whole or not at all, readable by anything. No JAX.

Several processes may append to one file: each line goes out under a lock, after a newline where a
killed writer left half a line, and reaches the disk before `append_record` returns.

A killed writer costs its own line alone, a full disk leaves the file as it was, and a line from a newer version is
skipped and not guessed at. Tested images stand there by index and never by name: a path names a person. No line is ever
changed: `ffem latency` adds a measurement as another line of the same trial.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ffem_jax.records.view import GROUPS, TrialView, view_spec

if TYPE_CHECKING:
    import pandas

STATUSES = ("done", "pruned", "over_cap", "failed")
RECORD_VERSION = 1


@dataclass
class TrialRecord:
    """What one trial was and gave. Rates are in 0 to 1; a number that was not reached is None.

    spec: the whole TrialSpec, as nested dicts. arch, data, protocol, recipe repeat its names.
    status: `done`; `pruned`, stopped after `epochs` of the recipe's and evaluated there, to be gone on with or not (its
        accuracy is of a network half trained, and compares with no finished one); `over_cap`, refused for its cost;
        `failed`, for what `error` says.
    synthetic: true where the faces are drawn, so that no reader takes the numbers for real ones.
    data_variant: which edition of a data set (`deepfunneled`, `funneled`), empty where there is one only.
    data_fingerprint: of pixels, labels and order; pictures_fingerprint: of the pictures before crop and resolution,
        equal where two trials of different resolutions see the same pictures in the same order.
    pretraining_fingerprint: of the faces that a pretraining saw, as the key hashes them; empty without one, and in
        older records.
    teaching_fingerprint: of what a teacher says of the images, as the key hashes it; empty without one. teacher: its
        name, its file's sha256 or its model's id, and `measured`, how well it does by itself on the images that test.
        A teacher has seen other data than the record names.
    bytes_*, peak_activation_bytes: of the deployed model, see `cost`.
    latency_ms_wasm: the median milliseconds of a call in TensorFlow.js' wasm backend in Node, one thread, as
        `ffem latency` measured it. latency_wasm: its quartiles_ms, calls, runtime, processor, and busy_cores and
        busy_cores_peak, the cores that others used meanwhile.
    accuracy, accuracy_low, accuracy_high, correct, tested: closed-set accuracy of the classifier on the test
        images, with its 95 % Wilson interval. *_gallery: of the nearest gallery embedding (Eq. 6).
    test_images: the test images as indices into the data set's order, ascending: numbers and no names, since a
        name is a person's. hits, hits_gallery: `1` or `0` for each of them, right or wrong. Empty in older records.
    accepted*, false_accept*: Eq. 7 at the fixed and at the calibrated threshold, see `evaluate.py`.
    Under the protocol view2 accuracy, correct and tested are of the pairs of the tested fold, and what is of the
        classifier or of a gallery is None. verification: these pairs' threshold (chosen on the other folds; null
        where it accepts nothing), eer, auc, tar_at_far_1e2, tar_at_far_1e3, and distances_same and
        distances_different in the pairs' order, see `metrics/verification.py`; empty under other protocols.
    Under the protocol open_set accuracy, correct, tested and hits are of rank-1 identification: of each of test_images,
        whether the nearest other image of the tested fold shows the same person; the interval is for other people, and
        what is of the classifier or of a gallery is None. test_identities: for each of test_images a number per person,
        by which intervals draw people; empty under other protocols. open_set: rank1, tar_at_far_1e2, tar_at_far_1e3,
        tar_at_far_1e4, eer and auc, each with its 95 % interval as *_low and *_high, see `metrics/open_set.py`; images
        and people, how many the fold has; of a large fold compared, the images whose pairs were looked at; empty under
        other protocols.
    Under the protocol bins accuracy, correct and tested are of the pairs of all sets, each decided when its fold was
        tested, and what is of the classifier or of a gallery is None. bins: for each set by name accuracy and
        accuracy_std (mean and deviation over ten folds), tar_at_far_1e3, its _std and far_at_far_1e3, the false-accept
        rate at its threshold, pairs, correct, threshold (the mean over folds) and fingerprint (of pictures and pairs),
        see `metrics/ten_folds.py`; empty under other protocols.
    loss, train_accuracy, validation_accuracy: one number an epoch, in order. Validation chooses nothing.
    validated: images, held out of training and never tested, that validation_accuracy is of; 0: it is of the
        *test images*, and whoever tunes by it tunes on the test (view2, open_set: there is
        none).
    train_images_per_second: images / seconds of training steps alone, of all the seeds trained at once.
    data_wait_fraction: the share of those seconds in which training waited for images, 0 to 1; None where they were on
        the device.
    compile_seconds: to trace and compile; wall_seconds: the whole trial, less what a resumed trial spent before;
        with a pretraining that this trial was the first to ask for.
    started_at: UTC, ISO 8601.
    cap_mb, cap_precision: the size limit that the trial was run under, in MB of 10**6 bytes, and the precision it is
        of; None and empty in older records.
    """

    trial_key: str
    spec: dict[str, Any]
    seed: int
    status: str
    arch: str = ""
    data: str = ""
    data_variant: str = ""
    data_fingerprint: str = ""
    pictures_fingerprint: str = ""
    pretraining_fingerprint: str = ""
    teaching_fingerprint: str = ""
    teacher: dict[str, Any] = field(default_factory=dict)
    synthetic: bool = False
    protocol: str = ""
    recipe: str = ""
    resolution: int = 0
    people: int = 0
    train_images: int = 0
    params: int | None = None
    macs: int | None = None
    bytes_float32: int | None = None
    bytes_float16: int | None = None
    bytes_int8: int | None = None
    peak_activation_bytes: int | None = None
    latency_ms_wasm: float | None = None
    latency_wasm: dict[str, Any] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    correct: int | None = None
    tested: int | None = None
    accuracy_gallery: float | None = None
    accuracy_gallery_low: float | None = None
    accuracy_gallery_high: float | None = None
    correct_gallery: int | None = None
    test_images: list[int] = field(default_factory=list)
    hits: str = ""
    hits_gallery: str = ""
    verification: dict[str, Any] = field(default_factory=dict)
    test_identities: list[int] = field(default_factory=list)
    open_set: dict[str, Any] = field(default_factory=dict)
    bins: dict[str, dict[str, Any]] = field(default_factory=dict)
    sigma: float | None = None
    accepted: float | None = None
    false_accept: float | None = None
    sigma_calibrated: float | None = None
    accepted_calibrated: float | None = None
    false_accept_calibrated: float | None = None
    epochs: int = 0
    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validated: int = 0
    train_images_per_second: float | None = None
    data_wait_fraction: float | None = None
    compile_seconds: float | None = None
    wall_seconds: float | None = None
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    started_at: str = ""
    error: str = ""
    trial_dir: str = ""
    cap_mb: float | None = None
    cap_precision: str = ""
    record_version: int = RECORD_VERSION

    @functools.cached_property
    def view(self) -> TrialView:
        """The spec as dataclasses, read once; for another spec make another record (`dataclasses.replace`)."""
        return view_spec(self.spec)

    @property
    def pixels(self) -> int:
        """Pixels per side that the network saw: of the spec, or of the record where the spec does not say."""
        return int(self.view.data.resolution if self.view.has("data", "resolution") else self.resolution)

    def to_json(self) -> str:
        """The record as one line of JSON, without the newline; NaN and infinities become null."""
        return json.dumps(_finite(dataclasses.asdict(self)), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> TrialRecord:
        """Read a line that `to_json` wrote; fields it does not know are dropped.

        Raises ValueError for anything that is not a record.
        """
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("not a JSON object")
        known = {f.name for f in dataclasses.fields(cls)}
        missing = [name for name in ("trial_key", "spec", "seed", "status") if name not in row]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        if row["status"] not in STATUSES:
            raise ValueError(f"status={row['status']!r} is none of {', '.join(STATUSES)}")
        if not isinstance(row["spec"], dict):
            raise ValueError("spec is not an object")
        odd = [name for name in GROUPS if not isinstance(row["spec"].get(name, {}), dict)]
        if odd:
            raise ValueError(f"spec.{odd[0]} is not an object")
        if row.get("record_version", RECORD_VERSION) > RECORD_VERSION:
            raise ValueError(f"record version {row['record_version']} is newer than this package reads")
        return cls(**{name: value for name, value in row.items() if name in known})


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def append_record(path: str | os.PathLike[str], record: TrialRecord) -> None:
    """Append `record` to the JSON-lines file `path`, making its folder where it is missing.

    Raises OSError where the file cannot be written (the disk is full, the folder is read-only).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = record.to_json().encode() + b"\n"
    # Unbuffered: after a failed write, closing a buffered file would write the rest of the line all the same.
    with FileLock(str(path) + ".lock"), open(path, "ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            # A full disk may have taken half a line: leave the file as it was.
            file.truncate(end)
            raise


def read_records(path: str | os.PathLike[str]) -> list[TrialRecord]:
    """All records of the JSON-lines file `path`, in order.

    A line that is no record is skipped with a warning that names the file and the line. Raises
    FileNotFoundError where there is no such file.
    """
    records = []
    # A byte-order mark, which some editors leave, is no part of the first record.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                records.append(TrialRecord.from_json(line))
            except (ValueError, TypeError) as error:
                warnings.warn(f"{path}:{number}: skipped, not a record ({error})", stacklevel=2)
    return records


def find_nearest_records(folder: Path, keys: Collection[str]) -> list[TrialRecord]:
    """The records of the trials `keys`, from the nearest records.jsonl in `folder` or above it that has any of them.

    Empty where there is none, as of a folder that was copied alone.
    """
    folder = folder.absolute()
    for place in (folder, *folder.parents):
        path = place / "records.jsonl"
        found = [one for one in latest_records(read_records(path)) if one.trial_key in keys] if path.is_file() else []
        if found:
            return found
    return []


def latest_records(
    records: Iterable[TrialRecord], identify: Callable[[TrialRecord], Any] = lambda record: record.trial_key
) -> list[TrialRecord]:
    """One record per trial key (or whatever `identify` says), in order of first appearance: the last.

    But a `done` is displaced by a `done` alone, and a `pruned` by no later failure or refusal: its checkpoint is there
    to go on from.
    """
    weight = {"done": 2, "pruned": 1}
    latest: dict[Any, TrialRecord] = {}
    for record in records:
        key = identify(record)
        known = latest.get(key)
        if known is None or weight.get(record.status, 0) >= weight.get(known.status, 0):
            latest[key] = record
    return list(latest.values())


def load(*paths: str | os.PathLike[str]) -> pandas.DataFrame:
    """The trials of records files, or of folders that hold some, as a pandas frame: one row a trial, its latest record.

    Columns: the fields of TrialRecord by their names and in their units (rates in 0 to 1, bytes, seconds), `started_at`
    as a time, and every setting of the spec by its name on the command line: `arch.width_multiplier`,
    `attention.kind`, `data.resolution`, `protocol.fold`, `recipe.epochs`. What a trial has not is missing; lists, such
    as `loss` by epoch, stay lists.

    Raises FileNotFoundError where there is no such file; ImportError without pandas (`pip install pandas`).
    """
    import pandas

    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.rglob("records.jsonl")) if path.is_dir() else [path]
    records = latest_records(record for path in files for record in read_records(path))
    names = [f.name for f in dataclasses.fields(TrialRecord) if f.name != "spec"]
    # A record's `arch` and the group `arch.` of its spec stand side by side: the names differ.
    rows = [{name: getattr(record, name) for name in names} | flatten_spec(record.spec) for record in records]
    settings = list(dict.fromkeys(name for row in rows for name in row if name not in names))
    frame = pandas.DataFrame(rows, columns=[*names, *settings])
    return frame.assign(started_at=pandas.to_datetime(frame["started_at"], utc=True, errors="coerce"))


def flatten_spec(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; `arch.attention.` is `attention.`; the seed is a field already."""
    flat: dict[str, Any] = {}
    for name, value in spec.items():
        dotted = f"{prefix}{name}".removeprefix("arch." if name == "attention" else "")
        if isinstance(value, dict):
            flat |= flatten_spec(value, f"{dotted}.")
        elif prefix:
            flat[dotted] = value
    return flat
