"""A folder that got one picture more: every command that reads records goes on, with the newest faces, and says so."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record
from PIL import Image, ImageOps

from ffem_jax.cli import main
from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import append_record
from ffem_jax.specs.trial import DataSpec, ProtocolSpec

ATTENTIONS = ({"kind": "none"}, {"kind": "eca"})


def write_faces(root: Path) -> None:
    draw = np.random.default_rng(0)
    for person in ("ada", "bob", "eve"):
        (root / person).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(root / person / f"{number}.png")


def record_networks(path: Path, root: Path, day: int, right: Sequence[int]) -> str:
    """Append a record of each attention on the faces as they are, `right` of them; their fingerprint."""
    data = DataSpec(name="folder", root=str(root), resolution=32)
    faces, split = load_split(data, ProtocolSpec())
    for attention, correct in zip(ATTENTIONS, right, strict=True):
        record = build_record(
            correct=correct,
            tested=len(split.test),
            attention=attention,
            data=dataclasses.asdict(data),
            started_at=f"2026-11-0{day}T00:00:00+00:00",
            data_fingerprint=faces.fingerprint,
            pictures_fingerprint=faces.pictures_fingerprint,
            test_images=split.test.tolist(),
            hits="1" * correct + "0" * (len(split.test) - correct),
        )
        append_record(path, dataclasses.replace(record, trial_key=record.trial_key[:8] + faces.fingerprint[:8]))
    return faces.pictures_fingerprint


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A sweep's folder whose records are of two versions, and the older one's fingerprint."""
    folder = tmp_path_factory.mktemp("edited")
    write_faces(folder / "faces")
    older = record_networks(folder / "records.jsonl", folder / "faces", 1, (1, 2))
    ImageOps.mirror(Image.open(folder / "faces" / "ada" / "0.png")).save(folder / "faces" / "ada" / "9.png")
    (folder / "faces" / "attributes.csv").write_text(
        "path,camera\n" + "".join(f"{p.parent.name}/{p.name},{p.name}\n" for p in folder.glob("faces/*/*.png"))
    )
    record_networks(folder / "records.jsonl", folder / "faces", 2, (5, 6))
    return folder, older


COMMANDS = (["frontier"], ["compare", "--factor", "attention.kind"], ["report"], ["groups"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_the_newest_faces_count_and_it_is_said(edited, command, capsys):
    folder, older = edited
    name, *more = command
    out = {"frontier": ["--out", str(folder / "frontier")], "report": ["--out", str(folder / "report.html")]}
    assert main([name, str(folder), *more, *out.get(name, []), "--json"]) == 0
    printed = capsys.readouterr()
    told = f"2 trials of others are left out, by fingerprint: {older} (2); --faces {older} uses those instead"
    newest = "the newest with a finished training are used"
    assert f"the faces changed while trials of data=folder were recorded; {newest}, and {told}" in printed.err
    found = json.loads(printed.out)
    if name == "frontier":
        assert {n["accuracy"] for n in found["networks"]} == {5 / 6, 1.0}
        assert [told in note for note in found["notes"]] == [True]
        assert told in (folder / "frontier" / "frontier.md").read_text()
    if name == "compare":
        assert (found["rows"][0]["accuracy_first"], found["rows"][0]["accuracy_second"]) == (5 / 6, 1.0)
        assert told in found["notes"][0]
    if name == "report":
        assert (found["done"], told in found["left_out"][0]) == (4, True)
        assert f"--faces {older}" in (folder / "report.html").read_text()
    if name == "groups":
        assert {row["images"] for row in found["groups"]} == {6}


@pytest.mark.parametrize("command", COMMANDS[:3], ids=lambda command: command[0])
def test_others_are_taken_where_they_are_chosen(edited, command, capsys):
    folder, older = edited
    name, *more = command
    out = ["--out", str(folder / "older.html")] if name == "report" else []
    assert main([name, str(folder), *more, *out, "--json", "--faces", older[:6]]) == 0
    printed = capsys.readouterr()
    assert f"2 trials of other faces are left out because of --faces {older[:6]}" in printed.err
    if name == "compare":
        assert json.loads(printed.out)["rows"][0]["accuracy_first"] == 1 / 6


def test_groups_of_faces_that_are_no_longer_there_are_refused(edited, capsys):
    folder, older = edited
    assert main(["groups", str(folder), "--faces", older]) == 2
    told = capsys.readouterr().err
    assert "are not those that 2 of 2 recorded trials were tested on: there are 19 images of 3 people now" in told
    assert "--data-root DIR, or other records with --faces" in told


def test_a_version_that_no_trial_is_of_names_those_there_are(edited, capsys):
    folder, older = edited
    assert main(["frontier", str(folder), "--faces", "zzz"]) == 2
    assert f"--faces zzz: no recorded trial used these; choose one of: {older}, " in capsys.readouterr().err


def test_several_versions_are_several_parts_of_a_mixed_page(edited, capsys):
    folder, _ = edited
    page = folder / "mixed.html"
    assert main(["report", str(folder), "--mixed", "--out", str(page)]) == 0
    assert "left out" not in capsys.readouterr().err
