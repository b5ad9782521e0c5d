"""The page as a file: its numbers are the records', its words no stronger, and nothing in a record is markup."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.cli import main
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.reports.html import ReportError, write_report
from ffem_jax.reports.html.live import LivePage
from ffem_jax.reports.html.partition import split_comparable
from ffem_jax.reports.html.privacy import remove_paths

REPOSITORY = Path(__file__).resolve().parents[3]
WritePage = Callable[..., tuple[str, dict[str, Any]]]


def test_the_numbers_are_those_of_the_records(records: list[TrialRecord], write_page: WritePage) -> None:
    _, payload = write_page(records)
    (group,) = payload["groups"]
    summaries = {summary.label: summary for summary in summarize_records(records)}
    assert [network["label"] for network in group["networks"]] == list(summaries)
    for network in group["networks"]:
        summary = summaries[network["label"]]
        assert network["bytes"] == [summary.bytes_float32, summary.bytes_float16, summary.bytes_int8]
        assert (network["params"], network["macs"]) == (summary.params, summary.macs)
        rates = network["rates"].get("accuracy", [None] * 3)[:3]
        assert rates == pytest.approx([summary.accuracy, summary.accuracy_low, summary.accuracy_high], abs=1e-6)
    columns = payload["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in group["trials"]]
    assert [(row["key"], row["seed"], row["status"], row["epochs"]) for row in rows] == [
        (record.trial_key, record.seed, record.status, record.epochs) for record in records
    ]
    assert group["counts"] == {"done": 6, "over_cap": 2, "failed": 2}
    assert {row["error"] for row in rows if row["status"] == "failed"} == {"loss is NaN at step 7"}
    assert group["curves"]["loss"][0] == [3000, 2000, 1000]
    assert group["curves"]["validation"][5] == [100, 400, 700]


@pytest.mark.parametrize(("correct", "expected"), [(90, "lies above"), (67, "is not established as the best")])
def test_the_answer_is_no_stronger_than_the_intervals(
    write_page: WritePage, tmp_path: Path, correct: int, expected: str
) -> None:
    made = [build_record(correct=60), build_record(correct=correct, params=2_300_000, attention={"kind": "se"})]
    page, payload = write_page(made)
    answer = payload["groups"][0]["answer"]
    assert expected in answer[0]
    # Word for word what `ffem frontier` writes.
    write_frontier(made, tmp_path)
    assert all(sentence in (tmp_path / "frontier.md").read_text(encoding="utf-8") for sentence in answer)
    assert expected in page.partition("payload")[0]


def test_one_network_is_an_answer_with_its_numbers(write_page: WritePage) -> None:
    _, payload = write_page([build_record(correct=80, arch={"name": "small"}), build_record(status="over_cap", seed=3)])
    assert payload["groups"][0]["answer"][0] == (
        "`small` is the only trained network that fits: 76.9 [68.0, 84.0] %, 8.80 MB."
    )


def test_without_a_trained_network_the_page_says_why(write_page: WritePage) -> None:
    wide = {"width_multiplier": 1.4}
    _, payload = write_page([build_record(status="failed", error="broken"), build_record(status="over_cap", arch=wide)])
    assert payload["groups"][0]["answer"] == ["No trained network fits 10 MB at float32 (1 over the cap, 1 failed)."]


def test_the_last_hypervolume_is_the_frontiers(
    records: list[TrialRecord], write_page: WritePage, tmp_path: Path
) -> None:
    _, payload = write_page(records)
    found = write_frontier(records, tmp_path).hypervolume
    number, share = payload["groups"][0]["hypervolume"][-1]
    assert number == 6
    assert share == pytest.approx(found, abs=1e-6)


def test_paired_comparisons_are_those_of_compare(records: list[TrialRecord], write_page: WritePage) -> None:
    from ffem_jax.analysis.compare import compare_records
    from ffem_jax.reports.comparison import write_sentence

    _, payload = write_page(records)
    (entry,) = [one for one in payload["groups"][0]["comparisons"] if one["factor"] == "attention.kind"]
    comparison = compare_records(records, "attention.kind")
    assert [row["sentence"] for row in entry["rows"]] == [write_sentence(row, comparison) for row in comparison.rows]
    levels = {row["level"]: row for row in payload["groups"][0]["levels"] if row["factor"] == "attention.kind"}
    assert levels["eca"]["mean"] == pytest.approx(66.5 / 104, abs=1e-6)
    assert levels["se"]["networks"] == 1


# ------------------------------------------------------------------------------------ what goes in


def test_two_data_sets_are_refused_unless_mixed_and_then_apart(
    records: list[TrialRecord], write_page: WritePage
) -> None:
    drawn = [build_record(data={"name": "synthetic"}), build_record(data={"name": "synthetic"}, seed=1)]
    with pytest.raises(ReportError, match="mix data sets.*--mixed"):
        write_page([*records, *drawn])
    page, payload = write_page([*records, *drawn], mixed=True)
    assert [len(group["trials"]) for group in payload["groups"]] == [10, 2]
    assert [group["synthetic"] for group in payload["groups"]] == [False, True]
    assert page.count('class="lead"') == 2


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": {"name": "kfold"}},
        {"protocol": {"test_per_person": 4}},
        {"data": {"crop": 0.56}},
        {"data_variant": "funneled"},
    ],
)
def test_what_cannot_share_an_axis_is_split(records: list[TrialRecord], other: dict[str, Any]) -> None:
    for record in records:
        record.data_variant = "deepfunneled"
    groups = split_comparable([*records, build_record(**other)])
    assert [len(group) for group in groups] == [10, 1]


def test_a_trial_that_never_saw_its_faces_stays_with_the_others(records: list[TrialRecord]) -> None:
    for record in records:
        record.data_variant = "deepfunneled" if record.status == "done" else ""
    assert [len(group) for group in split_comparable(records[::-1])] == [10]


@pytest.mark.parametrize("synthetic", [True, False])
def test_drawn_faces_carry_a_banner(write_page: WritePage, synthetic: bool) -> None:
    page, _ = write_page([build_record(data={"name": "synthetic" if synthetic else "lfw52"})])
    assert ('class="banner"' in page) is synthetic


def test_text_of_records_is_never_markup_and_names_no_path(
    records: list[TrialRecord], write_page: WritePage, tmp_path: Path
) -> None:
    attack = "<script>alert(1)</script>"
    records[0].spec["data"]["root"] = f"/home/ann/{attack}"
    records[4].error = f"ValueError: {attack} --> cannot read /home/ann/faces/bob/1.jpg & 'C:\\Users\\ann\\b.png'"
    records[4].trial_dir = f"/somewhere/{attack}"
    for record in records:
        record.arch = record.spec["arch"]["name"] = f"net{attack}"
    page, payload = write_page(records, title=attack, question=attack, left_out=[attack])
    assert attack not in page
    assert page.count("</script") == 3  # its own: the numbers, Vega, the page's
    errors = [row[payload["columns"].index("error")] for row in payload["groups"][0]["trials"]]
    assert errors[4] == f"ValueError: {attack} --> cannot read [path] & [path]"
    shown = html.unescape(page)
    assert not any(word in shown for word in ("/home", "bob", "Users"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Errno 2] No such file: '/data/lfw/Ann Lee/1.jpg'", "[Errno 2] No such file: [path]"),
        ("cannot read faces/bob/1.jpg: broken", "cannot read [path]: broken"),
        ("OSError: ~/faces/x, try again", "OSError: [path], try again"),
        (r"C:\faces\bob\1.png is broken", "[path] is broken"),
        ("243.1 images/second, loss 1/2", "243.1 images/second, loss 1/2"),
        ("loss is NaN at epoch 3, step 7", "loss is NaN at epoch 3, step 7"),
    ],
)
def test_paths_leave_a_message_and_nothing_else_does(text: str, expected: str) -> None:
    assert remove_paths(text) == expected


def test_a_folder_with_spaces_leaves_a_message_too(write_page: WritePage) -> None:
    root = "/home/ann/My Faces (1)"
    errors = [f"DataError: data.root={root} is not there; see", f"OSError: {root}/Bob Lee (2)/it's.jpg: broken"]
    records = [
        build_record(seed=seed, status="failed", data={"name": "folder", "root": root}, error=error)
        for seed, error in enumerate(errors)
    ]
    _, payload = write_page([build_record(seed=2, data={"name": "folder", "root": root}), *records])
    column = payload["columns"].index("error")
    told = [row[column] for row in payload["groups"][0]["trials"]]
    assert told[1] == "DataError: data.root=[path] is not there; see"
    assert not any(word in " ".join(told) for word in ("ann", "Faces", "Bob", "Lee"))


def test_the_page_loads_nothing(records: list[TrialRecord], write_page: WritePage) -> None:
    page, _ = write_page(records)
    own = re.sub(r"<script>.*?</script>", "", page, count=1, flags=re.DOTALL)  # Vega's names namespaces
    assert not re.search(r"""(?:src|href|action)=["'](?!#|data:)""", own)
    assert not re.search(r"url\((?!['\"]?data:)|@import|fetch\(|XMLHttpRequest|sendBeacon", own)


