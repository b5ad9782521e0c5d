"""The progress of a search: one line per network, read from the study, wherever its workers run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from ffem_jax.records.costs import format_cost
from ffem_jax.runs.progress import Pace
from ffem_jax.search.ledger import COUNTED, Ledger, read_network, read_status
from ffem_jax.search.model.volume import compute_volume
from ffem_jax.search.settings import ACCURACY, SearchSettings
from ffem_jax.search.study import SearchStudy
from ffem_jax.specs.trial import RunSpec


def compute_progress(ledger: Ledger, references: Mapping[str, float]) -> tuple[float, float]:
    """Return the best accuracy within the cap, and the hypervolume that the trained networks dominate, both in 0 to 1.

    Args:
        references: the end of the hypervolume's box for each objective to minimise; for accuracy it ends at 1.
    """
    trained = [one for one in ledger.read_outcomes() if not one.stopped and one.excess <= 0]
    found = [one for one in trained if one.accuracy is not None and references.keys() <= one.costs.keys()]
    accuracies = [one.accuracy or 0.0 for one in found]
    costs = [[one.costs[name] for name in references] for one in found]
    return max(accuracies, default=0.0), compute_volume(costs, accuracies, list(references.values()))


@dataclass
class SearchFollower:
    """Reports each network that was trained, stopped or failed since the last call.

    For each cost, the hypervolume's box ends at the cap, or at the largest cost so far if there is no cap.
    """

    study: SearchStudy
    run: RunSpec
    report: Callable[[str], None]
    known: set[int] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)

    @property
    def settings(self) -> SearchSettings:
        """The search's settings."""
        return self.study.settings

    def start(self) -> Ledger:
        """Skip the networks that are finished already."""
        ledger = self.study.read_ledger()
        self.known = {trial.number for trial in ledger.settled}
        self.pace = Pace(len(ledger.finished))
        return ledger

    def find_references(self, ledger: Ledger) -> dict[str, float]:
        """Return the end of the hypervolume's box for each objective to minimise."""
        run, outcomes = self.run, ledger.read_outcomes()
        costs = {name: [one.costs[name] for one in outcomes if name in one.costs] for name in self.settings.costs}
        largest = {name: max(values, default=0.0) for name, values in costs.items()}
        caps = {f"bytes_{run.cap_precision}": run.cap_mb * 1e6, "macs": run.cap_mmacs * 1e6}
        if run.train_over_cap:
            return largest
        return {name: caps.get(name) or found for name, found in largest.items()}

    def look(self) -> int:
        """Report the new networks and return their number."""
        ledger = self.study.read_ledger()
        new = [trial for trial in ledger.settled if trial.number not in self.known]
        for trial in new:
            self.known.add(trial.number)
            before = Ledger(
                [one for one in ledger.trials if read_status(one) not in COUNTED or one.number in self.known]
            )
            self.report(self.describe(trial, before))
        return len(new)

    def describe(self, trial: FrozenTrial, ledger: Ledger) -> str:
        """Return one line: how many are finished, this network with its trials' keys, the best, refusals, time left."""
        finished, total = len(ledger.finished), self.settings.n_trials
        outcome = trial.user_attrs["outcome"]
        # Tables, figures and pages identify a network by the key of its trials.
        keys = ", ".join(outcome.get("trials", ()))
        what = f"network {read_network(trial)}{f' [{keys}]' if keys else ''}: "
        if outcome["status"] == "failed":
            what += f"failed, {outcome['error']}"
        else:
            what += f"stopped after epoch {outcome['epochs']}, " if outcome["status"] == "pruned" else ""
            costs = [format_cost(name, outcome["costs"][name]) for name in self.settings.costs]
            what += ", ".join([f"accuracy {outcome[ACCURACY]:.3f}", *costs])
        best, volume = compute_progress(ledger, self.find_references(ledger))
        # There is no best before one is trained to the end.
        words = [f"best so far {best:.3f}", f"hypervolume {volume:.4f}"] if best else []
        for status, title in (("refused", "refused"), ("failed", "failed")):
            if count := ledger.count(status):
                words.append(f"{count} {title}")
        return f"[{finished}/{total}] {what}; {', '.join(words)}{self.pace.describe_rest(finished, total)}"
