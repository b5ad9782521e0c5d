"""Thresholds from strangers, and what they do to others: closed forms and simulated people."""

import numpy as np
import pytest

from ffem_jax.export.strangers import check_thresholds, measure_groups, measure_rates


def test_rates_of_a_hand_made_case():
    # Two people with two images each on a circle: at 0, 10 and at 90, 180 degrees.
    angles = np.radians([0.0, 10.0, 90.0, 180.0])
    vectors = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([7, 7, 2, 2])

    def half_chord(degrees):
        return np.sin(np.radians(degrees) / 2)

    # Pairs of two people lie 80, 90, 170 and 180 degrees apart; of one, 10 and 90.
    for limit, falsely, rightly in ((5, 0, 0), (20, 0, 0.5), (85, 0.25, 0.5), (95, 0.5, 1), (175, 0.75, 1)):
        assert measure_rates(vectors, labels, half_chord(limit)) == (falsely, rightly)


def test_each_person_weighs_alike_and_nobody_with_two_images_gives_none():
    vectors = np.eye(4)[[0, 0, 0, 0, 1, 2]]
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert measure_rates(vectors, labels, 0.1) == (0.0, 0.5), "six pairs of one person, one of the other"
    assert measure_rates(vectors[[0, 4]], labels[[0, 4]], 0.1) == (0.0, None)
    assert measure_rates(vectors[:2], labels[:2], 0.1) == (None, 1.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_like_people_the_rate_measured_is_the_rate_asked_for(seed):
    rng = np.random.default_rng(seed)
    people, each = 300, 3
    labels = np.repeat(np.arange(people), each)
    vectors = rng.normal(size=(people, 32))[labels] + 0.4 * rng.normal(size=(people * each, 32))
    for row in check_thresholds(vectors, labels):
        assert row.false_accepts == pytest.approx(row.false_accept_rate, rel=0.25)
        assert row.accepted > 0.9


def test_the_rates_of_a_group_are_those_of_its_images_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, 300)
    vectors = rng.normal(size=(40, 16))[labels] + rng.normal(size=(300, 16))
    groups = np.where(labels % 5 == 0, "", np.where(rng.random(300) < 0.3, "with", "without"))
    found = measure_groups(vectors, labels, {"glasses": groups}, 0.5)
    assert [(one.column, one.group) for one in found] == [("glasses", "with"), ("glasses", "without")]
    for one in found:
        rows = groups == one.group
        falsely, rightly = measure_rates(vectors[rows], labels[rows], 0.5)
        assert (one.false_accepts.value, one.accepted.value) == pytest.approx((falsely, rightly))
        assert (one.images, one.people) == (rows.sum(), len(set(labels[rows].tolist())))
        for rate in (one.accepted, one.false_accepts):
            assert 0 <= rate.low < rate.value < rate.high <= 1


def test_of_few_people_no_rate_is_told():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 2)
    vectors = rng.normal(size=(60, 8))
    groups = np.where(labels < 11, "few", np.where(labels % 2, "single", "many"))
    rows = (groups != "single") | (np.arange(60) % 2 == 0)  # one image each
    few, many, single = measure_groups(vectors[rows], labels[rows], {"who": groups[rows]}, 0.5)
    assert (few.people, few.accepted, few.false_accepts) == (11, None, None)
    assert (many.people, many.accepted) == (9, None)
    assert single.accepted is None


def test_where_all_pairs_agree_the_interval_is_that_of_so_many_people():
    vectors, labels = np.eye(20)[np.repeat(np.arange(20), 2)], np.repeat(np.arange(20), 2)
    (one,) = measure_groups(vectors, labels, {"all": np.full(40, "all")}, 0.1)
    assert (one.accepted.value, one.false_accepts.value) == (1.0, 0.0)
    # Clopper and Pearson's for 20 of 20, and for 0 of 20.
    assert one.accepted.low == pytest.approx(0.8316, abs=1e-4)
    assert one.false_accepts.high == pytest.approx(0.1684, abs=1e-4)


def test_the_interval_of_a_group_holds_the_rate_of_all_people():
    def draw(rng, people):
        labels = np.repeat(np.arange(people), 3)
        # People differ in how alike their images are: intervals that draw images would be too narrow.
        spread = rng.choice([0.2, 1.5], people)[labels, None]
        return rng.normal(size=(people, 8))[labels] + spread * rng.normal(size=(people * 3, 8)), labels

    truth = measure_rates(*draw(np.random.default_rng(9), 600), 0.4)
    inside = np.zeros(2)
    for repeat in range(60):
        vectors, labels = draw(np.random.default_rng(repeat), 40)
        (one,) = measure_groups(vectors, labels, {"all": np.full(len(labels), "all")}, 0.4)
        inside += [
            rate.low <= true <= rate.high for rate, true in zip((one.false_accepts, one.accepted), truth, strict=True)
        ]
    assert (inside / 60 > 0.85).all(), inside / 60
