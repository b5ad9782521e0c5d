"""`ffem compare` and `ffem groups` as they are typed: results on standard output, one line for a mistake, no JAX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.cli import main
from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, TrialSpec, to_plain, trial_key

DATA = DataSpec(name="synthetic", people=12, images_per_person=8, resolution=32)


def write_record(path: Path, kind: str, rate: float, data: DataSpec = DATA) -> None:
    """Append a record of a network that was never trained and is right as often as `rate` says."""
    trial = TrialSpec(
        arch=ArchSpec(attention=AttentionSpec(kind=kind)), data=data, protocol=ProtocolSpec(test_per_person=6)
    )
    faces, split = load_split(trial.data, trial.protocol)
    hits = np.random.default_rng(3).random(len(split.test)) < rate
    record = TrialRecord(trial_key(trial), to_plain(trial), trial.seed, "done", bytes_float32=8_800_000)
    record.arch, record.data, record.resolution = trial.arch.name, data.name, data.resolution
    record.synthetic, record.data_fingerprint = faces.synthetic, faces.fingerprint
    record.pictures_fingerprint, record.test_images = faces.pictures_fingerprint, split.test.tolist()
    record.hits = "".join("1" if hit else "0" for hit in hits)
    record.correct, record.tested, record.accuracy = int(hits.sum()), len(hits), float(hits.mean())
    append_record(path, record)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "records.jsonl"
    write_record(path, "none", 0.5)
    write_record(path, "eca", 0.9)
    return path


def ffem(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_compare_prints_a_table_and_what_may_be_said(capsys: pytest.CaptureFixture[str], records: Path) -> None:
    status, out, err = ffem(capsys, "compare", "run", "--factor", "attention.kind")
    assert (status, err) == (0, "")
    assert "SYNTHETIC FACES: what attention.kind changes: synthetic, 32 x 32, holdout, 72 test images" in out
    assert "eca - none" in out
    assert out.splitlines()[-1].startswith("- Attention kind `eca` is ")
    assert sorted(path.name for path in Path("run").iterdir()) == ["records.jsonl", "records.jsonl.lock"]


def test_compare_writes_what_it_is_asked_to(capsys: pytest.CaptureFixture[str], records: Path) -> None:
    status, out, err = ffem(capsys, "compare", str(records), "--factor", "attention.kind", "--json", "--out", "new/out")
    assert (status, err) == (0, "comparison: new/out\n")
    printed = json.loads(out)
    assert printed == json.loads(Path("new/out/compare.json").read_text())
    assert (printed["factor"], printed["synthetic"], len(printed["rows"])) == ("attention.kind", True, 1)
    assert printed["rows"][0]["shown"] is True
    assert {path.suffix for path in Path("new/out").iterdir()} == {".md", ".json", ".png", ".svg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run"], "--factor"),
        (["run", "--factor", "atention.kind"], "choose one of: attention.kind"),
        (["nowhere", "--factor", "attention.kind"], "nowhere does not exist"),
        (["run", "--factor", "attention.kind", "--out", "run/records.jsonl"], "--out DIR"),
    ],
)
def test_compare_says_what_is_wrong_in_one_line(
    capsys: pytest.CaptureFixture[str], records: Path, words: list[str], message: str
) -> None:
    status, out, err = ffem(capsys, "compare", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("ffem: error: ")
    assert message in line


def test_groups_of_the_attributes_that_come_with_the_faces(capsys: pytest.CaptureFixture[str], records: Path) -> None:
    status, out, err = ffem(capsys, "groups", "run", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["synthetic"] is True
    assert {(one["network"], one["column"]) for one in found["groups"]} == {
        (network, column) for network in ("no attention", "ECA") for column in ("glasses", "occlusion")
    }
    for one in found["groups"]:
        assert sum(group["images"] for group in one["groups"]) == one["images"] == 72
    status, out, err = ffem(capsys, "groups", "run", "--by", "glasses")
    assert "SYNTHETIC FACES: synthetic" in out
    assert "- ECA by glasses: " in out


def test_groups_of_a_file_and_a_folder_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    names = [f"person{person}/{image}.png" for person in range(12) for image in range(8)]
    for name in names:
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / "faces" / name)
    data = DataSpec(name="folder", root=str(tmp_path / "faces"), resolution=32)
    write_record(tmp_path / "records.jsonl", "none", 0.8, data)
    rows = [f"{name},{'old' if int(name[6:].split('/')[0]) % 2 else 'young'}" for name in names[:-8]]
    (tmp_path / "people.csv").write_text("\n".join(["path,age", *rows]))
    words = ["groups", str(tmp_path / "records.jsonl"), "--attributes", str(tmp_path / "people.csv"), "--json"]
    status, out, err = ffem(capsys, *words)
    assert (status, err) == (0, "")
    (one,) = json.loads(out)["groups"]
    assert [(g["name"], g["images"], g["people"]) for g in one["groups"]] == [("old", 30, 5), ("young", 36, 6)]
    assert (one["unknown"], one["gap"]["drawn"]) == (6, "people")
    assert "person" not in out.replace("people", "")
    # The pictures moved, which changes nothing; then one is another picture.
    (tmp_path / "faces").rename(tmp_path / "moved")
    assert ffem(capsys, *words)[0] == 2
    assert ffem(capsys, *words, "--data-root", str(tmp_path / "moved"))[1] == out
    Image.new("RGB", (16, 16)).save(tmp_path / "moved" / names[0])
    status, _, err = ffem(capsys, *words, "--data-root", str(tmp_path / "moved"))
    assert status == 2
    assert "are not those that 1 of 1 recorded trials were tested on" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "beard"], "there is no column 'beard'; choose one of: glasses, occlusion"),
        (["--attributes", "nowhere.csv"], "--attributes nowhere.csv is not a file"),
        (["--attributes", "empty.csv"], "names no column `path`"),
    ],
)
def test_groups_says_what_is_wrong_in_one_line(
    capsys: pytest.CaptureFixture[str], records: Path, words: list[str], message: str
) -> None:
    Path("empty.csv").write_text("a,b\n")
    status, out, err = ffem(capsys, "groups", "run", *words)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("ffem: error: ")
    assert message in line


@pytest.mark.parametrize("words", [["compare", "run", "--factor", "attention.kind", "--out", "out"], ["groups", "run"]])
def test_neither_imports_jax(records: Path, repository: Path, words: list[str]) -> None:
    script = (
        "import sys\nfrom ffem_jax.cli import main\n"
        f"status = main({words!r})\n"
        "print([name for name in ('jax', 'flax', 'scipy', 'tensorflow') if name in sys.modules], status)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
