"""`ffem paper` as it is typed: the page, results on standard output, one line for a mistake, no JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.cli import main
from ffem_jax.data import load_faces
from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import append_record
from ffem_jax.specs.trial import DataSpec, ProtocolSpec

DATA = {"name": "synthetic", "people": 12, "images_per_person": 8, "resolution": 32}


@pytest.fixture
def records(tmp_path, monkeypatch, make_trial):
    """Two networks on two folds of drawn faces, and attributes of these."""
    monkeypatch.chdir(tmp_path)
    for fold in (0, 1):
        protocol = {"name": "kfold", "folds": 2, "fold": fold}
        faces, split = load_split(DataSpec(**DATA), ProtocolSpec(**protocol))
        for name, rate in (("ffem", 0.5), ("ffem_am", 0.9)):
            hits = np.random.default_rng(fold).random(len(split.test)) < rate
            record = make_trial(name, data=DATA, protocol=protocol, pictures_fingerprint=faces.pictures_fingerprint)
            record.test_images, record.hits = split.test.tolist(), "".join("1" if hit else "0" for hit in hits)
            record.correct, record.tested, record.accuracy = int(hits.sum()), len(hits), float(hits.mean())
            append_record("run/records.jsonl", record)
    rows = [f"{name},{'female' if i % 16 < 8 else 'male'},{i / 96}" for i, name in enumerate(faces.names)]
    Path("groups.csv").write_text("\n".join(["path,gender,eyeglasses_probability", *rows]))
    return Path("run")


def ffem(capsys, *words):
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_page_lies_beside_the_records_and_the_answer_is_printed(capsys, records):
    status, out, err = ffem(capsys, "paper", "run")
    assert (status, err) == (0, "page: run/paper/README.md\n")
    assert "SYNTHETIC FACES: recipe modern, 32 x 32" in out
    assert "Recipe modern, 32 x 32: ECA in the first and last bottleneck helps: the difference" in out
    text = Path("run/paper/README.md").read_text()
    assert "Left out: no --attributes FILE.csv was given." in text
    assert "# The paper's tables: synthetic, 32 x 32, 2-fold, 96 test images" in text


def test_groups_and_json(capsys, records):
    words = ["paper", "run", "--attributes", "groups.csv", "--out", "new/page", "--json"]
    status, out, err = ffem(capsys, *words)
    assert (status, err) == (0, "page: new/page/README.md\n")
    printed = json.loads(out)
    assert printed["files"] == ["README.md", "paper.json", "figure7.png", "figure7.svg"]
    (setting,) = printed["settings"]
    assert {(one["network"], one["column"]) for one in setting["groups"]} == {
        (network, column) for network in ("ffem", "ffem_am") for column in ("gender", "eyeglasses_probability")
    }
    text = Path("new/page/README.md").read_text()
    assert "| gender: female | 48 | 6 |" in text
    assert "| unsure of glasses |" in text
    assert str(Path.cwd()) not in text + out


def test_other_faces_leave_table_3_out(capsys, records, make_trial):
    append_record("run/records.jsonl", make_trial("ffem_se", data=DATA, protocol={"name": "kfold", "folds": 2}))
    status, _, err = ffem(capsys, "paper", "run", "--attributes", "groups.csv")
    assert status == 0
    assert "Table 3 is left out: the faces of data=synthetic are not those that 1 of 5 recorded trials" in err
    assert "Left out: the faces of these records were not available" in Path("run/paper/README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RECORDS"),
        (["nowhere"], "nowhere does not exist"),
        (["run", "--attributes", "nowhere.csv"], "--attributes nowhere.csv is not a file"),
        (["run", "--attributes", "empty.csv"], "names no column `path`"),
        (["run", "--attributes", "bare.csv"], "has no column of groups"),
        (["run", "--out", "groups.csv"], "--out DIR"),
        (["empty.jsonl"], "none of 0 recorded trials is of one of the paper's networks"),
        (["empty.jsonl", "--attributes", "groups.csv"], "none of 0 recorded trials is of one of the paper's networks"),
    ],
)
def test_a_mistake_is_one_line(capsys, records, words, message):
    Path("empty.csv").write_text("a,b\n")
    Path("bare.csv").write_text(f"path\n{load_faces(DataSpec(**DATA)).names[0]}\n")
    Path("empty.jsonl").write_text("")
    status, out, err = ffem(capsys, "paper", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("ffem: error: ")
    assert message in line


def test_it_imports_no_jax(records, repository):
    words = ["paper", "run", "--attributes", "groups.csv", "--out", "out"]
    script = (
        "import sys\nfrom ffem_jax.cli import main\n"
        f"status = main({words!r})\n"
        "print([name for name in ('jax', 'flax', 'scipy', 'tensorflow') if name in sys.modules], status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
