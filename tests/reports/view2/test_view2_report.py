"""What `ffem verify` leaves: figure, JSON, Markdown, and one line where there is nothing to put together."""

from __future__ import annotations

import json

import pytest

from ffem_jax.cli import main
from ffem_jax.records.record import append_record
from ffem_jax.reports.view2 import write_view2


@pytest.fixture
def records(make_fold):
    spread = [0.05 + 0.009 * step for step in range(100)]
    return [
        make_fold(fold, spread[:50], spread[30:80], correct=80 + fold, attention=attention)
        for attention in ("none", "eca")
        for fold in range(4 if attention == "none" else 3)
    ]


def test_the_files_say_what_was_found(records, tmp_path):
    report = write_view2(records, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in report.files)
    assert json.loads((tmp_path / "out" / "verification.json").read_text()) == report.to_dict()
    networks = report.to_dict()["networks"]
    assert networks[0]["accuracy"] == pytest.approx(0.815)
    assert networks[1]["missing"] == [3]
    text = (tmp_path / "out" / "verification.md").read_text()
    assert "81.5 ± 0.6 %" in text
    assert "missing folds 3 (`protocol.fold=3`)" in text
    assert text.count("Not View 2's result yet") == 1
    assert "synthetic" not in text.lower()


def test_the_figure_is_the_same_again_and_leaves_matplotlib_as_it_was(records, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    for name in ("a", "b"):
        write_view2(records, tmp_path / name)
    assert dict(matplotlib.rcParams) == before
    for ending in ("png", "svg"):
        assert (tmp_path / "a" / f"roc.{ending}").read_bytes() == (tmp_path / "b" / f"roc.{ending}").read_bytes()


def test_drawn_faces_are_named_so(records, tmp_path):
    for record in records:
        record.synthetic = True
    write_view2(records, tmp_path)
    assert "Synthetic faces" in (tmp_path / "verification.md").read_text()


def test_the_command_prints_json_or_a_table(records, tmp_path, capsys):
    for record in records:
        append_record(tmp_path / "runs" / "records.jsonl", record)
    assert main(["verify", str(tmp_path / "runs"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["networks"]) == 2
    assert err == ""
    assert (tmp_path / "runs" / "verification" / "roc.png").exists()
    assert main(["verify", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "81.5 ± 0.6 %" in out
    assert "folds 3 are missing" in err
    assert main(["frontier", str(tmp_path / "runs"), "--out", str(tmp_path / "runs" / "frontier")]) == 0
    text = (tmp_path / "runs" / "frontier" / "frontier.md").read_text()
    assert "verification accuracy on the pairs" in text
    assert "test pairs" in text


def test_nothing_to_put_together_is_one_line(tmp_path, capsys):
    (tmp_path / "records.jsonl").write_text("")
    assert main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("ffem: error: no fold of View 2 is recorded as done")
