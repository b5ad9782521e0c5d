"""What looks back at a trial's faces has the very faces, or says what changed: nothing is measured on others."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax import nnx
from made_people import write_people
from made_trials import SMALL
from PIL import Image, ImageOps

from ffem_jax.cli import main
from ffem_jax.data import DataError
from ffem_jax.data.recorded import FacesChangedError, KnownFaces
from ffem_jax.export import ExportError, onnx
from ffem_jax.export.bundle import export_trial
from ffem_jax.export.calibrate import load_training_faces
from ffem_jax.records.record import read_records
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec, to_plain
from ffem_jax.training.weights import (
    TrialFolderError,
    load_pretraining_faces,
    load_trained_faces,
    load_trial,
    save_weights,
)

RECIPE = RecipeSpec(epochs=1, batch_size=6)
PEOPLE = {"ada": 6, "bob": 6, "eve": 6}


def make_trial(root: Path, **more) -> TrialSpec:
    data = DataSpec(name="folder", root=str(root), resolution=16)
    return TrialSpec(arch=SMALL, data=data, protocol=ProtocolSpec(test_per_person=2), recipe=RECIPE, **more)


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
    return "there are 24 images of 4 people now, but there were 18 of 3"


def exchange_everybody(root: Path) -> str:
    shutil.rmtree(root)
    write_people(root, PEOPLE, seed=9)
    return "there are 18 images of 3 people as before, but images, labels or their order have changed"


def drop_a_picture(root: Path) -> str:
    (root / "ada" / "1.png").unlink()
    return "there are 17 images of 3 people now, but there were 18 of 3"


def file_a_picture_elsewhere(root: Path) -> str:
    (root / "ada" / "1.png").rename(root / "bob" / "0.png")
    return "as before, but images, labels or their order have changed"


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
    with pytest.raises(FacesChangedError, match="their earlier number is not recorded"):
        load_trained_faces(older)


def test_a_weights_file_of_before_reads_still(original, tmp_path):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    path, facts, arrays = read_weights_file(folder)
    assert facts.pop("faces")[0]["images"] == 18
    safetensors.numpy.save_file(arrays, path, {"trial": json.dumps(facts)})
    assert len(load_trained_faces(load_trial(folder))[1].test) == 6


def read_weights_file(folder: Path) -> tuple[Path, dict, dict]:
    """Its path, its facts, its arrays, as any tool reads them."""
    (path,) = folder.glob("weights-*.safetensors")
    with safetensors.safe_open(path, "np") as file:
        return path, json.loads(file.metadata()["trial"]), safetensors.numpy.load_file(path)


def write_as_before(path: Path, facts: dict, arrays: dict) -> Path:
    """The .npz of older versions, by the lines that wrote it."""
    old = path.with_suffix(".npz")
    with open(old, "wb") as file:
        np.savez(file, **{"trial": np.array(json.dumps(facts))}, **arrays)
    return old


def list_weights(finished) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(finished.classifier))]


def test_a_weights_file_says_whose_it_is_and_any_reader_of_the_format_reads_it(original):
    path, facts, arrays = read_weights_file(original / "trial")
    finished = load_trial(original / "trial")
    assert path.name == f"weights-{finished.key}.safetensors"
    assert facts["key"] == finished.key
    assert facts["spec"] == to_plain(finished.trial)
    assert [KnownFaces(**row) for row in facts["faces"]] == [finished.faces, finished.pretraining_faces]
    assert {name.split("/")[0] for name in arrays} == {"params", "statistics"}
    assert all(array.dtype == np.float32 for array in arrays.values())
    assert sum(array.size for array in arrays.values()) == sum(leaf.size for leaf in list_weights(finished))


def test_the_file_of_an_older_version_is_the_same_trial(original, tmp_path):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # which is read where there are no weights
    path, facts, arrays = read_weights_file(folder)
    write_as_before(path, facts, arrays)
    path.unlink()
    old, new = load_trial(folder), load_trial(original / "trial")
    assert (old.key, old.trial, old.faces) == (new.key, new.trial, new.faces)
    for a, b in zip(list_weights(old), list_weights(new), strict=True):
        np.testing.assert_array_equal(a, b)


def test_of_both_files_the_newer_format_counts_and_writing_it_removes_the_other(original, tmp_path):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    path, facts, arrays = read_weights_file(folder)
    old = write_as_before(path, {**facts, "faces": []}, {name: array + 1 for name, array in arrays.items()})
    finished = load_trial(folder)
    assert finished.faces.images == 18
    np.testing.assert_array_equal(list_weights(finished)[0], list_weights(load_trial(original / "trial"))[0])
    tree = {"params": {}, "statistics": {}}
    for name, array in arrays.items():
        part, rest = name.split("/", 1)
        tree[part][rest] = array
    save_weights(folder, facts["key"], facts["spec"], **tree, known=[finished.faces, finished.pretraining_faces])
    assert not old.exists()
    assert not list(folder.glob("*.partial"))
    np.testing.assert_array_equal(list_weights(load_trial(folder))[0], list_weights(finished)[0])


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("spoil", ["cut", "other", "empty", "no facts"])
def test_a_weights_file_that_cannot_be_read_is_named(original, tmp_path, suffix, spoil):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    path, facts, arrays = read_weights_file(folder)
    if suffix == ".npz":
        path.unlink()
        path = write_as_before(path, facts, arrays)
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-1000], "other": b"no weights at all", "empty": b"", "no facts": content}[spoil])
    if spoil == "no facts":
        if suffix == ".npz":
            np.savez(path, **arrays)
        else:
            safetensors.numpy.save_file(arrays, path)
    with pytest.raises(TrialFolderError, match=f"{path.name} cannot be read: ") as error:
        load_trial(folder)
    assert "\n" not in str(error.value)


def test_a_disk_that_fills_leaves_the_weights_there_were(original, tmp_path, monkeypatch):
    folder = shutil.copytree(original / "trial", tmp_path / "trial")
    path, facts, _ = read_weights_file(folder)
    before = path.read_bytes()

    def fill(_number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fill)
    with pytest.raises(OSError, match="No space left"):
        save_weights(folder, facts["key"], facts["spec"], {"a": np.zeros(3, np.float32)}, {})
    assert path.read_bytes() == before
    assert load_trial(folder).key == facts["key"]


@pytest.mark.slow
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
    with pytest.raises(DataError, match="the faces of the pretraining are not recorded"):
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
