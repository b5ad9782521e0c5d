"""Folds of people: nobody and no image on both sides, whatever the people, the copies and the names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ffem_jax.data import DataError, Faces
from ffem_jax.data.open_set import check_strangers, draw_people_fold
from ffem_jax.data.protocols import load_split, make_open_set_split
from ffem_jax.data.recorded import identify_faces
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.protocol import select_effective_protocol
from ffem_jax.specs.trial import DataSpec, ProtocolSpec
from ffem_jax.text.names import fold_name

OPEN_SET = ProtocolSpec(name="open_set", folds=3)


def make_faces(labels, content=None, people=None, *, synthetic=False) -> Faces:
    """Faces of two grey pixels each, which no split looks at."""
    labels = np.asarray(labels, np.int32)
    people = people or [f"person {label}" for label in range(labels.max() + 1)]
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    names = tuple(f"{people[label]}/{index}.jpg" for index, label in enumerate(labels))
    content = content or [f"{index:x}" for index in range(len(labels))]
    return Faces(images, labels, tuple(people), names, tuple(content), synthetic=synthetic)


@st.composite
def drawn_faces(draw) -> Faces:
    """People with one image or more, pictures repeated within a person and across people, and names that may be one."""
    owners, contents = [], []
    count = draw(st.integers(4, 12))
    for label in range(count):
        for number in range(draw(st.integers(1, 6))):
            times = draw(st.sampled_from([1, 1, 1, 2, 3]))
            owners += [label] * times
            contents += [f"{label}-{number}"] * times
    for number in range(draw(st.integers(0, 4))):
        both = draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=3, unique=True))
        owners += both
        contents += [f"shared-{number}"] * len(both)
    people = [f"Person {label}" for label in range(count)]
    if draw(st.booleans()):
        people[-1] = people[0].upper()
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(owners))
    return make_faces(np.array(owners)[order], [contents[index] for index in order], people)


@given(drawn_faces(), st.integers(2, 4), st.integers(0, 2**31 - 1))
def test_nobody_and_no_image_is_on_both_sides(faces, folds, seed) -> None:
    tested_people: list[str] = []
    for fold in range(folds):
        protocol = ProtocolSpec(name="open_set", folds=folds, fold=fold, split_seed=seed)
        try:
            split = make_open_set_split(faces, protocol)
        except DataError:
            assume(False)
        assert np.all(np.diff(split.train) > 0)
        assert np.all(np.diff(split.test) > 0)
        assert not {faces.content[i] for i in split.train} & {faces.content[i] for i in split.test}
        trained, tested = (
            {fold_name(faces.people[label]) for label in faces.labels[side]} for side in (split.train, split.test)
        )
        assert not trained & tested
        # A copy would be its own nearest neighbour.
        assert len({faces.content[i] for i in split.test}) == len(split.test)
        counts = np.bincount(faces.labels[split.test], minlength=len(faces.people))
        assert split.probes.tolist() == [i for i in split.test if counts[faces.labels[i]] > 1]
        assert (split.tests_strangers, split.asked.tolist()) == (True, split.probes.tolist())
        assert len(split.validation) == 0
        tested_people += tested
    assert len(tested_people) == len(set(tested_people))


@given(st.lists(st.integers(2, 20), min_size=30, max_size=60), st.integers(0, 999))
def test_every_person_is_tested_once_in_folds_of_about_as_many_images(counts, seed) -> None:
    faces = make_faces(np.repeat(np.arange(len(counts)), counts))
    splits = [
        make_open_set_split(faces, dataclasses.replace(OPEN_SET, fold=fold, split_seed=seed)) for fold in range(3)
    ]
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(sum(counts)))
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= max(counts)
    assert all(sorted([*split.train, *split.test]) == list(range(sum(counts))) for split in splits)


def test_another_seed_deals_other_folds_and_the_same_seed_the_same() -> None:
    faces = make_faces(np.repeat(np.arange(20), 3))
    draws = [make_open_set_split(faces, dataclasses.replace(OPEN_SET, split_seed=seed)).test for seed in (0, 0, 1)]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()


def test_doubtful_and_repeated_images_are_named_and_left_out() -> None:
    faces = make_faces([0, 0, 0, 1, 1, 1, 2, 2, 3, 3], ["a", "a", "s", "s", "b", "c", "d", "e", "f", "g"])
    found = {}
    for fold in range(2):
        protocol = ProtocolSpec(name="open_set", folds=2, fold=fold)
        split = make_open_set_split(faces, protocol)
        for index in (2, 3):  # it is of person 0 or of person 1, and nobody knows of which
            assert index not in split.test
        tested = set(faces.labels[split.test].tolist())
        assert all((index in split.train) == (not tested & {0, 1}) for index in (2, 3))
        found[0 in tested] = split
    assert 1 not in found[True].test
    assert {0, 1} <= set(found[False].train.tolist())
    notes = " ".join(found[True].notes)
    assert "duplicate images of one tested person: 1 (2 images): person 0/0.jpg is person 0/1.jpg" in notes
    assert "images of several people, one of whom is tested: 1 (2 images): person 0/2.jpg is person 1/3.jpg" in notes


def test_who_is_tested_is_in_the_key_where_the_pixels_do_not_tell() -> None:
    labels, people = np.repeat(np.arange(6), 3), [f"P{label}" for label in range(6)]
    keys = set()
    for content, names in (
        (None, people),
        (["same"] * 2 + list("abcdefghijklmnop"), people),
        (None, ["p1", *people[1:]]),
    ):
        faces = make_faces(labels, content, names)
        keys.add(identify_faces(faces, make_open_set_split(faces, OPEN_SET)))
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("labels", "folds", "said"),
    [
        ([0, 0, 1, 1], 3, "2 people are fewer than protocol.folds=3"),
        ([0, 1, 2, 3], 2, "0 of them with two different images"),
        ([0, 0, 0, 1], 2, "1 people outside fold"),
    ],
)
def test_a_fold_that_tests_nothing_says_what_to_set(labels, folds, said) -> None:
    with pytest.raises(DataError, match=said) as caught:
        draw_people_fold(
            np.array(labels), list("abcd"), [str(label) for label in range(4)][: max(labels) + 1],
            ProtocolSpec(name="open_set", folds=folds),
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert "set " in str(caught.value)


def test_validation_of_each_person_is_refused_and_no_setting_is_read_in_vain() -> None:
    with pytest.raises(SpecError, match="validation_per_person=1 does not apply to protocol=open_set"):
        ProtocolSpec(name="open_set", validation_per_person=1)
    assert select_effective_protocol(OPEN_SET) == {"name": "open_set", "folds": 3, "fold": 0, "split_seed": 0}


def test_drawn_faces_are_split_by_people() -> None:
    data = DataSpec(name="synthetic", people=6, images_per_person=4, resolution=16)
    faces, split = load_split(data, OPEN_SET)
    assert not set(faces.labels[split.train]) & set(faces.labels[split.test])
    assert (len(split.train), len(split.test), len(split.probes)) == (16, 8, 8)


@pytest.mark.parametrize(
    ("content", "people", "found"),
    [
        (["a", "x", "y", "z"], ["Q", "R"], "1 of the tested images and 0 of the 2 tested people"),
        (["w", "x", "y", "z"], ["ANNA", "R"], "0 of the tested images and 1 of the 2 tested people"),
    ],
)
def test_people_of_the_pretraining_are_no_strangers(content, people, found) -> None:
    faces, other = make_faces([0, 0, 1, 1], list("abcd"), ["Anna", "Ben"]), make_faces([0, 0, 1, 1], content, people)
    everything = np.arange(4)
    with pytest.raises(DataError, match=found):
        check_strangers(faces, everything, other, everything, "pretrain.data=folder")
    check_strangers(faces, everything, other, np.array([3]), "pretrain.data=folder")
    drawn = make_faces([0, 0, 1, 1], list("efgh"), ["Anna", "Ben"], synthetic=True)
    check_strangers(
        dataclasses.replace(faces, synthetic=True), everything, drawn, everything, "pretrain.data=synthetic"
    )
