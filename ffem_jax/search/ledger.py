"""What the trials of a study come to: who trains what, what is settled, what is owed. It reads and changes nothing.

A trial says three things in its attributes, as plain JSON: `claim` (whose it is: worker, key, point, attempt), `cost`
(costs, excess, reason) and `outcome` (status, accuracy, costs, error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna.trial import FrozenTrial, TrialState

from ffem_jax.search.samplers import Told, freeze
from ffem_jax.search.settings import ACCURACY

# What may come of a trial. Those of COUNTED count towards n_trials; of lost and released ones, others follow.
COUNTED = ("done", "failed")
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
    def waiting(self) -> list[FrozenTrial]:
        """Those that are to be claimed once more."""
        return [trial for trial in self.trials if trial.state == TrialState.WAITING]

    @cached_property
    def finished(self) -> list[FrozenTrial]:
        """One trial for each network that was trained or failed."""
        return [trial for trial in self.trials if read_status(trial) in COUNTED]

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
        followed = {trial.user_attrs.get("follows") for trial in self.trials}
        gone = [trial for trial in self.trials if read_status(trial) in ("lost", "released")]
        return [trial for trial in gone if trial.number not in followed and trial.state == TrialState.FAIL]

    def count(self, status: str) -> int:
        """How many trials ended so."""
        return sum(read_status(trial) == status for trial in self.trials)

    def read_told(self) -> list[Told]:
        """Every point that was trained, failed or refused."""
        told = []
        for trial in self.trials:
            status, claim = read_status(trial), trial.user_attrs.get("claim")
            if claim and status in (*COUNTED, "refused"):
                outcome, cost = trial.user_attrs["outcome"], trial.user_attrs.get("cost", {})
                costs = {**cost.get("costs", {}), **outcome.get("costs", {})}
                told.append(Told(claim["point"], outcome.get(ACCURACY), costs, cost.get("excess", 0.0)))
        return told


def read_status(trial: FrozenTrial) -> str:
    """One of OUTCOMES; empty while it has none."""
    return str(trial.user_attrs.get("outcome", {}).get("status", "")) if trial.state.is_finished() else ""
