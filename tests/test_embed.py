"""`ffem embed`: vectors are the exported network's, go where they are asked to, and calibrate on new people alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffem_jax.arch import ArchSpec, StageSpec
from ffem_jax.cli import main
from ffem_jax.data import DataError
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.embed import embed_folder, make_embedder
from ffem_jax.export import onnx
from ffem_jax.export.bundle import export_trial, make_manifest
from ffem_jax.export.fold import fold_network
from ffem_jax.export.reference import run_layers
from ffem_jax.metrics.calibration import read_calibration
from ffem_jax.models import normalize_pixels
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.thresholds import FixedThreshold
from ffem_jax.spec import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.trial import run_trials
from ffem_jax.weights import FinishedTrial, load_trial

ARCH = ArchSpec(
    name="small",
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2)),
    head_channels=0,
    embedding_dim=8,
)


def write_people(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """`root/person/1.png` and so on, pictures of coloured noise, no two the same."""
    draw = np.random.default_rng(seed)
    for person, count in counts.items():
        (root / person).mkdir(parents=True)
        for number in range(1, count + 1):
            noise = draw.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(noise).save(root / person / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[FinishedTrial, Path]:
    """A network trained on a folder of people, and that folder."""
    folder = tmp_path_factory.mktemp("trained")
    people = write_people(folder / "people", {"ada": 6, "bob": 6, "eve": 6})
    trial = TrialSpec(
        arch=ARCH,
        data=DataSpec(name="folder", root=str(people), resolution=16, crop=0.9),
        protocol=ProtocolSpec(test_per_person=2),
        recipe=RecipeSpec(epochs=1, batch_size=6),
    )
    (record,) = run_trials(trial, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return load_trial(folder / "trial"), people


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people who trained nothing, one of them of a trained person's name."""
    counts = {f"stranger {number}": 3 for number in range(9)} | {"ada": 3}
    return write_people(tmp_path_factory.mktemp("strangers"), counts, seed=500)


def ffem(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


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


def test_mirrored_or_not_a_picture_has_one_vector(trained: tuple[FinishedTrial, Path], strangers: Path) -> None:
    finished, _ = trained
    recipe = dataclasses.replace(finished.trial.recipe, flip_test=True)
    mirrored = dataclasses.replace(finished, trial=dataclasses.replace(finished.trial, recipe=recipe))
    plain, other = (embed_folder(strangers, make_embedder(one)) for one in (finished, mirrored))
    np.testing.assert_array_equal(plain.vectors, other.vectors)


def test_one_person_with_one_picture_is_enough_to_enrol(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_people(tmp_path / "one", {"Zoe\u0308": 1}, seed=900)
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", tmp_path / "one", "--trial", trained[0].folder, "--import", url, "--json")
    first, again = (json.loads(ffem(capsys, *words)[1]) for _ in range(2))
    assert (first["imported"], again["imported"], first["people"], first["images"]) == (1, 0, 1, 1)
    gallery = Gallery(open_database(url), first["model_id"], first["length"])
    vector = embed_folder(tmp_path / "one", make_embedder(trained[0])).vectors[0]
    assert gallery.match(vector, FixedThreshold(1e-3)).name == "Zo\u00eb"


def test_files_hold_vectors_and_whose_they_are(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("vectors.npz", "vectors.jsonl"):
        status, out, _ = ffem(capsys, "embed", strangers, "--trial", trained[0].folder, "--out", tmp_path / name)
        assert (status, "30 pictures of 10 people" in out) == (0, True)
    embedded = embed_folder(strangers, make_embedder(trained[0]))
    with np.load(tmp_path / "vectors.npz") as file:
        np.testing.assert_array_equal(file["vectors"], embedded.vectors)
        assert file["names"].tolist() == embedded.names
        assert file["images"].tolist() == list(embedded.faces.names)
        assert str(file["model_id"]) == embedded.model_id
    rows = [json.loads(line) for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"model_id", "name", "image", "vector"}] * 30
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), embedded.vectors)


