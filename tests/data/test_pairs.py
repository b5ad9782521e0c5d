"""View 2: its pairs read, and nobody tested who trained; on a made-up LFW, and on the real one where it is at hand."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import unicodedata

import numpy as np
import pytest
from made_folders import write_pairs, write_people

from ffem_jax.data import DataError, lfw
from ffem_jax.data.download import Download
from ffem_jax.data.pairs import read_pairs
from ffem_jax.data.protocols import load_split, make_view2_split
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, TrialSpec, trial_key

PEOPLE = {"Ann": 3, "Bob": 2, "Cy": 2, "Dan": 1, "Eve": 2, "Fay": 4, "Gus": 3, "Hal": 1}
# Two folds of two same and two different pairs; Fay, Gus and Hal are in none.
FOLDS = [
    ["Ann 1 3", "Bob 1 2", "Ann 2 Bob 1", "Bob 2 Dan 1"],
    ["Cy 1 2", "Eve 1 2", "Cy 1 Eve 1", "Cy 2 Eve 2"],
]


@pytest.fixture
def root(tmp_path):
    write_people(tmp_path / "lfw", PEOPLE)
    write_pairs(tmp_path / "pairs.txt", FOLDS)
    return tmp_path


def data_of(root, **options) -> DataSpec:
    return DataSpec(**{"name": "lfw", "root": str(root), "resolution": 16, "min_images": 2, **options})


def view2(fold=0, **options) -> ProtocolSpec:
    return ProtocolSpec(**{"name": "view2", "folds": 2, "fold": fold, **options})


def people_of(faces, indices) -> set[str]:
    return {faces.people[faces.labels[index]] for index in indices}


def key_of(split, faces, data, protocol):
    trial = TrialSpec(data=dataclasses.replace(data, resolution=32), protocol=protocol)
    return trial_key(trial, faces.fingerprint + split.digest)


# -------------------------------------------------------------------------------------- the pairs


def test_pairs_are_read_in_order(root):
    faces, split = load_split(data_of(root), view2())
    pairs = split.pairs
    numbered = [(faces.names[a], faces.names[b]) for a, b in zip(pairs.first, pairs.second, strict=True)]
    assert numbered[0] == ("Ann/Ann_0001.jpg", "Ann/Ann_0003.jpg")
    assert numbered[3] == ("Bob/Bob_0002.jpg", "Dan/Dan_0001.jpg")
    assert numbered[7] == ("Cy/Cy_0002.jpg", "Eve/Eve_0002.jpg")
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("line", "text", "told"),
    [
        (1, "2", "line 1 must be the number of folds"),
        (1, "ten\t2", "line 1 must be the number of folds"),
        (1, "1\t4", "line 1 must be the number of folds"),
        (1, "2\t3", "has 8 pairs, but its first line announces 12"),
        (3, "Bob\t1", "line 3: 'Bob 1' is not person, number, number"),
        (3, "Bob\t1\tAnn\t2", "line 3: .* is not person, number, number"),
        (4, "Ann\t1\t2", "line 4: .* is not person, number, another person, number"),
        (4, "Ann\t1\tAnn\t2", "line 4: .* is not person, number, another person, number"),
        (4, "Ann\tone\tBob\t2", "line 4: .* is not person, number"),
        (7, "Eve\t1\t9", "line 7: Eve/Eve_0009.jpg is not among the 18 readable images"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_and_number(root, line, text, told):
    path = root / "pairs.txt"
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=told) as error:
        load_split(data_of(root), view2())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_empty_or_no_text_is_named(root):
    path = root / "pairs.txt"
    for content, told in ((None, "cannot be read"), (b"", "line 1 must be"), (b"\xff\xfe", "it is not text")):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=told) as error:
            load_split(data_of(root), view2())
        assert str(path) in str(error.value)


def test_the_pairs_lie_beside_the_people_or_in_the_root_or_are_downloaded(root, monkeypatch, tmp_path_factory):
    path = root / "pairs.txt"
    assert lfw.find_pairs(data_of(root / "lfw")) == lfw.find_pairs(data_of(root)) == path
    inside = root / "lfw" / "pairs.txt"
    shutil.move(path, inside)
    assert lfw.find_pairs(data_of(root / "lfw")) == inside
    monkeypatch.delenv("FFEM_LFW_ROOT", raising=False)
    served = inside.read_bytes()
    offered = Download("pairs.txt", inside.as_uri(), len(served), hashlib.sha256(served).hexdigest())
    monkeypatch.setattr(lfw, "PAIRS", offered)
    cache = tmp_path_factory.mktemp("cache")
    assert lfw.find_pairs(data_of("", cache_dir=str(cache))).read_bytes() == served


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_a_name_is_one_in_either_normal_form(tmp_path, on_disk, in_file):
    disk, file = (unicodedata.normalize(form, "Zoë") for form in (on_disk, in_file))
    write_people(tmp_path / "lfw", {**PEOPLE, disk: 2})
    path = write_pairs(tmp_path / "pairs.txt", [[f"{file} 1 2", f"{file} 2 Ann 1"], FOLDS[1][1:3]])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as an editor of Windows saves it
    faces, split = load_split(data_of(tmp_path), view2())
    assert faces.names[split.pairs.first[0]] == f"{disk}/{disk}_0001.jpg"
    write_pairs(tmp_path / "pairs.txt", [[f"{file} 1 2", f"{file} 2 {disk} 1"], FOLDS[1][1:3]])
    if disk != file:
        with pytest.raises(DataError, match="is not person, number, another person"):
            load_split(data_of(tmp_path), view2())


# -------------------------------------------------------------------------------------- who trains


@pytest.mark.parametrize(
    ("fold", "options", "trained"),
    [
        (0, {}, {"Cy": 2, "Eve": 2, "Fay": 4, "Gus": 3}),
        (1, {}, {"Ann": 3, "Bob": 2, "Fay": 4, "Gus": 3}),
        (0, {"min_images": 1}, {"Cy": 2, "Eve": 2, "Fay": 4, "Gus": 3, "Hal": 1}),
        (0, {"min_images": 3}, {"Fay": 4, "Gus": 3}),
        (0, {"people": 3, "max_images": 2}, {"Fay": 2, "Gus": 2, "Cy": 2}),
    ],
)
def test_all_images_of_those_in_no_pair_of_the_fold_train(root, fold, options, trained):
    faces, split = load_split(data_of(root, **options), view2(fold))
    found = [faces.names[index].split("/")[0] for index in split.train]
    assert {person: found.count(person) for person in set(found)} == trained
    assert people_of(faces, split.test) == ({"Ann", "Bob", "Dan"}, {"Cy", "Eve"})[fold]
    assert len(split.validation) == 0
    assert "view2, fold" in split.notes[0]


def test_a_tested_picture_trains_under_no_other_name(root):
    shutil.copy(root / "lfw" / "Ann" / "Ann_0001.jpg", root / "lfw" / "Fay" / "Fay_0002.jpg")
    faces, split = load_split(data_of(root), view2())
    assert "Fay/Fay_0002.jpg" not in {faces.names[index] for index in split.train}
    assert "Fay/Fay_0001.jpg" in {faces.names[index] for index in split.train}


def test_images_held_out_are_of_people_who_train_and_change_nobody_elses_side(root):
    plain = load_split(data_of(root), view2())[1]
    faces, split = load_split(data_of(root), view2(validation_per_person=1))
    assert sorted([*split.train, *split.validation]) == plain.train.tolist()
    assert people_of(faces, split.validation) == people_of(faces, split.train) == people_of(faces, plain.train)
    assert len(split.validation) == 4
    np.testing.assert_array_equal(split.test, plain.test)
    with pytest.raises(DataError, match="Hal has 1 different training images; protocol.validation_per_person=1"):
        load_split(data_of(root, min_images=1), view2(validation_per_person=1))


def test_the_key_knows_the_fold_the_pairs_and_who_trains(root):
    data = data_of(root)
    faces, split = load_split(data, view2())
    keys = {key_of(split, faces, data, view2())}
    for other in (data_of(root, min_images=3), data_of(root, max_images=2), data_of(root, min_images=1)):
        keys.add(key_of(load_split(other, view2())[1], faces, other, view2()))
    keys.add(key_of(load_split(data, view2(1))[1], faces, data, view2(1)))
    keys.add(key_of(load_split(data, view2(validation_per_person=1))[1], faces, data, view2(validation_per_person=1)))
    swapped = [FOLDS[0], [*FOLDS[1][:2], "Cy 1 Eve 2", "Cy 2 Eve 1"]]
    write_pairs(root / "pairs.txt", swapped)
    keys.add(key_of(load_split(data, view2())[1], faces, data, view2()))
    assert len(keys) == 7
    unread = view2(split_seed=3, sigma=0.1, far_target=0.5, test_per_person=9)
    assert key_of(split, faces, data, unread) == key_of(split, faces, data, view2())


def test_what_cannot_be_met_says_what_to_set(root):
    with pytest.raises(DataError, match="set data=lfw"):
        load_split(DataSpec(name="synthetic"), view2())
    with pytest.raises(DataError, match=r"has 2 folds; set protocol\.folds=2 instead of 10"):
        load_split(data_of(root), view2(folds=10, fold=9))
    with pytest.raises(DataError, match=r"1 people outside fold 0 have data\.min_images=4"):
        load_split(data_of(root, min_images=4), view2())


# ------------------------------------------------------------------------------------ the real one


@pytest.fixture(scope="module")
def names_and_labels(lfw_root):
    """The names and people of all of LFW, without its pixels."""
    names = lfw.list_names(lfw.find_source(DataSpec(root=str(lfw_root))).path)
    people = sorted({name.split("/")[0] for name in names})
    return names, people, np.asarray([people.index(name.split("/")[0]) for name in names])


def test_the_real_pairs_are_ten_folds_of_strangers_to_each_other(lfw_root, names_and_labels):
    names, _, labels = names_and_labels
    path = lfw.find_pairs(DataSpec(name="lfw", root=str(lfw_root)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == lfw.PAIRS.sha256
    pairs = read_pairs(path, names)
    assert np.bincount(pairs.fold).tolist() == [600] * 10
    assert np.bincount(pairs.fold[pairs.same]).tolist() == [300] * 10
    np.testing.assert_array_equal(labels[pairs.first] == labels[pairs.second], pairs.same)
    folds = [set(labels[np.append(pairs.first[f], pairs.second[f])]) for f in np.arange(10)[:, None] == pairs.fold]
    assert sum(map(len, folds)) == len(set().union(*folds)) == 4281  # nobody is in two folds


@pytest.mark.parametrize("fold", range(10))
def test_nobody_of_the_real_fold_trains(lfw_root, names_and_labels, fold):
    names, people, labels = names_and_labels
    path = lfw.find_pairs(DataSpec(name="lfw", root=str(lfw_root)))
    faces = lfw.Faces(np.zeros((0, 16, 16, 3), np.uint8), labels, tuple(people), tuple(names), tuple(names))
    protocol = ProtocolSpec(name="view2", folds=10, fold=fold)
    split = make_view2_split(faces, read_pairs(path, names), DataSpec(name="lfw", min_images=4), protocol)
    # Who is tested, again, from the file itself.
    rows = [line.split("\t") for line in path.read_text().splitlines()[1 + 600 * fold : 601 + 600 * fold]]
    tested = {word for row in rows for word in row if not word.isdigit()}
    trained = people_of(faces, split.train)
    assert not tested & trained
    assert people_of(faces, split.test) == tested
    counts = dict(zip(*np.unique([name.split("/")[0] for name in names], return_counts=True), strict=True))
    assert trained == {person for person in people if person not in tested and counts[person] >= 4}
    assert len(split.train) == sum(counts[person] for person in trained)


def test_the_split_does_not_look_at_the_pixels(root):
    faces, split = load_split(data_of(root), view2())
    blank = dataclasses.replace(faces, images=np.zeros_like(faces.images))
    again = make_view2_split(blank, split.pairs, data_of(root), view2())
    np.testing.assert_array_equal(again.train, split.train)
    assert again.digest == split.digest
