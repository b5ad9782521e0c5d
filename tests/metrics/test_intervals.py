import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ffem_jax.metrics import compute_wilson_interval


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