def test_a_calibration_is_made_from_strangers_and_says_what_it_lacks(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calibration.json"
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", path)
    status, out, err = ffem(capsys, *words)
    assert status == 0, err
    assert "too few pairs to show it" in out
    assert "1 of 10 people bear names of people who trained" in err
    assert "--crop 0.9" in err, "the trial cut its pictures, and whole ones are read"
    calibration = read_calibration(json.loads(path.read_text()))
    assert (calibration.people, calibration.images, calibration.pairs) == (10, 30, 435 - 30)
    assert calibration.model_id == embed_folder(strangers, make_embedder(trained[0])).model_id
    summary = json.loads(ffem(capsys, *words, "--json")[1])["calibration"]
    assert [row["false_accept_rate"] for row in summary["rates"]] == [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]


def test_people_who_trained_calibrate_nothing(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished, people = trained
    path = tmp_path / "calibration.json"
    status, out, err = ffem(capsys, "embed", people, "--trial", finished.folder, "--calibrate", path)
    assert (status, out, path.exists()) == (2, "", False)
    assert "12 of 18 pictures trained the network" in err


def test_faces_that_are_gone_are_told(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise DataError("data.root=elsewhere is not there")

    monkeypatch.setattr("ffem_jax.embed.load_split", fail)
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", tmp_path / "calibration.json")
    status, _, err = ffem(capsys, *words)
    assert (status, "it was not checked that these people are others" in err) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --out FILE, --import URL or --calibrate FILE"),
        (["--out", "vectors.csv"], ".npz or .jsonl"),
        (["--out", "vectors.npz", "--crop", "2"], "between 0.05 and 1"),
        (["--out", "vectors.npz", "--trial", "nowhere"], "nowhere holds no trial.json"),
        (["--import", "mysql://x/y"], "not known here"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    status, out, err = ffem(capsys, "embed", strangers, "--trial", trained[0].folder, *words)
    lines = [line for line in err.splitlines() if not line.startswith("ffem: the pictures")]
    assert (status, out, len(lines)) == (2, "", 1), err
    assert told in lines[0]


@pytest.fixture(scope="module")
def exported(trained: tuple[FinishedTrial, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network fine-tuned for int8, another model than the trial's own, as ONNX."""
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"exporting needs the export extra: {package} is missing")
    out = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffem_jax.export.finetune.BATCH_SIZE", 4)
        patch.setattr("ffem_jax.export.finetune.LEARNING_RATE", 0.05)
        export_trial(trained[0].folder, "onnx", "int8", out, finetune_epochs=1)
    return out


def test_an_exported_file_gives_its_own_vectors_under_its_own_name(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = json.loads((exported / "export.json").read_text())
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", strangers, "--export", exported)
    status, out, err = ffem(capsys, *words, "--import", url, "--out", tmp_path / "vectors.npz", "--json")
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
    status, _, err = ffem(capsys, *words, "--trial", trained[0].folder, "--calibrate", tmp_path / "calibration.json")
    assert status == 0, err
    assert json.loads((tmp_path / "calibration.json").read_text())["model_id"] == manifest["model_id"]


def test_an_export_that_cannot_be_used_is_told(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
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
            "was exported from another trial",
        ),
        (("--export", exported, "--calibrate", tmp_path / "calibration.json"), "--calibrate needs --trial DIR too"),
        (out, "give --trial DIR or, to run an exported file, --export DIR"),
    ]
    for words, told in cases:
        status, text, err = ffem(capsys, "embed", strangers, *words)
        lines = [line for line in err.splitlines() if not line.startswith("ffem: the pictures")]
        assert (status, text, len(lines)) == (2, "", 1), err
        assert told in lines[0]


def test_a_folder_without_people_is_told(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken" / "ada").mkdir(parents=True)
    (tmp_path / "broken" / "ada" / "1.png").write_text("no picture")
    for folder, told in (("empty", "is empty"), ("broken", "no picture can be read")):
        words = ("embed", tmp_path / folder, "--trial", trained[0].folder, "--out", tmp_path / "vectors.npz")
        status, _, err = ffem(capsys, *words)
        assert (status, told in err) == (2, True), err
