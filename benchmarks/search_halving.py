"""Searches that train most networks a part of the epochs, replayed on curves of validation accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.frontier import find_pareto

if TYPE_CHECKING:
    from benchmarks.search_table import Memory, Table

REDUCTION = 3
RUNGS = 3  # the last is the whole training


def replay_halving(
    table: Table, asker: Iterator[int], memory: Memory, outcomes: np.ndarray, budget: int
) -> list[tuple[float, float]]:
    """Asynchronous successive halving: (trainings spent, share of the hypervolume) after each whole training.

    A network is trained to a ninth of the epochs, goes on to a third when it is among the best third of those that
    came so far, by non-dominated rank, and to the end by the same rule. Whoever proposes networks learns of those
    trained to the end alone. Source: Li et al., MLSys 2020 (ASHA).
    """
    assert table.curves is not None
    epochs = table.curves.shape[1]
    stops = [max(1, round(epochs / REDUCTION ** (RUNGS - 1 - rung))) for rung in range(RUNGS)]
    reached: list[dict[int, float]] = [{} for _ in stops]
    promoted: list[set[int]] = [set() for _ in stops]
    curve: list[tuple[float, float]] = []
    spent = 0.0
    while spent < budget:
        rung, network = 0, -1
        for level in range(RUNGS - 2, -1, -1):
            candidates = [n for n in _select_best(table, reached[level]) if n not in promoted[level]]
            if candidates:
                rung, network = level + 1, candidates[0]
                promoted[level].add(network)
                break
        if network < 0:
            new = itertools.chain(itertools.islice(asker, 1), range(len(table.points)))
            network = next((n for n in new if n not in memory.started), -1)
            if network < 0:
                break
            memory.started.add(network)
        spent += (stops[rung] - (stops[rung - 1] if rung else 0)) / epochs
        reached[rung][network] = float(table.curves[network, stops[rung] - 1])
        if rung == RUNGS - 1:
            memory.seen[network] = float(outcomes[network])
            curve.append((spent, table.score(memory.seen)))
    return curve


def _select_best(table: Table, reached: dict[int, float]) -> list[int]:
    """The best third, by non-dominated rank, the more accurate first within one."""
    networks = list(reached)
    ranks: dict[int, int] = {}
    rest, rank = networks, 0
    while rest:
        front = find_pareto(table.costs[rest], [reached[n] for n in rest])
        ranks |= {n: rank for n, stands in zip(rest, front, strict=True) if stands}
        rest, rank = [n for n, stands in zip(rest, front, strict=True) if not stands], rank + 1
    ordered = sorted(networks, key=lambda n: (ranks[n], -reached[n]))
    return ordered[: math.floor(len(ordered) / REDUCTION)]
