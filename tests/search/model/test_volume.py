"""Volumes against those of many draws, with one cost and with several."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.search.model.volume import compute_expected_gains, compute_volume, find_front

COSTS = np.array([[2.0, 3.0], [4.0, 1.0], [5.0, 5.0], [3.0, 3.5], [4.0, 4.0], [9.0, 0.5], [4.0, 4.0]])
LEVELS = np.array([0.3, 0.5, 0.6, 0.2, 0.55, 0.9, 0.55])
CAPS = np.array([8.0, 6.0])


def count_dominated(costs, levels, caps):
    """The share of a box that points dominate, by a fine raster of its middle points."""
    axes = [(np.arange(200) + 0.5) / 200 * cap for cap in caps]
    best = np.zeros([200] * len(caps))
    for cost, level in zip(costs, levels, strict=True):
        inside = np.ones_like(best, dtype=bool)
        for axis, (middles, value) in enumerate(zip(axes, cost, strict=True)):
            shape = [1] * len(caps)
            shape[axis] = 200
            inside &= (middles >= value).reshape(shape)
        best[inside] = np.maximum(best[inside], level)
    return best.mean()


def test_the_volume_is_that_of_a_raster():
    assert compute_volume(COSTS, LEVELS, CAPS) == pytest.approx(count_dominated(COSTS, LEVELS, CAPS), abs=0.005)
    assert compute_volume(COSTS[:, :1], LEVELS, CAPS[:1]) == pytest.approx(
        compute_hypervolume(COSTS[:, 0], LEVELS, 8.0, 0.0) / 8
    )
    assert compute_volume([], [], [8.0]) == compute_volume([[1.0]], [0.5], [0.0]) == 0.0
    # A point that is best in the second cost alone adds to it; by the first cost it would add nothing.
    more = np.vstack([COSTS, [6.0, 0.75]]), np.append(LEVELS, 0.4)
    assert compute_volume(*more, CAPS) > compute_volume(COSTS, LEVELS, CAPS)


def test_the_front_of_one_cost_is_paretos():
    draw = np.random.default_rng(0)
    costs, values = draw.integers(0, 9, 60).astype(float), draw.integers(0, 9, 60).astype(float)
    costs[4] = values[7] = math.nan
    assert find_front(costs[:, None], values).tolist() == find_pareto(costs, values).tolist()


def test_a_gain_far_out_in_the_tail_keeps_its_order():
    """Differences of accuracies six deviations below the frontier are small, but no noise and never below 0."""
    means = np.array([0.05, 0.04, 0.02, 0.0])
    costs, new_costs = np.array([[2.0], [9.0]]), np.full((4, 1), 4.0)
    found = compute_expected_gains(costs, np.array([0.4, 0.0]), new_costs, means, np.full(4, 0.06), np.array([8.0]))
    apart = (means - 0.4) / 0.06
    expected = 4 * 0.06 * (apart * stats.norm.cdf(apart) + stats.norm.pdf(apart))
    assert found == pytest.approx(expected, rel=1e-6)
    assert (np.diff(found) < 0).all()
    assert found[-1] > 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_expected_gain_is_that_of_many_draws(count):
    costs, caps = COSTS[:, :count], CAPS[:count]
    new_costs = np.array([[1.0, 0.75], [3.0, 3.0], [4.5, 4.5], [3.0, 2.0], [9.0, 1.0], [7.0, 0.1]])[:, :count]
    means, deviations = np.array([0.25, 0.5, 0.4, 0.1, 0.9, 0.35]), np.full(6, 0.1)
    found = compute_expected_gains(costs, LEVELS, new_costs, means, deviations, caps)
    # Above the lowest level, which is where the gain is counted from.
    floor, box = LEVELS.min(), caps.prod()

    def measure(costs, levels):
        return box * compute_volume(costs, np.maximum(levels - floor, 0), caps)

    before, draw = measure(costs, LEVELS), np.random.default_rng(0)
    for index, cost in enumerate(new_costs):
        drawn = draw.normal(means[index], deviations[index], size=1000)
        gains = [measure(np.vstack([costs, cost]), np.append(LEVELS, value)) - before for value in drawn]
        error = np.std(gains) / math.sqrt(1000)
        assert found[index] == pytest.approx(np.mean(gains), abs=4 * error + 1e-12)
    assert found[4] == 0  # over the first cap
