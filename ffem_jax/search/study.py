"""The study that all workers of a search share: which worker trains which network, and with what outcome.

It is an Optuna study. All state is in it, so any worker may die at any time:

- `claim` gives a worker the next network, one worker at a time (`storage.StudyLock`);
- a worker sends heartbeats (`beat`) while it trains; a network whose worker falls silent is claimed again;
- `tell_records` and `tell_failure` end a claim; a network counts once, whichever worker trained it and however often.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ffem_jax.errors import FfemError
from ffem_jax.records.costs import COST_FIELDS, MEASURED_FIELDS
from ffem_jax.records.record import TrialRecord
from ffem_jax.search.candidates import Candidate, add_cost
from ffem_jax.search.halving import Halving, Promotion
from ffem_jax.search.identity import settle_identity
from ffem_jax.search.ledger import COUNTED, Ledger, read_status
from ffem_jax.search.samplers import PROPOSERS, build_sampler, propose_neighbour, suggest_point, to_params
from ffem_jax.search.settings import ACCURACY, SearchSettings
from ffem_jax.search.space import Point, SearchSpace
from ffem_jax.search.storage import StudyLock

ATTEMPTS = 2  # a network whose worker was killed is trained once more only
REFUSALS_IN_A_ROW = 1000


class SearchError(FfemError):
    """Raised if a search cannot continue. The message is one line and says what to do."""


@dataclass(frozen=True)
class Claim:
    """A network that one worker is to train.

    Args:
        number: the number of Optuna's trial.
        attempt: 1, or 2 after its first worker was killed.
        stop_epoch: where to stop, for successive halving; 0 and recipe.epochs mean the end.
    """

    number: int
    candidate: Candidate
    attempt: int = 1
    stop_epoch: int = 0


@dataclass
class SearchStudy:
    """The view that one worker, or the parent process, has of the shared study.

    Args:
        make: maps a point to its candidate; None in a process that only follows.
        measure: adds the candidate's cost.
        on_abandoned: called with the point and the reason if a network is given up because its workers were killed;
            returns its records.
        rungs: the epochs at which networks are compared, for successive halving; empty trains all to the end.
    """

    settings: SearchSettings
    space: SearchSpace
    storage: BaseStorage
    lock: StudyLock
    name: str
    make: Callable[[Point], Candidate] | None = None
    measure: Callable[[Candidate], Candidate] = add_cost
    on_abandoned: Callable[[Point, str], Sequence[TrialRecord]] = lambda point, reason: ()
    rungs: tuple[int, ...] = ()
    seen_beats: dict[int, tuple[Any, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if name == ACCURACY else down for name in self.settings.objectives]
        with self.lock.hold():
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                directions=directions,
                sampler=build_sampler("random", self.settings.seed, {}),
                load_if_exists=True,
            )
        self.study_id = self.storage.get_study_id_from_name(self.name)

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Store the identity of this study, or compare it with the stored one.

        Accuracies from different spaces, recipes or faces cannot be compared, so one sampler must not see both.

        Args:
            identity: nested dicts, as `SearchPlan.identify` returns them, and `faces`, a fingerprint.

        Raises:
            SearchError: if a setting differs from the stored one; the message names each.
        """
        with self.lock.hold():
            changes = settle_identity(self.storage, self.study_id, identity)
        if changes:
            raise SearchError(
                f"the study {self.name} was started with other settings: {', '.join(changes)}; use those settings, or "
                "start another study with hydra.sweep.dir=DIR (and hydra.sweeper.study=NAME in a database)"
            )

    def read_ledger(self) -> Ledger:
        """Return the current state of all trials."""
        return Ledger(self.study.get_trials(deepcopy=False))

    # --------------------------------------------------------------------------- claiming

    def claim(self, worker: str) -> Claim | None:
        """Return the next network for `worker`; None if there is none now (`is_over` tells whether more may come).

        Raises:
            SearchError: if every network is refused.
        """
        while True:
            with self.lock.hold():
                self._reap()
                ledger = self.read_ledger()
                if not ledger.waiting:
                    if (promotion := self._find_promotion(ledger)) is not None:
                        self._go_on_with(ledger, promotion)
                        ledger = self.read_ledger()
                    elif not self._has_room(ledger):
                        return None
                claim = self._propose(ledger, worker)
            if claim is not None and (claim := self._admit(claim)) is not None:
                return claim

    def _has_room(self, ledger: Ledger) -> bool:
        """Return whether another network may begin."""
        return not (self._is_exhausted() or self._is_spent(ledger))

    def _is_spent(self, ledger: Ledger) -> bool:
        return len(ledger.finished) + len(ledger.starting) >= self.settings.n_trials or self._is_out_of_epochs(ledger)

    def _is_out_of_epochs(self, ledger: Ledger) -> bool:
        return 0 < self.settings.n_epochs <= ledger.count_epochs()

    def _is_exhausted(self) -> bool:
        return bool(self.storage.get_study_user_attrs(self.study_id).get("exhausted", False))

    def _admit(self, claim: Claim) -> Claim | None:
        """Return the claim with its cost, or None if it exceeds a cap. This takes seconds, so the lock is not held."""
        candidate = self.measure(claim.candidate)
        cost = {"costs": dict(candidate.costs), "excess": candidate.excess}
        self.storage.set_trial_user_attr(self._find_id(claim.number), "cost", cost)
        if not candidate.reason:
            return replace(claim, candidate=candidate)
        # Optuna needs values. These are as bad as the worst trained network's; samplers check the constraint first.
        ledger, values = self.read_ledger(), []
        for name in self.settings.objectives:
            worst = max((one.costs[name] for one in ledger.read_outcomes() if name in one.costs), default=0.0)
            values.append(0.0 if name == ACCURACY else candidate.costs.get(name, worst))
        self._end(claim.number, {"status": "refused", "reason": candidate.reason}, values)
        last = ledger.trials[-REFUSALS_IN_A_ROW:]
        if len(last) == REFUSALS_IN_A_ROW and not any(read_status(one) in COUNTED for one in ledger.trials):
            raise SearchError(
                f"{REFUSALS_IN_A_ROW} networks were all refused, the last because {candidate.reason}; "
                "raise run.cap_mb or run.cap_mmacs, or add smaller values to the space"
            )
        return None

    def adopt(self, candidate: Candidate, records: Sequence[TrialRecord]) -> bool:
        """Add a network that was trained and recorded outside this study.

        Args:
            records: the network's records, one per seed.

        Returns:
            False if it is not added: the study has it already, it exceeds the cap, it lacks a cost that the search
            needs, or other networks wait to be claimed again and Optuna would return one of them instead.
        """
        costs = dict(candidate.costs)
        if candidate.reason or any(costs.get(name) is None for name in self.settings.costs):
            return False
        with self.lock.hold():
            ledger = self.read_ledger()
            if ledger.waiting or candidate.key in ledger.keys:
                return False
            self._set_sampler(len(ledger.trials))
            self.study.enqueue_trial(to_params(self.space, dict(candidate.point)))
            with warnings.catch_warnings(action="ignore"):  # about conditions that Optuna does not know
                trial = self.study.ask()
                suggest_point(self.space, trial)
            claim = {"worker": "records", "key": candidate.key, "point": dict(candidate.point), "attempt": 1}
            trial.set_user_attr("claim", {**claim, "stop_epoch": 0})
            trial.set_user_attr("cost", {"costs": costs, "excess": candidate.excess})
            return self.tell_records(Claim(trial.number, candidate), records)

    def is_over(self) -> bool:
        """Return whether no work is left for any worker."""
        ledger = self.read_ledger()
        if ledger.running or ledger.waiting or ledger.owed:
            return False
        return not self._has_room(ledger) and self._find_promotion(ledger) is None

    def _build_halving(self, ledger: Ledger) -> Halving[int]:
        return ledger.build_halving(self.rungs, self.settings.halving.reduction, self.settings.costs)

    def _find_promotion(self, ledger: Ledger) -> Promotion[int] | None:
        """Return the stopped network to continue before another begins, by the number of its first trial."""
        if not self.rungs or self._is_out_of_epochs(ledger):
            return None
        closing = not ledger.running and not self._has_room(ledger)
        return self._build_halving(ledger).propose(closing=closing)

    def _go_on_with(self, ledger: Ledger, promotion: Promotion[int]) -> None:
        attributes = {"continues": promotion.trial, "stop_epoch": promotion.epoch, "attempt": 1}
        point = ledger.trials[promotion.trial].user_attrs["claim"]["point"]
        self.study.enqueue_trial(to_params(self.space, point), user_attrs=attributes)

    def find_eliminated(self) -> list[Point]:
        """Return the stopped networks that can never be promoted; their checkpoints can be deleted."""
        if not self.rungs:
            return []
        ledger = self.read_ledger()
        eliminated = self._build_halving(ledger).find_eliminated(self.settings.n_trials)
        return [ledger.trials[number].user_attrs["claim"]["point"] for number in eliminated]

    def _propose(self, ledger: Ledger, worker: str) -> Claim | None:
        """Ask the sampler for one network; None if it repeats a known one, or none is left."""
        assert self.make is not None
        number = len(ledger.trials)
        rng = np.random.default_rng([self.settings.seed, number, 1])
        name = self.settings.sampler
        self._set_sampler(number)
        if not ledger.waiting:
            point: Point | None = None
            if name in PROPOSERS:
                outcomes = ledger.read_outcomes(first=bool(self.rungs))
                point = PROPOSERS[name](self.space, outcomes, ledger.points, rng, self.settings.costs)
                if point is None:
                    self._give_up()
                    return None
            elif last := ledger.find_repeated():
                point = propose_neighbour(self.space, last, ledger.points, rng)
                if point is None:
                    self._give_up()
                    return None
            if point is not None:
                self.study.enqueue_trial(to_params(self.space, point))
        with warnings.catch_warnings(action="ignore"):  # about conditions that Optuna does not know
            trial = self.study.ask()
            point = suggest_point(self.space, trial)
        candidate = self.make(point)
        attempt = int(trial.user_attrs.get("attempt", 1))
        stop_epoch = int(trial.user_attrs.get("stop_epoch", self.rungs[0] if self.rungs else 0))
        claim = {"worker": worker, "key": candidate.key, "point": dict(point), "attempt": attempt}
        trial.set_user_attr("claim", {**claim, "stop_epoch": stop_epoch})
        known = "follows" in trial.user_attrs or "continues" in trial.user_attrs
        if candidate.key and candidate.key in ledger.keys and not known:
            self._end(trial.number, {"status": "repeated"})
            return None
        return Claim(trial.number, candidate, attempt, stop_epoch)

    def _set_sampler(self, number: int) -> None:
        """Set Optuna's sampler for the trial `number`."""
        name = self.settings.sampler
        seed = int(np.random.default_rng([self.settings.seed, number]).integers(2**31))
        self.study.sampler = build_sampler(name, seed, {} if name in PROPOSERS else self.settings.sampler_options)

    def _give_up(self) -> None:
        self.storage.set_study_user_attr(self.study_id, "exhausted", True)

    # ----------------------------------------------------------------- telling and reaping

    def beat(self, number: int, count: int) -> None:
        """Store a heartbeat of the worker of trial `number`; `count` must differ from the last one."""
        with contextlib.suppress(UpdateFinishedTrialError):  # the trial has just ended, or was taken back
            self.storage.set_trial_user_attr(self._find_id(number), "beat", count)

    def tell_records(self, claim: Claim, records: Sequence[TrialRecord]) -> bool:
        """End a claim with the records of its seeds; return False if another worker has it by now."""
        accepted = ("done", "pruned") if claim.stop_epoch else ("done",)
        failed = [record for record in records if record.status not in accepted or record.accuracy is None]
        epochs = min(record.epochs for record in records)
        if failed:
            reason = failed[0].error or f"{failed[0].status}, no accuracy"
            return self.tell_failure(claim, reason, epochs, [record.trial_key for record in records])
        costs = dict(claim.candidate.costs)
        for name in [name for name in self.settings.costs if name in MEASURED_FIELDS]:
            measured = [getattr(record, name) for record in records]
            if None in measured:
                return self.tell_failure(claim, f"its {COST_FIELDS[name].title.lower()} could not be measured")
            costs[name] = float(np.median(measured))
        accuracy = float(np.mean([record.accuracy for record in records]))
        values = [accuracy if name == ACCURACY else costs[name] for name in self.settings.objectives]
        status = "pruned" if any(record.status == "pruned" for record in records) else "done"
        # Seeds are tested on the same images, so the counts are averaged and not summed.
        tested = [record.tested for record in records if record.tested]
        outcome: dict[str, Any] = {"status": status, ACCURACY: accuracy, "costs": costs, "epochs": epochs}
        outcome |= {"tested": round(float(np.mean(tested)))} if tested else {}
        outcome |= {"trials": [record.trial_key for record in records]}
        # A stopped network has values too, from its last epoch: too few are trained to the end to learn from.
        return self._end(claim.number, outcome, values)

    def tell_failure(self, claim: Claim, error: str, epochs: int = 0, keys: Sequence[str] = ()) -> bool:
        """End a claim as failed after `epochs`, with its records' keys; return False if another worker has it now."""
        return self._end(claim.number, {"status": "failed", "error": error, "epochs": epochs, "trials": list(keys)})

    def release(self, claim: Claim) -> None:
        """Return a claim because its worker must stop; it does not count as a failed attempt."""
        self._end(claim.number, {"status": "released"})

    def reap_worker(self, worker: str, stopped: bool = False) -> None:
        """Take back the trials of `worker` at once; the caller knows that its process has ended.

        Args:
            stopped: the worker was asked to stop, which does not count as a failed attempt.
        """
        with self.lock.hold():
            for trial in self.read_ledger().running:
                if trial.user_attrs.get("claim", {}).get("worker") == worker:
                    if stopped:
                        self._end(trial.number, {"status": "released"})
                    else:
                        self._lose(trial)

    def reap_silent(self) -> None:
        """Take back the trials of all workers that have fallen silent."""
        with self.lock.hold():
            self._reap()

    def _reap(self) -> None:
        now = time.monotonic()
        for trial in self.read_ledger().running:
            beat = trial.user_attrs.get("beat")
            known = self.seen_beats.get(trial.number)
            if known is None or known[0] != beat:
                self.seen_beats[trial.number] = beat, now
                known = beat, now
            # Proposals are made under the lock, which we hold. So without a claim, its worker died while proposing.
            if "claim" not in trial.user_attrs or now - known[1] > self.settings.stale_seconds:
                self._lose(trial)
        for trial in self.read_ledger().owed:
            self._claim_again(trial)

    def _lose(self, trial: FrozenTrial) -> None:
        claim = trial.user_attrs.get("claim")
        if claim is None:
            self._end(trial.number, {"status": "repeated"})
        elif claim["attempt"] < ATTEMPTS:
            self._end(trial.number, {"status": "lost"})
        else:
            reason, stop = f"its worker was killed, {ATTEMPTS} times", claim["stop_epoch"]
            records = self.on_abandoned(claim["point"], reason)
            reached = records and all(one.status == "done" or 0 < stop <= one.epochs for one in records)
            # A worker killed between record and report has trained the network. The cost is stored before training.
            if reached and (cost := trial.user_attrs.get("cost")):
                candidate = Candidate(claim["point"], None, None, claim["key"], costs=cost["costs"])
                self.tell_records(Claim(trial.number, candidate, claim["attempt"], stop), records)
            else:
                self._end(trial.number, {"status": "failed", "error": reason})

    def _claim_again(self, trial: FrozenTrial) -> None:
        claim = trial.user_attrs["claim"]
        attempt = claim["attempt"] + (read_status(trial) == "lost")
        attributes = {"follows": trial.number, "attempt": attempt}
        # A network that started from a checkpoint resumes from the newest one.
        attributes |= {name: trial.user_attrs[name] for name in ("continues", "stop_epoch") if name in trial.user_attrs}
        self.study.enqueue_trial(to_params(self.space, claim["point"]), user_attrs=attributes)

    def _end(self, number: int, outcome: dict[str, Any], values: Sequence[float] | None = None) -> bool:
        try:
            self.storage.set_trial_user_attr(self._find_id(number), "outcome", outcome)
            if values is None:
                self.study.tell(number, state=TrialState.FAIL)
            else:
                self.study.tell(number, values)
        except (UpdateFinishedTrialError, ValueError):
            # It was taken back as silent, or has ended: the worker that has it now finds the record and counts it.
            if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                raise
            return False
        return True

    def _find_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
