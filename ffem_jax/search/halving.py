"""Successive halving for several objectives: which trial goes on, and to which epoch. Python and NumPy alone.

Trials are judged at rungs, epochs of the one schedule that all of them follow. The best 1 / reduction of a rung go on
to the next, by non-dominated rank and, within a rank, by crowding, so that a small network is held to be as good as an
accurate one. It is asynchronous: a promotion is decided when somebody asks for work, of the results there are then,
and nobody waits for a rung to fill.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning (2020), for the asynchronous rule; Schmucker et
al., Multi-objective Asynchronous Successive Halving (2021), for several objectives.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ffem_jax.analysis.pareto import find_dominated, sort_points

# What a trial is known by: its number, or its key.
Name = TypeVar("Name", bound=Hashable)


class Promotion(NamedTuple, Generic[Name]):
    """A trial to be gone on with, to the end of `epoch`."""

    trial: Name
    epoch: int


def compute_rungs(min_epochs: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """The epochs after which trials are judged: min_epochs, each `reduction` times the one before, and `epochs`.

    None but the first is past half of the epochs: a late cut saves little and can still go wrong. Raises ValueError
    for values out of their range.
    """
    if reduction < 2:
        raise ValueError(f"reduction={reduction} must be at least 2")
    if not 1 <= min_epochs <= epochs:
        raise ValueError(f"min_epochs={min_epochs} must be between 1 and the {epochs} epochs of the recipe")
    rungs = [min_epochs]
    while rungs[-1] * reduction <= epochs / 2:
        rungs.append(rungs[-1] * reduction)
    return (*rungs, epochs) if rungs[-1] < epochs else (epochs,)


class Halving(Generic[Name]):
    """The results of all rungs, and what follows from them.

    rungs: as `compute_rungs` gives them; reduction: the inverse of the share of a rung that goes on.

    A result says that its trial was promoted up to its rung, so the state of a search follows from its results and
    from what is running: report the ones, claim the others, in any order. Nothing that was reported ever leaves a
    rung; a trial that failed, was refused or lost its checkpoint is closed, and keeps the places it had taken.
    """

    def __init__(self, rungs: Sequence[int], reduction: int):
        if not rungs or sorted(set(rungs)) != list(rungs) or rungs[0] < 1 or reduction < 2:
            raise ValueError(f"rungs={list(rungs)} must rise from at least 1, and reduction={reduction} be at least 2")
        self.rungs, self.reduction = tuple(rungs), reduction
        # Of each rung: losses by trial, and the trials that went on from it.
        self._results: list[dict[Name, tuple[float, ...]]] = [{} for _ in rungs]
        self._promoted: list[set[Name]] = [set() for _ in rungs]
        self._closed: set[Name] = set()
        self._orders: list[tuple[Name, ...] | None] = [None for _ in rungs]

    def report(self, trial: Name, epoch: int, accuracy: float, costs: Sequence[float]) -> None:
        """What `trial` has at the end of `epoch`, a rung: accuracy the better the higher, each of `costs` the lower.

        Reported twice, the later counts. Raises ValueError for an epoch that is no rung, for a number that is not
        finite (close the trial instead), and for another number of costs than the others have.
        """
        rung = self._find_rung(epoch)
        losses = (-float(accuracy), *map(float, costs))
        if not all(map(math.isfinite, losses)):
            raise ValueError(f"trial {trial}: accuracy {accuracy} and costs {list(costs)} must be finite")
        known = next((len(row) for results in self._results for row in results.values()), len(losses))
        if len(losses) != known:
            raise ValueError(f"trial {trial} has {len(losses) - 1} costs and the others {known - 1}")
        self._results[rung][trial] = losses
        self._orders[rung] = None
        for below in self._promoted[:rung]:
            below.add(trial)

    def claim(self, trial: Name, epoch: int) -> None:
        """Somebody trains `trial` on to `epoch`, a rung: it is not proposed again before that is reported."""
        for below in self._promoted[: self._find_rung(epoch)]:
            below.add(trial)

    def close(self, trial: Name) -> None:
        """`trial` will not go on, whatever its results: it failed, was refused, or its checkpoint is gone."""
        self._closed.add(trial)

    def propose(self, *, closing: bool = False) -> Promotion[Name] | None:
        """The trial to go on with, from the highest rung that has one; None: start a new one.

        A trial qualifies while it is among the best 1 / reduction, rounded down, of its rung as it is now, and the best
        that is not promoted yet is taken. With `closing`, where nothing runs and no new trial will start, one of each
        rung qualifies after all those, so that even a small search ends with a trial trained to the end.
        """
        for fewest in (0, 1) if closing else (0,):
            for rung in reversed(range(len(self.rungs) - 1)):
                order = self.sort_rung(rung)
                for trial in order[: max(len(order) // self.reduction, fewest)]:
                    if trial not in self._promoted[rung] and trial not in self._closed:
                        return Promotion(trial, self.rungs[rung + 1])
        return None

    def sort_rung(self, rung: int) -> tuple[Name, ...]:
        """The trials of a rung, by its index, the best first: by rank, crowding, accuracy and order of arrival."""
        order = self._orders[rung]
        if order is None:
            order = self._orders[rung] = self._sort(rung)
        return order

    def find_hopeless(self, trials: int) -> list[Name]:
        """The stopped trials that can no longer be promoted in a search of `trials` trials in all.

        Those that as many others of their rung dominate as there can ever be places: whatever comes, these others stay
        before them. Their checkpoints can go; close what is discarded, though it changes nothing.
        """
        places = max(trials // self.reduction, 1)
        hopeless = []
        for results, promoted in zip(self._results[:-1], self._promoted, strict=False):
            stopped = [trial for trial in results if trial not in promoted and trial not in self._closed]
            if len(results) <= places or not stopped:
                continue
            names = list(results)
            dominators = find_dominated([results[name] for name in names]).sum(axis=0)
            beaten = {name for name, count in zip(names, dominators, strict=True) if count >= places}
            hopeless += [trial for trial in stopped if trial in beaten]
        return hopeless

    def find_stopped(self) -> list[Promotion[Name]]:
        """The trials that wait below the last rung, each with the epoch that it was stopped at."""
        return [
            Promotion(trial, epoch)
            for epoch, results, promoted in zip(self.rungs[:-1], self._results, self._promoted, strict=False)
            for trial in results
            if trial not in promoted and trial not in self._closed
        ]

    @property
    def epochs_spent(self) -> int:
        """Epochs trained by all that was reported: a trial goes on from its checkpoint, so each counts its last."""
        reached: dict[Name, int] = {}
        for epoch, results in zip(self.rungs, self._results, strict=True):
            reached.update(dict.fromkeys(results, epoch))
        return sum(reached.values())

    def _find_rung(self, epoch: int) -> int:
        if epoch not in self.rungs:
            raise ValueError(f"epoch {epoch} is no rung; the rungs are: {', '.join(map(str, self.rungs))}")
        return self.rungs.index(epoch)

    def _sort(self, rung: int) -> tuple[Name, ...]:
        names = list(self._results[rung])
        if not names:
            return ()
        return tuple(names[index] for index in sort_points([self._results[rung][name] for name in names]))
