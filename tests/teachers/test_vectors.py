"""Files of vectors: written and read, joined by name, refused where they do not fit."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from ffem_jax.teachers import TeacherError, make_teaching
from ffem_jax.teachers.vectors import join_vectors, read_vectors, write_vectors

NAMES = ("ann/1.jpg", "ann/2.jpg", "bob/1.jpg", "bob/2.jpg")


def draw(images: int = 4, features: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(images, features)).astype(np.float32)


def test_what_is_written_is_read_and_joined_in_the_order_of_the_faces(tmp_path: Path) -> None:
    vectors = draw()
    write_vectors(tmp_path / "big.npz", NAMES, vectors, {"licence": "MIT"})
    found = read_vectors(tmp_path / "big.npz")
    assert found.about["licence"] == "MIT"
    assert found.about["name"] == "big"
    assert len(found.about["sha256"]) == 64
    assert np.array_equal(join_vectors(found, ["bob/2.jpg", "ann/1.jpg"])[0], vectors[[3, 0]])


def test_a_file_of_another_framework_needs_paths_and_vectors_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", paths=["ann\\1.jpg", "Zoë/1.jpg"], vectors=draw(2).astype(np.float16))
    found = read_vectors(tmp_path / "t.npz")
    assert join_vectors(found, [unicodedata.normalize("NFD", "Zoë/1.jpg"), "ann/1.jpg"])[0].shape == (2, 6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"paths": ["a/1.jpg"]}, "no file of vectors"),
        ({"paths": ["a/1.jpg"], "vectors": np.ones((2, 3))}, "has 1 paths and vectors"),
        ({"paths": ["a/1.jpg"], "vectors": np.ones(1)}, "has 1 paths and vectors"),
        ({"paths": ["a/1.jpg"] * 2, "vectors": np.eye(2)}, "two different vectors of a/1.jpg"),
        ({"paths": ["a/1.jpg"], "vectors": np.ones((1, 3)), "contents": ["0", "1"]}, "has 1 paths"),
        ({"paths": ["a/1.jpg"], "vectors": np.ones((1, 3)), "about": json.dumps([1])}, "has 1 paths"),
        ({"paths": ["a/1.jpg"], "vectors": np.array([["x"]])}, "no file of vectors"),
        ({"paths": np.array(["a/1.jpg"], object), "vectors": np.ones((1, 3))}, "no file of vectors"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused_in_one_line(tmp_path: Path, arrays: dict, words: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(TeacherError, match=words) as raised:
        read_vectors(tmp_path / "t.npz")
    assert "\n" not in str(raised.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"nowhere.npz cannot be read \(No such file"):
        read_vectors(tmp_path / "nowhere.npz")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04half")
    with pytest.raises(TeacherError, match="no file of vectors"):
        read_vectors(tmp_path / "half.npz")


def test_images_without_a_vector_are_counted_and_the_first_named(tmp_path: Path) -> None:
    write_vectors(tmp_path / "t.npz", NAMES[:1], draw(1), {})
    with pytest.raises(TeacherError, match=r"no vector for 3 of 4 images, ann/2.jpg, bob/1.jpg, bob/2.jpg; write"):
        join_vectors(read_vectors(tmp_path / "t.npz"), NAMES)


def test_targets_are_centred_by_those_that_train_and_normalised() -> None:
    vectors = draw(30) + 100  # all near one direction
    train = np.arange(20)
    teaching = make_teaching(vectors, [str(i) for i in range(30)], train, {"name": "t"})
    assert np.allclose(np.linalg.norm(teaching.targets, axis=1), 1, atol=1e-6)
    assert np.allclose(teaching.mean, vectors[:20].mean(axis=0), atol=1e-4)
    centred = vectors - vectors[:20].mean(axis=0)
    assert np.allclose(teaching.targets, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=1e-4)
    changed = vectors.copy()
    changed[25] += 3  # an image that is tested: no other's target changes
    again = make_teaching(changed, [str(i) for i in range(30)], train, {})
    assert np.array_equal(np.delete(again.targets, 25, 0), np.delete(teaching.targets, 25, 0))
    assert again.fingerprint != teaching.fingerprint


def test_vectors_without_direction_are_refused() -> None:
    vectors = draw()
    vectors[2] = 0
    vectors[3, 1] = np.nan
    with pytest.raises(TeacherError, match=r"no direction for 2 of 4 images, bob/1.jpg, bob/2.jpg"):
        make_teaching(vectors, NAMES, np.arange(4), {})
    with pytest.raises(TeacherError, match="the same vector"):
        make_teaching(np.ones((4, 3)), NAMES, np.arange(4), {})


def test_vectors_of_images_that_have_changed_are_refused(tmp_path: Path) -> None:
    """A file's names stay the same when somebody puts another image in an image's place."""
    write_vectors(tmp_path / "t.npz", NAMES, draw(), {}, ["a", "b", "c", "d"])
    found = read_vectors(tmp_path / "t.npz")
    assert found.contents == ("a", "b", "c", "d")
    assert not join_vectors(found, NAMES[2:], ["c", "d"])[1]
    with pytest.raises(TeacherError, match=r"2 of 4 images are others than the teacher saw, ann/1.jpg, bob/2.jpg; wr"):
        join_vectors(found, NAMES, ["x", "b", "c", "y"])
    with pytest.raises(TeacherError, match="4 of 4 images are others"):
        join_vectors(found, NAMES, ["d", "c", "b", "a"])
    vectors, copies = join_vectors(found, NAMES, ["w", "x", "y", "z"])
    assert copies
    assert np.array_equal(vectors, draw())
