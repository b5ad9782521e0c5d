"""sampler=surrogate as the study calls it: what is told, taken, running, refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_searches import CAP, make_record, open_study

from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.config.compose import ConfigError
from ffem_jax.search import samplers
from ffem_jax.search.model.encoding import decode_point, sample_codes
from ffem_jax.search.model.proposal import SurrogateSampler
from ffem_jax.search.samplers import PROPOSERS, TrialOutcome, freeze, thaw
from ffem_jax.search.space import Choice, SearchSpace
from ffem_jax.search.workers.following import compute_progress

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
    return TrialOutcome(
        point, None if size > 1 else 0.3 + 0.03 * float(point["c0"]) * float(point["c1"]), costs, size - 1
    )


def test_the_study_gets_points_that_fit_and_that_nobody_has():
    draw = np.random.default_rng(0)
    told = [settle(decode_point(SPACE, row)) for row in sample_codes(SPACE, 40, draw)]
    told.append(TrialOutcome({**told[0].point, "c0": "4"}, None, {}, 1.0))  # cannot be built: no costs
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
        told.append(TrialOutcome(point, 0.5, {"macs": float(point["c0"])}, -0.5))
    assert len(taken) == small.size
    assert PROPOSERS["surrogate"](small, told, taken, np.random.default_rng(0), ["macs"]) is None


def test_a_frozen_point_thaws():
    point = {"b": "1", "a": "x=y", "c": "[0,1]"}
    assert thaw(freeze(point)) == point


@pytest.mark.slow
def test_a_study_finds_more_with_it_than_by_chance(tmp_path):
    covered = {}
    for sampler in ("random", "surrogate"):
        for seed in range(2):
            study = open_study(tmp_path / f"{sampler}{seed}", sampler=sampler, seed=seed, n_trials=35)
            while (claim := study.claim("w")) is not None or not study.is_over():
                if claim:
                    study.tell_records(claim, [make_record(claim)])
            told = [one for one in study.read_ledger().read_outcomes() if one.accuracy is not None]
            share = compute_hypervolume([t.costs["bytes_float32"] for t in told], [t.accuracy for t in told], CAP, 0.0)
            covered.setdefault(sampler, []).append(share)
    assert min(covered["surrogate"]) > max(covered["random"])


def test_the_sampler_is_told_all_costs_and_the_images_tested(tmp_path, monkeypatch):
    asked = []

    class Listening(SurrogateSampler):
        def propose(self, known, rng, refuse):
            asked.append(known)
            return super().propose(known, rng, refuse)

    monkeypatch.setattr(samplers, "SurrogateSampler", Listening)
    objectives = ["accuracy", "macs", "bytes_float32"]
    study = open_study(tmp_path, sampler="surrogate", objectives=objectives, n_trials=3)
    while not study.is_over():
        claim = study.claim("w")
        # Two seeds, tested on the same images.
        study.tell_records(claim, [dataclasses.replace(make_record(claim), tested=40) for _ in range(2)])
    done = [one for one in asked[-1] if one.accuracy is not None]
    assert len(done) == 2
    for one in done:
        depth = float(one.point["depth"])
        assert one.costs == (depth, depth * float(one.point["width"]))
        assert one.tested == 40


@pytest.mark.slow
def test_a_search_of_three_objectives_finds_more_with_it_than_by_chance(tmp_path):
    """MACs go by depth alone: what is wide and shallow is worth nothing by bytes and much by MACs."""
    covered = {}
    for sampler in ("random", "surrogate"):
        for seed in range(2):
            objectives = ["accuracy", "bytes_float32", "macs"]
            study = open_study(
                tmp_path / f"{sampler}{seed}", sampler=sampler, seed=seed, n_trials=35, objectives=objectives
            )
            while (claim := study.claim("w")) is not None or not study.is_over():
                if claim:
                    study.tell_records(claim, [make_record(claim)])
            _, volume = compute_progress(study.read_ledger(), {"bytes_float32": CAP, "macs": 8.0})
            covered.setdefault(sampler, []).append(volume)
    assert min(covered["surrogate"]) > max(covered["random"])


@pytest.mark.parametrize("name", ["surrogate", "grid", "random"])
def test_options_that_a_sampler_would_drop_are_refused(name):
    with pytest.raises(ConfigError, match=f"^hydra.sweeper.sampler={name} takes no .*sampler_options .here warm_up"):
        samplers.check_sampler(name, {"warm_up": 8}, SPACE)
