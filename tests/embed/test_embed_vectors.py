"""`ffem embed`: vectors are the exported network's, and go where they are asked to."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffem_jax.data.preprocessing import crop_face
from ffem_jax.embed import embed_folder
from ffem_jax.export import onnx
from ffem_jax.export.bundle import make_manifest
from ffem_jax.export.embedder import make_embedder
from ffem_jax.export.fold import fold_network
from ffem_jax.export.reference import run_layers
from ffem_jax.models import normalize_pixels
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.thresholds import FixedThreshold
from ffem_jax.specs.data import FITS
from ffem_jax.training.weights import FinishedTrial

# Lines before a mistake: the trial had a crop of its own, and the pictures here are not square.
EXPECTED = ("ffem: the images", "ffem: warning: 30 of 30 images are not square")
Run = Callable[..., tuple[int, str, str]]


def test_the_vectors_are_those_of_the_exported_layers(trained: tuple[FinishedTrial, Path], strangers: Path) -> None:
    finished, _ = trained
    embedded = embed_folder(strangers, make_embedder(finished), crop=0.8)
    faces = embedded.faces
    assert (embedded.vectors.shape, embedded.vectors.dtype) == ((30, 8), np.float32)
    assert embedded.names[:3] == ["ada"] * 3
    assert faces.names[0] == "ada/1.png"
    layers = fold_network(finished.classifier.network, 16)
    expected = np.asarray(run_layers(layers, normalize_pixels(faces.images))["embedding"])
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embedded.vectors, expected, atol=2e-5)
    assert np.abs(embedded.vectors[:1] - embedded.vectors[1:]).max(axis=1).min() > 1e-3, "all vectors are alike"
    manifest = make_manifest(finished, layers, "tfjs", "float32", "NHWC", [], 10.0)
    assert (embedded.model_id, embedded.vectors.shape[1]) == (manifest["model_id"], manifest["output"]["length"])


def test_the_crop_is_that_asked_for(trained: tuple[FinishedTrial, Path], strangers: Path) -> None:
    picture = Image.open(strangers / "ada" / "1.png")
    for crop in (1.0, 0.5):
        faces = embed_folder(strangers, make_embedder(trained[0]), crop).faces
        np.testing.assert_array_equal(faces.images[0], crop_face(picture, crop, 16))


@pytest.mark.parametrize("fit", FITS)
def test_pictures_that_are_not_square_are_fitted_as_those_of_the_training(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, fit: str
) -> None:
    finished, _ = trained
    data = dataclasses.replace(finished.trial.data, fit=fit)
    fitted = dataclasses.replace(finished, trial=dataclasses.replace(finished.trial, data=data))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    (tmp_path / "ada").mkdir()
    Image.fromarray(pixels).save(tmp_path / "ada" / "1.png")
    faces = embed_folder(tmp_path, make_embedder(fitted), cache_dir=str(tmp_path / "cache")).faces
    np.testing.assert_array_equal(faces.images[0], crop_face(Image.fromarray(pixels), 1.0, 16, fit))
    assert any(f"data.fit={fit};" in note for note in faces.notes)


def test_mirrored_or_not_a_picture_has_one_vector(trained: tuple[FinishedTrial, Path], strangers: Path) -> None:
    finished, _ = trained
    recipe = dataclasses.replace(finished.trial.recipe, flip_test=True)
    mirrored = dataclasses.replace(finished, trial=dataclasses.replace(finished.trial, recipe=recipe))
    plain, other = (embed_folder(strangers, make_embedder(one)) for one in (finished, mirrored))
    np.testing.assert_array_equal(plain.vectors, other.vectors)


def test_files_hold_vectors_and_whose_they_are(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, ffem: Run
) -> None:
    for name in ("vectors.npz", "vectors.jsonl"):
        status, out, _ = ffem("embed", strangers, "--trial", trained[0].folder, "--out", tmp_path / name)
        assert (status, "30 images of 10 people" in out) == (0, True)
    embedded = embed_folder(strangers, make_embedder(trained[0]))
    with np.load(tmp_path / "vectors.npz") as file:
        np.testing.assert_array_equal(file["vectors"], embedded.vectors)
        assert file["names"].tolist() == embedded.names
        assert file["images"].tolist() == list(embedded.faces.names)
        assert str(file["model_id"]) == embedded.model_id
    rows = [json.loads(line) for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"model_id", "name", "image", "vector"}] * 30
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), embedded.vectors)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "add --out FILE, --import URL or --calibrate FILE"),
        (["--out", "vectors.csv"], ".npz or .jsonl"),
        (["--out", "vectors.npz", "--crop", "2"], "between 0.05 and 1"),
        (["--out", "vectors.npz", "--trial", "nowhere"], "nowhere holds no trial.json"),
        (["--import", "mysql://x/y"], "not known here"),
        (["--out", "vectors.npz", "--sync"], "--sync needs a gallery: give --import URL"),
        (["--out", "vectors.npz", "--sync-all"], "--sync-all needs a gallery: give --import URL"),
        (["--out", "vectors.npz", "--dry-run"], "--dry-run needs a gallery: give --import URL"),
        (["--import", "sqlite:///gallery.db", "--force"], "--force needs --sync or --sync-all"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    ffem: Run,
    words: list[str],
    told: str,
) -> None:
    status, out, err = ffem("embed", strangers, "--trial", trained[0].folder, *words)
    lines = [line for line in err.splitlines() if not line.startswith(EXPECTED)]
    assert (status, out, len(lines)) == (2, "", 1), err
    assert told in lines[0]


def test_an_exported_file_gives_its_own_vectors_under_its_own_name(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    exported: Path,
    tmp_path: Path,
    ffem: Run,
) -> None:
    manifest = json.loads((exported / "export.json").read_text())
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", strangers, "--export", exported)
    status, out, err = ffem(*words, "--import", url, "--out", tmp_path / "vectors.npz", "--json")
    assert status == 0, err
    summary = json.loads(out)
    own = embed_folder(strangers, make_embedder(trained[0]))
    assert summary["model_id"] == manifest["model_id"] != own.model_id
    with np.load(tmp_path / "vectors.npz") as file:
        vectors = file["vectors"]
    # By the file as it is, computed here by its runtime.
    found, _ = onnx.run(exported, np.asarray(normalize_pixels(own.faces.images)))
    np.testing.assert_allclose(vectors, found / np.linalg.norm(found, axis=1, keepdims=True), atol=1e-5)
    assert np.abs(vectors - own.vectors).max() > 1e-3, "the fine-tuned network is the trial's own"
    # A phone that runs the file is recognised; one that runs the trial's own network has another model's name.
    gallery = Gallery(open_database(url), manifest["model_id"], manifest["output"]["length"])
    assert gallery.match(vectors[0], FixedThreshold(1e-3)).name == own.names[0]
    status, _, err = ffem(*words, "--trial", trained[0].folder, "--calibrate", tmp_path / "calibration.json")
    assert status == 0, err
    assert json.loads((tmp_path / "calibration.json").read_text())["model_id"] == manifest["model_id"]


def test_an_export_that_cannot_be_used_is_told(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    exported: Path,
    tmp_path: Path,
    ffem: Run,
) -> None:
    out = ("--out", tmp_path / "vectors.npz")

    def copy(name: str, content: bytes | None = None, **changes: object) -> Path:
        folder = shutil.copytree(exported, tmp_path / name)
        if content is not None:
            (folder / "model.onnx").write_bytes(content)
        manifest = json.loads((folder / "export.json").read_text())
        (folder / "export.json").write_text(json.dumps({**manifest, **changes}))
        return folder

    cases = [
        (("--export", tmp_path / "nowhere", *out), "holds no export.json; name a folder that `ffem export` wrote"),
        (("--export", copy("cut", b"half"), *out), "model.onnx is missing or not the file that export.json describes"),
        (("--export", copy("odd", crop=None), *out), "is no export.json of ffem export"),
        (("--export", copy("coreml", format="coreml"), *out), "format 'coreml' is not known; choose one of: tfjs"),
        (
            ("--export", copy("other", trial_key="0" * 16), "--trial", trained[0].folder, *out),
            "was not exported from",
        ),
        (("--export", exported, "--calibrate", tmp_path / "calibration.json"), "--calibrate needs --trial DIR too"),
        (out, "give --trial DIR or, to run an exported file, --export DIR"),
    ]
    for words, told in cases:
        status, text, err = ffem("embed", strangers, *words)
        lines = [line for line in err.splitlines() if not line.startswith(EXPECTED)]
        assert (status, text, len(lines)) == (2, "", 1), err
        assert told in lines[0]


def test_a_folder_without_people_is_told(trained: tuple[FinishedTrial, Path], tmp_path: Path, ffem: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "ada").mkdir(parents=True)
    (tmp_path / "broken" / "ada" / "1.png").write_text("no picture")
    for folder, told in (("empty", "is empty"), ("broken", "no image can be read")):
        words = ("embed", tmp_path / folder, "--trial", trained[0].folder, "--out", tmp_path / "vectors.npz")
        status, _, err = ffem(*words)
        assert (status, told in err) == (2, True), err
