"""From trials to networks: all seeds and folds of one network become one point with one interval."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ffem_jax.analysis.comparability import FrontierError, Run, check_comparable, identify, identify_network
from ffem_jax.analysis.independence import compute_deviation
from ffem_jax.analysis.labels import describe_placement, make_labels
from ffem_jax.analysis.pooling import compute_pooled_interval
from ffem_jax.records.measures import MEASURES, compute_chance, count_correct, list_metrics, read_rate
from ffem_jax.records.record import TrialRecord, latest_records

# Measure -> its names in `teacher.measured` of a record (`teachers.teach.measure_teacher`).
TEACHER_MEASURES = {"accuracy": ("view2", "rank1"), "accuracy_gallery": ("accuracy_gallery",)}


@dataclass(frozen=True)
class NetworkSummary:
    """One network at one resolution under one recipe, over all its seeds and folds. Rates are in 0 to 1.

    Args:
        label: distinguishes it from the other networks of the same call.
        attention: its kind.
        placement: empty without attention.
        status: `done` (accuracy and interval are known), `pruned` (all trainings stopped early, so neither is known),
            `over_cap` (refused for its size, never trained) or `failed`.
        seeds, folds: those that are done.
        pruned_trials, failed_trials: the numbers of trials that stopped early or failed.
        latency_ms_wasm: the median of its trials' measurements; None if there are none.
        accuracy: the requested measure, averaged over seeds and pooled over folds by their number of images.
        accuracy_low, accuracy_high: its 95 % interval, see `pooling`. For closed-set accuracy it is Wilson's interval
            with n = `tested`, the number of distinct test images. Seeds share their images, so counting an image once
            per seed would make the interval too narrow.
        seed_deviation: the variation between seeds, as the standard deviation over runs (a run is a seed on its split),
            see `compute_deviation`; None for a single run, or if a run lacks a fold.
        chance: the accuracy of guessing; None if the records do not have it.
        teacher: the accuracy of its teacher on the same tests, as a mean over trials; None without one, or for another
            measure.
        errors: the messages of the failed trials.
    """

    label: str
    arch: str
    attention: str
    placement: str
    resolution: int
    recipe: str
    status: str
    trials: int = 0
    pruned_trials: int = 0
    failed_trials: int = 0
    seeds: tuple[int, ...] = ()
    folds: tuple[int, ...] = ()
    complete: bool = True
    params: int | None = None
    macs: int | None = None
    bytes_float32: int | None = None
    bytes_float16: int | None = None
    bytes_int8: int | None = None
    peak_activation_bytes: int | None = None
    latency_ms_wasm: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    seed_deviation: float | None = None
    tested: int | None = None
    chance: float | None = None
    teacher: float | None = None
    lower_is_better: bool = False
    trial_keys: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def above_chance(self) -> bool:
        """Whether its interval is above the chance level (below, for an error rate); true if that is not known."""
        if self.chance is None or self.accuracy_low is None or self.accuracy_high is None:
            return True
        return self.accuracy_high < self.chance if self.lower_is_better else self.accuracy_low > self.chance


def summarize_records(
    records: Iterable[TrialRecord], metric: str = "accuracy", among: Iterable[TrialRecord] = ()
) -> list[NetworkSummary]:
    """Return one summary per network, in order of first appearance; a trial recorded twice counts once.

    Args:
        metric: one of MEASURES; it becomes the summaries' `accuracy`.
        among: all recorded trials, if `records` is a subset; see `label_networks`.

    Raises:
        FrontierError: the metric is unknown or belongs to another protocol, or the records mix data sets, protocols, or
            real and synthetic faces, whose accuracies cannot share an axis.
    """
    if metric not in MEASURES:
        raise FrontierError(f"metric={metric!r} is not known; choose one of: {', '.join(MEASURES)}")
    records = latest_records(records)
    check_comparable(records)
    check_metric(records, metric)
    records = latest_records(records, identify)
    labels = label_networks([*among, *records])
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        groups[identify_network(record)].append(record)
    return [_summarize(group, labels[network], metric) for network, group in groups.items()]


def check_metric(records: Sequence[TrialRecord], metric: str) -> None:
    """Raise FrontierError if `metric` belongs to another protocol than the records; it names the valid metrics."""
    protocol = MEASURES[metric].protocol
    done = [record for record in records if record.status == "done"]
    if protocol and done and all(record.view.protocol.name != protocol for record in done):
        raise FrontierError(
            f"--metric {metric} belongs to protocol={protocol}, but these records use {done[0].view.protocol.name}; "
            f"choose one of: {', '.join(list_metrics(done)) or 'accuracy'}"
        )


def label_networks(records: Iterable[TrialRecord]) -> dict[str, str]:
    """Return a label for each network of `records`, by `identify_network`.

    A command that leaves records out (by --where, by --faces, for their protocol) passes all records here, so that a
    network has the same label in every command.
    """
    firsts: dict[str, TrialRecord] = {}
    for record in records:
        firsts.setdefault(identify_network(record), record)
    return dict(zip(firsts, make_labels([first.spec for first in firsts.values()]), strict=True))


def _summarize(group: Sequence[TrialRecord], label: str, metric: str) -> NetworkSummary:
    done = [r for r in group if r.status == "done" and read_rate(r, metric) is not None and r.tested]
    statuses = Counter(r.status for r in group)
    failed = [r for r in group if r.status == "failed"]
    sized = next((r for r in (*done, *group) if r.params is not None), group[0])
    attention = sized.view.get_written("arch").get("attention", {})
    summary = NetworkSummary(
        label=label,
        arch=sized.arch or sized.view.get_name("arch"),
        attention=sized.view.arch.attention.kind,
        placement=describe_placement(attention),
        resolution=sized.pixels,
        recipe=sized.recipe or sized.view.get_name("recipe"),
        status="done" if done else next((name for name in ("pruned", "over_cap") if statuses[name]), "failed"),
        trials=len(done),
        pruned_trials=statuses["pruned"],
        failed_trials=len(failed),
        params=sized.params,
        macs=sized.macs,
        bytes_float32=sized.bytes_float32,
        bytes_float16=sized.bytes_float16,
        bytes_int8=sized.bytes_int8,
        peak_activation_bytes=sized.peak_activation_bytes,
        latency_ms_wasm=_find_latency(group),
        lower_is_better=MEASURES[metric].lower_is_better,
        trial_keys=tuple(r.trial_key for r in group),
        errors=tuple(dict.fromkeys(r.error or "no message" for r in failed)),
    )
    if not done:
        no_number = [r for r in group if r.status == "done"]
        errors = (*summary.errors, f"done, but the record has no {metric}") if no_number else summary.errors
        return dataclasses.replace(summary, failed_trials=len(failed) + len(no_number), errors=errors)
    return dataclasses.replace(summary, **_pool(done, metric))


def _find_latency(group: Sequence[TrialRecord]) -> float | None:
    measured = [record.latency_ms_wasm for record in group if record.latency_ms_wasm is not None]
    return statistics.median(measured) if measured else None


def _pool(done: Sequence[TrialRecord], metric: str) -> dict[str, Any]:
    """Return accuracy and interval over seeds and folds, as fields of NetworkSummary."""
    # (split seed, fold) -> run -> (correct, tested).
    cells: dict[tuple[int, int], dict[Run, tuple[float, int]]] = defaultdict(dict)
    for record in done:
        run = identify(record).run
        cells[run.split_seed, run.fold][run] = (count_correct(record, metric), record.tested or 0)

    images, right = 0, 0.0
    for cell in cells.values():
        cell_images = max(count for _, count in cell.values())
        images += cell_images
        right += cell_images * sum(c for c, _ in cell.values()) / sum(n for _, n in cell.values())
    accuracy, tested = right / images, count_images(done)
    low, high = compute_pooled_interval(done, metric, accuracy, tested)

    wanted = done[0].view.folds
    seeds = tuple(sorted({record.seed for record in done}))
    folds = tuple(sorted({fold for _, fold in cells}))
    # All folds of a run count as one. A sweep may give each seed its own split.
    runs: dict[Run, list[tuple[float, int]]] = defaultdict(list)
    for cell in cells.values():
        for run, counts in cell.items():
            runs[run._replace(fold=0)].append(counts)
    complete = all(len(run) >= wanted for run in runs.values())
    by_run = {run: sum(c for c, _ in own) / sum(n for _, n in own) for run, own in runs.items()} if complete else {}
    return {
        "seeds": seeds,
        "folds": folds,
        "complete": complete,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "seed_deviation": compute_deviation(by_run),
        "tested": tested,
        "chance": _find_chance(done, metric),
        "teacher": _find_teacher(done, metric),
    }


def _find_teacher(done: Sequence[TrialRecord], metric: str) -> float | None:
    """Return the teacher's own accuracy, as a mean over trials; None unless every trial has it for this measure."""
    rates = [record.teacher.get("measured", {}) for record in done]
    known = [rate[name] for rate in rates for name in TEACHER_MEASURES.get(metric, ()) if name in rate]
    return sum(known) / len(known) if len(known) == len(done) else None


