"""What looks back at a trial's faces has the very faces, or says what changed: nothing is measured on others."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ffem_jax.cli import main
from ffem_jax.data import DataError
from ffem_jax.data.recorded import FacesChangedError
from ffem_jax.export import ExportError, onnx
from ffem_jax.export.bundle import export_trial
from ffem_jax.export.calibrate import load_training_faces
from ffem_jax.records.record import read_records
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import ArchSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.training.weights import load_pretraining_faces, load_trained_faces, load_trial

ARCH = ArchSpec(
    name="small",
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2)),
    head_channels=0,
    embedding_dim=8,
)
RECIPE = RecipeSpec(epochs=1, batch_size=6)
PEOPLE = {"ada": 6, "bob": 6, "eve": 6}


def write_people(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    draw = np.random.default_rng(seed)
    for person, count in counts.items():
        (root / person).mkdir(parents=True)
        for number in range(1, count + 1):
            Image.fromarray(draw.integers(0, 256, (20, 20, 3), np.uint8)).save(root / person / f"{number}.png")
    return root


def make_trial(root: Path, **more) -> TrialSpec:
    data = DataSpec(name="folder", root=str(root), resolution=16)
    return TrialSpec(arch=ARCH, data=data, protocol=ProtocolSpec(test_per_person=2), recipe=RECIPE, **more)


def train(folder: Path, trial: TrialSpec) -> Path:
    (record,) = run_trials(trial, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return folder / "trial"


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A folder with `people`, `trial` and records.jsonl."""
    folder = tmp_path_factory.mktemp("original")
    train(folder, make_trial(write_people(folder / "people", PEOPLE)))
    return folder


@pytest.fixture
def people(original):
    """The folder that trained, to be edited: it is put back afterwards, and the trial of it."""
    root = original / "people"
    shutil.copytree(root, original / "before")
    yield root
    shutil.rmtree(root, ignore_errors=True)
    (original / "before").rename(root)


@pytest.fixture
def runs_onnx(monkeypatch):
    """Stands for the runtime: something of the right shape, since what it is asked for is the question."""
    asked = []

    def run(folder, pixels):
        asked.append(len(pixels))
        return np.ones((len(pixels), 8), np.float32), "a stand-in"

    monkeypatch.setattr(onnx, "run", run)
    return asked


def add_a_person(root: Path) -> str:
    (root / "aaron").mkdir()
    for path in sorted((root / "ada").iterdir()):
        ImageOps.flip(Image.open(path)).save(root / "aaron" / path.name)
    return "there are 24 images of 4 people now, and there were 18 of 3"


def exchange_everybody(root: Path) -> str:
    shutil.rmtree(root)
    write_people(root, PEOPLE, seed=9)
    return "there are 18 images of 3 people as before, but other pictures, other labels or another order"


def drop_a_picture(root: Path) -> str:
    (root / "ada" / "1.png").unlink()
    return "there are 17 images of 3 people now, and there were 18 of 3"


def file_a_picture_elsewhere(root: Path) -> str:
    (root / "ada" / "1.png").rename(root / "bob" / "0.png")
    return "as before, but other pictures, other labels or another order"


EDITS = [add_a_person, exchange_everybody, drop_a_picture, file_a_picture_elsewhere]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_folder_is_measured_by_nothing(original, people, runs_onnx, tmp_path, edit):
    told = edit(people)
    with pytest.raises(FacesChangedError, match=f"are not those that trained the network: .*{told}"):
        load_trained_faces(load_trial(original / "trial"))
    manifest = export_trial(original / "trial", "onnx", "float32", tmp_path / "out")
    assert (manifest["thresholds"], manifest["accuracy"], manifest["parity"]["ran"]) == ({}, None, False)
    assert told in manifest["parity"]["reason"]
    assert runs_onnx == []
    with pytest.raises(ExportError, match=told):
        export_trial(original / "trial", "onnx", "int8_activations", tmp_path / "calibrated")
    with pytest.raises(ExportError, match=told):
        export_trial(original / "trial", "onnx", "int8", tmp_path / "tuned", finetune_epochs=1)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_very_faces_are_measured_wherever_they_lie_now(original, people, runs_onnx, tmp_path, capsys):
    finished = load_trial(original / "trial")
    before = original / "before"
    drop_a_picture(people)
    assert len(load_training_faces(finished, str(before))) == 12
    command = ["export", str(original / "trial"), "--format", "onnx", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "not those that trained the network" in capsys.readouterr().err
    assert main([*command, "--data-root", str(before)]) == 0
    assert "not run" not in capsys.readouterr().err
    assert runs_onnx == [6]
    assert json.loads((tmp_path / "out" / "export.json").read_text())["accuracy"]["images"] == 6


@pytest.mark.parametrize("edit", EDITS)
def test_a_trial_of_before_its_folder_said_so_is_judged_by_its_key(original, people, edit):
    finished = load_trial(original / "trial")
    older = dataclasses.replace(finished, faces=type(finished.faces)())
    assert len(load_trained_faces(older)[0].images) == 18
    edit(people)
    with pytest.raises(FacesChangedError, match="how many there were is not recorded"):
        load_trained_faces(older)


def test_a_weights_file_of_before_reads_still(original, tmp_path):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    (path,) = folder.glob("weights-*.npz")
    with np.load(path) as file:
        arrays = dict(file)
    facts = json.loads(str(arrays["trial"]))
    assert facts.pop("faces")[0]["images"] == 18
    arrays["trial"] = np.array(json.dumps(facts))
    np.savez(path, **arrays)
    assert len(load_trained_faces(load_trial(folder))[1].test) == 6


def test_the_faces_of_a_pretraining_are_known_too(tmp_path):
    others = write_people(tmp_path / "others", {"kim": 4, "lee": 4}, seed=5)
    first = PretrainSpec(
        name="others",
        data=DataSpec(name="folder", root=str(others), resolution=16),
        protocol=ProtocolSpec(test_per_person=1),
        recipe=RECIPE,
    )
    trial = make_trial(write_people(tmp_path / "people", PEOPLE), pretrain=first)
    finished = load_trial(train(tmp_path, trial))
    (record,) = read_records(tmp_path / "records.jsonl")
    assert record.pretraining_fingerprint == finished.pretraining_faces.fingerprint
    assert len(load_pretraining_faces(finished)[0].images) == 8
    (others / "kim" / "1.png").unlink()
    with pytest.raises(FacesChangedError, match="not those that pretrained the network"):
        load_pretraining_faces(finished)
    assert len(load_trained_faces(finished)[0].images) == 18
    older = dataclasses.replace(finished, faces=type(finished.faces)(), pretraining_faces=type(finished.faces)())
    with pytest.raises(FacesChangedError, match="or those of its pretraining are not"):
        load_trained_faces(older)
    with pytest.raises(DataError, match="which faces the pretraining saw is not recorded"):
        load_pretraining_faces(older)


def test_a_folder_edited_while_a_process_lives_is_another(tmp_path):
    """In a notebook, say: what was loaded before is not taken for what is there now."""
    trial = make_trial(write_people(tmp_path / "people", PEOPLE))
    train(tmp_path, trial)
    drop_a_picture(tmp_path / "people")
    train(tmp_path, trial)
    first, second = read_records(tmp_path / "records.jsonl")
    assert first.trial_key != second.trial_key
    assert (first.train_images, second.train_images) == (12, 11)
