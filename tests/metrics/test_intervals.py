import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ffem_jax.metrics.intervals import compute_clustered_interval, compute_wilson_interval


@pytest.mark.parametrize(
    ("correct", "tested", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson without continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(correct, tested, low, high):
    assert compute_wilson_interval(correct, tested) == pytest.approx((low, high), abs=5e-5)


def test_the_papers_last_three_networks_overlap():
    lows, highs = zip(*(compute_wilson_interval(correct, 104) for correct in (100, 101, 102)), strict=True)
    assert max(lows) < min(highs)


@pytest.mark.parametrize("tested", [1, 7, 104, 10**6])
def test_ends_have_their_closed_form(tested):
    z_squared = 1.959963984540054**2
    assert compute_wilson_interval(0, tested) == pytest.approx((0.0, z_squared / (tested + z_squared)))
    assert compute_wilson_interval(tested, tested) == pytest.approx((tested / (tested + z_squared), 1.0))
    assert compute_wilson_interval(0, tested)[0] == 0.0
    assert compute_wilson_interval(tested, tested)[1] == 1.0


def test_nothing_tested_says_nothing():
    assert compute_wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_agrees_with_scipy(counts, confidence):
    correct, tested = counts
    wanted = binomtest(correct, tested).proportion_ci(confidence, method="wilson")
    got = compute_wilson_interval(correct, tested, confidence)
    assert got == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert 0 <= got[0] <= correct / tested <= got[1] <= 1


def test_takes_a_count_that_is_not_whole():
    assert compute_wilson_interval(50, 100)[0] < compute_wilson_interval(50.5, 100)[0]
    assert compute_wilson_interval(50.5, 100)[0] < compute_wilson_interval(51, 100)[0]


@pytest.mark.parametrize(("correct", "tested"), [(-1, 5), (6, 5), (0, -1), (math.nan, 5)])
def test_impossible_counts_are_refused(correct, tested):
    with pytest.raises(ValueError, match="must be between 0 and tested"):
        compute_wilson_interval(correct, tested)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        compute_wilson_interval(1, 2, confidence)


# ---------------------------------------------------------------------------------- images of the same people


def test_people_who_are_always_right_or_always_wrong_count_as_one_image_each():
    # 20 people with 10 images each, 5 of them always wrong: the variance over people is p (1 - p) / (people - 1).
    rates, people = np.repeat([1.0, 0.0], [150, 50]), np.repeat(np.arange(20), 10)
    assert compute_clustered_interval(rates, people) == pytest.approx(compute_wilson_interval(0.75 * 19, 19))


def test_people_who_are_all_alike_cost_nothing():
    rates, people = np.tile([1.0, 1.0, 1.0, 0.0], 50), np.repeat(np.arange(50), 4)
    assert compute_clustered_interval(rates, people) == pytest.approx(compute_wilson_interval(150, 200))


@pytest.mark.parametrize("rates", [[1.0] * 8, [0.0] * 8])
def test_nothing_to_tell_people_apart_by_is_by_image(rates):
    assert compute_clustered_interval(rates, [0, 0, 1, 1, 2, 2, 3, 3]) == compute_wilson_interval(sum(rates), 8)
    assert compute_clustered_interval([1.0, 0.0], [7, 7]) == compute_wilson_interval(1, 2)


def test_it_holds_the_truth_where_the_plain_interval_does_not():
    # 40 people of 12 images whose own rates are drawn from a beta distribution of mean 0.7.
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 12)
    held = np.zeros(2)
    for _ in range(1000):
        rates = (random.random(480) < random.beta(1.4, 0.6, 40)[people]).astype(float)
        intervals = compute_clustered_interval(rates, people), compute_wilson_interval(rates.sum(), 480)
        held += [low <= 0.7 <= high for low, high in intervals]
    assert held[0] / 1000 == pytest.approx(0.95, abs=0.025)
    assert held[1] / 1000 < 0.75


@pytest.mark.parametrize(("rates", "people"), [([], []), ([1.0], [0, 1]), ([[1.0]], [[0]])])
def test_images_without_people_are_refused(rates, people):
    with pytest.raises(ValueError, match="must both be"):
        compute_clustered_interval(rates, people)
