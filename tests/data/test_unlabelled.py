"""data.unlabelled: images of nobody in particular, which teach and never test."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_folders import make_picture, write_people
from made_sets import draw_pairs, encode, write_bin, write_shards
from made_trials import SMALL

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data.open_set import draw_people_fold
from ffem_jax.data.protocols import load_split
from ffem_jax.runs.counting import count_faces
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TeacherSpec, TrialSpec
from ffem_jax.teachers.vectors import write_vectors

OPEN_SET = ProtocolSpec(name="open_set", folds=2)
TAUGHT = RecipeSpec(epochs=1, batch_size=8, distill_cosine=1.0, distill_relation=1.0, distill_labels=0.0)
TEACHER = TeacherSpec(name="vectors", path="teacher.npz")
ARCH = dataclasses.replace(SMALL, embedding_dim=16)


@pytest.fixture
def folder(tmp_path: Path) -> DataSpec:
    """Six people with four images each, and a folder of thirty images of nobody in particular."""
    root = write_people(tmp_path / "faces", {f"person_{number}": 4 for number in range(6)} | {"album": 30})
    return DataSpec(
        name="folder", root=str(root), resolution=16, min_images=4, unlabelled="album", cache_dir=str(tmp_path)
    )


def list_owners(faces: Faces, images: np.ndarray) -> set[str]:
    return {faces.people[label] for label in faces.labels[images]}


def test_who_is_nobody_is_part_of_what_the_cache_knows(folder: DataSpec) -> None:
    """With a limit per person, a folder of nobody keeps more images than the same folder of somebody."""
    limited = dataclasses.replace(folder, max_images=5)
    somebody = load_faces(dataclasses.replace(limited, unlabelled=""))
    nobody = load_faces(limited)
    assert (len(somebody.names), len(nobody.names)) == (6 * 4 + 5, 6 * 4 + 30)
    assert somebody.fingerprint != nobody.fingerprint


@pytest.mark.parametrize("fold", range(2))
def test_they_train_in_every_fold_and_the_others_are_split_as_without_them(folder: DataSpec, fold: int) -> None:
    protocol = dataclasses.replace(OPEN_SET, fold=fold)
    faces, split = load_split(folder, protocol)
    shutil.rmtree(Path(folder.root) / "album")
    alone, without = load_split(dataclasses.replace(folder, unlabelled=""), protocol)
    assert [faces.names[index] for index in split.test] == [alone.names[index] for index in without.test]
    assert [faces.names[index] for index in split.probes] == [alone.names[index] for index in without.probes]
    assert {faces.names[index] for index in split.train} == {
        *(alone.names[index] for index in without.train), *(name for name in faces.names if name.startswith("album/")),
    }  # fmt: skip
    assert (
        "data.unlabelled=album: 30 images are used for teaching; whether they show tested people is unknown"
        in split.notes
    )
    assert split.digest != without.digest


def test_an_image_that_tests_is_not_taught_under_no_name(folder: DataSpec) -> None:
    root = Path(folder.root)
    faces, split = load_split(folder, OPEN_SET)
    tested, trains = (faces.names[images[0]] for images in (split.test, split.train[faces.labels[split.train] > 0]))
    for name in (tested, trains):
        shutil.copy(root / name, root / "album" / f"copy_{Path(name).name}")
    faces, again = load_split(folder, OPEN_SET)
    assert tested in {faces.names[index] for index in again.test}
    taught = {faces.names[index] for index in again.train}
    assert f"album/copy_{Path(tested).name}" not in taught
    assert f"album/copy_{Path(trains).name}" in taught
    assert "31 images are used for teaching" in again.notes[-1]
    assert again.notes[-1].endswith("1 more are images of tested people, and are left out")


@given(st.lists(st.integers(0, 7), min_size=20, max_size=60), st.integers(0, 7), st.integers(2, 3), st.data())
def test_no_image_of_an_open_set_is_on_both_sides(
    owners: list[int], nobody: int, folds: int, data: st.DataObject
) -> None:
    labels = np.unique([*owners, nobody], return_inverse=True)[1]
    people = [f"person {label}" for label in range(labels.max() + 1)]
    content = data.draw(st.lists(st.integers(0, 40).map(str), min_size=len(labels), max_size=len(labels)))
    unlabelled = people[labels[-1]]
    for fold in range(folds):
        protocol = ProtocolSpec(name="open_set", folds=folds, fold=fold)
        try:
            found = draw_people_fold(labels, content, people, protocol, (), unlabelled)
        except DataError:
            assume(False)
        tested = {content[index] for index in found.test}
        assert tested.isdisjoint(content[index] for index in found.train)
        assert not (labels[found.test] == labels[-1]).any()
        assert set(labels[found.test]).isdisjoint(labels[found.train])
        left_out = {content[index] for index in np.flatnonzero(labels != labels[-1])} - {
            content[index] for index in found.train[labels[found.train] != labels[-1]]
        }
        taught = set(found.train[labels[found.train] == labels[-1]])
        assert taught == {i for i in np.flatnonzero(labels == labels[-1]) if content[i] not in left_out}


def test_people_and_limits_leave_them_alone(folder: DataSpec) -> None:
    faces = load_faces(dataclasses.replace(folder, people=2, max_images=3, min_images=4))
    assert dict(zip(faces.people, np.bincount(faces.labels), strict=True)) == {
        "album": 30,
        "person_0": 3,
        "person_1": 3,
    }
    for number in range(2, 31):
        (Path(folder.root) / "album" / f"album_{number:04d}.jpg").unlink()
    faces = load_faces(folder)
    assert np.bincount(faces.labels)[faces.people.index("album")] == 1
    assert not any("album" in note for note in faces.notes)


def test_tar_files_have_them_too(tmp_path: Path) -> None:
    images = [encode(make_picture(seed)) for seed in range(26)]
    labels = [*np.repeat(range(4), 4), *[9] * 10]
    write_shards(tmp_path / "set", images, labels)
    spec = DataSpec(
        name="webdataset", root=str(tmp_path / "set"), resolution=16, min_images=2, max_images=3, unlabelled="9",
        cache_dir=str(tmp_path),
    )  # fmt: skip
    faces = load_faces(spec)
    assert np.bincount(faces.labels).tolist() == [3, 3, 3, 3, 10]


def test_a_plan_counts_them_as_the_split_does(folder: DataSpec) -> None:
    count = count_faces(folder, OPEN_SET)
    _, split = load_split(folder, OPEN_SET)
    assert count.counted
    assert (count.train, count.test.tolist()) == (len(split.train), split.probes.tolist())


def test_a_name_that_is_not_there_is_said(folder: DataSpec) -> None:
    with pytest.raises(
        DataError, match="data.unlabelled=albun is not one of the 7 folders of data=folder; did you mean album"
    ):
        load_faces(dataclasses.replace(folder, unlabelled="albun"))


@pytest.mark.parametrize(
    ("recipe", "protocol", "said"),
    [
        (RecipeSpec(), OPEN_SET, "has no labels to learn, only a teacher's vectors"),
        (dataclasses.replace(TAUGHT, distill_labels=0.5), OPEN_SET, "recipe.distill_labels=0"),
        (dataclasses.replace(TAUGHT, distill_centres=1.0), OPEN_SET, "recipe.distill_centres=0"),
        (TAUGHT, ProtocolSpec(), "protocol=holdout tests people who train; set protocol=open_set|bins"),
        (TAUGHT, ProtocolSpec(name="kfold"), "protocol=kfold tests people who train"),
        (TAUGHT, ProtocolSpec(name="view2", folds=10), "set protocol=open_set|bins"),
    ],
)
def test_what_would_learn_or_test_them_as_a_person_is_refused(
    folder: DataSpec, recipe: RecipeSpec, protocol: ProtocolSpec, said: str
) -> None:
    teacher = TEACHER if recipe.distills else TeacherSpec()
    with pytest.raises(SpecError) as error:
        TrialSpec(ARCH, folder, protocol, recipe, teacher=teacher)
    assert said in str(error.value)


def test_a_network_is_taught_with_them_and_tested_on_the_others(folder: DataSpec, tmp_path: Path) -> None:
    faces, split = load_split(folder, OPEN_SET)
    path = tmp_path / "teacher.npz"
    write_vectors(path, faces.names, np.random.default_rng(0).normal(size=(len(faces.names), 12)), {"name": "drawn"})
    trial = TrialSpec(ARCH, folder, OPEN_SET, TAUGHT, teacher=dataclasses.replace(TEACHER, path=str(path)))
    (record,) = run_trials(trial, RunSpec(), tmp_path / "run", tmp_path / "records.jsonl")
    assert record.status == "done", record.error
    assert record.train_images == len(split.train)
    assert record.tested == len(split.probes)
    assert record.test_images == split.probes.tolist()


@pytest.mark.slow
def test_a_folder_without_labels_teaches_and_a_bin_tests(tmp_path: Path) -> None:
    root = write_people(tmp_path / "photographs", {"all": 20})
    images, same = draw_pairs(20)
    write_bin(tmp_path / "drawn.bin", images, same)
    data = DataSpec(name="folder", root=str(root), resolution=16, unlabelled="all", cache_dir=str(tmp_path))
    path = tmp_path / "teacher.npz"
    names = load_faces(data).names
    write_vectors(path, names, np.random.default_rng(0).normal(size=(20, 12)), {"name": "drawn"})
    protocol = ProtocolSpec(name="bins", bins=("drawn",), bins_root=str(tmp_path))
    trial = TrialSpec(ARCH, data, protocol, TAUGHT, teacher=dataclasses.replace(TEACHER, path=str(path)))
    (record,) = run_trials(trial, RunSpec(), tmp_path / "run", tmp_path / "records.jsonl")
    assert record.status == "done", record.error
    assert (record.train_images, record.tested) == (20, 20)
    assert record.teacher["measured"] == {}  # the teacher says nothing of the pairs
