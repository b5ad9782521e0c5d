"""What every data set keeps to, whichever it is: a new entry in LOADERS is tested the day it appears."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_folders import write_people

from ffem_jax.data import LOADERS, DataError, Faces, load_faces
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import DataSpec


@pytest.fixture(params=LOADERS)
def spec(request, tmp_path) -> DataSpec:
    people = {"Ann": 4, "Bob": 3, "Cy": 5}
    if request.param == "lfw_rest":
        people |= {f"Known_{number:02d}": 6 for number in range(52)}
    root = write_people(tmp_path / "faces" / "lfw", people)
    return DataSpec(name=request.param, root=str(root), resolution=24, min_images=2, images_per_person=3)


def assert_equal(left: Faces, right: Faces) -> None:
    for field in dataclasses.fields(Faces):
        if field.name not in ("images", "labels", "attributes"):
            assert getattr(left, field.name) == getattr(right, field.name), field.name
    np.testing.assert_array_equal(left.images, right.images)
    np.testing.assert_array_equal(left.labels, right.labels)
    assert list(left.attributes) == list(right.attributes)
    for name, values in left.attributes.items():
        np.testing.assert_array_equal(values, right.attributes[name])
    assert left.fingerprint == right.fingerprint


def test_shapes_types_and_ranges(spec):
    faces = load_faces(spec)
    count = len(faces.names)
    assert faces.images.shape == (count, 24, 24, 3)
    assert faces.images.dtype == np.uint8
    assert faces.labels.shape == (count,)
    assert faces.labels.dtype == np.int32
    assert sorted(set(faces.labels.tolist())) == list(range(len(faces.people)))
    assert list(faces.people) == sorted(set(faces.people))
    assert len(faces.content) == count
    assert all(values.shape == (count,) for values in faces.attributes.values())
    assert np.bincount(faces.labels).min() >= spec.min_images
    assert faces.images.std() > 5  # pictures, and not an empty buffer


def test_images_are_in_order_of_person_and_file(spec):
    faces = load_faces(spec)
    assert np.all(np.diff(faces.labels) >= 0)
    assert list(faces.names) == sorted(faces.names)
    assert len(set(faces.names)) == len(faces.names)


def test_the_same_spec_gives_the_same_faces(spec, tmp_path):
    first = load_faces(spec)
    assert_equal(first, load_faces(spec))  # from the cache, where there is one
    elsewhere = dataclasses.replace(spec, cache_dir=str(tmp_path / "cache"))
    assert_equal(first, load_faces(elsewhere))


def test_the_fingerprint_tells_faces_apart(spec):
    faces = load_faces(spec)
    touched = faces.images.copy()
    touched[-1, -1, -1, -1] ^= 1
    swapped = dataclasses.replace(faces, labels=faces.labels[::-1].copy())
    larger = load_faces(dataclasses.replace(spec, resolution=25))
    prints = {f.fingerprint for f in (faces, dataclasses.replace(faces, images=touched), swapped, larger)}
    assert len(prints) == 4


def test_content_is_the_picture_and_not_the_name(spec):
    faces = load_faces(spec)
    assert len(set(faces.content)) == len(faces.content)


def test_two_people_are_needed(spec):
    if spec.name == "lfw52":
        pytest.skip("lfw52 is 52 people, whatever is asked")
    with pytest.raises(DataError, match="two are needed|at least 2 people") as error:
        load_faces(dataclasses.replace(spec, people=1))
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match="lfw52, lfw, lfw_rest, folder, synthetic"):
        DataSpec(name="celeba")


def test_the_fingerprint_of_the_pictures_is_blind_to_size_and_crop(tmp_path):
    root = write_people(tmp_path / "faces", {"Ann": 4, "Bob": 3})
    spec = DataSpec(name="folder", root=str(root), resolution=24)
    whole = load_faces(spec)
    for view in ({"resolution": 32}, {"crop": 0.5}):
        other = load_faces(dataclasses.replace(spec, **view))
        assert other.pictures_fingerprint == whole.pictures_fingerprint
        assert other.fingerprint != whole.fingerprint
    fewer = load_faces(dataclasses.replace(spec, max_images=3))
    assert fewer.pictures_fingerprint != whole.pictures_fingerprint
    turned = dataclasses.replace(whole, content=whole.content[::-1])
    assert turned.pictures_fingerprint != whole.pictures_fingerprint
