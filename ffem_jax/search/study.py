"""The study that all workers of a search share: who trains what, and what came of it.

It is Optuna's study, and all that is known stands in it, so that any worker may die at any time:

- `claim` gives a worker the next network, one worker at a time (`storage.Turn`);
- while it trains it says so again and again (`beat`), and what falls silent is taken from it and claimed once more;
- `tell_records` and `tell_failure` end it; a network is counted once, whoever trained it and however often.
"""

from __future__ import annotations

import contextlib
import json
import time
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
from ffem_jax.records.record import TrialRecord
from ffem_jax.search.candidates import Candidate, add_cost
from ffem_jax.search.halving import Halving, Promotion
from ffem_jax.search.ledger import COUNTED, Ledger, read_status
from ffem_jax.search.samplers import PROPOSERS, build_sampler, propose_neighbour, suggest_point, to_params
from ffem_jax.search.settings import ACCURACY, SearchSettings
from ffem_jax.search.space import Point, SearchSpace
from ffem_jax.search.storage import Turn

ATTEMPTS = 2  # a network whose worker was killed is trained once more, and no more
REFUSALS_IN_A_ROW = 1000
REPETITIONS = 3  # of a sampler in a row, then a neighbour is taken


class SearchError(FfemError):
    """A search that cannot go on. The message is one line and says what to do."""


@dataclass(frozen=True)
class Claim:
    """A network that is this worker's to train. attempt: 1, or 2 after its first worker was killed. stop_epoch: where
    to stop, for successive halving; 0 and recipe.epochs are the end."""

    number: int
    candidate: Candidate
    attempt: int = 1
    stop_epoch: int = 0


