"""Differences of two classifiers on the same images: cases by hand, SciPy, all signs counted, coverage simulated."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ffem_jax.metrics.intervals import compute_unpaired_interval, compute_wilson_interval
from ffem_jax.metrics.paired import (
    compute_mean_difference,
    compute_paired_interval,
    compute_sign_flip_p_value,
    correct_holm,
)

# ------------------------------------------------------------------------------------ exact test


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_with_one_test_an_image_it_is_mcnemars_exact_test(first, second, ties):
    got = compute_sign_flip_p_value([-1] * first + [1] * second + [0] * ties)
    wanted = binomtest(first, first + second).pvalue if first + second else 1.0
    assert got == pytest.approx(wanted, rel=1e-9)


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_it_counts_every_way_to_turn_the_signs(totals):
    sums = [
        abs(sum(sign * t for sign, t in zip(signs, totals, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(totals))
    ]
    assert compute_sign_flip_p_value(totals) == pytest.approx(np.mean(np.asarray(sums) >= abs(sum(totals))))


def test_a_case_by_hand():
    # Sums of +-3 +-1: 4, 2, -2, -4; observed 4, so 2 of 4.
    assert compute_sign_flip_p_value([3, 1]) == 0.5
    assert compute_sign_flip_p_value([]) == 1.0
    with pytest.raises(ValueError, match="whole"):
        compute_sign_flip_p_value([0.5])


# ------------------------------------------------------------------------------------------- Holm


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.04; the last may not fall below 0.06.
    assert correct_holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert correct_holm([0.5, 0.9]) == [1.0, 1.0]
    assert correct_holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p_values):
    corrected = correct_holm(p_values)
    assert all(p <= c <= min(1.0, len(p_values) * p) + 1e-12 for p, c in zip(p_values, corrected, strict=True))
    for a, b in itertools.combinations(range(len(p_values)), 2):
        if p_values[a] < p_values[b]:
            assert corrected[a] <= corrected[b]
    assert min(corrected) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


# ---------------------------------------------------------------------------------------- interval


def draw_tests(random, runs, images, *, by_image=0.1, by_run=0.0, disagree=0.12, shifts=0.0):
    """Differences [run, image] whose expectation, over images and runs, is 0."""
    expected = random.normal(0, by_image, images) + random.normal(0, by_run, (runs, 1))
    expected += np.reshape(shifts, (-1, 1))
    uniform = random.random((runs, images))
    plus, minus = (np.clip(disagree + sign * expected / 2, 0, 0.5) for sign in (1, -1))
    return (uniform < plus).astype(int) - (uniform > 1 - minus)


@pytest.mark.parametrize(
    ("runs", "by_run", "low", "high"),
    [(1, 0.0, 0.91, 0.99), (3, 0.0, 0.93, 1.0), (5, 0.01, 0.93, 1.0), (5, 0.02, 0.92, 1.0)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(runs, by_run, low, high):
    """Nominal: 95 %. The bounds leave room for 200 simulations, and above for what the docstring admits."""
    random = np.random.default_rng(7)
    covered = []
    for number in range(200):
        totals = draw_tests(random, runs, 300, by_run=by_run)
        a, b = compute_paired_interval(totals, np.ones_like(totals), draws=500, seed=number)
        covered.append(a <= 0 <= b)
    assert low <= np.mean(covered) <= high


@pytest.mark.parametrize(("starts", "runs", "by_start"), [(3, 3, 0.06), (3, 1, 0.06), (4, 2, 0.06), (6, 2, 0.06)])
def test_the_interval_over_starts_covers_the_truth_and_that_over_their_runs_does_not(
    starts: int, runs: int, by_start: float
) -> None:
    random, labels = np.random.default_rng(11), np.repeat(np.arange(starts), runs)
    covered, without = [], []
    for number in range(200):
        shifts = by_start * random.standard_normal(starts)
        totals = draw_tests(random, starts * runs, 400, by_image=0.05, shifts=shifts[labels])
        ones = np.ones_like(totals)
        a, b = compute_paired_interval(totals, ones, starts=labels.tolist(), draws=500, seed=number)
        covered.append(a <= 0 <= b)
        a, b = compute_paired_interval(totals, ones, draws=500, seed=number)
        without.append(a <= 0 <= b)
    assert 0.92 <= np.mean(covered) <= 1.0
    assert np.mean(without) < 0.87


def test_starts_are_drawn_by_students_t_and_runs_within_them_not_again() -> None:
    # Three starts of two equal runs each, 20, 0 and -20 points off: a standard error of 11.5 points, times 4.3.
    totals = np.array([[sign] * 200 + [0] * 800 for sign in (1, 1, 0, 0, -1, -1)])
    ones, starts = np.ones_like(totals), [0, 0, 1, 1, 2, 2]
    low, high = compute_paired_interval(totals, ones, starts=starts)
    assert (low, high) == pytest.approx((-0.497, 0.497), abs=0.03)
    assert compute_paired_interval(totals[::2], ones[::2], starts=[0, 1, 2]) == pytest.approx((low, high), abs=0.03)
    # One start cannot be drawn: the runs are, as without any.
    alone = compute_paired_interval(totals, ones)
    assert compute_paired_interval(totals, ones, starts=["a"] * 6) == alone
    # Runs that are drawn together are one.
    assert compute_paired_interval(totals, ones, units=starts) == compute_paired_interval(totals[::2], ones[::2])
    # Where runs cross starts, both are drawn.
    crossed = compute_paired_interval(totals, ones, units=[0, 1] * 3, starts=starts)
    assert crossed[1] >= high - 0.02
    with pytest.raises(ValueError, match="2 labels for 6 runs"):
        compute_paired_interval(totals, ones, starts=[0, 1])


def test_more_images_narrow_it_and_the_same_images_again_do_not_narrow_it_much():
    random = np.random.default_rng(0)
    one = draw_tests(random, 1, 400)
    ones = np.ones_like(one)
    width = np.diff(compute_paired_interval(one, ones))[0]
    many = np.tile(one, (1, 4))
    assert np.diff(compute_paired_interval(many, np.ones_like(many)))[0] == pytest.approx(width / 2, rel=0.1)
    # Three seeds that say exactly the same are one opinion.
    same = np.tile(one, (3, 1))
    assert np.diff(compute_paired_interval(same, np.ones_like(same)))[0] == pytest.approx(width, rel=0.1)


def test_for_many_images_and_one_run_it_is_the_normal_interval():
    random = np.random.default_rng(1)
    one = draw_tests(random, 1, 3000)
    error = one.std() / np.sqrt(3000)
    wanted = one.mean() - 1.96 * error, one.mean() + 1.96 * error
    assert compute_paired_interval(one, np.ones_like(one)) == pytest.approx(wanted, abs=0.1 * error)


def test_what_runs_differ_by_widens_it():
    calm = np.array([[1] * 10 + [-1] * 10 + [0] * 80] * 4)
    torn = np.array([[1] * 20 + [0] * 80, [-1] * 20 + [0] * 80] * 2)
    ones = np.ones_like(calm)
    assert compute_mean_difference(calm, ones) == compute_mean_difference(torn, ones) == 0
    # Each run of `torn` is 20 points off, so the mean of four drawn anew has a deviation of 10 points.
    low, high = compute_paired_interval(torn, ones)
    assert (low, high) == pytest.approx((-0.2, 0.2), abs=0.01)
    assert compute_paired_interval(calm, ones)[1] < 0.11


def test_without_any_difference_it_has_the_width_of_a_rate_never_seen():
    zeros = np.zeros((2, 104))
    low, high = compute_paired_interval(zeros, np.ones_like(zeros))
    assert (-low, high) == pytest.approx((binomtest(0, 104).proportion_ci(0.95).high,) * 2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 30))
def test_it_holds_the_mean_stays_in_its_range_and_repeats(seed, runs, images):
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, (runs, images))
    counts[0, 0] = 1
    totals = random.integers(-counts, counts + 1)
    low, high = compute_paired_interval(totals, counts, draws=400)
    mean = compute_mean_difference(totals, counts)
    assert -1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1
    assert compute_paired_interval(totals, counts, draws=400) == (low, high)


def test_an_image_that_a_run_did_not_test_does_not_count():
    totals, counts = np.array([[1, 0, 0], [0, 0, -1]]), np.array([[1, 1, 0], [0, 1, 1]])
    assert compute_mean_difference(totals, counts) == 0
    assert compute_mean_difference(totals[:1], counts[:1]) == 0.5
    padded = [np.pad(table, ((0, 0), (0, 50))) for table in (totals, counts)]
    assert compute_paired_interval(*padded) == compute_paired_interval(totals, counts)


@pytest.mark.parametrize(
    ("totals", "counts", "message"),
    [
        ([1, 0], [1, 1], "run, image"),
        ([[1, 0]], [[1, 1, 1]], "run, image"),
        ([[0, 0]], [[0, 0]], "nothing was tested"),
        ([[2, 0]], [[1, 1]], "larger than its count"),
    ],
)
def test_tables_that_mean_nothing_are_refused(totals, counts, message):
    with pytest.raises(ValueError, match=message):
        compute_paired_interval(totals, counts)
    with pytest.raises(ValueError, match="confidence"):
        compute_paired_interval([[1]], [[1]], confidence=1.0)


# ---------------------------------------------------------------------------------------- unpaired


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 873, table II, method 10.
        ((48, 80), (56, 70), (0.0524, 0.3339)),
        ((3, 10), (9, 10), (0.1705, 0.8090)),
        ((0, 10), (10, 10), (0.6075, 1.0)),
    ],
)
def test_unpaired_published_values(first, second, wanted):
    # Published as first less second with the larger rate first.
    assert compute_unpaired_interval(first, second) == pytest.approx(wanted, abs=1e-4)


def test_unpaired_against_a_rate_known_exactly_is_wilsons():
    low, high = compute_unpaired_interval((0, 10**9), (30, 100))
    assert (low, high) == pytest.approx(compute_wilson_interval(30, 100), abs=1e-6)
