"""Records on disk: whole lines or none, whoever writes and whatever goes wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.records.record import (
    RECORD_VERSION,
    STATUSES,
    TrialRecord,
    append_record,
    latest_records,
    read_records,
)


def make_record(trial_key: str = "0123456789abcdef", **values: object) -> TrialRecord:
    defaults: dict[str, object] = {"spec": {"seed": 0}, "seed": 0, "status": "done"}
    return TrialRecord(trial_key=trial_key, **{**defaults, **values})  # type: ignore[arg-type]


# The fields that a record has at least: other tools read them by these names.
PROMISED_FIELDS = {
    "trial_key", "spec", "seed", "status", "params", "macs", "bytes_float32", "bytes_float16", "bytes_int8",
    "peak_activation_bytes", "accuracy", "accuracy_low", "accuracy_high", "correct", "tested", "epochs",
    "train_images_per_second", "compile_seconds", "wall_seconds", "device", "versions", "started_at", "error",
}  # fmt: skip


def test_a_record_has_the_promised_fields() -> None:
    assert set(json.loads(make_record().to_json())) >= PROMISED_FIELDS


def test_append_and_read_give_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "records.jsonl"
    written = [
        make_record("a" * 16, accuracy=0.875, loss=[4.0, 1.5], versions={"jax": "1"}, spec={"arch": {"name": "é\n"}}),
        make_record("b" * 16, status="failed", error="line one\nline two \u2028 'quoted' \"twice\""),
        make_record("c" * 16, status="over_cap", bytes_float32=2**40),
    ]
    for record in written:
        append_record(path, record)
    assert read_records(path) == written
    assert path.read_bytes().count(b"\n") == 3


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    spec=st.dictionaries(st.text(), JSON_VALUES, max_size=4),
    status=st.sampled_from(STATUSES),
    accuracy=st.none() | st.floats(0, 1),
    loss=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    error=st.text(),
)
def test_json_round_trip(
    spec: dict[str, object], status: str, accuracy: float | None, loss: list[float], error: str
) -> None:
    record = make_record(spec=spec, status=status, accuracy=accuracy, loss=loss, error=error)
    line = record.to_json()
    assert line.isascii()
    assert line.splitlines() == [line]
    assert TrialRecord.from_json(line) == record


def test_numbers_that_json_lacks_become_null() -> None:
    record = make_record(accuracy=math.nan, loss=[1.0, math.inf, -math.inf], spec={"a": {"b": [math.nan]}})
    row = json.loads(record.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert row["accuracy"] is None
    assert row["loss"] == [1.0, None, None]
    assert row["spec"] == {"a": {"b": [None]}}


# --------------------------------------------------------------------------- several writers


def append_many(path: str, writer: int, count: int) -> None:
    for index in range(count):
        append_record(path, make_record(f"{writer:08x}{index:08x}", error="x" * (1 + 4000 * (index % 3))))


def test_processes_that_append_at_once_lose_and_tear_no_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writers, count = 3, 25
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=append_many, args=(str(path), writer, count)) for writer in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * writers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keys = [record.trial_key for record in read_records(path)]
    assert sorted(keys) == sorted(f"{writer:08x}{index:08x}" for writer in range(writers) for index in range(count))
    # Each writer's own lines are in the order it wrote them.
    for writer in range(writers):
        own = [key for key in keys if key.startswith(f"{writer:08x}")]
        assert own == sorted(own)


# ------------------------------------------------------------------------------- broken files


def test_a_line_cut_off_by_a_killed_writer_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, make_record("a" * 16))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    append_record(path, make_record("b" * 16))
    with pytest.warns(UserWarning, match=r"records\.jsonl:2: skipped") as caught:
        assert [record.trial_key for record in read_records(path)] == ["a" * 16, "b" * 16]
    assert len(caught) == 1
    assert path.read_bytes().startswith(whole)


GOOD = make_record("a" * 16)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "Expecting"),
        ("[]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("{}", "lacks trial_key, spec, seed, status"),
        (
            json.dumps({**dataclasses.asdict(GOOD), "status": "maybe"}),
            "status='maybe' is none of done, pruned, over_cap, failed",
        ),
        (json.dumps({**dataclasses.asdict(GOOD), "spec": "text"}), "spec is not an object"),
        (
            json.dumps({**dataclasses.asdict(GOOD), "record_version": RECORD_VERSION + 1}),
            f"record version {RECORD_VERSION + 1} is newer",
        ),
        (json.dumps({**dataclasses.asdict(GOOD), "record_version": "two"}), "not supported"),
        ("\x00\x00\x00", "Expecting"),
        (b"\xff\xfe{".decode("latin-1"), "Expecting"),
    ],
)
def test_a_line_that_is_no_record_is_skipped_with_its_file_and_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{GOOD.to_json()}\n\n{line}\n{GOOD.to_json()}\n", encoding="latin-1")
    with pytest.warns(UserWarning, match=r"records\.jsonl:3: skipped, not a record") as caught:
        assert read_records(path) == [GOOD, GOOD]
    (warning,) = caught
    message = str(warning.message)
    assert reason in message
    assert "\n" not in message


def test_fields_of_another_release_are_dropped_and_missing_ones_take_their_default(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    row = {"trial_key": "a" * 16, "spec": {}, "seed": 3, "status": "done", "field_of_tomorrow": 1}
    path.write_text(json.dumps(row) + "\n")
    (record,) = read_records(path)
    assert (record.seed, record.accuracy, record.loss) == (3, None, [])


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_records(tmp_path / "nowhere.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, room: int) -> None:
    path = tmp_path / "records.jsonl"
    append_record(path, make_record("a" * 16))
    before = path.read_bytes()
    # A limit on file size takes part of a line and refuses the rest, as a full disk does.
    script = (
        "import resource, sys\n"
        "from ffem_jax.records.record import TrialRecord, append_record\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + room},) * 2)\n"
        "try:\n"
        f"    append_record({str(path)!r}, TrialRecord('b' * 16, {{}}, 0, 'done'))\n"
        "except OSError:\n"
        "    sys.exit(7)\n"
    )
    repository = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True)
    assert result.returncode == 7, result.stderr
    assert path.read_bytes() == before
    append_record(path, make_record("c" * 16))
    assert [record.trial_key for record in read_records(path)] == ["a" * 16, "c" * 16]


# ------------------------------------------------------------------------------------- latest


@pytest.mark.parametrize(
    ("statuses", "kept"),
    [
        (["failed", "done"], 1),
        (["done", "failed"], 0),
        (["done", "over_cap"], 0),
        (["over_cap", "failed"], 1),
        (["failed", "over_cap", "failed"], 2),
        (["done", "done"], 1),
        (["failed", "done", "failed", "over_cap"], 1),
        (["failed", "pruned", "failed"], 1),
        (["pruned", "over_cap"], 0),
        (["pruned", "pruned"], 1),
        (["pruned", "done", "pruned", "failed"], 1),
    ],
)
def test_the_last_record_of_a_trial_counts_but_done_stays_done_and_pruned_is_no_failure(
    statuses: list[str], kept: int
) -> None:
    records = [make_record(status=status, seed=index) for index, status in enumerate(statuses)]
    assert latest_records(records) == [records[kept]]


def test_latest_records_keep_the_order_of_first_appearance() -> None:
    records = [make_record(key * 16, seed=index) for index, key in enumerate("badbd")]
    assert [(record.trial_key[0], record.seed) for record in latest_records(records)] == [("b", 3), ("a", 1), ("d", 4)]
    assert latest_records([]) == []
