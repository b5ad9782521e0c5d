"""Drawn faces: what a person's and an image's draw depend on, and that people can be told apart, but not by a trick."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from ffem_jax.data import DataError, load_faces
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.trial import DataSpec

SMALL = DataSpec(name="synthetic", people=4, images_per_person=5, resolution=32)


def test_images_do_not_depend_on_how_many_there_are():
    few = load_faces(SMALL)
    many = load_faces(dataclasses.replace(SMALL, people=6, images_per_person=7))
    where = {name: index for index, name in enumerate(many.names)}
    rows = [where[name] for name in few.names]
    np.testing.assert_array_equal(few.images, many.images[rows])
    np.testing.assert_array_equal(few.attributes["glasses"], many.attributes["glasses"][rows])


@pytest.mark.parametrize("change", [{"seed": 1}, {"difficulty": 0.9}, {"crop": 0.9}])
def test_what_the_drawing_depends_on(change):
    assert load_faces(SMALL).fingerprint != load_faces(dataclasses.replace(SMALL, **change)).fingerprint


def test_twenty_people_unless_said_otherwise():
    faces = load_faces(DataSpec(name="synthetic", resolution=16, images_per_person=2))
    assert len(faces.people) == 20
    assert faces.synthetic


def test_max_images_keeps_the_first():
    faces = load_faces(dataclasses.replace(SMALL, max_images=2))
    np.testing.assert_array_equal(faces.images[2:4], load_faces(SMALL).images[5:7])


def test_too_few_images_and_a_negative_seed_are_refused():
    with pytest.raises(DataError, match=r"raise data\.images_per_person"):
        load_faces(dataclasses.replace(SMALL, min_images=6))
    with pytest.raises(SpecError, match=r"data\.seed=-1 must be at least 0"):
        load_faces(dataclasses.replace(SMALL, seed=-1))


def test_no_difficulty_is_no_nuisance_on_the_face():
    # Same person, other background and grain: the middle of the face stays.
    faces = load_faces(dataclasses.replace(SMALL, difficulty=0.0)).images[:, 10:20, 12:20].astype(float)
    same, other = np.abs(faces[0] - faces[1]).mean(), np.abs(faces[0] - faces[5]).mean()
    assert same < 3 < other


def test_a_face_is_the_same_at_every_resolution():
    quiet = dataclasses.replace(SMALL, difficulty=0.0)
    small = load_faces(quiet).images.astype(float)
    large = load_faces(dataclasses.replace(quiet, resolution=128)).images.astype(float)
    reduced = large.reshape(len(large), 32, 4, 32, 4, 3).mean((2, 4))
    assert np.abs(small - reduced).mean() < 6


def test_attributes_say_what_is_drawn():
    spec = dataclasses.replace(SMALL, people=10, images_per_person=40, resolution=16)
    faces = load_faces(spec)
    assert list(faces.attributes) == ["glasses", "occlusion"]
    for name, rate in (("glasses", 0.25), ("occlusion", 0.15)):
        assert set(faces.attributes[name]) == {0.0, 1.0}
        assert abs(faces.attributes[name].mean() - rate) < 0.08
    none = load_faces(dataclasses.replace(spec, difficulty=0.0))
    assert none.attributes["glasses"].sum() == none.attributes["occlusion"].sum() == 0


def nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    distances = (train**2).sum(1)[None] - 2 * test @ train.T
    return labels[distances.argmin(1)]


@pytest.mark.slow
def test_people_can_be_told_apart_but_not_by_comparing_pixels():
    faces = load_faces(DataSpec(name="synthetic", people=20, images_per_person=20, resolution=32))
    pixels = faces.images.reshape(400, -1).astype(float)
    trains = np.arange(400) % 20 < 15
    labels, truth = faces.labels[trains], faces.labels[~trains]
    raw = np.mean(nearest(pixels[trains], labels, pixels[~trains]) == truth)
    # Fisher's linear discriminant on 60 principal components of images with their light evened out.
    even = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    centre = even[trains].mean(0)
    components = np.linalg.svd(even[trains] - centre, full_matrices=False)[2][:60]
    train, test = (even[trains] - centre) @ components.T, (even[~trains] - centre) @ components.T
    means = np.stack([train[labels == label].mean(0) for label in range(20)])
    within = np.cov((train - means[labels]).T) + 1e-2 * np.trace(np.cov(train.T)) / 60 * np.eye(60)
    whiten = np.linalg.cholesky(np.linalg.inv(within))
    learned = np.mean(nearest(means @ whiten, np.arange(20), test @ whiten) == truth)
    assert raw < 0.4, raw
    assert learned > 0.45, learned
    assert learned > 1.5 * raw


def test_background_and_clothes_say_nothing_about_the_person():
    faces = load_faces(DataSpec(name="synthetic", people=10, images_per_person=40, resolution=16))
    corners = np.concatenate(
        [faces.images[:, rows, columns].reshape(400, -1) for rows, columns in (
            (slice(0, 2), slice(0, 2)), (slice(0, 2), slice(-2, None)), (slice(-1, None), slice(7, 9)),
        )], axis=1,
    ).astype(float)  # fmt: skip
    trains = np.arange(400) % 40 < 30
    right = nearest(corners[trains], faces.labels[trains], corners[~trains]) == faces.labels[~trains]
    assert right.mean() < 0.25  # 0.1 by chance, of 100 images: 0.25 is five standard deviations off


def test_a_thousand_images_take_seconds():
    started = time.process_time()
    load_faces(DataSpec(name="synthetic", people=4, images_per_person=25, resolution=64))
    assert time.process_time() - started < 2  # a hundred of them; measured 0.26 s
