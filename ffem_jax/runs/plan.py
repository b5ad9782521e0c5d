"""What a sweep will cost, before anything is trained: networks, bytes, disk, hours."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.config.compose import place_faces
from ffem_jax.cost.cost import compute_cost
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.runs.counting import AbsentFacesError, FaceCount, count_faces
from ffem_jax.runs.pace import Pace
from ffem_jax.runs.progress import identify, label_trials
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RunSpec, TrialSpec, select_effective, to_plain, trial_key

# Copies of each parameter that an optimiser keeps.
OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}
# Of a record besides its tests, with trial.json; of one test in it; of a checkpoint besides its numbers.
RECORD_BYTES, TEST_BYTES, CHECKPOINT_BYTES = 8_000, 9, 180_000
# Optimiser steps with which networks learn from nothing: sweeps/quickstart.yaml takes 500, and hardly learnt in 300.
FEW_STEPS = 300


@dataclass(frozen=True)
class PlannedNetwork:
    """A network of the sweep.

    Args:
        name: what tells it from the others. resolution: pixels per side.
        numbers: those that its weights hold, the statistics of BatchNorm too.
        size: bytes deployed, at the precision that the cap is of.
        trials: how many train it. refused: the limit that it breaks, in words; empty where it will be trained.
    """

    name: str
    resolution: int
    params: int
    numbers: int
    macs: int
    size: int
    trials: int
    refused: str = ""


@dataclass(frozen=True)
class PlannedWork:
    """The trainings of one kind.

    Args:
        trainings: how many. left: of those, not recorded as done.
        seconds, seconds_left: of all of them, one after the other; None where not known.
        shortest, longest: seconds of one; None where not known.
    """

    trainings: int
    left: int
    seconds: float | None
    seconds_left: float | None
    shortest: float | None
    longest: float | None


@dataclass(frozen=True)
class Forecast:
    """What a list of trials will cost.

    Args:
        networks: each once, the smallest first. trained: the trials within the cap; done: how many are recorded.
        faces: by (data, protocol), those of pretrainings too. notes: what could not be counted, and why.
        work: of the trials; pretraining: of what they start from.
        at_a_time: trainings side by side on this machine, or on the launcher's.
        steps: of the optimiser, in the shortest and the longest trial; None where no image was counted.
        disk: bytes of the smallest and the largest trial's folder; disk_total: of all, pretrainings too.
        pace: how long a step takes; None where no image could be counted.
    """

    networks: tuple[PlannedNetwork, ...]
    trained: tuple[TrialSpec, ...] = field(repr=False)
    done: int
    faces: Mapping[tuple[DataSpec, ProtocolSpec], FaceCount] = field(repr=False)
    notes: tuple[str, ...]
    work: PlannedWork
    pretraining: PlannedWork
    at_a_time: int
    steps: tuple[int, int] | None
    disk: tuple[int, int] | None
    disk_total: int | None
    pace: Pace | None

    @property
    def trials(self) -> int:
        """How many train."""
        return len(self.trained)

    @property
    def hours(self) -> float | None:
        """Hours of everything, as many at a time as the launcher has; None where not known."""
        return self._add_hours(self.work.seconds, self.pretraining.seconds)

    @property
    def hours_left(self) -> float | None:
        """As `hours`, without what is recorded as done."""
        return self._add_hours(self.work.seconds_left, self.pretraining.seconds_left)

    def _add_hours(self, *seconds: float | None) -> float | None:
        known = [value for value in seconds if value is not None]
        return sum(known) / self.at_a_time / 3600 if len(known) == len(seconds) else None


# How a pace is found: given (trial, MACs, identities) of the smallest and the largest network that will be trained.
FindPace = Callable[[Sequence[tuple[TrialSpec, int, int]]], Pace]


def forecast_trials(
    trials: Sequence[TrialSpec],
    run: RunSpec,
    *,
    at_a_time: int,
    recorded: Sequence[TrialRecord],
    find_pace: FindPace,
) -> Forecast:
    """What `trials` will cost; trains nothing.

    Args:
        run: of all of them. at_a_time: how many train side by side.
        recorded: what is recorded already, pretrainings too.

    Raises:
        DataError: the faces cannot be split as asked for.
    """
    networks, costs = _price(trials, run)
    trained = [trial for trial in trials if not costs[_find_network(trial)].refused]
    firsts = list({trial_key(first): first for trial in trained if (first := trial.pretraining)}.values())
    faces, notes = _count_all([*trials, *firsts])
    done = set() if run.retrain else _list_done(recorded)
    pace = _find_pace([*trained, *firsts], costs, faces, find_pace)
    left = [trial for trial in trained if describe_spec(to_plain(place_faces(trial))) not in done]
    starting = {trial_key(first) for trial in left if (first := trial.pretraining)}
    firsts_left = [
        first
        for first in firsts
        if trial_key(first) in starting and describe_spec(to_plain(place_faces(first))) not in done
    ]
    disk = [_measure_disk(trial, costs, faces, run.checkpoint, run.keep_weights) for trial in trained]
    disk_firsts = [_measure_disk(first, costs, faces, True, run.keep_weights) for first in firsts]
    known = [size for size in [*disk, *disk_firsts] if size is not None]
    steps = [_count_steps(trial, faces, run.stop_epoch) for trial in trained if (trial.data, trial.protocol) in faces]
    return Forecast(
        networks=tuple(networks),
        trained=tuple(trained),
        done=len(trained) - len(left),
        faces=faces,
        notes=(*notes, *_note_few_steps(trained, faces, run.stop_epoch)),
        work=_add_up(trained, left, costs, faces, pace, run.stop_epoch),
        pretraining=_add_up(firsts, firsts_left, costs, faces, pace),
        at_a_time=max(1, min(at_a_time, len(trained))),
        steps=(min(steps), max(steps)) if steps else None,
        disk=(min(known), max(known)) if known else None,
        disk_total=sum(known) if len(known) == len(trained) + len(firsts) and known else None,
        pace=pace,
    )


def count_at_a_time(launcher: str, jobs: int, cores: int) -> int:
    """How many of `jobs` trials of `cores` cores (0: all) truly train side by side."""
    if launcher == "local":
        return 1
    if launcher == "joblib":  # on this machine's cores
        have = os.cpu_count() or 1
        return max(1, min(jobs, have // min(have, cores or have)))
    return jobs


def describe_spec(spec: Mapping[str, Any]) -> str:
    """A trial's plain spec as text, without its caches.

    Another folder may hold other faces, so it is another trial here: a plan does not look at pixels.
    """
    kept = json.loads(json.dumps(spec))
    for data in (kept.get("data"), (kept.get("pretrain") or {}).get("data")):
        if isinstance(data, dict):
            data.pop("cache_dir", None)
    return json.dumps(kept, sort_keys=True)


def _list_done(recorded: Sequence[TrialRecord]) -> set[str]:
    return {describe_spec(record.spec) for record in latest_records(recorded) if record.status == "done"}


# ------------------------------------------------------------------------------------ networks

_Network = tuple[Any, int]


def _find_network(trial: TrialSpec) -> _Network:
    return resolve_network(trial.arch), trial.data.resolution


def _price(trials: Sequence[TrialSpec], run: RunSpec) -> tuple[list[PlannedNetwork], dict[_Network, PlannedNetwork]]:
    """The networks of `trials` by size, and each by what it is."""
    labels = label_trials(trials)
    by_network: dict[_Network, list[TrialSpec]] = defaultdict(list)
    for trial in trials:
        by_network[_find_network(trial)].append(trial)
    priced = {}
    for network, own in by_network.items():
        cost = compute_cost(own[0].arch, own[0].data.resolution)
        size = int(cost.get_bytes(run.cap_precision))
        _, excess = run.measure_excess(size, cost.macs)
        name = labels.get(identify(to_plain(own[0])), "") or own[0].arch.name
        refused = "" if run.train_over_cap else excess
        priced[network] = PlannedNetwork(
            name,
            own[0].data.resolution,
            cost.params,
            cost.params + 2 * cost.vector_params,
            int(cost.macs),
            size,
            len(own),
            refused,
        )
    return sorted(priced.values(), key=lambda one: (one.size, one.macs)), priced


# --------------------------------------------------------------------------------------- faces

Faces = Mapping[tuple[DataSpec, ProtocolSpec], FaceCount]


def _count_all(trials: Sequence[TrialSpec]) -> tuple[dict[tuple[DataSpec, ProtocolSpec], FaceCount], list[str]]:
    faces: dict[tuple[DataSpec, ProtocolSpec], FaceCount] = {}
    notes: dict[str, None] = {}
    known: dict[tuple[DataSpec, ProtocolSpec], FaceCount] = {}
    for trial in trials:
        # Pixels change no number, and neither does the view of a picture.
        alike = dataclasses.replace(trial.data, resolution=DataSpec().resolution, crop=DataSpec().crop), trial.protocol
        try:
            counted = known.get(alike) or count_faces(trial.data, trial.protocol)
        except AbsentFacesError as error:
            notes[str(error)] = None
            continue
        if counted.counted:
            known[alike] = counted
        faces[trial.data, trial.protocol] = counted
    return faces, list(notes)


# ---------------------------------------------------------------------------------------- time


def _find_pace(
    trials: Sequence[TrialSpec], costs: Mapping[_Network, PlannedNetwork], faces: Faces, find_pace: FindPace
) -> Pace | None:
    counted = [trial for trial in trials if (trial.data, trial.protocol) in faces]
    if not counted:
        return None
    ordered = sorted(counted, key=lambda trial: costs[_find_network(trial)].macs)
    ends = [ordered[0], ordered[-1]]
    ends = ends if costs[_find_network(ends[1])].macs > 1.05 * costs[_find_network(ends[0])].macs else ends[:1]
    return find_pace([(one, costs[_find_network(one)].macs, faces[one.data, one.protocol].num_classes) for one in ends])


def _add_up(
    trials: Sequence[TrialSpec],
    left: Sequence[TrialSpec],
    costs: Mapping[_Network, PlannedNetwork],
    faces: Faces,
    pace: Pace | None,
    stop_epoch: int = 0,
) -> PlannedWork:
    if pace is None or any((trial.data, trial.protocol) not in faces for trial in trials):
        return PlannedWork(len(trials), len(left), None, None, None, None)
    seconds = {trial: _compute_seconds(trial, costs, faces, pace, stop_epoch) for trial in trials}

    def total(some: Sequence[TrialSpec]) -> float:
        # The program of a network is compiled once and found again by its other trials.
        programs = {(_find_network(t), json.dumps(select_effective(t.recipe), sort_keys=True)) for t in some}
        return sum(seconds[trial] for trial in some) + pace.compile_seconds * len(programs)

    ends = (min(seconds.values()), max(seconds.values())) if seconds else (None, None)
    return PlannedWork(len(trials), len(left), total(trials), total(left), *ends)


def _count_steps(trial: TrialSpec, faces: Faces, stop_epoch: int) -> int:
    count, recipe = faces[trial.data, trial.protocol], trial.recipe
    taken = min(count.train, trial.data.images_per_epoch or count.train)
    return min(stop_epoch or recipe.epochs, recipe.epochs) * (taken // recipe.batch_size)


def _note_few_steps(trials: Sequence[TrialSpec], faces: Faces, stop_epoch: int) -> list[str]:
    """A note where a network that starts from nothing has few steps to learn in."""
    fresh = [t for t in trials if not t.pretraining and (t.data, t.protocol) in faces]
    if not fresh:
        return []
    shortest = min(fresh, key=lambda trial: _count_steps(trial, faces, stop_epoch))
    steps, recipe = _count_steps(shortest, faces, stop_epoch), shortest.recipe
    if steps >= FEW_STEPS:
        return []
    return [
        f"recipe.epochs={recipe.epochs} with recipe.batch_size={recipe.batch_size} is {steps:,} steps of the optimiser "
        f"from random weights; with fewer than {FEW_STEPS} a network may still guess: more epochs, or smaller batches"
    ]


def _compute_seconds(
    trial: TrialSpec, costs: Mapping[_Network, PlannedNetwork], faces: Faces, pace: Pace, stop_epoch: int
) -> float:
    count, recipe = faces[trial.data, trial.protocol], trial.recipe
    epochs = min(stop_epoch or recipe.epochs, recipe.epochs)
    trained = _count_steps(trial, faces, stop_epoch) * recipe.batch_size
    embedded = epochs * count.watched + count.embedded
    macs = costs[_find_network(trial)].macs
    return pace.compute_seconds(macs, trained, embedded * (2 if recipe.flip_test else 1))


# ---------------------------------------------------------------------------------------- disk


def _measure_disk(
    trial: TrialSpec, costs: Mapping[_Network, PlannedNetwork], faces: Faces, checkpoint: bool, weights: bool
) -> int | None:
    """Bytes that a trial leaves, about: its weights, its checkpoint, its record; None where no image was counted."""
    count = faces.get((trial.data, trial.protocol))
    if count is None:
        return None
    recipe = trial.recipe
    classifier = count.num_classes * (trial.arch.embedding_dim + 1)
    numbers = costs[_find_network(trial)].numbers + classifier
    moments = OPTIMIZER_COPIES.get(recipe.optimizer, 1) if recipe.momentum or recipe.optimizer != "sgd" else 0
    copies = 1 + moments + (1 if recipe.weight_averaging else 0)
    kept = 4 * numbers * ((copies if checkpoint else 0) + (1 if weights else 0))
    return int(kept + RECORD_BYTES + TEST_BYTES * len(count.test) + (CHECKPOINT_BYTES if checkpoint else 0))
