"""Searches that train most networks a part of the epochs, replayed on curves of validation accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.search.halving import Halving, Promotion, compute_rungs

if TYPE_CHECKING:
    from benchmarks.search_table import Memory, Table

REDUCTION = 3


def replay_halving(
    table: Table, asker: Iterator[int], memory: Memory, outcomes: np.ndarray, budget: int
) -> list[tuple[float, float]]:
    """The package's successive halving: (trainings spent, share of the hypervolume) after each whole training.

    A network is first trained to a ninth of the epochs. Whoever proposes networks learns of those trained to the end
    alone. It ends when `budget` trainings' epochs are spent, or nothing is left to train.
    """
    assert table.curves is not None
    epochs = table.curves.shape[1]
    rungs = compute_rungs(max(1, round(epochs / REDUCTION**2)), REDUCTION, epochs)
    halving: Halving[int] = Halving(rungs, REDUCTION)
    curve: list[tuple[float, float]] = []
    while halving.epochs_spent < budget * epochs:
        new = itertools.chain(itertools.islice(asker, 1), range(len(table.points)))
        task = halving.propose() or next((Promotion(n, rungs[0]) for n in new if n not in memory.started), None)
        if task is None:
            break
        network, epoch = task
        memory.started.add(network)
        halving.report(network, epoch, table.curves[network, epoch - 1], [table.costs[network]])
        if epoch == epochs:
            memory.seen[network] = float(outcomes[network])
            curve.append((halving.epochs_spent / epochs, table.score(memory.seen)))
    return curve
