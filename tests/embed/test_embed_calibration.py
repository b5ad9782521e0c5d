"""`ffem embed --calibrate`: on new people alone, each picture once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_people import write_people
from PIL import Image

from ffem_jax.data import DataError
from ffem_jax.embed import EmbedError, calibrate, check_new_people, embed_folder, move_faces
from ffem_jax.export.embedder import make_embedder
from ffem_jax.metrics.calibration import read_calibration
from ffem_jax.training.weights import FinishedTrial

Run = Callable[..., tuple[int, str, str]]


def test_a_calibration_is_made_from_strangers_and_says_what_it_lacks(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, ffem: Run
) -> None:
    path = tmp_path / "calibration.json"
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", path)
    status, out, err = ffem(*words)
    assert status == 0, err
    assert "too few pairs to show it" in out
    assert "1 of 10 people have names of people used in training" in err
    assert "--crop 0.9" in err, "the trial cut its pictures, and whole ones are read"
    calibration = read_calibration(json.loads(path.read_text()))
    assert (calibration.people, calibration.images, calibration.pairs) == (10, 30, 435 - 30)
    assert calibration.model_id == embed_folder(strangers, make_embedder(trained[0])).model_id
    summary = json.loads(ffem(*words, "--json")[1])["calibration"]
    assert [row["false_accept_rate"] for row in summary["rates"]] == [0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001]


def test_one_picture_under_two_strangers_is_left_out_and_named(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, ffem: Run
) -> None:
    folder = shutil.copytree(strangers, tmp_path / "strangers")
    path = tmp_path / "calibration.json"
    words = ("embed", folder, "--trial", trained[0].folder, "--calibrate", path)
    ffem(*words)
    plain = read_calibration(json.loads(path.read_text()))
    # As another format, which holds the same pixels.
    Image.open(folder / "stranger 0" / "1.png").save(folder / "stranger 5" / "zz.webp", lossless=True)
    shutil.copy(folder / "stranger 1" / "2.png", folder / "stranger 1" / "again.png")
    status, _, err = ffem(*words)
    assert status == 0, err
    assert (
        "images under more than one person: 1 (2 images), left out of the calibration: stranger 0/1.png and stranger "
        "5/zz.webp" in err
    )
    assert "duplicate images of one person: 1, each counted once: stranger 1/2.png and stranger 1/again.png" in err
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
    assert any("different images of different people with the same vector" in note for note in notes)


def test_people_who_trained_calibrate_nothing(trained: tuple[FinishedTrial, Path], tmp_path: Path, ffem: Run) -> None:
    finished, people = trained
    path = tmp_path / "calibration.json"
    status, out, err = ffem("embed", people, "--trial", finished.folder, "--calibrate", path)
    assert (status, out, path.exists()) == (2, "", False)
    assert "12 of 18 images were used in training" in err


def test_faces_that_are_gone_are_told(
    trained: tuple[FinishedTrial, Path],
    strangers: Path,
    tmp_path: Path,
    ffem: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise DataError("data.root=elsewhere is not there")

    monkeypatch.setattr("ffem_jax.embed.load_split", fail)
    monkeypatch.setattr("ffem_jax.embed.load_trained_faces", fail)
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", tmp_path / "calibration.json")
    status, _, err = ffem(*words)
    assert (status, "it was not checked that these are different people" in err) == (0, True)


def test_people_of_an_edited_training_folder_calibrate_nothing(
    tmp_path: Path, trained: tuple[FinishedTrial, Path], strangers: Path, ffem: Run
) -> None:
    """One person more, and who trained is not known any more: those who are there are refused still."""
    people = shutil.copytree(trained[1], tmp_path / "people")
    write_people(people, {"zoe": 4}, seed=9)
    moved = dataclasses.replace(trained[0].trial.data, root=str(people))
    finished = dataclasses.replace(trained[0], trial=dataclasses.replace(trained[0].trial, data=moved))
    faces = embed_folder(strangers, make_embedder(finished)).faces
    told = check_new_people(faces, finished)[0]
    assert "not available as recorded (the faces of data=folder" in told
    assert "there are 22 images of 4 people now, but there were 18 of 3" in told
    with pytest.raises(EmbedError, match="18 of 18 images were used in training"):
        check_new_people(embed_folder(trained[1], make_embedder(finished)).faces, finished)


def test_faces_that_moved_are_found_with_data_root(
    trained: tuple[FinishedTrial, Path], strangers: Path, tmp_path: Path, ffem: Run
) -> None:
    """Away from the data nothing is checked, and it is said how; with it people who trained are refused there too."""
    root = shutil.copytree(trained[1], tmp_path / "moved")
    gone = dataclasses.replace(trained[0].trial.data, root=str(tmp_path / "gone"))
    finished = dataclasses.replace(trained[0], trial=dataclasses.replace(trained[0].trial, data=gone))
    faces = embed_folder(strangers, make_embedder(finished)).faces
    (told,) = check_new_people(faces, finished)
    assert "it was not checked that these are different people" in told
    assert "--data-root DIR" in told
    moved = move_faces(finished, str(root))
    assert check_new_people(faces, moved) == check_new_people(faces, trained[0])
    with pytest.raises(EmbedError, match="12 of 18 images were used in training"):
        check_new_people(embed_folder(root, make_embedder(moved)).faces, moved)
    path = tmp_path / "calibration.json"
    words = ("embed", strangers, "--trial", trained[0].folder, "--calibrate", path, "--data-root")
    status, _, err = ffem(*words, root)
    assert (status, "it was not checked" in err) == (0, False)
    status, _, err = ffem(*words, tmp_path / "nowhere")
    assert (status, "it was not checked" in err) == (0, True)


def test_a_pretraining_of_the_same_folder_moves_with_it(trained: tuple[FinishedTrial, Path]) -> None:
    trial = trained[0].trial
    for root, expected in ((trial.data.root, "moved"), ("elsewhere", "elsewhere")):
        data = dataclasses.replace(trial.pretrain.data, root=root)
        pretrain = dataclasses.replace(trial.pretrain, data=data)
        finished = dataclasses.replace(trained[0], trial=dataclasses.replace(trial, pretrain=pretrain))
        moved = move_faces(finished, "moved").trial
        assert (moved.data.root, moved.pretrain.data.root) == ("moved", expected)
    assert move_faces(trained[0], "") is trained[0]
