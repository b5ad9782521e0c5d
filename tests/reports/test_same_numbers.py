"""One thing has one number: in every command's JSON, in its tables and sentences, and on the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record
from made_reports import IMAGES, TESTED, make_reported, read_page, run, write_reported

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.groups import choose_records, compute_groups
from ffem_jax.cli import main
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.reports.comparison import format_interval
from ffem_jax.reports.frontier import compute_frontier

TEMPLATE = Path(__file__).resolve().parents[2] / "ffem_jax" / "reports" / "html" / "template"


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    return write_reported(tmp_path)


def test_every_command_says_the_same(records_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    frontier = run(capsys, "frontier", str(records_file))
    compared = run(capsys, "compare", str(records_file), "--factor", "attention.kind")
    run(capsys, "report", str(records_file), "--out", str(tmp_path / "page.html"))
    payload = read_page(tmp_path / "page.html")
    (group,) = payload["groups"]
    records = make_reported()
    columns, people = {"half": np.array(["a", "b"] * (IMAGES // 2))}, np.arange(IMAGES) % 40
    grouped = compute_groups(choose_records(records), columns, people, among=records)

    distinct = len({image for record in records for image in record.test_images})
    assert distinct > TESTED
    trained = [network for network in frontier["networks"] if network["status"] == "done"]
    # Distinct test images, in the number, in the interval and in the title.
    assert {network["tested"] for network in trained} == {distinct}
    assert {one.images for one in grouped} == {distinct}
    assert {row["images"] for row in compared["rows"]} == {distinct}
    assert {n["rates"]["accuracy"][4] for n in group["networks"] if n["rates"]} == {distinct}
    assert frontier["title"] == group["title"] == compared["title"]
    assert f", {distinct} test images" in frontier["title"]
    for network in trained:
        rate, low, high = (network[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
        assert (low, high) == pytest.approx(compute_wilson_interval(rate * distinct, distinct))
    # The networks, their names and their rates.
    by_label = {network["label"]: network for network in group["networks"]}
    assert by_label.keys() == {network["label"] for network in frontier["networks"]}
    assert {one.network for one in grouped} == {network["label"] for network in trained}
    for network in trained:
        rates = by_label[network["label"]]["rates"]["accuracy"]
        expected = [network[name] for name in ("accuracy", "accuracy_low", "accuracy_high")]
        assert rates[:3] == pytest.approx(expected, abs=1e-9)
    accuracies = {network["attention"]: network["accuracy"] for network in trained}
    for row in compared["rows"]:
        assert row["accuracy_first"] == pytest.approx(accuracies[row["first"]])
        assert row["difference"] == pytest.approx(accuracies[row["second"]] - accuracies[row["first"]])
    # The differences, as they are written.
    (entry,) = [one for one in group["comparisons"] if one["factor"] == "attention.kind"]
    rows = compare_records(make_reported(), "attention.kind").rows
    assert [row["points"] for row in entry["rows"]] == [format_interval(row) for row in rows]
    assert [row["sentence"] for row in entry["rows"]] == [row["sentence"] for row in compared["rows"]]
    assert [row["shown"] for row in entry["rows"]] == [row["shown"] for row in compared["rows"]]
    # The cap is the sweep's.
    assert (frontier["cap_mb"], group["cap_mb"], frontier["precision"]) == (2.185, 2.185, "float32")
    assert {network["chance"] for network in trained} == {group["chance"]} == {1 / 40}


def test_some_trials_that_name_no_images_take_none_away(make_record) -> None:
    """Two seeds name 259 images between them; a third, of an older release, knows its number alone."""
    named = [r for r in make_reported() if r.status == "done"]
    distinct = len({image for record in named for image in record.test_images})
    named[0].test_images = []
    assert TESTED < compute_frontier(named).networks[0].tested <= distinct


def test_the_page_rounds_as_the_commands_do() -> None:
    if not shutil.which("node"):
        pytest.skip("no node")
    script = (TEMPLATE / "data.js").read_text(encoding="utf-8")
    fixed = re.search(r"function fixed\(.*?\n}\n", script, re.DOTALL)
    assert fixed
    values = [*(count / 80 * 100 for count in range(-80, 81)), 1.15, 2.125, 2.375, 0.05, 99.95, 1e-9, 0.0]
    words = f"{fixed[0]}; console.log(JSON.stringify({values}.map((v) => [fixed(v, 1), fixed(v, 2)])))"
    found = json.loads(subprocess.run(["node", "-e", words], capture_output=True, text=True, check=True).stdout)
    # JSON and JavaScript know one nought.
    assert found == [[f"{v:.1f}".replace("-0.0", "0.0") if not v else f"{v:.1f}", f"{v:.2f}"] for v in values]
    # No other rounding of what is shown as a number of a network.
    assert "toFixed" not in script.replace(fixed[0], "").split("// Round like Python", 1)[0]


# -------------------------------------------------------------------------------- nothing by the way


def test_to_look_writes_nothing(records_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["frontier"],
        ["frontier", "--cap-mb", "2.13", "--precision", "int8"],
        ["compare", "--factor", "attention.kind"],
    ):
        assert main([*words, str(records_file)]) == 0
    assert {path.name for path in records_file.parent.iterdir()} <= {"records.jsonl", "records.jsonl.lock"}


@pytest.mark.parametrize(
    ("command", "name"), [("report", "report.html"), ("paper", "paper"), ("verify", "verification")]
)
def test_what_a_sweep_wrote_is_replaced_only_by_name(
    records_file: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    there = records_file.parent / name
    there.write_text("of the sweep")
    assert main([command, str(records_file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{there} already exists" in line
    assert "--out" in line
    assert there.read_text() == "of the sweep"


# ------------------------------------------------------------------------------------------ chance


def test_networks_at_chance_are_told_to_train_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_reported(tmp_path, people=12, rates={"none": 0.083, "eca": 0.09, "se": 0.07})
    assert main(["frontier", str(path), "--out", str(tmp_path / "out")]) == 0
    sentence = "All 3 networks are at chance (8.3 %): train longer"
    assert sentence in capsys.readouterr().err
    text = (tmp_path / "out" / "frontier.md").read_text()
    assert sentence in text
    assert "The highest accuracy" not in text
    assert "chance 8.3 %" in (tmp_path / "out" / "frontier.svg").read_text()
    run(capsys, "report", str(path), "--out", str(tmp_path / "page.html"))
    (group,) = read_page(tmp_path / "page.html")["groups"]
    assert group["answer"][0].startswith(sentence)


def test_networks_above_chance_are_not(tmp_path: Path, records_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", str(records_file), "--out", str(tmp_path / "out")]) == 0
    assert "at chance" not in capsys.readouterr().err
    assert "chance 2.5" not in (tmp_path / "out" / "frontier.svg").read_text(), "far below all: it would squeeze them"
    (one,) = compute_frontier([build_record(people=0, correct=1)]).networks
    assert one.chance is None
    assert one.above_chance


# ------------------------------------------------------------------------------------------- where


def test_every_report_takes_conditions(records_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = run(capsys, "frontier", str(records_file), "--where", "attention.kind=eca")
    assert {network["attention"] for network in found["networks"]} == {"eca"}
    words = ["--factor", "attention.kind", "--where", "attention.kind=eca", "--where", "attention.kind=none"]
    (row,) = run(capsys, "compare", str(records_file), *words)["rows"]
    assert (row["first"], row["second"]) == ("none", "eca")
    page = str(tmp_path / "one.html")
    assert run(capsys, "report", str(records_file), "--out", page, "--where", "seed=1")["done"] == 3
    for command in (["frontier"], ["compare", "--factor", "seed"], ["report", "--out", page]):
        assert main([*command, str(records_file), "--where", "attention.kind=nobody"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "choose one of: " in line