def _find_chance(done: Sequence[TrialRecord], metric: str) -> float | None:
    """Return the chance level of the first trial, or the mean if folds have different ones."""
    known = [chance for record in done if (chance := compute_chance(record, metric)) is not None]
    if compute_chance(done[0], metric) is None:
        return None
    return known[0] if len(set(known)) == 1 or not done[0].test_identities else statistics.fmean(known)


def count_images(records: Sequence[TrialRecord]) -> int:
    """Return the number of distinct test images (or pairs) of trials on one data set, which every interval uses.

    If some records do not list their images, this is a lower bound: another split draws from the same faces, so its
    images are not counted as new.
    """
    named = len({image for record in records for image in record.test_images})
    if all(len(record.test_images) == record.tested for record in records):
        return named
    splits: dict[int, dict[int, int]] = defaultdict(dict)
    for record in records:
        run = identify(record).run
        splits[run.split_seed][run.fold] = max(record.tested or 0, splits[run.split_seed].get(run.fold, 0))
    return max(named, *(sum(folds.values()) for folds in splits.values()))


def describe_chance(networks: Sequence[NetworkSummary]) -> str:
    """Return a sentence if no trained network is significantly better than guessing; else empty."""
    trained = [n for n in networks if n.accuracy is not None]
    if not trained or any(n.above_chance for n in trained):
        return ""
    chance = trained[0].chance or 0.0
    which = "The network is" if len(trained) == 1 else f"All {len(trained)} networks are"
    return f"{which} at chance ({100 * chance:.1f} %): train longer, the accuracies carry no information yet."


def describe_guessing(records: Sequence[TrialRecord], metric: str) -> list[str]:
    """Return `describe_chance` for the networks of `records`, as a list of at most one sentence."""
    try:
        sentence = describe_chance(summarize_records(records, metric))
    except FrontierError:  # several data sets, each with its own chance level
        return []
    return [sentence] if sentence else []
