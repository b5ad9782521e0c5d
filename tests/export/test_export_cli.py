"""`ffem export` from a trained folder to files: what is written, what it says, and what is refused."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from made_trials import SMALL

from ffem_jax.cli import main
from ffem_jax.cli.export import describe
from ffem_jax.data.protocols import load_split
from ffem_jax.export import NotRunError, bundle, parity, tfjs
from ffem_jax.export.bundle import export_trial
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import AttentionSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.training.weights import TrialFolderError, load_trial

TRIAL = TrialSpec(
    arch=dataclasses.replace(SMALL, attention=AttentionSpec(kind="eca")),
    data=DataSpec(name="synthetic", people=3, images_per_person=8, resolution=16, crop=0.9),
    protocol=ProtocolSpec(test_per_person=2),
    recipe=RecipeSpec(epochs=3, batch_size=6),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (record,) = run_trials(TRIAL, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return folder / "trial", record


@pytest.fixture
def run_by_the_network(finished, monkeypatch):
    """Stands for Node: computes what the file should, by the network itself."""
    trained = load_trial(finished[0])

    def run(folder, pixels):
        assert (folder / "model.json").exists()
        return parity.embed(trained, np.rint((pixels + 1) * 127.5).astype(np.uint8)), "a stand-in"

    monkeypatch.setattr(tfjs, "run", run)


def test_export_json_says_what_the_files_are_and_how_to_feed_them(finished, run_by_the_network, tmp_path):
    folder, record = finished
    manifest = export_trial(folder, "tfjs", "float16", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == manifest
    assert (manifest["version"], manifest["trial_key"], manifest["network"]) == (1, record.trial_key, "small")
    assert (manifest["format"], manifest["dtype"], manifest["synthetic"]) == ("tfjs", "float16", True)
    assert [file["name"] for file in manifest["files"]] == ["model.json", "weights.bin"]
    for file in manifest["files"]:
        content = (tmp_path / "out" / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest["bytes"] == sum(file["bytes"] for file in manifest["files"])
    assert (manifest["cap_bytes"], manifest["fits_cap"]) == (10_000_000, True)
    assert manifest["input"] == {
        "name": "pixels", "shape": [1, 16, 16, 3], "dtype": "float32", "scale": 1 / 127.5, "offset": -1.0,
    }  # fmt: skip
    assert manifest["crop"] == {
        "fraction": 0.9, "of": "shorter_side", "anchor": "centre", "fit": "crop", "resize": "pillow_bilinear",
        "resolution": 16,
    }  # fmt: skip
    assert manifest["output"] == {
        "name": "embedding", "length": 8, "normalized": False, "average_with_mirror": False,
    }  # fmt: skip
    assert list(manifest["thresholds"]) == ["0.1", "0.01", "0.001"]


def test_every_dtype_and_format_of_a_trial_has_one_model_id(finished, run_by_the_network, tmp_path):
    ids = {export_trial(finished[0], "tfjs", dtype, tmp_path / dtype)["model_id"] for dtype in ("float32", "uint8")}
    assert len(ids) == 1


def test_accuracy_is_that_of_the_record_and_of_the_file(finished, run_by_the_network, tmp_path):
    folder, record = finished
    accuracy = export_trial(folder, "tfjs", "float32", tmp_path)["accuracy"]
    assert (accuracy["measure"], accuracy["images"]) == ("classifier", record.tested)
    assert (accuracy["reference"], accuracy["exported"]) == (record.accuracy, record.accuracy)
    assert accuracy["gallery"]["reference"] == record.accuracy_gallery
    assert (accuracy["change"], accuracy["answers_changed"]) == (0, 0)


def test_a_record_with_mirrored_faces_is_said_to_be_one(finished, run_by_the_network, tmp_path):
    manifest = export_trial(finished[0], "tfjs", "float32", tmp_path)
    assert not any("mirror" in line for line in describe(manifest))
    manifest["output"]["average_with_mirror"] = True
    assert "embedded once here; the trial's record averages it with its mirror image" in describe(manifest)[-1]


def test_a_file_that_computes_something_else_is_told(finished, monkeypatch, tmp_path):
    generator = np.random.default_rng(0)
    monkeypatch.setattr(tfjs, "run", lambda _, pixels: (generator.normal(size=(len(pixels), 8)), "noise"))
    manifest = export_trial(finished[0], "tfjs", "float32", tmp_path)
    assert manifest["parity"]["cosine_lowest"] < 0.5
    assert manifest["accuracy"]["answers_changed"] > 0
    assert manifest["accuracy"]["exported"] != manifest["accuracy"]["reference"]


def test_without_the_runtime_the_file_is_written_and_said_not_to_have_been_run(finished, monkeypatch, tmp_path, capsys):
    def refuse(*_):
        raise NotRunError("Node is not installed")

    monkeypatch.setattr(tfjs, "run", refuse)
    words = ["export", str(finished[0]), "--format", "tfjs", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "small (model " in out
    assert "accuracy" not in out
    assert "not run: Node is not installed" in err
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["parity"] == {"ran": False, "reason": "Node is not installed"}
    assert manifest["accuracy"] is None


def test_without_the_faces_the_file_is_written_and_said_not_to_have_been_run(finished, monkeypatch, tmp_path):
    def refuse(*_):
        raise bundle.DataError("no such folder")

    monkeypatch.setattr(bundle, "load_trained_faces", refuse)
    manifest = export_trial(finished[0], "tfjs", "float32", tmp_path)
    assert manifest["parity"] == {"ran": False, "reason": "the trial's faces: no such folder"}


def test_the_command_prints_sizes_and_json(finished, run_by_the_network, tmp_path, capsys):
    words = ["export", str(finished[0]), "--format", "tfjs", "--out", str(tmp_path / "out")]
    assert main([*words, "--cap-mb", "0.001"]) == 0
    out = capsys.readouterr().out
    assert "is over the cap of 0.001 MB" in out
    assert "0 of 6 answers changed" in out
    assert "(synthetic faces)" in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits_cap"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{empty}", "--format", "tfjs"], "holds no trial.json"),
        (["{trial}", "--format", "tfjs", "--dtype", "int8"], "tfjs cannot store weights as int8"),
        (["{trial}", "--format", "tfjs", "--seed", "7"], "holds the seeds 0; choose one of them with --seed"),
        (["{trial}", "--format", "tfjs", "--out", "{trial}"], "name a new folder with --out"),
        (["{trial}", "--format", "coreml"], "invalid choice: 'coreml'"),
        (["{trial}"], "--format"),
    ],
)
def test_a_mistake_is_one_line(finished, tmp_path, capsys, words, told):
    (tmp_path / "empty").mkdir()
    places = {"trial": str(finished[0]), "empty": str(tmp_path / "empty")}
    words = [word.format(**places) for word in words]
    words += [] if "--out" in words else ["--out", str(tmp_path / "out")]
    assert main(["export", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]


def test_another_export_takes_the_place_of_the_first(finished, run_by_the_network, tmp_path):
    out = tmp_path / "out"
    export_trial(finished[0], "tfjs", "float32", out)
    manifest = json.loads((out / "export.json").read_text())
    (out / "weights-0.bin").write_text("of an older form")
    manifest["files"].append({"name": "weights-0.bin"})
    (out / "export.json").write_text(json.dumps(manifest))
    export_trial(finished[0], "tfjs", "float16", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "export.json", "model.json", "weights.bin",
    ]  # fmt: skip


def test_a_trial_without_its_weights_file_is_read_from_its_checkpoint(finished, tmp_path):
    folder, record = finished
    shutil.copytree(folder, tmp_path / "trial")
    (tmp_path / "trial" / f"weights-{record.trial_key}.safetensors").unlink()
    faces, _ = load_split(TRIAL.data, TRIAL.protocol)
    found, expected = (parity.embed(load_trial(place), faces.images) for place in (tmp_path / "trial", folder))
    np.testing.assert_array_equal(found, expected)
    shutil.rmtree(tmp_path / "trial" / "checkpoint")
    with pytest.raises(TrialFolderError, match="holds no weights"):
        load_trial(tmp_path / "trial")


@pytest.mark.slow
def test_of_several_seeds_each_is_exported_by_its_number(tmp_path):
    recipe = dataclasses.replace(TRIAL.recipe, epochs=1)
    run = RunSpec(progress=False, seeds=(3, 4))
    records = run_trials(dataclasses.replace(TRIAL, recipe=recipe), run, tmp_path / "t", tmp_path / "records.jsonl")
    with pytest.raises(TrialFolderError, match="holds the seeds 3, 4"):
        load_trial(tmp_path / "t")
    faces, split = load_split(TRIAL.data, TRIAL.protocol)
    found = [load_trial(tmp_path / "t", seed) for seed in (3, 4)]
    assert [trial.key for trial in found] == [record.trial_key for record in records]
    for trial, record in zip(found, records, strict=True):
        embeddings = parity.embed(trial, faces.images[split.test])
        kernel, bias = parity.compute_class_weights(trial)
        hits = (embeddings @ kernel + bias).argmax(axis=1) == faces.labels[split.test]
        assert "".join("01"[int(hit)] for hit in hits) == record.hits
    for path in (tmp_path / "t").glob("weights-*.safetensors"):
        path.unlink()
    for trial, seed in zip(found, (3, 4), strict=True):
        again = load_trial(tmp_path / "t", seed)
        np.testing.assert_array_equal(*(parity.embed(each, faces.images[:4]) for each in (trial, again)))
