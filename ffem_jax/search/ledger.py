"""What the trials of a study come to: who trains what, what is settled, what is owed. It reads and changes nothing.

A trial says three things in its attributes, as plain JSON: `claim` (whose it is: worker, key, point, attempt), `cost`
(costs, excess, reason) and `outcome` (status, accuracy, tested, costs, epochs, error). With successive halving a
network may have several: one that goes on with another `continues` it, to the end of `stop_epoch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial, TrialState

from ffem_jax.search.halving import Halving
from ffem_jax.search.samplers import Told, freeze
from ffem_jax.search.settings import ACCURACY

# What may come of a trial. Those of COUNTED count towards n_trials; of lost and released ones, others follow.
COUNTED = ("done", "pruned", "failed")
OUTCOMES = (*COUNTED, "refused", "repeated", "lost", "released")


@dataclass
class Ledger:
    """What the study's trials come to."""

    trials: Sequence[FrozenTrial]

    @cached_property
    def running(self) -> list[FrozenTrial]:
        """Those that some worker trains."""
        return [trial for trial in self.trials if trial.state == TrialState.RUNNING]

    @cached_property
    def starting(self) -> list[FrozenTrial]:
        """Those of the running that begin a network."""
        return [trial for trial in self.running if "continues" not in trial.user_attrs]

    @cached_property
    def waiting(self) -> list[FrozenTrial]:
        """Those that are to be claimed once more."""
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
        """Networks that somebody has claimed; those whose worker went away are still to be trained."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {str(claim["key"]) for claim in claims}

    @cached_property
    def points(self) -> set[tuple[str, ...]]:
        """Points that somebody has proposed, `freeze` of each."""
        claims = [trial.user_attrs["claim"] for trial in self.trials if "claim" in trial.user_attrs]
        return {freeze(claim["point"]) for claim in claims}

    @cached_property
    def owed(self) -> list[FrozenTrial]:
        """Trials whose worker went away and which nobody has been given since."""
        # Who died before the claim was written down has taken nothing over.
        followed = {trial.user_attrs.get("follows") for trial in self.trials if read_status(trial) != "repeated"}
        gone = [trial for trial in self.trials if read_status(trial) in ("lost", "released")]
        return [trial for trial in gone if trial.number not in followed and trial.state == TrialState.FAIL]

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(read_status(trial) == status for trial in self.trials)

    def read_told(self, *, first: bool = False) -> list[Told]:
        """Every point that was trained, failed or refused, each as far as it came.

        first: each as it was where it first stopped, so that one epoch judges all; later epochs would look better.
        """
        told: dict[int, Told] = {}
        for trial in self.trials:
            status, claim, network = read_status(trial), trial.user_attrs.get("claim"), read_network(trial)
            if network in told and (first or status == "failed"):
                continue
            if claim and status in (*COUNTED, "refused"):
                outcome, cost = trial.user_attrs["outcome"], trial.user_attrs.get("cost", {})
                costs = {**cost.get("costs", {}), **outcome.get("costs", {})}
                stopped = outcome["epochs"] if status == "pruned" else 0
                accuracy, tested = outcome.get(ACCURACY), outcome.get("tested")
                told[network] = Told(claim["point"], accuracy, costs, cost.get("excess", 0.0), stopped, tested)
        return list(told.values())

    def count_epochs(self) -> int:
        """Epochs trained of all networks, those of running claims counted whole: networks go on from checkpoints."""
        reached: Counter[int] = Counter()
        for trial in self.trials:
            running = trial.user_attrs.get("claim", {}).get("stop_epoch", 0) if not trial.state.is_finished() else 0
            epochs = trial.user_attrs.get("outcome", {}).get("epochs", 0) if trial.state.is_finished() else running
            reached[read_network(trial)] = max(reached[read_network(trial)], epochs)
        return reached.total()

    def build_halving(self, rungs: Sequence[int], reduction: int, costs: Sequence[str]) -> Halving[int]:
        """What the networks, by the number of the trial that began them, come to at the rungs."""
        halving: Halving[int] = Halving(rungs, reduction)
        for trial in self.trials:
            status, network = read_status(trial), read_network(trial)
            outcome, target = trial.user_attrs.get("outcome", {}), trial.user_attrs.get("stop_epoch")
            if status in ("done", "pruned"):
                # Recorded by another search it may stand between two rungs.
                epoch = (
                    rungs[-1] if status == "done" else max(e for e in rungs if e <= max(outcome["epochs"], rungs[0]))
                )
                halving.report(network, epoch, outcome[ACCURACY], [outcome["costs"][name] for name in costs])
            elif status == "failed":
                halving.close(network)
            elif target is not None and status != "repeated":  # somebody trains it, or will once more
                halving.claim(network, target)
        return halving


def read_network(trial: FrozenTrial) -> int:
    """The number of the trial that began the network of `trial`."""
    return int(trial.user_attrs.get("continues", trial.number))


def read_status(trial: FrozenTrial) -> str:
    """One of OUTCOMES; empty while it has none."""
    return str(trial.user_attrs.get("outcome", {}).get("status", "")) if trial.state.is_finished() else ""
