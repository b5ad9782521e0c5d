"""What is proposed: the expected gain against a simulation of it, refusals, the cap, and a search that beats chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.search.model import proposal
from ffem_jax.search.model.encoding import decode_point, encode_points, sample_codes
from ffem_jax.search.model.proposal import Observation, ProposalError, SurrogateSampler
from ffem_jax.search.space import Choice, SearchSpace

SPACE = SearchSpace(
    (
        *(Choice(f"c{n}", ("0", "1", "2", "3"), ordered=True) for n in range(6)),
        Choice("kind", ("none", "some")),
        Choice("how", ("a", "b"), when=(("kind", ("some",)),)),
    )
)


def train(point):
    """An accuracy that each number helps less and less, and a cost that grows with all of them."""
    numbers = np.array([float(point[f"c{n}"]) for n in range(6)])
    helped = (np.array([2.0, 1.0, 0.5, 0.3, 0.1, 0.0]) * np.sqrt(numbers)).sum() + (point.get("how") == "b")
    return 1 / (1 + math.exp(2 - helped)), float(100 + (np.array([1, 2, 3, 4, 5, 6]) * numbers).sum())


def observe(point):
    accuracy, cost = train(point)
    return Observation(point, accuracy, (cost,), 500)


@pytest.mark.slow
def test_the_search_finds_in_thirty_trainings_what_chance_does_not_in_ninety():
    shares = {}
    every = [train(point) for point in SPACE if point["kind"] == "none" or point["how"] == "b"]
    best = compute_hypervolume([c for _, c in every], [a for a, _ in every], 163.0, 0.1)
    for seed in range(3):
        draw = np.random.default_rng(seed)
        sampler, known = SurrogateSampler(SPACE, warm_up=10), []
        for _ in range(30):
            trained = [seen.point for seen in known]
            known.append(observe(sampler.propose(known, draw, lambda p, trained=trained: p in trained)))
        chance = [observe(decode_point(SPACE, row)) for row in sample_codes(SPACE, 90, draw)]
        for name, seen in (("search", known), ("chance", chance)):
            found = compute_hypervolume([s.costs[0] for s in seen], [s.accuracy for s in seen], 163.0, 0.1)
            shares.setdefault(name, []).append(found / best)
    assert min(shares["search"]) > max(shares["chance"])
    assert np.mean(shares["search"]) > 0.97


def test_what_is_refused_is_never_proposed():
    draw = np.random.default_rng(1)
    known = [observe(decode_point(SPACE, row)) for row in sample_codes(SPACE, 20, draw)]
    sampler = SurrogateSampler(SPACE)
    point = sampler.propose(known, draw, lambda p: p["c0"] != "1" or p["kind"] != "none")
    assert (point["c0"], point["kind"]) == ("1", "none")
    assert SPACE.get_active(point) == point
    with pytest.raises(ProposalError, match="every network"):
        SurrogateSampler(SPACE).propose([], draw, lambda _: True)


def test_under_a_cap_only_small_networks_come():
    draw = np.random.default_rng(2)
    known = [observe(decode_point(SPACE, row)) for row in sample_codes(SPACE, 40, draw)]
    # Of those over the cap only the cost is known: they were refused before training.
    known = [replace(s, accuracy=s.accuracy if s.costs[0] <= 126 else None, fill=s.costs[0] / 126) for s in known]
    done = sum(seen.accuracy is not None for seen in known)
    assert 8 <= done < 35
    sampler = SurrogateSampler(SPACE, warm_up=8)
    costs = [train(sampler.propose(known, draw))[1] for _ in range(10)]
    assert np.mean(np.array(costs) <= 126) >= 0.9


def test_what_is_running_spreads_the_workers_out():
    draw = np.random.default_rng(3)
    known = [observe(decode_point(SPACE, row)) for row in sample_codes(SPACE, 30, draw)]
    pool = sample_codes(SPACE, 10_000, draw)
    sampler = SurrogateSampler(SPACE)
    first = sampler.rank(known, pool)[:5]
    point = decode_point(SPACE, pool[first[0]])
    running = [*known, Observation(point, running=True)]
    assert sampler.rank(running, pool)[0] != first[0]
    # Failed, or refused with no cost known: nothing to learn from, and nothing breaks.
    assert sampler.rank([*known, Observation(point)], pool)[0] == first[0]


def test_the_warm_up_is_the_spaces_own_draw():
    known = [observe(decode_point(SPACE, row)) for row in sample_codes(SPACE, 5, np.random.default_rng(4))]
    pool = encode_points(SPACE, [seen.point for seen in known])
    assert SurrogateSampler(SPACE).rank(known, pool).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_every_cost_counts(count):
    """All are as accurate and cost as much in the first; what is to be gained lies in the last."""
    draw = np.random.default_rng(5)

    def settle(point):
        total = 1 + sum(float(point[f"c{n}"]) for n in range(6))
        return Observation(point, 0.5, (7.0, total)[2 - count :], 500)

    known = [settle(decode_point(SPACE, row)) for row in sample_codes(SPACE, 30, draw)]
    for _ in range(5):
        known.append(settle(SurrogateSampler(SPACE).propose(known, draw)))
    totals = [one.costs[-1] for one in known]
    assert min(totals[30:]) < min(totals[:30]) == 4
    assert np.mean(totals[30:]) < 5 < np.median(totals[:30])


def test_an_accuracy_counts_as_of_the_images_that_it_was_tested_on(monkeypatch):
    draw, given = np.random.default_rng(6), []
    codes = sample_codes(SPACE, 20, draw)
    known = [observe(decode_point(SPACE, row)) for row in codes]
    known[3:5] = [replace(known[3], tested=40), replace(known[4], tested=None)]  # of an older study
    fit_rates = proposal.fit_rates

    def fit(features, rates, tested, *others):
        given.append(list(tested))
        return fit_rates(features, rates, tested, *others)

    monkeypatch.setattr(proposal, "fit_rates", fit)
    SurrogateSampler(SPACE).rank(known, codes)
    assert given == [[500.0, 500.0, 500.0, 40, 500.0, *[500.0] * 15]]