@dataclass
class SearchStudy:
    """A worker's, or the parent's, view of the shared study.

    make: from a point to its candidate; who only follows needs none. measure: adds its cost. on_abandoned: called with
    the point and the reason where a network is given up because its workers were killed; returns its records.
    rungs: the epochs at which networks are judged, for successive halving; none trains all to the end.
    """

    settings: SearchSettings
    space: SearchSpace
    storage: BaseStorage
    turn: Turn
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
        with self.turn.hold():
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                directions=directions,
                sampler=build_sampler("random", self.settings.seed, {}),
                load_if_exists=True,
            )
        self.study_id = self.storage.get_study_id_from_name(self.name)

    def check_identity(self, identity: dict[str, Any]) -> None:
        """Write down what this study is a search of, or raise SearchError where it is of something else.

        Numbers of another space, another recipe or other faces cannot be told to one sampler.
        """
        identity = json.loads(json.dumps(identity))
        with self.turn.hold():
            known = self.storage.get_study_user_attrs(self.study_id).get("identity")
            for place in ("root", "cache_dir"):  # which older studies hold of a pretraining
                ((known or {}).get("pretrain") or {}).get("data", {}).pop(place, None)
            if known is None or known.keys() == identity.keys() - {"faces"}:  # which older studies do not say
                known = {**identity, **(known or {})}
                self.storage.set_study_user_attr(self.study_id, "identity", known)
        changed = [name for name in {**known, **identity} if known.get(name) != identity.get(name)]
        if changed:
            raise SearchError(
                f"the study {self.name} was begun with another {', '.join(sorted(changed))}; go on as it was begun, or "
                "begin another with hydra.sweep.dir=DIR (and hydra.sweeper.study=NAME in a database)"
            )

    def read_ledger(self) -> Ledger:
        """All trials as they are now."""
        return Ledger(self.study.get_trials(deepcopy=False))

    # --------------------------------------------------------------------------- claiming

    def claim(self, worker: str) -> Claim | None:
        """The next network for `worker`, or None where there is none now: see `is_over`.

        Raises SearchError where nothing can be found that may be trained.
        """
        while True:
            with self.turn.hold():
                self._bury()
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
        """Whether another network may begin."""
        return not (self._is_exhausted() or self._is_spent(ledger))

    def _is_spent(self, ledger: Ledger) -> bool:
        return len(ledger.finished) + len(ledger.starting) >= self.settings.n_trials or self._is_out_of_epochs(ledger)

    def _is_out_of_epochs(self, ledger: Ledger) -> bool:
        return 0 < self.settings.n_epochs <= ledger.count_epochs()

    def _is_exhausted(self) -> bool:
        return bool(self.storage.get_study_user_attrs(self.study_id).get("exhausted", False))

    def _admit(self, claim: Claim) -> Claim | None:
        """Look at what the claimed network costs, which takes seconds, while others have their turn."""
        candidate = self.measure(claim.candidate)
        cost = {"costs": dict(candidate.costs), "excess": candidate.excess}
        self.storage.set_trial_user_attr(self._find_id(claim.number), "cost", cost)
        if not candidate.reason:
            return replace(claim, candidate=candidate)
        # With values that no trained network is worse than: samplers look at the constraint first.
        ledger, values = self.read_ledger(), []
        for name in self.settings.objectives:
            worst = max((told.costs[name] for told in ledger.read_told() if name in told.costs), default=0.0)
            values.append(0.0 if name == ACCURACY else candidate.costs.get(name, worst))
        self._end(claim.number, {"status": "refused", "reason": candidate.reason}, values)
        last = ledger.trials[-REFUSALS_IN_A_ROW:]
        if len(last) == REFUSALS_IN_A_ROW and not any(read_status(one) in COUNTED for one in ledger.trials):
            raise SearchError(
                f"{REFUSALS_IN_A_ROW} networks were all refused, the last because {candidate.reason}; "
                "raise run.cap_mb or run.cap_mmacs, or take smaller values into the space"
            )
        return None

    def adopt(self, candidate: Candidate, records: Sequence[TrialRecord]) -> bool:
        """Take over a network that was trained and recorded, one record a seed, but is not in this study.

        False where it cannot be: the study knows it already, it is over the cap, it lacks a cost that the search asks
        for, or networks wait to be claimed once more, which would be asked for in its place.
        """
        costs = dict(candidate.costs)
        if candidate.reason or any(costs.get(name) is None for name in self.settings.costs):
            return False
        with self.turn.hold():
            ledger = self.read_ledger()
            if ledger.waiting or candidate.key in ledger.keys:
                return False
            self._set_sampler(len(ledger.trials))
            self.study.enqueue_trial(to_params(self.space, dict(candidate.point)))
            with _quiet():
                trial = self.study.ask()
                suggest_point(self.space, trial)
            claim = {"worker": "records", "key": candidate.key, "point": dict(candidate.point), "attempt": 1}
            trial.set_user_attr("claim", {**claim, "stop_epoch": 0})
            trial.set_user_attr("cost", {"costs": costs, "excess": candidate.excess})
            return self.tell_records(Claim(trial.number, candidate), records)

    def is_over(self) -> bool:
        """Whether nothing is left to do for anybody."""
        ledger = self.read_ledger()
        if ledger.running or ledger.waiting or ledger.owed:
            return False
        return not self._has_room(ledger) and self._find_promotion(ledger) is None

    def _build_halving(self, ledger: Ledger) -> Halving[int]:
        return ledger.build_halving(self.rungs, self.settings.halving.reduction, self.settings.costs)

    def _find_promotion(self, ledger: Ledger) -> Promotion[int] | None:
        """The stopped network that goes on before another begins; its trial is the number of the one that began it."""
        if not self.rungs or self._is_out_of_epochs(ledger):
            return None
        closing = not ledger.running and not self._has_room(ledger)
        return self._build_halving(ledger).propose(closing=closing)

    def _go_on_with(self, ledger: Ledger, promotion: Promotion[int]) -> None:
        attributes = {"continues": promotion.trial, "stop_epoch": promotion.epoch, "attempt": 1}
        point = ledger.trials[promotion.trial].user_attrs["claim"]["point"]
        self.study.enqueue_trial(to_params(self.space, point), user_attrs=attributes)

    def find_hopeless(self) -> list[Point]:
        """The stopped networks that can never be promoted: nobody needs their checkpoints."""
        if not self.rungs:
            return []
        ledger = self.read_ledger()
        hopeless = self._build_halving(ledger).find_hopeless(self.settings.n_trials)
        return [ledger.trials[number].user_attrs["claim"]["point"] for number in hopeless]

    def _propose(self, ledger: Ledger, worker: str) -> Claim | None:
        """Ask for one network and look at it; None where it is not to be trained, or there is none."""
        assert self.make is not None
        number = len(ledger.trials)
        rng = np.random.default_rng([self.settings.seed, number, 1])
        name = self.settings.sampler
        self._set_sampler(number)
        if not ledger.waiting:
            point: Point | None = None
            if name in PROPOSERS:
                told = ledger.read_told(first=bool(self.rungs))
                point = PROPOSERS[name](self.space, told, ledger.points, rng, self.settings.costs)
                if point is None:
                    self._give_up()
                    return None
            elif last := _find_repeated(ledger):
                point = propose_neighbour(self.space, last, ledger.points, rng)
                if point is None:
                    self._give_up()
                    return None
            if point is not None:
                self.study.enqueue_trial(to_params(self.space, point))
        with _quiet():
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
        """Optuna's sampler for the trial `number`."""
        name = self.settings.sampler
        seed = int(np.random.default_rng([self.settings.seed, number]).integers(2**31))
        self.study.sampler = build_sampler(name, seed, {} if name in PROPOSERS else self.settings.sampler_options)

    def _give_up(self) -> None:
        self.storage.set_study_user_attr(self.study_id, "exhausted", True)

    # ----------------------------------------------------------------- telling and burying

    def beat(self, number: int, count: int) -> None:
        """Say that the worker of trial `number` is alive; `count` only has to change."""
        with contextlib.suppress(UpdateFinishedTrialError):  # it was told, or taken away, a moment ago
            self.storage.set_trial_user_attr(self._find_id(number), "beat", count)

    def tell_records(self, claim: Claim, records: Sequence[TrialRecord]) -> bool:
        """End a claim with the records of its seeds; False where it was taken away meanwhile."""
        accepted = ("done", "pruned") if claim.stop_epoch else ("done",)
        failed = [record for record in records if record.status not in accepted or record.accuracy is None]
        epochs = min(record.epochs for record in records)
        if failed:
            return self.tell_failure(claim, failed[0].error or f"{failed[0].status}, no accuracy", epochs)
        costs = dict(claim.candidate.costs)
        if "latency_ms_wasm" in self.settings.objectives:
            measured = [record.latency_ms_wasm for record in records]
            if None in measured:
                return self.tell_failure(claim, "its latency could not be measured")
            costs["latency_ms_wasm"] = float(np.median([float(value or 0.0) for value in measured]))
        accuracy = float(np.mean([record.accuracy for record in records]))
        values = [accuracy if name == ACCURACY else costs[name] for name in self.settings.objectives]
        status = "pruned" if any(record.status == "pruned" for record in records) else "done"
        # Seeds are tested on the same images: there are no more of them for being looked at again.
        tested = [record.tested for record in records if record.tested]
        outcome: dict[str, Any] = {"status": status, ACCURACY: accuracy, "costs": costs, "epochs": epochs}
        outcome |= {"tested": round(float(np.mean(tested)))} if tested else {}
        # A stopped network has values too, those of its moment: too few are trained to the end to learn from.
        return self._end(claim.number, outcome, values)

    def tell_failure(self, claim: Claim, error: str, epochs: int = 0) -> bool:
        """End a claim as failed after so many epochs; False where it was taken away meanwhile."""
        return self._end(claim.number, {"status": "failed", "error": error, "epochs": epochs})

    def release(self, claim: Claim) -> None:
        """Give a claim back: the worker is told to stop. That is no failed attempt."""
        self._end(claim.number, {"status": "released"})

    def bury_worker(self, worker: str, stopped: bool = False) -> None:
        """Take away what `worker` trains, for who knows that it is dead: no need to wait for its silence.

        stopped: it was told to stop, which is no failed attempt.
        """
        with self.turn.hold():
            for trial in self.read_ledger().running:
                if trial.user_attrs.get("claim", {}).get("worker") == worker:
                    if stopped:
                        self._end(trial.number, {"status": "released"})
                    else:
                        self._lose(trial)

    def look_for_silence(self) -> None:
        """Take away trials whose workers have fallen silent."""
        with self.turn.hold():
            self._bury()

    def _bury(self) -> None:
        now = time.monotonic()
        for trial in self.read_ledger().running:
            beat = trial.user_attrs.get("beat")
            known = self.seen_beats.get(trial.number)
            if known is None or known[0] != beat:
                self.seen_beats[trial.number] = beat, now
                known = beat, now
            # Proposals are made within a turn, which is ours now: without a claim its worker died in the middle.
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
            # Killed between its record and its report it was trained all the same. Nobody trains before it has a cost.
            if reached and (cost := trial.user_attrs.get("cost")):
                candidate = Candidate(claim["point"], None, None, claim["key"], costs=cost["costs"])
                self.tell_records(Claim(trial.number, candidate, claim["attempt"], stop), records)
            else:
                self._end(trial.number, {"status": "failed", "error": reason})

    def _claim_again(self, trial: FrozenTrial) -> None:
        claim = trial.user_attrs["claim"]
        attempt = claim["attempt"] + (read_status(trial) == "lost")
        attributes = {"follows": trial.number, "attempt": attempt}
        # What was begun from a checkpoint goes on from the newest there is.
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
            # Taken away as silent (or told already): who has it now finds the record and counts it.
            if self.study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
                raise
            return False
        return True

    def _find_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)


def _find_repeated(ledger: Ledger) -> Point | None:
    """The last point where the sampler has only repeated itself of late, else None."""
    last = [trial for trial in ledger.trials if trial.state.is_finished()][-REPETITIONS:]
    if len(last) < REPETITIONS or any(read_status(trial) != "repeated" for trial in last):
        return None
    return next((trial.user_attrs["claim"]["point"] for trial in reversed(last) if "claim" in trial.user_attrs), None)


class _quiet:
    """Optuna warns at every proposal of what is meant: of experimental samplers, of conditions that it cannot see."""

    def __enter__(self) -> None:
        import warnings

        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        self.caught.__exit__(None, None, None)
