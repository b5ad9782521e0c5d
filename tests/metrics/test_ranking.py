"""Kendall's tau against SciPy's, its interval against simulation, and the top of a list."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ffem_jax.metrics.ranking import compute_kendall_tau, compute_rank_agreement, compute_top_tau


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
def test_tau_is_scipys_with_any_ties(pairs):
    first, second = np.array(pairs, dtype=float).T
    expected = stats.kendalltau(first, second).statistic
    assert compute_kendall_tau(first, second) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_more_things_than_are_held_at_once():
    draw = np.random.default_rng(0)
    first = draw.normal(size=1300)
    second = first + draw.normal(size=1300)
    assert compute_kendall_tau(first, second) == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)


def test_infinities_are_equal_to_each_other():
    assert compute_kendall_tau([math.inf, math.inf, 0], [2, 2, 1]) == 1.0


def test_the_jackknife_is_that_of_leaving_each_out():
    draw = np.random.default_rng(1)
    first = draw.integers(0, 20, size=60).astype(float)
    # A third of them the wrong way round: things differ in how well they fit, which the normal interval knows not.
    second = np.where(np.arange(60) < 20, -first, first) + draw.normal(size=60)
    without = [math.atanh(stats.kendalltau(np.delete(first, i), np.delete(second, i)).statistic) for i in range(60)]
    error = math.sqrt(59 / 60 * np.sum((without - np.mean(without)) ** 2))
    assert error > math.sqrt(0.437 / 56)  # else it is not what decides
    found = compute_rank_agreement(first, second)
    assert found.low == pytest.approx(math.tanh(math.atanh(found.tau) - 1.959964 * error), abs=1e-6)
    assert found.high == pytest.approx(math.tanh(math.atanh(found.tau) + 1.959964 * error), abs=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.95])
def test_the_interval_holds_the_truth_as_often_as_it_says(correlation):
    draw = np.random.default_rng(2)
    true = 2 / math.pi * math.asin(correlation)  # of normal numbers
    held = 0
    for _ in range(400):
        first, other = draw.normal(size=(2, 25))
        found = compute_rank_agreement(first, correlation * first + math.sqrt(1 - correlation**2) * other)
        held += found.low <= true <= found.high
    assert 0.93 <= held / 400 <= 0.995


def test_few_that_agree_prove_little():
    assert compute_rank_agreement([1, 2, 3], [4, 5, 6]) == compute_rank_agreement([1, 2, 3], [1, 2, 3])
    few, many = (compute_rank_agreement(range(n), range(n)) for n in (6, 60))
    assert few.tau == few.high == many.tau == 1.0
    assert few.low < 0.9 < many.low < 1
    assert str(compute_rank_agreement([1.0], [2.0])) == "none (1)"


def test_the_top_is_by_the_truth_and_ties_at_its_edge_are_in():
    truth = [0, 1, 2, 3, 3, 5]
    assert compute_top_tau([9, 9, 9, 1, 2, 3], truth, fraction=0.5) == pytest.approx(
        stats.kendalltau([1, 2, 3], [3, 3, 5]).statistic
    )
    assert compute_top_tau([9, 9, 9, 1, 2, 3], truth, fraction=0.3) == pytest.approx(
        stats.kendalltau([1, 2, 3], [3, 3, 5]).statistic
    )
    assert compute_top_tau(truth, truth, fraction=1.0) == 1.0
    assert math.isnan(compute_top_tau([], []))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1, 2], [1, 2, 3], "vectors of the same length"),
        ([[1, 2]], [[1, 2]], "vectors of the same length"),
        ([1, math.nan], [1, 2], "NaN"),
    ],
)
def test_what_cannot_be_ordered_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        compute_kendall_tau(first, second)
    with pytest.raises(ValueError, match=message):
        compute_rank_agreement(first, second)
