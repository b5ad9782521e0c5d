"""Verification of pairs: cases worked by hand, scikit-learn's curves, and what a change of scale must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from ffem_jax.metrics.verification import (
    choose_threshold,
    compute_area,
    compute_equal_error_rate,
    compute_fold_hits,
    compute_mean_and_error,
    compute_pair_distances,
    compute_roc,
    compute_tar_at_far,
    compute_view2_accuracy,
)

# Ranked: same, same and different at one distance, same, different.
DISTANCES = np.asarray([0.4, 0.1, 0.2, 0.3, 0.2])
SAME = np.asarray([False, True, True, True, False])


@st.composite
def pairs(draw, least=2):
    """Distances on a coarse grid, so that many tie, and labels of both kinds."""
    count = draw(st.integers(least, 40))
    distances = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    same = draw(st.lists(st.booleans(), min_size=count, max_size=count).filter(lambda s: any(s) and not all(s)))
    return np.asarray(distances) / 12, np.asarray(same)


# ------------------------------------------------------------------------------------ by hand


def test_the_points_of_a_case_worked_by_hand():
    roc = compute_roc(DISTANCES, SAME)
    assert roc.threshold.tolist() == [-math.inf, 0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(roc.tar, [0, 1 / 3, 2 / 3, 1, 1])
    np.testing.assert_allclose(roc.far, [0, 0, 1 / 2, 1 / 2, 1])
    # Of six couples of a same and a different pair four are in order and one is tied.
    assert compute_area(roc) == pytest.approx((1 + 1 + 0.5 + 1 + 0 + 1) / 6)
    assert compute_tar_at_far(roc, 0.49) == pytest.approx(1 / 3)
    assert compute_tar_at_far(roc, 0.5) == 1
    assert compute_equal_error_rate(roc) == 0.5  # at 0.2, where a third is rejected


def test_the_rates_are_those_of_a_point_and_not_of_a_line_between_two():
    # One same pair beyond all the different ones: no false accept allows half, interpolation would say more.
    roc = compute_roc([0.1, 0.9, *np.linspace(0.3, 0.5, 300)], [True, True, *[False] * 300])
    assert compute_tar_at_far(roc, 1e-3) == compute_tar_at_far(roc, 0.5) == 0.5
    assert compute_tar_at_far(roc, 1) == 1
    assert compute_equal_error_rate(roc) == 0.5


def test_far_is_allowed_up_to_the_pairs_that_it_means():
    # 3 of 300 are 1e-2 exactly, whatever the rounding.
    same, different = np.linspace(0.0005, 0.9995, 1000), np.linspace(0.001, 1, 300)
    roc = compute_roc([*same, *different], [*[True] * 1000, *[False] * 300])
    assert compute_tar_at_far(roc, 1e-2) == np.mean(same < different[3])
    assert compute_tar_at_far(roc, 1e-3) == np.mean(same < different[0])


def test_perfect_and_worthless_pairs():
    perfect = compute_roc([0.1, 0.2, 0.8, 0.9], [True, True, False, False])
    assert (compute_area(perfect), compute_tar_at_far(perfect, 0), compute_equal_error_rate(perfect)) == (1, 1, 0)
    worthless = compute_roc([0.5] * 4, [True, True, False, False])
    assert (compute_area(worthless), compute_tar_at_far(worthless, 0.1)) == (0.5, 0)
    assert compute_equal_error_rate(worthless) == 1  # all or nothing: there is no threshold in between


def test_the_threshold_is_the_smallest_of_the_best_and_one_that_was_seen():
    assert choose_threshold(DISTANCES, SAME) == 0.3  # one wrong; at 0.1 and 0.2 two
    assert choose_threshold([0.1, 0.2, 0.3], [True, False, True]) == 0.1
    assert choose_threshold([0.1, 0.2], [False, True]) == -math.inf


def test_a_fold_is_judged_by_the_others():
    distances = [0.1, 0.5, 0.2, 0.6, 0.3, 0.25]
    same, folds = [True, False] * 3, [0, 0, 1, 1, 2, 2]
    hits, threshold = compute_fold_hits(distances, same, folds, 2)
    assert threshold == 0.2
    assert hits.tolist() == [False, True]
    # Judged by folds 1 and 2: 0.2 and the wrong one at 0.25, of which 0.3 would be no better.
    assert compute_fold_hits(distances, same, folds, 0)[1] == 0.2
    # By folds 0 and 2: 0.1 and 0.3 are wrong once each, and the smaller rejects fold 1's 0.2.
    assert compute_fold_hits(distances, same, folds, 1)[0].tolist() == [False, True]
    mean, error = compute_view2_accuracy(distances, same, folds)
    assert mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert error == pytest.approx(np.std([1, 0.5, 0.5], ddof=1) / math.sqrt(3))


def test_the_tested_fold_has_no_say_in_its_threshold():
    random = np.random.default_rng(0)
    distances, same, folds = random.random(60), np.arange(60) % 2 == 0, np.arange(60) // 20
    before = compute_fold_hits(distances, same, folds, 1)[1]
    distances[20:40] = random.random(20)
    assert compute_fold_hits(distances, same, folds, 1)[1] == before


def test_the_mean_over_ten_folds_and_its_error():
    accuracies = [0.80, 0.82, 0.78, 0.81, 0.79, 0.83, 0.77, 0.80, 0.80, 0.80]
    mean, error = compute_mean_and_error(accuracies)
    assert mean == pytest.approx(0.8)
    assert error == pytest.approx(math.sqrt(0.0028 / 9) / math.sqrt(10))
    assert math.isnan(compute_mean_and_error([0.8])[1])


def test_distances_are_of_directions_and_in_0_to_1():
    found = compute_pair_distances([[2, 0], [1, 0], [1, 0]], [[5, 0], [0, 3], [-1, 0]])
    np.testing.assert_allclose(found, [0, math.sqrt(2) / 2, 1])


# ----------------------------------------------------------------------------- another's, properties


@given(pairs())
def test_scikit_learn_has_the_same_curve_and_area(drawn):
    distances, same = drawn
    roc = compute_roc(distances, same)
    far, tar, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(roc.far, far)
    np.testing.assert_allclose(roc.tar, tar)
    np.testing.assert_allclose(roc.threshold[1:], -thresholds[1:])
    assert compute_area(roc) == pytest.approx(roc_auc_score(same, -distances))


def measure(distances, same, folds):
    roc = compute_roc(distances, same)
    rates = [compute_tar_at_far(roc, far) for far in (0, 1e-3, 1e-2, 0.3)]
    numbers = [compute_area(roc), compute_equal_error_rate(roc), *rates]
    try:
        return [*numbers, *compute_view2_accuracy(distances, same, folds)]
    except ValueError:  # a fold whose others are all of one kind
        return numbers


@given(pairs(least=6), st.integers(0, 99))
def test_neither_a_change_of_scale_nor_the_order_changes_anything(drawn, seed):
    distances, same = drawn
    folds = np.arange(len(same)) % 3
    wanted = measure(distances, same, folds)
    order = np.random.default_rng(seed).permutation(len(same))
    np.testing.assert_array_equal(measure(np.exp(5 * distances) - 7, same, folds), wanted)
    np.testing.assert_allclose(measure(distances[order], same[order], folds[order]), wanted)
    # As similarities: the cosine of unit vectors at half-distance d is 1 - 2 d ** 2.
    np.testing.assert_array_equal(measure(-(1 - 2 * distances**2), same, folds), wanted)


@given(pairs())
def test_curves_rise_and_rates_are_reached_by_counting(drawn):
    distances, same = drawn
    roc = compute_roc(distances, same)
    assert np.all(np.diff(roc.far) >= 0)
    assert np.all(np.diff(roc.tar) >= 0)
    assert (roc.far[0], roc.tar[0], roc.far[-1], roc.tar[-1]) == (0, 0, 1, 1)
    for threshold, far, tar in zip(roc.threshold, roc.far, roc.tar, strict=True):
        assert far == pytest.approx(np.mean(distances[~same] <= threshold))
        assert tar == pytest.approx(np.mean(distances[same] <= threshold))
    best = max(np.mean((distances <= threshold) == same) for threshold in roc.threshold)
    assert np.mean((distances <= choose_threshold(distances, same)) == same) == best


@given(pairs())
def test_swapping_the_kinds_turns_the_curve_over(drawn):
    distances, same = drawn
    area = compute_area(compute_roc(distances, same))
    assert compute_area(compute_roc(distances, ~same)) == pytest.approx(1 - area)


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("distances", "same", "told"),
    [
        ([0.1, 0.2], [True], "one of each per pair"),
        ([0.1, math.nan], [True, False], "not finite"),
        ([0.1, 0.2], [True, True], "both needed"),
        ([], [], "both needed"),
    ],
)
def test_pairs_that_show_nothing_are_refused(distances, same, told):
    with pytest.raises(ValueError, match=told):
        compute_roc(distances, same)


def test_other_mistakes_are_refused():
    with pytest.raises(ValueError, match="no pair of fold 3"):
        compute_fold_hits(DISTANCES, SAME, [0] * 5, 3)
    with pytest.raises(ValueError, match="far=2"):
        compute_tar_at_far(compute_roc(DISTANCES, SAME), 2)
    with pytest.raises(ValueError, match="one number per fold"):
        compute_mean_and_error([])
    with pytest.raises(ValueError, match="give equal ones"):
        compute_pair_distances([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])
