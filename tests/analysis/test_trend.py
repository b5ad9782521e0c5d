"""Slopes over ordered levels: by hand, against every permutation, and how often their intervals hold the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, linregress

from ffem_jax.analysis.comparability import Run
from ffem_jax.analysis.trend import (
    Ladder,
    compute_permutation_p_value,
    measure_slope,
    scale_levels,
)

PLACES = (0.0, 1.0, 2.0, 4.0)


def make_ladder(values: np.ndarray, seed: int = 0, people: int = 0) -> Ladder:
    images = tuple(range(values.shape[1]))
    units = tuple(image % people for image in images) if people else images
    return Ladder(Run(seed, 0, 0, 0), "p", images, units, bool(people), values.astype(int))


def draw(random: np.random.Generator, slope: float, seeds: int, images: int, people: int = 0) -> list[Ladder]:
    """Hits whose rate rises by `slope` per place, on images that are hard or easy for all levels."""
    hard = 0.5 * random.random(images) - 0.25
    ladders = []
    for seed in range(seeds):
        own = 0.01 * random.standard_normal(len(PLACES))[:, None]
        rate = 0.5 + hard + slope * (np.array(PLACES)[:, None] - np.mean(PLACES)) + own
        ladders.append(make_ladder(random.random((len(PLACES), images)) < rate, seed, people))
    return ladders


@pytest.mark.parametrize(
    ("levels", "places", "unit"),
    [
        (["48", "96", "192"], (math.log2(48), math.log2(96), math.log2(192)), "doubling"),
        (["0", "0.1", "0.3"], (0.0, 1.0, 3.0), "step of 0.1"),
        (["10", "12"], (5.0, 6.0), "step of 2"),
        (["-1", "1", "2"], (-1.0, 1.0, 2.0), "step of 1"),
    ],
)
def test_levels_are_a_doubling_or_a_step_apart(levels: list[str], places: tuple[float, ...], unit: str) -> None:
    scale = scale_levels(levels)
    assert scale is not None
    assert scale.unit == unit
    assert scale.places == pytest.approx(places)


@pytest.mark.parametrize("levels", [["eca", "se"], ["1"], ["nan", "1"], ["inf", "1"], ["1", "1.0"], ["true", "false"]])
def test_words_and_single_levels_have_no_order(levels: list[str]) -> None:
    assert scale_levels(levels) is None


def test_the_slope_is_that_of_least_squares() -> None:
    random = np.random.default_rng(0)
    ladders = draw(random, 0.05, 3, 90)
    slope = measure_slope(ladders, PLACES)
    rates = np.mean([ladder.values.mean(axis=1) for ladder in ladders], axis=0)
    assert slope.value == pytest.approx(linregress(PLACES, rates).slope)
    assert slope.low < slope.value < slope.high
    assert (slope.ladders, slope.seeds, slope.images, slope.tests, slope.people) == (3, 3, 90, 270, None)
    assert (slope.lowest, slope.highest) == pytest.approx((rates[0], rates[-1]))


def test_falling_levels_turn_the_sign() -> None:
    ladders = draw(np.random.default_rng(1), 0.05, 2, 90)
    up, down = measure_slope(ladders, PLACES), measure_slope(ladders, [-place for place in PLACES])
    assert down.value == pytest.approx(-up.value)
    assert down.p_value == pytest.approx(up.p_value)


def test_two_levels_have_the_test_of_the_comparison() -> None:
    values = np.array([[1] * 8 + [0] * 12, [1] * 7 + [0] + [1] * 7 + [0] * 5])
    slope = measure_slope([make_ladder(values)], (0, 1))
    assert slope.value == pytest.approx(6 / 20)
    assert slope.p_value == pytest.approx(binomtest(1, 8).pvalue)


def test_the_p_value_is_the_share_of_all_permutations() -> None:
    random = np.random.default_rng(2)
    sums, places = random.integers(0, 3, (5, 3)), np.array([0.0, 1.0, 3.0])
    centred = places - places.mean()
    observed = abs((sums @ centred).sum())
    orders = list(itertools.permutations(range(3)))
    every = [
        abs(sum(float(sums[unit, list(order)] @ centred) for unit, order in enumerate(chosen)))
        for chosen in itertools.product(orders, repeat=5)
    ]
    exact = np.mean([value >= observed - 1e-9 for value in every])
    assert compute_permutation_p_value(sums, places) == pytest.approx(exact, abs=0.012)
    assert compute_permutation_p_value(np.ones((5, 3)), places) == 1.0


def test_of_many_units_the_normal_approximation_is_that_of_drawn_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = (
        np.random.default_rng(3).integers(0, 4, (120, 4)) + np.array([0, 0, 0, 1]) * (np.arange(120) % 4 == 0)[:, None]
    )
    approximate = compute_permutation_p_value(sums, PLACES)
    monkeypatch.setattr("ffem_jax.analysis.trend.FEW_UNITS", 10**9)
    assert compute_permutation_p_value(sums, PLACES) == pytest.approx(approximate, abs=0.015)


@pytest.mark.parametrize("people", [pytest.param(0, marks=pytest.mark.slow), 40])
def test_intervals_hold_the_truth_and_the_test_holds_its_level(people: int) -> None:
    random, truth, draws = np.random.default_rng(4), 0.02, 40
    slopes = [measure_slope(draw(random, truth, 4, 120, people), PLACES) for _ in range(draws)]
    held = sum(slope.low <= truth <= slope.high for slope in slopes)
    assert held >= 0.86 * draws  # 95 % claimed; four seeds bound a variance roughly
    null = [measure_slope(draw(random, 0.0, 1, 120, people), PLACES).p_value for _ in range(draws)]
    assert sum(p < 0.05 for p in null) <= 6
    assert 0.35 < float(np.mean(null)) < 0.65
    assert (slopes[0].people, slopes[0].images) == (people or None, 120)


def test_what_is_no_slope_is_refused() -> None:
    with pytest.raises(ValueError, match="no ladder"):
        measure_slope([], PLACES)
    with pytest.raises(ValueError, match="one place"):
        measure_slope([make_ladder(np.ones((2, 4)))], (1, 1))
