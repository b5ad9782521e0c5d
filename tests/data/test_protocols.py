"""Splits: no image on both sides, none lost, duplicates together, the same again; whatever the people and images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.data import DataError
from ffem_jax.data.protocols import make_split
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.trial import ProtocolSpec


def unique_content(labels) -> list[str]:
    return [f"{index:x}" for index in range(len(labels))]


def make_labels(counts, order=None) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return labels if order is None else labels[np.random.default_rng(order).permutation(len(labels))]


def split_folds(labels, content, folds, seed=0):
    return [
        make_split(labels, content, ProtocolSpec(name="kfold", folds=folds, fold=fold, split_seed=seed))
        for fold in range(folds)
    ]


# Images a person, and an order that mixes the people or none.
LABELS = st.builds(make_labels, st.lists(st.integers(5, 14), min_size=2, max_size=9), st.none() | st.integers(0, 99))
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def labels_with_duplicates(draw, least_different=5):
    """Labels and content where some pictures repeat, within a person and across people."""
    contents, owners = [], []
    for label in range(draw(st.integers(2, 6))):
        for number in range(draw(st.integers(least_different, 9))):
            times = draw(st.sampled_from([1, 1, 1, 2, 3]))
            contents += [f"{label}-{number}"] * times
            owners += [label] * times
    for number in range(draw(st.integers(0, 3))):
        contents += [f"shared-{number}"] * 2
        owners += [0, 1]
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(owners))
    return np.array(owners, np.int32)[order], [contents[index] for index in order]


def assert_sound(split, labels, content) -> None:
    assert np.all(np.diff(split.train) > 0)
    assert np.all(np.diff(split.test) > 0)
    assert sorted([*split.train, *split.test]) == list(range(len(labels)))
    assert not {content[index] for index in split.train} & {content[index] for index in split.test}
    assert set(labels[split.train]) == set(labels)  # nobody is tested who was never seen


# ----------------------------------------------------------------------------------------- holdout


@given(labels=LABELS, seed=SEEDS, people=st.integers(1, 9))
def test_with_test_people_those_with_the_most_images_test_as_they_would_anyway(labels, seed, people):
    content = unique_content(labels)
    everybody = make_split(labels, content, ProtocolSpec(split_seed=seed))
    split = make_split(labels, content, ProtocolSpec(split_seed=seed, test_people=people))
    assert_sound(split, labels, content)
    counts = np.bincount(labels)
    chosen = sorted(range(len(counts)), key=lambda label: (-counts[label], label))[:people]
    assert list(split.test) == [index for index in everybody.test if labels[index] in chosen]


def test_with_test_people_the_others_need_no_image_to_spare():
    split = make_split(make_labels([1, 4, 2]), unique_content(range(7)), ProtocolSpec(test_people=1))
    assert len(split.test) == 2
    assert set(split.test) <= {1, 2, 3, 4}


@given(LABELS, st.integers(1, 4), SEEDS)
def test_holdout_tests_so_many_of_each_person(labels, wanted, seed):
    content = unique_content(labels)
    protocol = ProtocolSpec(test_per_person=wanted, split_seed=seed)
    split = make_split(labels, content, protocol)
    assert_sound(split, labels, content)
    assert np.all(np.bincount(labels[split.test]) == wanted)
    assert split.notes == ()
    again = make_split(labels, content, protocol)
    np.testing.assert_array_equal(split.test, again.test)


@given(labels_with_duplicates(), st.integers(1, 3), SEEDS)
def test_holdout_keeps_duplicates_together(pair, wanted, seed):
    labels, content = pair
    split = make_split(labels, content, ProtocolSpec(test_per_person=wanted, split_seed=seed))
    assert_sound(split, labels, content)
    assert np.bincount(labels[split.test]).min() >= wanted
    assert np.bincount(labels[split.test]).max() <= wanted + 2  # the largest group has three


def test_holdout_takes_exactly_as_many_where_single_pictures_allow_it():
    # One picture five times over and five single ones: never drawn for two images, whatever the seed.
    labels, content = make_labels([10, 10]), [*"aaaaabcdef", *"0123456789"]
    for seed in range(20):
        split = make_split(labels, content, ProtocolSpec(split_seed=seed))
        assert np.bincount(labels[split.test]).tolist() == [2, 2]


def test_the_seed_draws_and_each_image_has_its_turn():
    labels = make_labels([5, 5])
    draws = [make_split(labels, unique_content(labels), ProtocolSpec(split_seed=seed)).test for seed in range(300)]
    times = np.bincount(np.concatenate(draws), minlength=10) / 300
    assert np.abs(times - 0.4).max() < 0.12  # four standard deviations of 300 draws
    # The two people are drawn apart, not both by the same permutation.
    assert np.mean([tuple(d[:2]) == tuple(d[2:] - 5) for d in draws]) < 0.25


def test_a_persons_draw_does_not_depend_on_later_people():
    few, many = make_labels([6, 7]), make_labels([6, 7, 9])
    small = make_split(few, unique_content(few), ProtocolSpec())
    large = make_split(many, unique_content(many), ProtocolSpec())
    np.testing.assert_array_equal(small.test, large.test[large.test < 13])


def test_a_draw_of_today_is_a_draw_of_tomorrow():
    # Golden: records of old splits stay comparable only while this holds.
    labels = make_labels([6, 6, 6])
    content = unique_content(labels)
    assert make_split(labels, content, ProtocolSpec()).test.tolist() == [2, 3, 7, 10, 14, 17]
    assert make_split(labels, content, ProtocolSpec(name="kfold", folds=3, fold=1)).test.tolist() == [
        0,
        2,
        8,
        10,
        14,
        16,
    ]


@pytest.mark.parametrize("content", [[*"abcdefg", "x", "y"], [*"abcdefg", "x", "x"]])
def test_holdout_names_the_person_with_too_few_images(content):
    labels = make_labels([7, 2])
    with pytest.raises(DataError, match=r"Bob has \d different images .*data.min_images=3") as error:
        make_split(labels, content, ProtocolSpec(), people=("Ann", "Bob"))
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------- kfold


@given(LABELS, st.integers(2, 5), SEEDS)
def test_folds_test_every_image_once_and_are_even(labels, folds, seed):
    content = unique_content(labels)
    splits = split_folds(labels, content, folds, seed)
    for split in splits:
        assert_sound(split, labels, content)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(labels)))
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    each = np.stack([np.bincount(labels[split.test], minlength=labels.max() + 1) for split in splits])
    assert np.all(each.max(0) - each.min(0) <= 1)


@given(labels_with_duplicates(), st.integers(2, 5), SEEDS)
def test_folds_keep_duplicates_together_and_test_no_doubtful_label(pair, folds, seed):
    labels, content = pair
    splits = split_folds(labels, content, folds, seed)
    for split in splits:
        assert_sound(split, labels, content)
        assert set(labels[split.test]) == set(labels)
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested) == [index for index, digest in enumerate(content) if not digest.startswith("shared")]


def test_the_seed_draws_other_folds():
    labels = make_labels([10, 10])
    first, second = (split_folds(labels, unique_content(labels), 5, seed)[0].test for seed in (0, 1))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("content", [[*"abcdefg", *"xyz"], [*"abcdefg", *"xyx"], [*"abcdefg", *"xya"]])
def test_kfold_names_the_person_with_fewer_images_than_folds(content):
    labels = make_labels([7, 3])
    with pytest.raises(DataError, match=r"Bob has \d different images .*protocol.folds=5: set data.min_images=5"):
        make_split(labels, content, ProtocolSpec(name="kfold"), people=("Ann", "Bob"))
    with pytest.raises(DataError, match="person 1 has"):
        make_split(labels, content, ProtocolSpec(name="kfold"))


# -------------------------------------------------------------------------------------- validation


@given(labels_with_duplicates(least_different=7), st.integers(1, 3), SEEDS, st.sampled_from(["holdout", "kfold"]))
def test_images_held_out_are_never_tested_and_change_no_test(pair, wanted, seed, name):
    labels, content = pair
    protocol = ProtocolSpec(name=name, split_seed=seed)
    plain = make_split(labels, content, protocol)
    split = make_split(labels, content, dataclasses.replace(protocol, validation_per_person=wanted))
    np.testing.assert_array_equal(split.test, plain.test)
    np.testing.assert_array_equal(np.union1d(split.train, split.validation), plain.train)
    sides = [{content[index] for index in side} for side in (split.train, split.validation, split.test)]
    assert not sides[0] & sides[1]
    assert not sides[1] & sides[2]
    counts = np.bincount(labels[split.validation], minlength=labels.max() + 1)
    assert counts.min() >= wanted
    assert counts.max() <= wanted + 2  # the largest group has three
    assert set(labels[split.train]) == set(labels)
    assert plain.validation.size == 0


def test_images_held_out_are_drawn_by_the_seed_and_not_as_the_test_is():
    labels = make_labels([8, 8])
    draws = [
        make_split(labels, unique_content(labels), ProtocolSpec(split_seed=seed, validation_per_person=2)).validation
        for seed in range(300)
    ]
    times = np.bincount(np.concatenate(draws), minlength=16) / 300
    assert np.abs(times - 0.25).max() < 0.1  # four standard deviations of 300 draws


def test_who_has_too_few_images_to_hold_some_out_is_named():
    labels = make_labels([7, 4])
    protocol = ProtocolSpec(validation_per_person=2)
    with pytest.raises(DataError, match="Bob has 2 different training images; .*per_person=2 leaves none") as error:
        make_split(labels, unique_content(labels), protocol, people=("Ann", "Bob"))
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------- duplicates


def test_duplicates_are_reported():
    labels = make_labels([6, 6])
    content = [*"aabcde", *"fffghi"]
    (note,) = make_split(labels, content, ProtocolSpec()).notes
    assert note.startswith("duplicate images: 2 (5 images)")


def test_a_picture_under_two_people_trains_and_is_never_tested():
    labels = make_labels([6, 6])
    content = [*"abcdex", *"fghijx"]
    splits = [make_split(labels, content, ProtocolSpec(split_seed=seed)) for seed in range(30)]
    splits += split_folds(labels, content, 5)
    for split in splits:
        assert {5, 11} <= set(split.train.tolist())
        (note,) = split.notes
        assert note.startswith("images of several people: 1 (2 images)")


def test_a_negative_seed_is_refused():
    labels = make_labels([6, 6])
    with pytest.raises(SpecError, match=r"protocol\.split_seed=-1 must be at least 0"):
        make_split(labels, unique_content(labels), ProtocolSpec(split_seed=-1))
