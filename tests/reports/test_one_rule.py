"""One rule for all commands: under which cap, what is written where nobody asked for it, what a network is called."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import build_record
from made_reports import IMAGES, make_folds, make_reported, read_page, run, write_reported

from ffem_jax.analysis.groups import choose_records, compute_groups
from ffem_jax.cli import COMMANDS, main
from ffem_jax.latency import measure
from ffem_jax.latency.turns import Busy, Timing
from ffem_jax.records.record import append_record


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    return write_reported(tmp_path)


def read_options(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `ffem COMMAND --help` says of each option, on one line each."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    found = re.findall(r"^  (--[\w-]+)(.*(?:\n {3,}.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


# --------------------------------------------------------------------------------------------- cap


def test_every_cap_is_the_recorded_one_unless_given(capsys: pytest.CaptureFixture[str]) -> None:
    found = {command: read_options(command, capsys) for command in COMMANDS}
    for name in ("--cap-mb", "--precision"):
        told = {command: options[name] for command, options in found.items() if name in options}
        assert len(told) >= 4, told
        for command, words in told.items():
            assert "that of the trials" in words, f"ffem {command} {name}: {words}"


def test_an_export_is_held_to_the_recorded_cap(tmp_path: Path) -> None:
    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.cli.trials import find_trial_records

    record = build_record(cap_mb=2.185, cap_precision="int8")
    folder = tmp_path / "sweep" / "trials" / "one"
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text(json.dumps({"keys": [record.trial_key]}))
    assert find_trial_records(folder) == []  # copied alone
    append_record(tmp_path / "sweep" / "records.jsonl", build_record(seed=5, cap_mb=9.0, cap_precision="float32"))
    append_record(tmp_path / "sweep" / "records.jsonl", record)
    assert find_trial_records(folder) == [record]
    assert choose_cap(find_trial_records(folder))[0] == (2.185, "int8")
    assert choose_cap(find_trial_records(folder), 3.0)[0] == (3.0, "int8")
    assert choose_cap([]) == ((10.0, "float32"), [])


@pytest.mark.parametrize("size", ["nan", "inf", "0", "-2", "two"])
@pytest.mark.parametrize("command", ["frontier", "report", "predict"])
def test_a_cap_that_is_no_size_is_one_line(
    records_file: Path, capsys: pytest.CaptureFixture[str], command: str, size: str
) -> None:
    assert main([command, str(records_file), f"--cap-mb={size}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--cap-mb: {size} must be a size above 0" in line


# ------------------------------------------------------------------------------- nothing by the way


def test_a_default_place_is_taken_only_where_it_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    told = {command: read_options(command, capsys).get("--out", "") for command in COMMANDS}
    for command, words in told.items():
        assert ("default" in words) == ("if new" in words), f"ffem {command} --out: {words}"
    assert sum("if new" in words for words in told.values()) >= 4


def test_finalists_of_before_are_replaced_only_by_name(
    records_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = records_file.parent / "frontier" / "finalists"
    there.mkdir(parents=True)
    (there / "mine.yaml").write_text("mine")
    assert main(["frontier", str(records_file), "--finalists", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{there} already exists" in line
    assert [path.name for path in there.iterdir()] == ["mine.yaml"]
    monkeypatch.chdir(records_file.parent)
    Path("teacher.npz").write_bytes(b"of another teacher")
    assert main(["teach", "faces", "teacher=onnx", "teacher.path=big.onnx"]) == 2
    assert "teacher.npz already exists" in capsys.readouterr().err
    assert Path("teacher.npz").read_bytes() == b"of another teacher"


# ------------------------------------------------------------------------------------------ labels


def test_a_network_has_one_label_in_every_command(
    records_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {row["trial_key"]: row["network"] for row in run(capsys, "list", str(records_file))}
    assert "SE last, width 1" in listed.values()  # beside the refused one, SE all
    narrow = ["--where", "attention.kind=se", "--where", "attention.kind=eca", "--where", "attention.placement=last"]

    def check(labels: dict[str, str], command: str) -> None:
        assert labels
        assert labels == {key: listed[key] for key in labels}, command

    for words in ([], narrow[:2], narrow):
        frontier = run(capsys, "frontier", str(records_file), *words)
        check({key: n["label"] for n in frontier["networks"] for key in n["trial_keys"]}, f"frontier {words}")
        assert set(frontier["frontier"]) <= set(listed.values())
        run(capsys, "report", str(records_file), "--out", str(tmp_path / "page.html"), *words)
        (group,) = read_page(tmp_path / "page.html")["groups"]
        assert {n["label"] for n in group["networks"]} == {n["label"] for n in frontier["networks"]}
        assert {n["label"] for n in group["networks"]} <= set(listed.values())
        rows = run(capsys, "list", str(records_file), *words)
        check({row["trial_key"]: row["network"] for row in rows}, f"list {words}")
    for key, label in listed.items():
        shown = run(capsys, "show", key, str(records_file))
        assert shown["network"] == label
    records = make_reported()
    columns, people = {"half": np.array(["a", "b"] * (IMAGES // 2))}, np.arange(IMAGES) % 40
    grouped = compute_groups(choose_records(records), columns, people, among=records)
    done = {listed[record.trial_key] for record in records if record.status == "done"}
    assert {one.network for one in grouped} == done
    assert measure_latency(capsys, monkeypatch, records_file) == done


def measure_latency(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path) -> set[str]:
    """The labels that `ffem latency` prints, with a runtime that takes a millisecond for everything."""

    class Runtime(contextlib.nullcontext[None]):
        def __enter__(self) -> Any:
            return self

        def load(self, model: object) -> None:
            pass

        def describe(self) -> str:
            return "stand-in"

    monkeypatch.setattr(measure, "start_node", Runtime)
    monkeypatch.setattr(measure, "write_untrained", lambda *_: None)
    monkeypatch.setattr(
        measure, "time_in_turn", lambda _, names, rounds: ({n: Timing((1.0,) * rounds) for n in names}, Busy(0.0, 0.0))
    )
    return {row["network"] for row in run(capsys, "latency", str(path), "--rounds", "1")["networks"]}


# ----------------------------------------------------------------------------------------- measure


@pytest.mark.parametrize("metric", ["accuracy", "accuracy_gallery"])
def test_the_page_says_which_measure_it_shows_and_what_chance_is(
    records_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, metric: str
) -> None:
    page = tmp_path / "page.html"
    run(capsys, "report", str(records_file), "--out", str(page), "--metric", metric)
    (group,) = read_page(page)["groups"]
    told = group["measures"][metric]["told"]
    which = {
        "accuracy": "whose person the trained classifier names",
        "accuracy_gallery": "whose nearest training image",
    }
    assert f"Accuracy is the share of test images {which[metric]}" in told
    assert "A network that guesses scores 2.5 %: the chance level." in told
    # For readers without JavaScript too, and of no other measure.
    before = page.read_text(encoding="utf-8").split('id="payload"')[0]
    assert told in before
    other = {"accuracy": "accuracy_gallery", "accuracy_gallery": "accuracy"}[metric]
    assert f"{other} is the share" not in before.replace(told, "")


def test_part_of_the_records_is_named_as_in_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`ffem answer --where` and `ffem verify` take some of what `ffem list` names."""
    path = tmp_path / "records.jsonl"
    reported = [r for r in make_reported() if not (r.seed == 2 and r.view.arch.attention.kind == "se")]
    for record in reported:
        append_record(path, record)
    told = run(capsys, "answer", str(path), "--where", "attention.kind=se", "--where", "attention.kind=none")
    names = {row["network"] for row in run(capsys, "list", str(path)) if row["trial_key"] == reported[2].trial_key}
    (lacking,) = [
        note for note in told["notes"] if note.startswith("seeds that other networks have, or folds of the protocol,")
    ]
    assert names == {"SE last, width 1"}, "the refused one is wider"
    assert lacking.endswith("for: SE last, width 1 (seed 2)")

    pairs = tmp_path / "pairs.jsonl"
    others = [build_record(attention={"kind": "eca", "placement": place}) for place in ("first", "all")]
    for record in (*make_folds(), *others):
        append_record(pairs, record)
    verified = run(capsys, "verify", str(pairs), "--out", str(tmp_path / "v"))
    listed = {row["network"] for row in run(capsys, "list", str(pairs))}
    labels = {one["label"] for one in verified["networks"]}
    assert labels < listed
