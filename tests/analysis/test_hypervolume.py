import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.analysis.hypervolume import compute_hypervolume

GRID = st.integers(0, 8)


def count_cells(points, reference_cost, reference_value):
    """Dominated unit cells of the integer grid, one by one."""
    return sum(
        any(cost <= x and value >= y + 1 for cost, value in points)
        for x in range(0, reference_cost)
        for y in range(reference_value, 9)
    )


def test_one_point_is_a_rectangle():
    assert compute_hypervolume([2.0], [0.75], 10.0, 0.25) == (10 - 2) * (0.75 - 0.25)


@pytest.mark.parametrize("steps", [1, 2, 10, 500])
def test_a_staircase_has_its_closed_form(steps):
    # Points (i, i + 1), reference (n, 0): sum of 1 * (i + 1) = n (n + 1) / 2.
    costs = np.arange(steps)
    assert compute_hypervolume(costs, costs + 1, steps, 0) == steps * (steps + 1) / 2
    assert compute_hypervolume(costs[::-1], costs[::-1] + 1, steps, 0) == steps * (steps + 1) / 2


def test_duplicates_and_dominated_points_add_nothing():
    assert compute_hypervolume([1, 3], [2, 5], 6, 0) == 2 * 2 + 3 * 5
    assert compute_hypervolume([1, 3, 3, 4, 1, 2], [2, 5, 5, 5, 1, 2], 6, 0) == 2 * 2 + 3 * 5


def test_points_beyond_the_reference_add_nothing():
    assert compute_hypervolume([10, 11, 1], [9, 9, 0], 10, 0) == 0.0
    assert compute_hypervolume([1, 12], [2, 100], 10, 0) == 9 * 2


def test_empty_and_nan_add_nothing():
    assert compute_hypervolume([], [], 10, 0) == 0.0
    assert compute_hypervolume([math.nan, 1.0, 2.0], [1.0, math.nan, 3.0], 10, 0) == 8 * 3


@given(st.lists(st.tuples(GRID, GRID), max_size=12), GRID, GRID)
def test_agrees_with_counting_cells(points, reference_cost, reference_value):
    costs, values = [p[0] for p in points], [p[1] for p in points]
    got = compute_hypervolume(costs, values, reference_cost, reference_value)
    assert got == count_cells(points, reference_cost, reference_value)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_another_point_never_takes_away(points, cost, value):
    costs, values = [p[0] for p in points], [p[1] for p in points]
    before = compute_hypervolume(costs, values, 1, 0)
    assert compute_hypervolume([*costs, cost], [*values, value], 1, 0) >= before - 1e-12


def test_the_reference_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        compute_hypervolume([1], [1], math.inf, 0)
