"""Whether a search finds more than chance, on a simulated objective over the shipped space. Nothing is trained: these
numbers say that samplers are fed rightly, and nothing about faces."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import optuna
import pytest
import yaml
from made_searches import make_record

from ffem_jax.config.compose import find_sweep
from ffem_jax.search.candidates import Candidate
from ffem_jax.search.settings import SearchSettings
from ffem_jax.search.space import SearchSpace, read_space
from ffem_jax.search.study import Claim, SearchStudy
from ffem_jax.search.workers import worker as worker_module
from ffem_jax.search.workers.following import compute_progress
from ffem_jax.search.workers.worker import Worker

CAP = 10e6


class NobodyElse:
    """The lock of a search with one worker."""

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        yield


def compute_bytes(point: Mapping[str, str]) -> float:
    """Near the bytes of the network: its 1x1 convolutions in float32."""
    width = float(point["arch.width_multiplier"])
    channels, weights = 32 * width, 0.0
    for stage in range(7):
        out = float(point[f"arch.stages.{stage}.channels"]) * width
        for _ in range(int(point.get(f"arch.stages.{stage}.repeats", "1"))):
            hidden = channels * float(point.get(f"arch.stages.{stage}.expansion", "1"))
            weights, channels = weights + hidden * (channels + out), out
    head = float(point["arch.head_channels"])
    return 4 * (weights + channels * head + (head or channels) * float(point["arch.embedding_dim"]))


def simulate_accuracy(point: Mapping[str, str], world: int) -> float:
    """More with more bytes, less and less; each value of a choice has an effect (1.2 points of standard deviation);
    training again would give another number (2 points)."""

    def draw(deviation: float, *what: object) -> float:
        return float(np.random.default_rng(zlib.crc32(repr((world, *what)).encode())).normal(0, deviation))

    mean = 0.8 - 0.35 * math.exp(-math.sqrt(compute_bytes(point) / 1e6))
    effects = sum(draw(0.012, name, value) for name, value in point.items())
    return float(np.clip(mean + effects + draw(0.02, sorted(point.items())), 0.01, 0.99))


def search(space: SearchSpace, sampler: str, world: int, trainings: int) -> float:
    """The hypervolume within the cap that `trainings` find."""

    def make(point: Mapping[str, str]) -> Candidate:
        return Candidate(point, None, None, key=repr(sorted(point.items())))

    def measure(candidate: Candidate) -> Candidate:
        size = compute_bytes(candidate.point)
        reason = "over the cap" if size > CAP else ""
        return dataclasses.replace(candidate, costs={"bytes_float32": size}, excess=size / CAP - 1, reason=reason)

    def train(claim: Claim) -> list:
        record = make_simulated(claim)
        record.accuracy = simulate_accuracy(claim.candidate.point, world)
        return [record]

    settings = SearchSettings(n_trials=trainings, sampler=sampler, seed=world)
    storage = optuna.storages.InMemoryStorage()
    study = SearchStudy(settings, space, storage, NobodyElse(), "simulated", make, measure)
    Worker("w", study, train).run()
    return compute_progress(study.read_ledger(), {"bytes_float32": CAP})[1]


def make_simulated(claim: Claim) -> object:
    record = make_record(claim, "failed")  # whose accuracy another objective would compute
    record.status, record.error = "done", ""
    return record


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "margin"), [("nsga2", 0.03), ("tpe", 0.02)])
def test_a_search_finds_more_than_chance_at_equal_budget(
    sampler: str, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module.Heartbeat, "run", lambda heart: None)
    space = read_space(yaml.safe_load(find_sweep("search").read_text())["hydra"]["sweeper"])
    differences = [search(space, sampler, world, 150) - search(space, "random", world, 150) for world in range(3)]
    assert min(differences) > 0, differences
    assert np.mean(differences) > margin, differences