# ------------------------------------------------------------------------------------ the command


def test_the_command_names_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], records: list[TrialRecord], tmp_path: Path
) -> None:
    path = tmp_path / "ann" / "records.jsonl"
    for record in records:
        append_record(path, record)
    newer = json.loads(records[0].to_json()) | {"record_version": 99}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(newer) + "\nno record\n")
    assert main(["report", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["done"] == 6
    assert len(told["left_out"]) == 2
    assert told["left_out"][0] == (
        "records.jsonl, line 11: skipped, not a record (record version 99 is newer than this package reads)"
    )
    assert "line 11" in captured.err
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    assert told["bytes"] == len(page.encode())
    assert "record version 99" in page
    assert "ann/" not in page


def test_the_command_imports_no_jax(records: list[TrialRecord], tmp_path: Path) -> None:
    append_record(tmp_path / "records.jsonl", records[0])
    script = (
        "import sys\n"
        "from ffem_jax.cli import main\n"
        "status = main(['report', 'records.jsonl'])\n"
        "print([name for name in ('jax', 'flax', 'scipy', 'hydra', 'matplotlib') if name in sys.modules], status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == "[] 0", result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty.jsonl"], "there are no records"),
        (["one.jsonl", "--cap-mb", "nan"], "--cap-mb: nan must be a size"),
        (["one.jsonl", "--precision", "int4"], "choose from"),
        (["one.jsonl", "--out", "empty.jsonl/x/report.html"], "choose another with --out FILE"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    append_record("one.jsonl", build_record())
    assert main(["report", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert told in captured.err


def test_a_page_is_whole_or_as_it_was(records: list[TrialRecord], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    mixed = dataclasses.replace(records[0], data="other", trial_key="x")
    with pytest.raises((ReportError, FrontierError)):
        write_report([*records, mixed], path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


# ------------------------------------------------------------------------------------ while a sweep runs


def test_the_page_of_a_running_sweep_is_renewed_seldom_and_stops_nothing(
    records: list[TrialRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffem_jax.reports.html import live

    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    said: list[str] = []
    page = LivePage(tmp_path / "report.html", lambda: records, 12, said.append)
    page.follow("first")
    assert not page.path.exists()
    now = 61.0
    page.follow("second")
    text = page.path.read_text(encoding="utf-8")
    assert "10 of 12 trials are recorded" in text
    assert 'data-running="true"' in text
    page.path.unlink()
    now = 100.0
    page.follow("third")
    assert not page.path.exists()
    assert said == ["first", "second", "third"]
    assert page.write(records)
    assert 'data-running="true"' not in page.path.read_text(encoding="utf-8")
    assert not page.write([])
    assert not page.write([])
    assert said[3:] == ["no report: there are no records; run `ffem sweep` or `ffem train` first"]
    monkeypatch.setattr(live, "write_report", lambda *_, **__: 1 / 0)
    assert not page.write(records)
    assert said[4:] == ["no report: ZeroDivisionError: division by zero"]
