"""Successive halving for several objectives: which trial continues, and to which epoch. Python and NumPy only.

Trials are compared at rungs: epochs of one schedule that all trials follow. The best 1 / reduction of a rung continue
to the next one, by non-dominated rank and, within a rank, by crowding. So a small network counts as much as an accurate
one. Promotions are asynchronous: each is decided when a worker requests work, from the results available then. No
worker waits for a rung to fill.

References:
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020: the asynchronous rule.
    Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021: several objectives.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ffem_jax.analysis.pareto import find_dominated, sort_points

# A trial's identity: its number, or its key.
Name = TypeVar("Name", bound=Hashable)


class Promotion(NamedTuple, Generic[Name]):
    """A trial to train further, to the end of `epoch`."""

    trial: Name
    epoch: int


def compute_rungs(min_epochs: int, reduction: int, epochs: int) -> tuple[int, ...]:
    """Return the rungs: min_epochs, then each `reduction` times the one before, and finally `epochs`.

    Of the rungs before the last, only the first may lie beyond half of the epochs: a late cut saves little and can
    still be wrong.

    Args:
        min_epochs: the first rung, 1 to `epochs`.
        reduction: 2 or more.
        epochs: the recipe's epochs.

    Raises:
        ValueError: if a value is out of range.
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
    """The results of all rungs, and the promotions that follow from them.

    A result implies that its trial was promoted up to its rung. So the state of a search follows from its results and
    its running trials: report the former and claim the latter, in any order. A result never leaves its rung. A trial
    that failed, was refused or lost its checkpoint is closed, and keeps the places it took.

    Args:
        rungs: epochs, as `compute_rungs` returns them.
        reduction: one trial in this many continues from a rung.
    """

    def __init__(self, rungs: Sequence[int], reduction: int):
        if not rungs or sorted(set(rungs)) != list(rungs) or rungs[0] < 1 or reduction < 2:
            raise ValueError(f"rungs={list(rungs)} must rise from at least 1, and reduction={reduction} be at least 2")
        self.rungs, self.reduction = tuple(rungs), reduction
        # For each rung: losses by trial, and the trials promoted from it.
        self._results: list[dict[Name, tuple[float, ...]]] = [{} for _ in rungs]
        self._promoted: list[set[Name]] = [set() for _ in rungs]
        self._closed: set[Name] = set()
        self._orders: list[tuple[Name, ...] | None] = [None for _ in rungs]

    def report(self, trial: Name, epoch: int, accuracy: float, costs: Sequence[float]) -> None:
        """Store the result of `trial` at the end of `epoch`; a second report replaces the first.

        Args:
            epoch: a rung.
            accuracy: higher is better.
            costs: lower is better; the same number for all trials.

        Raises:
            ValueError: if the epoch is not a rung, a number is not finite (close the trial instead), or the number of
                costs differs from the other trials'.
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
        """Mark `trial` as being trained to `epoch`, a rung; it is not proposed again before that is reported."""
        for below in self._promoted[: self._find_rung(epoch)]:
            below.add(trial)

    def close(self, trial: Name) -> None:
        """Exclude `trial` from promotion: it failed, was refused, or lost its checkpoint."""
        self._closed.add(trial)

    def propose(self, *, closing: bool = False) -> Promotion[Name] | None:
        """Return the promotion to make, from the highest rung that has one; None if a new trial should start.

        A trial qualifies while it is among the best 1 / reduction, rounded down, of its rung's current results. The
        best trial that is not promoted yet is chosen.

        Args:
            closing: nothing runs and no trial will start. Then at least one trial of each rung qualifies, so that
                even a small search trains one to the end.
        """
        for fewest in (0, 1) if closing else (0,):
            for rung in reversed(range(len(self.rungs) - 1)):
                order = self.sort_rung(rung)
                for trial in order[: max(len(order) // self.reduction, fewest)]:
                    if trial not in self._promoted[rung] and trial not in self._closed:
                        return Promotion(trial, self.rungs[rung + 1])
        return None

    def sort_rung(self, rung: int) -> tuple[Name, ...]:
        """Return the trials of the rung with index `rung`, best first, by rank, crowding, accuracy, time of arrival."""
        order = self._orders[rung]
        if order is None:
            order = self._orders[rung] = self._sort(rung)
        return order

    def find_eliminated(self, trials: int) -> list[Name]:
        """Return the stopped trials that can no longer be promoted, in a search of `trials` trials in total.

        At least as many others of their rung dominate them as the rung can ever promote, and no later result changes
        that. Their checkpoints can be deleted.
        """
        places = max(trials // self.reduction, 1)
        eliminated: list[Name] = []
        for results, promoted in zip(self._results[:-1], self._promoted, strict=False):
            stopped = [trial for trial in results if trial not in promoted and trial not in self._closed]
            if len(results) <= places or not stopped:
                continue
            names = list(results)
            dominators = find_dominated([results[name] for name in names]).sum(axis=0)
            beaten = {name for name, count in zip(names, dominators, strict=True) if count >= places}
            eliminated += [trial for trial in stopped if trial in beaten]
        return eliminated

    @property
    def epochs_spent(self) -> int:
        """Epochs trained by all reported trials. Each counts its last epoch, as it resumes from its checkpoint."""
        reached: dict[Name, int] = {}
        for epoch, results in zip(self.rungs, self._results, strict=True):
            reached.update(dict.fromkeys(results, epoch))
        return sum(reached.values())

    def _find_rung(self, epoch: int) -> int:
        if epoch not in self.rungs:
            raise ValueError(f"epoch {epoch} is not a rung; the rungs are: {', '.join(map(str, self.rungs))}")
        return self.rungs.index(epoch)

    def _sort(self, rung: int) -> tuple[Name, ...]:
        names = list(self._results[rung])
        if not names:
            return ()
        return tuple(names[index] for index in sort_points([self._results[rung][name] for name in names]))
