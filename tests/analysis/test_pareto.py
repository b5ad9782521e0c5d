import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.analysis.pareto import compute_crowding, find_pareto, rank_points, sort_points

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


# ------------------------------------------------------------------------------ rank, crowding


def test_ranks_worked_by_hand():
    # Two staircases, one behind the other, a point behind both, and a copy of the first corner.
    points = [(0, 3), (1, 1), (3, 0), (1, 3), (2, 2), (4, 4), (0, 3)]
    assert rank_points(points).tolist() == [0, 0, 0, 1, 1, 2, 0]
    assert rank_points(np.empty((0, 2))).tolist() == []


def rank_by_definition(points):
    """Rank 0 is what nothing dominates; the others are ranked, one further, without it."""
    ranks, left = {}, set(range(len(points)))
    while left:
        front = {
            i
            for i in left
            if not any(all(np.less_equal(points[j], points[i])) and any(np.less(points[j], points[i])) for j in left)
        }
        ranks.update(dict.fromkeys(front, max(ranks.values(), default=-1) + 1))
        left -= front
    return [ranks[i] for i in range(len(points))]


@given(st.integers(1, 3).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 4)] * m), min_size=1, max_size=12)))
def test_ranks_are_those_of_their_definition(points):
    assert rank_points(points).tolist() == rank_by_definition(points)


def test_crowding_worked_by_hand():
    # By the first objective 0, 1, 4, 10; by the second 10, 8, 7, 0: (4 - 0) / 10 + (10 - 7) / 10, and so on.
    points = [(0, 10), (1, 8), (4, 7), (10, 0)]
    assert compute_crowding(points).tolist() == pytest.approx([math.inf, 0.4 + 0.3, 0.9 + 0.8, math.inf])
    # A copy has no distance and leaves those of the others as they are.
    assert compute_crowding([*points, (1, 8)]).tolist() == pytest.approx([math.inf, 0.7, 1.7, math.inf, -1.0])
    assert compute_crowding([(2, 2)] * 3).tolist() == [math.inf, -1.0, -1.0]


def test_the_best_come_first_and_the_ends_of_a_rank_before_its_middle():
    # Rank 0: (0, 3), (1, 1), (3, 0); behind it (1, 3) and (2, 2), ends both, the first loss deciding; (4, 4) last.
    points = [(4, 4), (1, 3), (1, 1), (0, 3), (2, 2), (3, 0)]
    assert [points[index] for index in sort_points(points)] == [(0, 3), (3, 0), (1, 1), (1, 3), (2, 2), (4, 4)]
    assert sort_points(np.empty((0, 2))).tolist() == []
