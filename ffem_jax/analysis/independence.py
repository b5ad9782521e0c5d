"""Finds out which recorded trainings are independent: what they share, what is resampled, and what intervals exclude.

Trainings of one network may start from the same pretrained weights, learn from one teacher and use one split of the
images. Each of these is a single draw, regardless of how many seeds and folds follow it.
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
    """Return the seed of the trial's pretraining; None without pretraining."""
    return identify(record).run.pretraining_seed if record.view.is_pretrained else None


def label_units(runs: Sequence[Run]) -> list[Hashable]:
    """Return the resampling unit of each run: its split if there are several, as seeds share it; else the run."""
    if len({run.split_seed for run in runs}) > 1:
        return [run.split_seed for run in runs]
    return list(runs)


class Draws(TypedDict):
    """Return the units that `compute_paired_interval` resamples."""

    units: list[Hashable]
    starts: list[Hashable] | None


def label_draws(runs: Sequence[tuple[Run, Hashable]]) -> Draws:
    """Return the resampling units of `runs`, each with the identity of its pretraining, or None."""
    own, starts = [run for run, _ in runs], [start for _, start in runs]
    units, found = label_units(own), label_starts(own, starts)
    if found is not None:
        # A seed without pretraining differs from the same seed after one.
        units = [(unit, start is None) for unit, start in zip(units, starts, strict=True)]
    return {"units": units, "starts": found}


def label_starts(runs: Sequence[Run], starts: Sequence[Hashable]) -> list[Hashable] | None:
    """Return the pretraining resampled with each run; None if there are not at least two.

    Args:
        starts: the identity of each run's pretraining; None without pretraining: the run is then its own unit if
            others have several.
    """
    if len(set(starts) - {None}) < 2:
        return None
    return [run if start is None else start for run, start in zip(runs, starts, strict=True)]


def compute_deviation(rates: Mapping[Run, float]) -> float | None:
    """Estimate the standard deviation of another training's accuracy, in 0 to 1, from the `rates` of runs.

    For runs that share pretrainings, it combines the variances between and within pretrainings; it is the sample
    deviation if all runs have their own pretraining, or all the same. None for a single run.
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
    # The means of a few runs vary partly because runs vary.
    share = statistics.fmean(1 / len(own) for own in starts.values())
    return math.sqrt(statistics.variance(means) + (1 - share) * within)


def count_pretrainings(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Count the pretrainings of each pretrained network in `records`, by `identify_network`."""
    seeds: dict[str, set[int]] = {}
    for record in records:
        if (start := find_start(record)) is not None:
            seeds.setdefault(identify(record).network, set()).add(start)
    return {network: len(own) for network, own in seeds.items()}


def describe_exclusions(
    records: Sequence[TrialRecord], *, drawn: bool = False, noun: str = "the intervals"
) -> list[str]:
    """Return a sentence for each thing that the trainings of `records` share, and whether `noun` include it.

    Args:
        records: comparable records of finished trials. drawn: whether the intervals resample trainings, and so
            pretrainings if a network has several.
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
    """counts: pretrainings of each pretrained network. whole: whether these are all networks."""
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
    return f"{number} pretrainings per {network}: {noun} resample them, each with all its trainings."


def _draws_split(record: TrialRecord) -> bool:
    return "split_seed" in select_effective_protocol(record.view.protocol)
