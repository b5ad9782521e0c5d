"""Labeled Faces in the Wild: on made-up copies of its layout, and on the real one where it is at hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections import Counter

import numpy as np
import pytest
from made_folders import make_picture, write_people
from made_lfw import PEOPLE, pack, spec_of
from PIL import Image

from ffem_jax.data import DataError, lfw, load_faces
from ffem_jax.data.download import Download
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.data.protocols import make_split
from ffem_jax.specs.trial import DataSpec, ProtocolSpec

# ------------------------------------------------------------------------------ where the faces are


@pytest.mark.parametrize(
    ("inner", "root", "variant"),
    [
        ("lfw-deepfunneled", ".", "deepfunneled"),
        ("lfw_funneled", ".", "funneled"),
        ("lfw", ".", "original"),
        ("lfw", "lfw", "original"),
        ("lfw_funneled", "lfw_funneled", "funneled"),
        ("lfw-deepfunneled/lfw-deepfunneled", ".", "deepfunneled"),
        ("mine", "mine", ""),
    ],
)
def test_the_people_are_found_and_the_edition_named(tmp_path, inner, root, variant):
    write_people(tmp_path / inner, PEOPLE)
    faces = load_faces(spec_of(tmp_path / root))
    assert faces.variant == variant
    assert faces.people == ("Ann_Lee", "Bob_Ray", "Dan_Day")
    assert faces.names[:4] == (*(f"Ann_Lee/Ann_Lee_000{n}.jpg" for n in (1, 2, 3)), "Bob_Ray/Bob_Ray_0001.jpg")
    assert "1 of 4 people" in faces.notes[0]


def test_the_environment_names_the_folder_and_the_spec_goes_before_it(tmp_path, monkeypatch):
    write_people(tmp_path / "a" / "lfw", PEOPLE)
    write_people(tmp_path / "b" / "lfw_funneled", PEOPLE)
    monkeypatch.setenv("FFEM_LFW_ROOT", str(tmp_path / "a"))
    assert load_faces(spec_of("")).variant == "original"
    assert load_faces(spec_of(tmp_path / "b")).variant == "funneled"


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "is missing"), ("file", "is not a folder"), ("empty", "does not contain LFW")]
)
def test_a_folder_without_lfw_says_what_it_must_hold(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message) as error:
        load_faces(spec_of(tmp_path / name))
    assert "lfw-deepfunneled" in str(error.value)
    assert "lfw-funneled.tgz" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_editions_beside_the_one_that_is_read_are_named(tmp_path):
    write_people(tmp_path / "lfw-deepfunneled", PEOPLE)
    pack(tmp_path / "lfw-deepfunneled", tmp_path / "lfw-deepfunneled.tgz")  # the same faces
    assert len(load_faces(spec_of(tmp_path)).notes) == 1
    pack(write_people(tmp_path / "lfw", PEOPLE), tmp_path / "lfw-funneled.tgz")
    faces = load_faces(spec_of(tmp_path))
    assert faces.variant == "deepfunneled"
    assert faces.notes[0] == "lfw-deepfunneled is used, not lfw, lfw-funneled.tgz, which also exists"
    assert len(load_faces(spec_of(tmp_path / "lfw")).notes) == 1


def test_an_archive_gives_what_its_folder_gives(tmp_path):
    folder = write_people(tmp_path / "a" / "lfw_funneled", PEOPLE)
    (tmp_path / "b").mkdir()
    pack(folder, tmp_path / "b" / "lfw-funneled.tgz")
    table = "path,glasses\nBob_Ray/Bob_Ray_0002.jpg,0.7\n"
    for side in "ab":
        (tmp_path / side / "attributes.csv").write_text(table)
    left, right = load_faces(spec_of(tmp_path / "a")), load_faces(spec_of(tmp_path / "b"))
    assert left.fingerprint == right.fingerprint
    assert (left.names, left.content, left.variant) == (right.names, right.content, right.variant)
    assert np.nansum(left.attributes["glasses"]) == np.nansum(right.attributes["glasses"]) == 0.7
    assert sorted(os.listdir(tmp_path / "b")) == ["attributes.csv", "lfw-funneled.tgz"]  # unpacked nowhere


def test_a_damaged_archive_says_so(tmp_path):
    folder = write_people(tmp_path / "lfw_funneled", PEOPLE)
    archive = pack(folder, tmp_path / "lfw-funneled.tgz")
    shutil.rmtree(folder)
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match="is corrupt") as error:
        load_faces(spec_of(tmp_path))
    assert "\n" not in str(error.value)


def test_without_a_folder_the_archive_is_downloaded_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("FFEM_LFW_ROOT", raising=False)
    archive = pack(write_people(tmp_path / "lfw_funneled", PEOPLE), tmp_path / "served.tgz")
    data = archive.read_bytes()
    offered = Download("lfw-funneled.tgz", archive.as_uri(), len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(lfw, "FUNNELED", offered)
    cache = tmp_path / "cache"
    faces = load_faces(spec_of("", cache_dir=str(cache)))
    assert faces.variant == "funneled"
    assert len(faces.names) == 11
    assert (cache / "lfw-funneled.tgz").read_bytes() == data
    archive.unlink()
    assert load_faces(spec_of("", cache_dir=str(cache), resolution=20)).names == faces.names


def test_the_published_archive_is_the_one_scikit_learn_fetches():
    assert lfw.FUNNELED.url == "https://ndownloader.figshare.com/files/5976015"
    assert lfw.FUNNELED.sha256 == "b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a"


# -------------------------------------------------------------------------------- what is selected


def test_people_and_images_are_selected_as_the_spec_says(tmp_path):
    write_people(tmp_path / "lfw", {**PEOPLE, "Eve_Fay": 4})
    faces = load_faces(spec_of(tmp_path, people=3, max_images=2))
    assert faces.people == ("Ann_Lee", "Bob_Ray", "Eve_Fay")  # Ann before Dan, who has as many
    assert [name[-8:-4] for name in faces.names] == ["0001", "0002"] * 3


def test_lfw52_is_52_people_with_30_images_at_most(tmp_path):
    counts = {f"P_{number:02d}": 3 + number % 2 for number in range(60)} | {"Q_Q": 33}
    write_people(tmp_path / "lfw", counts)
    faces = load_faces(spec_of(tmp_path, name="lfw52"))
    expected = sorted(sorted(counts, key=lambda person: (-counts[person], person))[:52])
    assert list(faces.people) == expected
    assert np.bincount(faces.labels).tolist() == [min(30, counts[person]) for person in expected]
    assert "lfw52 is incomplete" in faces.notes[-1]


def test_lfw_rest_is_whom_lfw52_leaves_over(tmp_path):
    counts = {f"P_{number:02d}": 3 + number % 2 for number in range(56)} | {"Q_Q": 33, "R_R": 1, "S_S": 2}
    write_people(tmp_path / "lfw", counts)
    known = load_faces(spec_of(tmp_path, name="lfw52"))
    rest = load_faces(spec_of(tmp_path, name="lfw_rest"))
    assert not set(known.people) & set(rest.people)
    assert {*known.people, *rest.people} == set(counts) - {"R_R"}  # one image is not enough
    assert not set(known.content) & set(rest.content)
    assert np.bincount(rest.labels).tolist() == [counts[person] for person in rest.people]
    assert load_faces(spec_of(tmp_path, name="lfw_rest", people=2, min_images=3)).people == rest.people[:2]


@pytest.mark.parametrize("other", [{"people": 10}, {"max_images": 5}])
def test_lfw52_cannot_be_something_else(tmp_path, other):
    with pytest.raises(DataError, match="use data=lfw"):
        load_faces(spec_of(tmp_path, name="lfw52", **other))


def test_pixels_are_those_of_the_file(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    faces = load_faces(spec_of(tmp_path, crop=0.5))
    for image, name in zip(faces.images, faces.names, strict=True):
        np.testing.assert_array_equal(image, crop_face(Image.open(tmp_path / "lfw" / name), 0.5, 16))


# ------------------------------------------------------------------------------ what is passed over


def test_whatever_is_no_picture_of_lfw_is_named(tmp_path):
    people = write_people(tmp_path / "lfw", PEOPLE)
    make_picture(50).save(people / "Ann_Lee" / "Ann_Lee_0009.JPG")
    make_picture(51).save(people / "Ann_Lee" / "Ann_Lee_0010.png")
    make_picture(52).save(people / "loose.jpg")
    (people / "Ann_Lee" / "Ann_Lee_0011.jpg").symlink_to("nowhere")
    os.mkfifo(people / "Ann_Lee" / "Ann_Lee_0012.jpg")
    (people / "Bob_Ray" / "folder.jpg").mkdir()
    (people / "Eve_Fay").mkdir()
    for _ in range(2):
        faces = load_faces(spec_of(tmp_path))
        assert len(faces.names) == 11
        assert [note.split(":")[-1].split(";")[0].strip() for note in faces.notes[:-1]] == [
            "Bob_Ray/folder.jpg (0)", "Ann_Lee/Ann_Lee_0011.jpg", "Ann_Lee/Ann_Lee_0012.jpg", "loose.jpg",
            ".JPG (1), .png (1)", "Eve_Fay",
        ]  # fmt: skip


def test_whatever_is_no_picture_of_the_archive_is_named_at_every_resolution(tmp_path):
    people = write_people(tmp_path / "lfw", PEOPLE)
    write_people(people / "Ann_Lee", {"2019": 2}, seed=50)
    make_picture(52).save(people / "loose.jpg")
    make_picture(53).save(people / "Bob_Ray" / "Bob_Ray_0009.PNG")
    (people / "Bob_Ray" / "Bob_Ray_0010.jpg").symlink_to("Bob_Ray_0001.jpg")
    (people / "pairs_01.txt").write_text("as the published archive has it")
    pack(people, tmp_path / "lfw.tgz")
    shutil.rmtree(people)
    for resolution in (16, 20, 20):
        faces = load_faces(spec_of(tmp_path, resolution=resolution, cache_dir=str(tmp_path / "cache")))
        assert faces.people == ("Ann_Lee", "Bob_Ray", "Dan_Day")
        assert len(faces.names) == 11
        assert "skipped in lfw.tgz (5)" in faces.notes[0]
        for name in ("Ann_Lee/2019/2019_0001.jpg", "lfw/loose.jpg", "Bob_Ray_0009.PNG", "Bob_Ray_0010.jpg"):
            assert name in faces.notes[0]


def test_an_archive_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    archive = pack(write_people(tmp_path / "lfw", PEOPLE), tmp_path / "lfw.tgz")
    shutil.rmtree(tmp_path / "lfw")

    def refuse(*words, **options):
        raise PermissionError(13, "Permission denied", str(archive))

    monkeypatch.setattr(lfw.tarfile, "open", refuse)
    with pytest.raises(DataError, match=r"lfw.tgz cannot be read \(Permission denied\)"):
        load_faces(spec_of(tmp_path))


def test_one_name_in_two_normal_forms_is_one_person(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "José_Ray") for form in ("NFC", "NFD"))
    write_people(tmp_path / "lfw", {nfc: 2, nfd: 2, "Ann_Lee": 3, "Bob_Ray": 3})
    faces = load_faces(spec_of(tmp_path, people=2))
    assert faces.people == ("Ann_Lee", nfc)
    assert np.bincount(faces.labels).tolist() == [3, 4]
    assert "folders merged into one person: José_Ray" in faces.notes[0]


def test_names_that_are_no_utf8_are_loaded_from_a_folder_and_from_an_archive(tmp_path):
    people = write_people(tmp_path / "a" / "lfw", PEOPLE)
    shutil.copytree(people / "Ann_Lee", os.fsdecode(os.fsencode(people) + b"/Jos\xe9"))
    (tmp_path / "b").mkdir()
    pack(people, tmp_path / "b" / "lfw.tgz")
    left, right = load_faces(spec_of(tmp_path / "a")), load_faces(spec_of(tmp_path / "b"))
    assert r"Jos\xe9" in left.people
    assert (left.people, left.names, left.fingerprint) == (right.people, right.names, right.fingerprint)
    assert "not UTF-8 (1)" in left.notes[0]


def test_somebody_new_with_too_few_images_is_counted_though_nobody_selected_changed(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    assert "left out 1 of 4 people" in load_faces(spec_of(tmp_path)).notes[-1]
    write_people(tmp_path / "lfw", {"Eve_Fay": 1}, seed=50)
    assert "left out 2 of 5 people" in load_faces(spec_of(tmp_path)).notes[-1]


# ------------------------------------------------------------------------------------ the real one


@pytest.fixture(scope="module")
def lfw52(lfw_root):
    return load_faces(DataSpec(name="lfw52", root=str(lfw_root), resolution=32, crop=0.56))


@pytest.mark.slow
def test_lfw52_is_as_defined(lfw52, lfw_root):
    assert lfw52.images.shape == (1467, 32, 32, 3)
    assert len(lfw52.people) == 52
    assert lfw52.notes == ()
    # The definition again, by other means.
    source = lfw.find_source(DataSpec(root=str(lfw_root))).path
    counts = Counter(path.parent.name for path in source.glob("*/*.jpg"))
    chosen = sorted(counts, key=lambda person: (-counts[person], person))[:52]
    assert list(lfw52.people) == sorted(chosen)
    expected = [f"{p}/{p}_{n:04d}.jpg" for p in sorted(chosen) for n in range(1, min(30, counts[p]) + 1)]
    assert list(lfw52.names) == expected


def test_lfw52_has_the_middle_of_each_frame(lfw52, lfw_root):
    source = lfw.find_source(DataSpec(root=str(lfw_root))).path
    for index in (0, 700, 1466):
        middle = Image.open(source / lfw52.names[index]).convert("RGB").crop((55, 55, 195, 195))
        expected = middle.resize((32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(lfw52.images[index], np.asarray(expected))


def test_lfw52_has_its_attributes(lfw52):
    glasses = lfw52.attributes["eyeglasses_probability"]
    assert glasses.dtype == np.float64
    assert np.nanmin(glasses) >= 0
    assert np.nanmax(glasses) <= 1
    assert 0.05 < np.mean(glasses > 0.5) < 0.5
    assert set(lfw52.attributes["gender"]) <= {"male", "female", ""}
    # A person's gender is one.
    for label in range(52):
        assert len(set(lfw52.attributes["gender"][lfw52.labels == label]) - {""}) == 1


@pytest.mark.slow
def test_lfw_rest_has_nobody_of_lfw52_and_none_of_their_pictures(lfw52, lfw_root):
    rest = load_faces(DataSpec(name="lfw_rest", root=str(lfw_root), resolution=32, crop=0.56))
    assert (len(rest.people), len(rest.names)) == (1628, 6347)
    assert not set(rest.people) & set(lfw52.people)
    assert not set(rest.content) & set(lfw52.content)
    assert np.bincount(rest.labels).min() == 2
    split = make_split(rest.labels, rest.content, ProtocolSpec(test_per_person=1, test_people=200))
    assert (len(split.train), len(split.test)) == (6147, 200)


def test_lfw52_splits_as_defined(lfw52):
    holdout = make_split(lfw52.labels, lfw52.content, ProtocolSpec())
    assert (len(holdout.train), len(holdout.test)) == (1363, 104)
    assert holdout.notes == ()
    folds = [make_split(lfw52.labels, lfw52.content, ProtocolSpec(name="kfold", fold=fold)) for fold in range(5)]
    assert sorted(len(split.test) for split in folds) == [293, 293, 293, 294, 294]
