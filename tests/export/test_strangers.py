"""Thresholds from strangers, and what they do to others: closed forms and simulated people."""

import numpy as np
import pytest

from ffem_jax.export.strangers import check_thresholds, measure_rates


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
