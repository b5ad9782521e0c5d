import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.frontier import find_pareto

# Few values, so that ties and duplicates are the rule; NaN and infinities among them.
COORDINATES = st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan"), float("inf"), float("-inf")])


def find_pareto_slowly(costs, values):
    """By the definition: every point against every other."""
    mask = []
    for i in range(len(costs)):
        if np.isnan(costs[i]) or np.isnan(values[i]):
            mask.append(False)
            continue
        dominated = False
        for j in range(len(costs)):
            no_worse = costs[j] <= costs[i] and values[j] >= values[i]
            better = costs[j] < costs[i] or values[j] > values[i]
            dominated = dominated or (no_worse and better)
        mask.append(not dominated)
    return mask


def test_worked_by_hand():
    costs = [1, 2, 3, 4, 2, 1]
    values = [5, 7, 6, 8, 7, 4]
    assert find_pareto(costs, values).tolist() == [True, True, False, True, True, False]


@given(st.lists(st.tuples(COORDINATES, COORDINATES), max_size=20))
def test_agrees_with_the_definition(points):
    # An unknown coordinate makes the whole point unknown: it must not dominate in the slow form either.
    points = [(float("nan"),) * 2 if np.isnan(p).any() else p for p in points]
    costs, values = [p[0] for p in points], [p[1] for p in points]
    assert find_pareto(costs, values).tolist() == find_pareto_slowly(costs, values)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=30), st.randoms())
def test_order_of_the_points_does_not_matter(points, random):
    shuffled = random.sample(points, len(points))
    stand = {p for p, ok in zip(points, find_pareto(*zip(*points, strict=True)), strict=True) if ok}
    again = {p for p, ok in zip(shuffled, find_pareto(*zip(*shuffled, strict=True)), strict=True) if ok}
    assert stand == again
    assert stand


def test_nan_neither_stands_nor_dominates():
    assert find_pareto([0.0, 1.0, float("nan")], [float("nan"), 1.0, 9.0]).tolist() == [False, True, False]


def test_nothing_gives_nothing():
    assert find_pareto([], []).tolist() == []


def test_many_points_are_quick():
    rng = np.random.default_rng(0)
    costs, values = rng.random(20_000), rng.random(20_000)
    mask = find_pareto(costs, values)
    order = np.argsort(costs[mask])
    assert np.all(np.diff(values[mask][order]) > 0)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        find_pareto([1, 2], [1])
