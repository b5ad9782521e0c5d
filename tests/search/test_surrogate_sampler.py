"""sampler=surrogate as the study calls it: what is told, taken, running, refused."""

from __future__ import annotations

import numpy as np
from made_searches import CAP, make_record, open_study

from ffem_jax.frontier import compute_hypervolume
from ffem_jax.search.encoding import decode_point, sample_codes
from ffem_jax.search.samplers import PROPOSERS, Told, freeze, thaw
from ffem_jax.search.space import Choice, SearchSpace

SPACE = SearchSpace(
    (
        *(Choice(f"c{n}", ("1", "2", "3", "4"), ordered=True) for n in range(5)),
        Choice("kind", ("none", "some")),
        Choice("how", ("a", "b"), when=(("kind", ("some",)),)),
    )
)


def settle(point):
    size = sum(float(point[f"c{n}"]) for n in range(5)) / 16
    costs = {"params": 1.0, "bytes_int8": size}
    return Told(point, None if size > 1 else 0.3 + 0.03 * float(point["c0"]) * float(point["c1"]), costs, size - 1)


def test_the_study_gets_points_that_fit_and_that_nobody_has():
    draw = np.random.default_rng(0)
    told = [settle(decode_point(SPACE, row)) for row in sample_codes(SPACE, 40, draw)]
    told.append(Told({**told[0].point, "c0": "4"}, None, {}, 1.0))  # cannot be built: no costs
    running = [decode_point(SPACE, row) for row in sample_codes(SPACE, 3, draw)]
    taken = {freeze(one.point) for one in told} | {freeze(point) for point in running}
    sizes = []
    for _ in range(6):
        point = PROPOSERS["surrogate"](SPACE, told, taken, draw, ["bytes_int8"])
        assert freeze(point) not in taken
        assert SPACE.get_active(point) == point
        taken.add(freeze(point))
        told.append(settle(point))
        sizes.append(1 + told[-1].excess)
    assert sum(size <= 1 for size in sizes) >= 5
    # It has seen what pays: the first two numbers, at the expense of the other three.
    assert max(told[-6:], key=lambda one: one.accuracy or 0).accuracy == max(one.accuracy or 0 for one in told)


def test_a_space_is_searched_to_its_end():
    small = SearchSpace((Choice("c0", ("1", "2"), ordered=True), Choice("c1", ("1", "2", "3"), ordered=True)))
    taken, told = set(), []
    for _ in range(6):
        point = PROPOSERS["surrogate"](small, told, taken, np.random.default_rng(len(taken)), ["macs"])
        taken.add(freeze(point))
        told.append(Told(point, 0.5, {"macs": float(point["c0"])}, -0.5))
    assert len(taken) == small.size
    assert PROPOSERS["surrogate"](small, told, taken, np.random.default_rng(0), ["macs"]) is None


def test_a_frozen_point_thaws():
    point = {"b": "1", "a": "x=y", "c": "[0,1]"}
    assert thaw(freeze(point)) == point


def test_a_study_finds_more_with_it_than_by_chance(tmp_path):
    covered = {}
    for sampler in ("random", "surrogate"):
        for seed in range(2):
            study = open_study(tmp_path / f"{sampler}{seed}", sampler=sampler, seed=seed, n_trials=35)
            while (claim := study.claim("w")) is not None or not study.is_over():
                if claim:
                    study.tell_records(claim, [make_record(claim)])
            told = [one for one in study.read_ledger().read_told() if one.accuracy is not None]
            share = compute_hypervolume([t.costs["bytes_float32"] for t in told], [t.accuracy for t in told], CAP, 0.0)
            covered.setdefault(sampler, []).append(share)
    assert min(covered["surrogate"]) > max(covered["random"])
