"""`ffem embed`: vectors are the exported network's, go where they are asked to, and calibrate on new people alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffem_jax.cli import main
from ffem_jax.data import DataError
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.embed import EmbedError, calibrate, check_new_people, embed_folder, make_embedder
from ffem_jax.export import onnx
from ffem_jax.export.bundle import export_trial, make_manifest
from ffem_jax.export.fold import fold_network
from ffem_jax.export.reference import run_layers
from ffem_jax.metrics.calibration import read_calibration
from ffem_jax.models import normalize_pixels
from ffem_jax.runs.trial import run_trials
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.thresholds import FixedThreshold
from ffem_jax.specs.architecture import ArchSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec
from ffem_jax.training.weights import FinishedTrial, load_trial

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


def test_one_picture_under_two_strangers_is_left_out_and_named(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(strangers, tmp_path / "strangers")
    path = tmp_path / "calibration.json"
    words = ("embed", folder, "--trial", trained[0].folder, "--calibrate", path)
    ffem(capsys, *words)
    plain = read_calibration(json.loads(path.read_text()))
    # As another format, which holds the same pixels.
    Image.open(folder / "stranger 0" / "1.png").save(folder / "stranger 5" / "zz.webp", lossless=True)
    shutil.copy(folder / "stranger 1" / "2.png", folder / "stranger 1" / "again.png")
    status, _, err = ffem(capsys, *words)
    assert status == 0, err
    assert (
        "pictures under more than one person: 1 (2 images), left out of the calibration: stranger 0/1.png and stranger "
        "5/zz.webp" in err
    )
    assert "more than once under one person: 1, each counted once: stranger 1/2.png and stranger 1/again.png" in err
    row = json.loads(path.read_text())
    assert (row["left_out"], row["images"]) == ({"contested": 2, "repeated": 1}, 29)
    calibration = read_calibration(row)
    assert calibration.pairs == plain.pairs - 27
    assert calibration.choose_threshold(0) > 0
    assert calibration.choose_threshold(0) >= plain.choose_threshold(0)


def test_a_network_that_tells_nobody_apart_is_told(trained: tuple[FinishedTrial, Path], strangers: Path) -> None:
    embedded = embed_folder(strangers, make_embedder(trained[0]))
    alike = dataclasses.replace(embedded, vectors=np.repeat(embedded.vectors[:1], 30, axis=0))
    calibration, notes = calibrate(alike, trained[0])
    assert (calibration.contested, calibration.choose_threshold(0.5) < 0) == (0, True)
    assert any("different pictures of different people to which the network gives one vector" in note for note in notes)


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
    monkeypatch.setattr("ffem_jax.embed.load_trained_faces", fail)
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", tmp_path / "calibration.json")
    status, _, err = ffem(capsys, *words)
    assert (status, "it was not checked that these people are others" in err) == (0, True)


def test_people_of_an_edited_training_folder_calibrate_nothing(
    tmp_path: Path, trained: tuple[FinishedTrial, Path], strangers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One person more, and who trained is not known any more: those who are there are refused still."""
    people = shutil.copytree(trained[1], tmp_path / "people")
    write_people(people, {"zoe": 4}, seed=9)
    moved = dataclasses.replace(trained[0].trial.data, root=str(people))
    finished = dataclasses.replace(trained[0], trial=dataclasses.replace(trained[0].trial, data=moved))
    faces = embed_folder(strangers, make_embedder(finished)).faces
    told = check_new_people(faces, finished)[0]
    assert "not at hand as they were (the faces of data=folder" in told
    assert "there are 22 images of 4 people now, and there were 18 of 3" in told
    with pytest.raises(EmbedError, match="18 of 18 pictures trained the network"):
        check_new_people(embed_folder(trained[1], make_embedder(finished)).faces, finished)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three people of whom one has a picture of another."""
    folder = write_people(tmp_path / "people", {"ada": 3, "bob": 3, "zoe": 3}, seed=78)
    (folder / "zoe" / "1.png").rename(folder / "ada" / "zoe.png")
    return folder


def test_a_sync_leaves_the_gallery_as_the_folder_is(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", album, "--trial", trained[0].folder, "--import", url)
    assert ffem(capsys, *words)[0] == 0
    (album / "ada" / "zoe.png").rename(album / "zoe" / "1.png")
    embedded = embed_folder(album, make_embedder(trained[0]))
    gallery = Gallery(open_database(url), embedded.model_id, embedded.vectors.shape[1])

    def ask() -> list[str | None]:
        return [gallery.match(vector, FixedThreshold(1e-4)).name for vector in embedded.vectors]

    # On its own an import adds, and names the clash.
    status, out, err = ffem(capsys, *words)
    assert (status, "imported: 0 vectors" in out) == (0, True)
    assert "one picture under two names (1): zoe (zoe/1.png) and ada (ada/zoe.png)" in err
    assert ask() == [*["ada"] * 3, *["bob"] * 3, "ada", "zoe", "zoe"]
    status, out, err = ffem(capsys, *words, "--sync", "--dry-run")
    assert out.splitlines()[1:] == [
        "would be imported: 1 vectors that were not there yet",
        "  zoe: zoe/1.png",
        "would be deleted: 1 vectors that are not in the folder",
        "  ada: ada/zoe.png",
    ]
    assert ask()[6] == "ada"
    changes = json.loads(ffem(capsys, *words, "--sync", "--json")[1])["changes"]
    assert (changes["added"], changes["removed"]) == (
        [{"name": "zoe", "image": "zoe/1.png"}],
        [{"name": "ada", "image": "ada/zoe.png"}],
    )
    assert ask() == embedded.names
    # Another way to the same folder is the same folder; people who go are listed.
    gallery.enrol("eve", [-embedded.vectors[0]])
    shutil.rmtree(album / "bob")
    (tmp_path / "link").symlink_to(album)
    words = ("embed", tmp_path / "link", *words[2:])
    status, out, err = ffem(capsys, *words, "--sync")
    assert out.splitlines()[2:] == [
        "deleted: 3 vectors that are not in the folder",
        *[f"  bob: bob/{number}.png" for number in (1, 2, 3)],
        "  bob: has no vector left, and is no longer enrolled",
        "not touched: 1 vectors of 1 people, enrolled from no folder that is known (over HTTP, or by an earlier "
        "version); --sync-all compares them too",
    ]
    assert {one.name for one in gallery.list_people()} == {"ada", "eve", "zoe"}
    status, out, err = ffem(capsys, *words, "--sync-all")
    assert "  eve: enrolled from no file that is known" in out
    assert gallery.count() == (2, 6)


def test_a_sync_takes_nothing_for_deleted_that_it_could_not_read(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", album, "--trial", trained[0].folder, "--import", url)
    model_id = json.loads(ffem(capsys, *words, "--json")[1])["model_id"]
    gallery = Gallery(open_database(url), model_id, 8)
    picture, kept = album / "bob" / "2.png", (album / "bob" / "2.png").read_bytes()

    def refuse(told: str) -> None:
        status, out, err = ffem(capsys, *words, "--sync")
        assert (status, out, gallery.count()) == (2, "", (3, 9)), err
        assert told in err.splitlines()[-1]

    picture.write_bytes(b"no picture")
    refuse("bob would lose vectors, and bob/2.png could not be read")
    picture.unlink()
    picture.symlink_to(tmp_path / "gone.png")
    refuse("bob/2.png could not be read")
    picture.unlink()
    (album / "bob" / "older").mkdir()
    (album / "bob" / "older" / "2.png").write_bytes(kept)
    refuse("bob/older could not be read")
    (album / "bob").rename(tmp_path / "bob")
    (album / "bob").mkdir()
    refuse("bob could not be read")
    (album / "bob").rmdir()
    (album / "bob").symlink_to(tmp_path / "not mounted")
    refuse("bob could not be read")
    assert ffem(capsys, *words, "--sync", "--force")[0] == 0
    assert gallery.count() == (2, 6)


def test_one_picture_in_two_folders_is_enrolled_for_nobody(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(album / "bob" / "1.png", album / "zoe" / "bob.png")
    words = ("embed", album, "--trial", trained[0].folder, "--import", f"sqlite:///{tmp_path}/gallery.db")
    status, out, err = ffem(capsys, *words)
    assert (status, "imported: 8 vectors" in out) == (0, True)
    assert "one picture under two names (1): zoe (zoe/bob.png) and bob (bob/1.png); one of the names is wrong" in err
    status, out, err = ffem(capsys, *words, "--sync")
    assert (status, out) == (2, "")
    assert "the folder has pictures under two people (1), such as zoe/bob.png and bob/1.png" in err


def test_folders_whose_names_cannot_be_enrolled_are_named_before_anything_is_done(
    trained: tuple[FinishedTrial, Path], album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x" * 101, "ada\u202eeve"):
        shutil.copytree(album / "bob", album / name)
    out = tmp_path / "vectors.jsonl"
    words = ("embed", album, "--trial", trained[0].folder, "--out", out)
    status, _, err = ffem(capsys, *words, "--import", f"sqlite:///{tmp_path}/gallery.db")
    assert (status, len(err.splitlines()), out.exists(), (tmp_path / "gallery.db").exists()) == (2, 1, False, False)
    assert "nobody can be enrolled under the names of these folders (2): 'ada\\u202eeve'; 'xxx" in err
    assert ffem(capsys, *words)[0] == 0, "a file takes any name"


def test_one_name_is_one_person_whatever_wrote_it(
    trained: tuple[FinishedTrial, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = write_people(tmp_path / "people", {"Jos\u00e9": 2, "Jose\u0301": 2, "jos\u00e9": 1}, seed=5)
    latin = os.fsencode(people) + b"/caf\xe9"
    os.mkdir(latin)
    write_people(tmp_path / "more", {"x": 1}, seed=6)
    shutil.copy(tmp_path / "more" / "x" / "1.png", latin + b"/\xfc.png")
    url = f"sqlite:///{tmp_path}/gallery.db"
    words = ("embed", people, "--trial", trained[0].folder, "--import", url)
    for name in ("vectors.npz", "vectors.jsonl"):
        status, out, err = ffem(capsys, *words, "--sync", "--out", tmp_path / name)
        assert (status, "6 pictures of 3 people" in out) == (0, True), err
        assert "names that may be one person's are enrolled as several people: Jos\u00e9 and jos\u00e9" in err
    summary = json.loads(ffem(capsys, *words, "--json")[1])
    gallery = Gallery(open_database(url), summary["model_id"], summary["length"])
    held = {person.name: person.vectors for person in gallery.list_people()}
    assert held == {"Jos\u00e9": 4, "jos\u00e9": 1, "caf\\xe9": 1}
    names = [json.loads(line)["name"] for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    with np.load(tmp_path / "vectors.npz") as file:
        assert sorted(file["names"].tolist()) == sorted(names)
    assert set(names) == set(held)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --out FILE, --import URL or --calibrate FILE"),
        (["--out", "vectors.csv"], ".npz or .jsonl"),
        (["--out", "vectors.npz", "--crop", "2"], "between 0.05 and 1"),
        (["--out", "vectors.npz", "--trial", "nowhere"], "nowhere holds no trial.json"),
        (["--import", "mysql://x/y"], "not known here"),
        (["--out", "vectors.npz", "--sync"], "--sync is about a gallery: give --import URL"),
        (["--out", "vectors.npz", "--sync-all"], "--sync-all is about a gallery: give --import URL"),
        (["--out", "vectors.npz", "--dry-run"], "--dry-run is about a gallery: give --import URL"),
        (["--import", "sqlite:///gallery.db", "--force"], "--force is about --sync and --sync-all"),
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
