import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from ffem_jax.frontier.layout import Label, place_labels, spread_sideways

POSITIONS = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@given(POSITIONS, st.floats(0, 30))
def test_spread_keeps_order_distance_and_bounds(positions, separation):
    spread = spread_sideways(positions, separation, 0, 100)
    assert np.all((spread >= -1e-9) & (spread <= 100 + 1e-9))
    gaps = np.diff(spread[np.argsort(positions, kind="stable")])
    room = 100 / max(1, len(positions) - 1)
    assert np.all(gaps >= min(separation, room) - 1e-9)


def test_what_stands_apart_stays():
    assert spread_sideways([50.0, 10.0, 30.0], 20.0).tolist() == [50.0, 10.0, 30.0]


def test_equal_positions_spread_evenly_in_their_order():
    assert spread_sideways([5.0, 5.0, 5.0], 2.0).tolist() == [3.0, 5.0, 7.0]
    assert spread_sideways([5.0, 5.0], 2.0, high=5.0).tolist() == [3.0, 5.0]


def test_spread_is_the_least_squares_solution():
    rng = np.random.default_rng(0)
    for _ in range(5):
        positions = np.sort(rng.uniform(0, 20, size=6))
        constraints = [{"type": "ineq", "fun": lambda x, i=i: x[i + 1] - x[i] - 3} for i in range(len(positions) - 1)]
        wanted = minimize(
            lambda x, p=positions: np.sum((x - p) ** 2), positions, bounds=[(0, 20)] * 6, constraints=constraints
        )
        np.testing.assert_allclose(spread_sideways(positions, 3, 0, 20), wanted.x, atol=1e-3)


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 1e-9 and min(a[3], b[3]) - max(a[1], b[1]) > 1e-9


def test_labels_cover_neither_each_other_nor_obstacles():
    xs = [100.0, 113.0, 126.0, 139.0, 300.0]
    labels = [Label(x, 150, 130, 170, 60, 10, required=i == 0) for i, x in enumerate(xs)]
    obstacles = [(x - 1.5, 130.0, x + 1.5, 170.0) for x in xs]
    bounds = (0.0, 0.0, 400.0, 300.0)
    placements = place_labels(labels, obstacles, bounds)
    assert None not in placements
    for placement in placements:
        assert placement.box[0] >= 0
        assert placement.box[3] <= 300
    for a, b in itertools.combinations(placements, 2):
        assert not overlap(a.box, b.box)
    for label, placement in zip(labels, placements, strict=True):
        for obstacle in obstacles:
            own = abs((obstacle[0] + obstacle[2]) / 2 - label.x) < 1
            assert own or not overlap(placement.box, obstacle)


def test_a_lone_label_stands_right_of_its_mark():
    (placement,) = place_labels([Label(50, 50, 40, 60, 30, 10)], [], (0, 0, 200, 100))
    assert placement.box[0] > 50
    assert placement.centre[1] == 50
    assert not placement.rotated
    assert not placement.leader


@pytest.mark.parametrize("required", [True, False])
def test_without_room_only_the_required_are_placed(required):
    everywhere = [(-500.0, -500.0, 480.0, 500.0)]
    (placement,) = place_labels([Label(50, 50, 40, 60, 30, 10, required)], everywhere, (0, 0, 100, 100))
    assert (placement is not None) == required


def test_numbers_stand_above_their_whiskers():
    (placement,) = place_labels([Label(50, 50, 40, 60, 8, 10, beside=False)], [], (0, 0, 200, 100))
    assert placement.box[1] > 60
    assert placement.centre[0] == 50
