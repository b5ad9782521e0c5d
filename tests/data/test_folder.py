"""Anyone's folder of photographs, and what is wrong with it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from made_folders import make_picture, write_people
from PIL import Image

from ffem_jax.data import DataError, cache, load_faces
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.specs.data import FITS, DataSpec


def spec_of(root, **options) -> DataSpec:
    return DataSpec(name="folder", root=str(root), **{"resolution": 16, **options})


def test_every_ending_in_any_case_and_order(tmp_path):
    for person in ("Zoë", "adam"):
        (tmp_path / person).mkdir()
        for seed, name in enumerate(["e.PNG", "a.jpg", "b.JPEG", "d.webp", "c.pgm"]):
            image = make_picture(seed + 10 * len(person), (40, 40))
            (image.convert("L") if name == "c.pgm" else image).save(tmp_path / person / name)
    faces = load_faces(spec_of(tmp_path))
    assert faces.people == ("Zoë", "adam")
    assert faces.names[:5] == tuple(f"Zoë/{name}" for name in ["a.jpg", "b.JPEG", "c.pgm", "d.webp", "e.PNG"])
    assert np.bincount(faces.labels).tolist() == [5, 5]
    assert faces.notes == ()
    np.testing.assert_array_equal(faces.images[4], crop_face(make_picture(30, (40, 40)), 1.0, 16))


def test_hidden_and_other_files_are_passed_over(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 2})
    (tmp_path / ".cache").mkdir()
    make_picture(0).save(tmp_path / ".cache" / "x.jpg")
    (tmp_path / "ann" / "._ann_0001.jpg").write_bytes(b"what a Mac leaves")
    (tmp_path / "ann" / "notes.txt").write_text("hello")
    (tmp_path / "bob" / "IMG.HEIC").write_bytes(b"?")
    faces = load_faces(spec_of(tmp_path))
    assert len(faces.names) == 4
    assert len(faces.notes) == 1
    assert ".heic (1), .txt (1)" in faces.notes[0]


def test_a_broken_file_is_named_and_skipped(tmp_path):
    write_people(tmp_path, {"ann": 3, "bob": 3})
    whole = (tmp_path / "ann" / "ann_0002.jpg").read_bytes()
    (tmp_path / "ann" / "ann_0002.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bob" / "bob_0001.jpg").write_bytes(b"")
    for _ in range(2):  # decoded, then read from the cache as a new process does
        cache._recent.clear()
        faces = load_faces(spec_of(tmp_path))
        assert faces.names == ("ann/ann_0001.jpg", "ann/ann_0003.jpg", "bob/bob_0002.jpg", "bob/bob_0003.jpg")
        assert [note.split(":")[0] for note in faces.notes] == ["skipped ann/ann_0002.jpg", "skipped bob/bob_0001.jpg"]
        np.testing.assert_array_equal(
            faces.images[1], crop_face(Image.open(tmp_path / "ann" / "ann_0003.jpg"), 1.0, 16)
        )


@pytest.mark.parametrize("fit", FITS)
def test_pictures_that_are_not_square_are_counted_and_what_is_done_said(tmp_path, fit):
    write_people(tmp_path, {"ann": 3, "bob": 2})
    for number, size in enumerate([(40, 30), (30, 40), (40, 39)]):
        make_picture(number, size).save(tmp_path / "bob" / f"x{number}.png")
    done = {"crop": "cut off", "pad": "grey borders", "stretch": "squeezed"}[fit]
    spec = spec_of(tmp_path, fit=fit)
    load_faces(spec_of(tmp_path))  # what the cache has of another fit is not taken
    for _ in range(2):  # decoded, then read from the cache as a new process does
        cache._recent.clear()
        faces = load_faces(spec)
        (note,) = faces.notes
        assert note.startswith("3 of 8 images are not square: ")
        assert done in note
        assert f"(data.fit={fit};" in note
        picture = Image.open(tmp_path / "bob" / "x0.png")
        np.testing.assert_array_equal(faces.images[5], crop_face(picture, 1.0, 16, fit))
    # Of those that stay, not of those that are read.
    assert load_faces(spec_of(tmp_path, fit=fit, max_images=2)).notes == ()


def test_a_person_with_too_few_readable_images_is_named_and_left_out(tmp_path):
    write_people(tmp_path, {"ann": 3, "bob": 3, "cy": 2, "dan": 3})
    (tmp_path / "dan" / "dan_0001.jpg").write_bytes(b"")
    (tmp_path / "eve").mkdir()
    faces = load_faces(spec_of(tmp_path, min_images=3))
    assert faces.people == ("ann", "bob")
    assert any("cy (2), dan (2)" in note and "data.min_images=3" in note for note in faces.notes)
    assert any("eve" in note for note in faces.notes)


def test_broken_files_do_not_count_towards_max_images(tmp_path):
    write_people(tmp_path, {"ann": 4, "bob": 4})
    (tmp_path / "ann" / "ann_0001.jpg").write_bytes(b"")
    faces = load_faces(spec_of(tmp_path, max_images=2))
    assert [name.split("/")[1] for name in faces.names] == [
        "ann_0002.jpg", "ann_0003.jpg", "bob_0001.jpg", "bob_0002.jpg",
    ]  # fmt: skip


def test_people_keeps_those_with_the_most_images(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 4, "cy": 3, "dan": 3})
    faces = load_faces(spec_of(tmp_path, people=2))
    assert faces.people == ("bob", "cy")
    assert faces.notes == ()


def test_fewer_people_than_asked_for_are_said(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 4})
    assert load_faces(spec_of(tmp_path, people=4)).notes == ("data.people=4 was requested, but there are only 2",)


def test_attributes_beside_the_people(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 2})
    assert load_faces(spec_of(tmp_path)).attributes == {}
    (tmp_path / "attributes.csv").write_text("path,glasses\nann/ann_0002.jpg,1\nbob/bob_0001.jpg,0\n")
    faces = load_faces(spec_of(tmp_path))
    np.testing.assert_array_equal(faces.attributes["glasses"], [np.nan, 1, 0, np.nan])


def test_a_changed_file_is_seen(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 2})
    before = load_faces(spec_of(tmp_path))
    path = tmp_path / "bob" / "bob_0002.jpg"
    make_picture(99).save(path)
    os.utime(path, ns=(1, 1))
    after = load_faces(spec_of(tmp_path))
    assert before.fingerprint != after.fingerprint
    np.testing.assert_array_equal(before.images[:3], after.images[:3])


def test_the_same_picture_in_another_file_has_the_same_content(tmp_path):
    write_people(tmp_path, {"ann": 2, "bob": 2}, ending="png")
    Image.open(tmp_path / "ann" / "ann_0001.png").save(tmp_path / "bob" / "copy.webp", lossless=True)
    faces = load_faces(spec_of(tmp_path))
    assert faces.content[faces.names.index("bob/copy.webp")] == faces.content[0]
    assert len(set(faces.content)) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: "", "needs data.root=DIR"),
        (lambda root: root / "nowhere", "is missing"),
        (lambda root: root / "file.txt", "is not a folder"),
        (lambda root: root / "empty", "is empty"),
        (lambda root: root / "loose", "has 2 images but no folders"),
        (lambda root: root / "bare", "no image in its 2 folders"),
        (lambda root: root / "one", "has 1 of the required 2 people"),
        (lambda root: root / "broken", "has 1 of the required 2 people .*skipped bob/bob_0001.jpg"),
    ],
)
def test_what_cannot_be_used_says_what_the_layout_must_be(tmp_path, make, message):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose").mkdir()
    for seed in range(2):
        make_picture(seed).save(tmp_path / "loose" / f"{seed}.jpg")
    for name in ("ann", "bob"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    write_people(tmp_path / "one", {"ann": 3})
    write_people(tmp_path / "broken", {"ann": 3, "bob": 2})
    (tmp_path / "broken" / "bob" / "bob_0001.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=message) as error:
        load_faces(spec_of(make(tmp_path)))
    assert "one folder per person" in str(error.value)
    assert "\n" not in str(error.value)
