"""Reads the trials of a study: which run, which are settled, which must be claimed again. It changes nothing.

A trial has three attributes, in plain JSON: `claim` (worker, key, point, attempt), `cost` (costs, excess, reason) and
`outcome` (status, accuracy, tested, costs, epochs, error, trials: the keys of its records). With successive halving a
network may have several trials: a later one has the attribute `continues`, the number of the first, and trains to the
end of `stop_epoch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial, TrialState

from ffem_jax.search.halving import Halving
from ffem_jax.search.samplers import TrialOutcome, freeze
from ffem_jax.search.settings import ACCURACY
from ffem_jax.search.space import Point

# The statuses that count towards n_trials. The others are refused, repeated, lost and released; another trial follows a
# lost or released one.
COUNTED = ("done", "pruned", "failed")
REPETITIONS = 3  # consecutive repetitions by a sampler before a neighbour of its last point is taken


@dataclass
class Ledger:
    """The trials of a study, read once. Each property is computed on first use."""

    trials: Sequence[FrozenTrial]

    @cached_property
    def running(self) -> list[FrozenTrial]:
        """The trials that a worker trains now."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @cached_property
    def starting(self) -> list[FrozenTrial]:
        """The running trials that begin a network."""
        return [trial for trial in self.running if "continues" not in trial.user_attrs]

    @cached_property
    def waiting(self) -> list[FrozenTrial]:
        """The trials that wait to be claimed again."""
        return [trial for trial in self.trials if trial.state == TrialState.WAITING]

    @cached_property
    def settled(self) -> list[FrozenTrial]:
        """The trials that ended with a result, or failed."""
        return [trial for trial in self.trials if read_status(trial) in COUNTED]

    @cached_property
    def finished(self) -> list[FrozenTrial]:
        """The first trial of each network that was trained, even partly, or failed."""
        return [trial for trial in self.settled if "continues" not in trial.user_attrs]

    @cached_property
    def keys(self) -> set[str]:
        """The keys of all networks ever claimed, including those whose worker disappeared."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {str(claim["key"]) for claim in claims}

    @cached_property
    def points(self) -> set[tuple[str, ...]]:
        """All points ever claimed, each as `freeze` returns it."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {freeze(claim["point"]) for claim in claims}

    @cached_property
    def owed(self) -> list[FrozenTrial]:
        """The trials whose worker disappeared and that have not been assigned again since."""
        # A follow-up trial whose worker died before it wrote its claim does not count.
        followed = {trial.user_attrs.get("follows") for trial in self.trials if read_status(trial) != "repeated"}
        gone = [trial for trial in self.trials if read_status(trial) in ("lost", "released")]
        return [trial for trial in gone if trial.number not in followed and trial.state == TrialState.FAIL]

    def count(self, status: str) -> int:
        """Return how many trials ended with `status`."""
        return sum(read_status(trial) == status for trial in self.trials)

    def find_repeated(self) -> Point | None:
        """Return the last point if the sampler's last REPETITIONS proposals repeat known networks; else None."""
        last = [trial for trial in self.trials if trial.state.is_finished()][-REPETITIONS:]
        if len(last) < REPETITIONS or any(read_status(trial) != "repeated" for trial in last):
            return None
        claims = [trial.user_attrs["claim"] for trial in reversed(last) if "claim" in trial.user_attrs]
        return claims[0]["point"] if claims else None

    def read_outcomes(self, *, first: bool = False) -> list[TrialOutcome]:
        """Return one outcome per network that was trained, failed or was refused.

        Args:
            first: take each network's outcome at its first stop, so that all are compared at one epoch; otherwise its
                latest outcome.
        """
        found: dict[int, TrialOutcome] = {}
        for trial in self.trials:
            status, claim, network = read_status(trial), trial.user_attrs.get("claim"), read_network(trial)
            if network in found and (first or status == "failed"):
                continue
            if claim and status in (*COUNTED, "refused"):
                outcome, cost = trial.user_attrs["outcome"], trial.user_attrs.get("cost", {})
                costs = {**cost.get("costs", {}), **outcome.get("costs", {})}
                stopped = outcome["epochs"] if status == "pruned" else 0
                accuracy, tested = outcome.get(ACCURACY), outcome.get("tested")
                excess = cost.get("excess", 0.0)
                found[network] = TrialOutcome(claim["point"], accuracy, costs, excess, stopped, tested)
        return list(found.values())

    def count_epochs(self) -> int:
        """Return the epochs trained, over all networks, which resume from checkpoints. A running claim counts fully."""
        reached: Counter[int] = Counter()
        for trial in self.trials:
            running = trial.user_attrs.get("claim", {}).get("stop_epoch", 0) if not trial.state.is_finished() else 0
            epochs = trial.user_attrs.get("outcome", {}).get("epochs", 0) if trial.state.is_finished() else running
            reached[read_network(trial)] = max(reached[read_network(trial)], epochs)
        return reached.total()

    def build_halving(self, rungs: Sequence[int], reduction: int, costs: Sequence[str]) -> Halving[int]:
        """Return the state of successive halving, with networks named by the number of their first trial.

        Args:
            rungs: as in `Halving`.
            reduction: as in `Halving`.
            costs: the objectives to minimise, in order.
        """
        halving: Halving[int] = Halving(rungs, reduction)
        for trial in self.trials:
            status, network = read_status(trial), read_network(trial)
            outcome, target = trial.user_attrs.get("outcome", {}), trial.user_attrs.get("stop_epoch")
            if status in ("done", "pruned"):
                # A network recorded by another search may have stopped between two rungs.
                epoch = (
                    rungs[-1] if status == "done" else max(e for e in rungs if e <= max(outcome["epochs"], rungs[0]))
                )
                halving.report(network, epoch, outcome[ACCURACY], [outcome["costs"][name] for name in costs])
            elif status == "failed":
                halving.close(network)
            elif target is not None and status != "repeated":  # a worker trains it now, or will again
                halving.claim(network, target)
        return halving


def read_network(trial: FrozenTrial) -> int:
    """Return the number of the trial that began the network of `trial`."""
    return int(trial.user_attrs.get("continues", trial.number))


def read_status(trial: FrozenTrial) -> str:
    """Return the status of the trial's outcome; empty while it has none."""
    return str(trial.user_attrs.get("outcome", {}).get("status", "")) if trial.state.is_finished() else ""
