"""Which recorded trainings are independent draws: what they share, what is drawn anew, and what no interval includes.

Trainings of one network may begin from the same pretrained weights, learn from one teacher and train on one split of
the images. Each of these is one draw, however many seeds and folds come after it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import TypedDict

from ffem_jax.analysis.comparability import Run, identify, identify_teacher
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.trial import select_effective_protocol

ONCE = "exclude variance between pretraining runs"


def find_start(record: TrialRecord) -> int | None:
    """The seed of the pretraining whose weights the trial begins from; None where it begins from none."""
    return identify(record).run.pretraining_seed if record.view.is_pretrained else None


def label_units(runs: Sequence[Run]) -> list[Hashable]:
    """For each run what is drawn with it: its split where there are several, since its seeds share it; else itself."""
    if len({run.split_seed for run in runs}) > 1:
        return [run.split_seed for run in runs]
    return list(runs)


class Draws(TypedDict):
    """What `compute_paired_interval` draws anew."""

    units: list[Hashable]
    starts: list[Hashable] | None


def label_draws(runs: Sequence[tuple[Run, Hashable]]) -> Draws:
    """What is drawn anew of `runs`, each with what tells its pretraining from the others', or None."""
    own, starts = [run for run, _ in runs], [start for _, start in runs]
    units, found = label_units(own), label_starts(own, starts)
    if found is not None:
        # A seed without a pretraining is none of the seeds after one.
        units = [(unit, start is None) for unit, start in zip(units, starts, strict=True)]
    return {"units": units, "starts": found}


def label_starts(runs: Sequence[Run], starts: Sequence[Hashable]) -> list[Hashable] | None:
    """For each run the pretraining that is drawn anew with it; None where there are no two to draw.

    Args:
        starts: for each run what tells its pretraining from the others'; None where it has none, and is drawn by itself
            where others have several.
    """
    if len(set(starts) - {None}) < 2:
        return None
    return [run if start is None else start for run, start in zip(runs, starts, strict=True)]


def compute_deviation(rates: Mapping[Run, float]) -> float | None:
    """The standard deviation of another training's accuracy, in 0 to 1, from the `rates` of runs.

    Of runs that share pretrainings: that between pretrainings and that within them, each from its own means; the sample
    deviation of runs that all have their own, or all the same. None for a single run.
    """
    if len(rates) < 2:
        return None
    starts: dict[int, list[float]] = {}
    for run, rate in rates.items():
        starts.setdefault(run.pretraining_seed, []).append(rate)
    if not 1 < len(starts) < len(rates):
        return statistics.stdev(rates.values())
    means = [statistics.fmean(own) for own in starts.values()]
    squares = sum((rate - statistics.fmean(own)) ** 2 for own in starts.values() for rate in own)
    within = squares / (len(rates) - len(starts))
    # The means of few runs differ by some of what runs differ by.
    share = statistics.fmean(1 / len(own) for own in starts.values())
    return math.sqrt(statistics.variance(means) + (1 - share) * within)


def count_pretrainings(records: Sequence[TrialRecord]) -> dict[str, int]:
    """By `identify_network` how many pretrainings each pretrained network of `records` has."""
    seeds: dict[str, set[int]] = {}
    for record in records:
        if (start := find_start(record)) is not None:
            seeds.setdefault(identify(record).network, set()).add(start)
    return {network: len(own) for network, own in seeds.items()}


def describe_exclusions(
    records: Sequence[TrialRecord], *, drawn: bool = False, noun: str = "the intervals"
) -> list[str]:
    """A sentence for each thing that the trainings of `records` share, and whether `noun` include it.

    Args:
        records: of finished trials, comparable ones. drawn: whether the intervals draw trainings anew, and so
            pretrainings where a network has several.
    """
    counts = list(count_pretrainings(records).values())
    whole = len(counts) == len({identify(record).network for record in records})
    sentences = [_describe_pretrainings(counts, whole, drawn, noun)]
    if teachers := len({identify_teacher(record) for record in records} - {""}):
        several = "one teacher" if teachers == 1 else f"{teachers} teachers"
        sentences.append(f"Taught by {several}: {noun} exclude variance between teachers.")
    runs = {identify(record).run._replace(fold=0) for record in records}
    if len(runs) > 1 and len({run.split_seed for run in runs}) == 1 and all(map(_draws_split, records)):
        sentences.append(f"All seeds share one split of the images: {noun} exclude variance between splits.")
    return [sentence for sentence in sentences if sentence]


def _describe_pretrainings(counts: Sequence[int], whole: bool, drawn: bool, noun: str) -> str:
    """counts: of each pretrained network. whole: whether these are all networks."""
    if not counts:
        return ""
    fewest, most = min(counts), max(counts)
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    network = "network" if whole else "pretrained network"
    if most == 1:
        return f"Each {network} was pretrained once: {noun} {ONCE}."
    if not drawn:
        return f"{number} pretrainings per {network}: {noun} {ONCE}."
    if fewest == 1:
        once = sum(count == 1 for count in counts)
        networks = f"{once} of {len(counts)} pretrained networks {'was' if once == 1 else 'were'} pretrained once"
        return f"{networks}: {noun} of these {ONCE}."
    return f"{number} pretrainings per {network}: {noun} draw them anew, each with all its trainings."


def _draws_split(record: TrialRecord) -> bool:
    return "split_seed" in select_effective_protocol(record.view.protocol)
