"""Reads the trials of a study: who trains what, what is settled, what must be claimed again. It changes nothing.

A trial has three attributes, in plain JSON: `claim` (worker, key, point, attempt), `cost` (costs, excess, reason) and
`outcome` (status, accuracy, tested, costs, epochs, error, trials: the keys of its records). With successive halving a
network may have several trials: one that goes on with another `continues` it, to the end of `stop_epoch`.
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

# The statuses that count towards n_trials. The others are refused and repeated, and lost and released, after which
# another trial follows.
COUNTED = ("done", "pruned", "failed")
REPETITIONS = 3  # in a row of a sampler, before a neighbour of its last point is taken


@dataclass
class Ledger:
    """The trials of a study, read once: each property is computed at its first use."""

    trials: Sequence[FrozenTrial]

    @cached_property
    def running(self) -> list[FrozenTrial]:
        """Those that a worker trains now."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @cached_property
    def starting(self) -> list[FrozenTrial]:
        """Those of the running that begin a network."""
        return [trial for trial in self.running if "continues" not in trial.user_attrs]

    @cached_property
    def waiting(self) -> list[FrozenTrial]:
        """Those that wait to be claimed again."""
        return [trial for trial in self.trials if trial.state == TrialState.WAITING]

    @cached_property
    def settled(self) -> list[FrozenTrial]:
        """Those that ended with a result, or failed."""
        return [trial for trial in self.trials if read_status(trial) in COUNTED]

    @cached_property
    def finished(self) -> list[FrozenTrial]:
        """One trial for each network that was trained, if only in part, or failed: the one that began it."""
        return [trial for trial in self.settled if "continues" not in trial.user_attrs]

    @cached_property
    def keys(self) -> set[str]:
        """The keys of all networks that were ever claimed, those whose worker went away too."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {str(claim["key"]) for claim in claims}

    @cached_property
    def points(self) -> set[tuple[str, ...]]:
        """All points that were ever claimed, `freeze` of each."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {freeze(claim["point"]) for claim in claims}

    @cached_property
    def owed(self) -> list[FrozenTrial]:
        """Trials whose worker went away and which no worker has been given since."""
        # A worker that died before it wrote its claim took nothing over.
        followed = {trial.user_attrs.get("follows") for trial in self.trials if read_status(trial) != "repeated"}
        gone = [trial for trial in self.trials if read_status(trial) in ("lost", "released")]
        return [trial for trial in gone if trial.number not in followed and trial.state == TrialState.FAIL]

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(read_status(trial) == status for trial in self.trials)

    def find_repeated(self) -> Point | None:
        """The last point, where the sampler has only repeated known networks of late; else None."""
        last = [trial for trial in self.trials if trial.state.is_finished()][-REPETITIONS:]
        if len(last) < REPETITIONS or any(read_status(trial) != "repeated" for trial in last):
            return None
        claims = [trial.user_attrs["claim"] for trial in reversed(last) if "claim" in trial.user_attrs]
        return claims[0]["point"] if claims else None

    def read_outcomes(self, *, first: bool = False) -> list[TrialOutcome]:
        """One outcome per network that was trained, failed or was refused.

        Args:
            first: take each network where it first stopped, so that all are judged at one epoch; otherwise at its last.
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
        """Epochs trained, over all networks; a running claim counts whole. Networks go on from checkpoints."""
        reached: Counter[int] = Counter()
        for trial in self.trials:
            running = trial.user_attrs.get("claim", {}).get("stop_epoch", 0) if not trial.state.is_finished() else 0
            epochs = trial.user_attrs.get("outcome", {}).get("epochs", 0) if trial.state.is_finished() else running
            reached[read_network(trial)] = max(reached[read_network(trial)], epochs)
        return reached.total()

    def build_halving(self, rungs: Sequence[int], reduction: int, costs: Sequence[str]) -> Halving[int]:
        """The state of successive halving: networks by the number of the trial that began them.

        Args:
            rungs, reduction: as of `Halving`. costs: the objectives that go down, in order.
        """
        halving: Halving[int] = Halving(rungs, reduction)
        for trial in self.trials:
            status, network = read_status(trial), read_network(trial)
            outcome, target = trial.user_attrs.get("outcome", {}), trial.user_attrs.get("stop_epoch")
            if status in ("done", "pruned"):
                # A record of another search may have stopped between two rungs.
                epoch = (
                    rungs[-1] if status == "done" else max(e for e in rungs if e <= max(outcome["epochs"], rungs[0]))
                )
                halving.report(network, epoch, outcome[ACCURACY], [outcome["costs"][name] for name in costs])
            elif status == "failed":
                halving.close(network)
            elif target is not None and status != "repeated":  # a worker trains it, or will again
                halving.claim(network, target)
        return halving


def read_network(trial: FrozenTrial) -> int:
    """The number of the trial that began the network of `trial`."""
    return int(trial.user_attrs.get("continues", trial.number))


def read_status(trial: FrozenTrial) -> str:
    """The status of the trial's outcome; empty while it has none."""
    return str(trial.user_attrs.get("outcome", {}).get("status", "")) if trial.state.is_finished() else ""
