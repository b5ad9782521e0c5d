"""The interval of a measure over several trials of one network: seeds share their images, folds do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ffem_jax.analysis.comparability import identify
from ffem_jax.metrics.intervals import compute_clustered_interval, compute_wilson_interval
from ffem_jax.records.measures import MEASURES, read_interval, read_rate
from ffem_jax.records.record import TrialRecord


def read_hits(record: TrialRecord, metric: str) -> np.ndarray:
    """Return which of the record's test images are correct by `metric`, bool [image]; empty if not recorded."""
    hits = getattr(record, MEASURES[metric].hits) if MEASURES[metric].hits else ""
    return np.frombuffer(hits.encode(), np.uint8) == ord("1")


def names_people(record: TrialRecord) -> bool:
    """Whether the record names the person on each test image, so that people are resampled instead of images."""
    return len(record.test_identities) == len(record.test_images) > 0


def compute_pooled_interval(
    trials: Sequence[TrialRecord], metric: str, rate: float, tested: int
) -> tuple[float, float]:
    """Return the 95 % interval (low, high), in 0 to 1, of `rate`, which is pooled over `trials`.

    A share of tests gets Wilson's interval for `tested` distinct tests; if the records name people (open_set), that
    number is divided by the design effect. Other measures have intervals in the records: those of one fold are averaged
    over its seeds, and folds, which share no people, are combined as independent numbers.
    """
    if not MEASURES[metric].counted:
        return _combine(trials, metric, rate)
    if all(names_people(record) and len(read_hits(record, metric)) == len(record.test_images) for record in trials):
        low, high = _cluster(trials, metric)
        return min(low, rate), max(high, rate)  # if folds are missing for some seeds, the rates differ slightly
    return compute_wilson_interval(rate * tested, tested)


def _cluster(trials: Sequence[TrialRecord], metric: str) -> tuple[float, float]:
    size = 1 + max(max(record.test_images) for record in trials)
    right, tests, people = np.zeros((3, size))
    for record in trials:
        right[record.test_images] += read_hits(record, metric)
        tests[record.test_images] += 1
        people[record.test_images] = record.test_identities
    seen = tests > 0
    return compute_clustered_interval(right[seen] / tests[seen], people[seen])


def _combine(trials: Sequence[TrialRecord], metric: str, rate: float) -> tuple[float, float]:
    # split seed -> fold -> per trial: its tests, and the lower and upper half-width of its interval.
    splits: dict[int, dict[int, list[tuple[float, float, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in trials:
        value = read_rate(record, metric) or 0.0
        low, high = read_interval(record, metric) or (0.0, 1.0)
        run = identify(record).run
        splits[run.split_seed][run.fold].append((record.tested or 0, value - low, high - value))
    reaches = []
    for folds in splits.values():
        cells = np.array([np.mean(cell, axis=0) for cell in folds.values()])
        reaches.append(np.hypot.reduce(cells[:, 1:] * cells[:, :1] / cells[:, 0].sum(), axis=0))
    # Another split regroups the same people: it is not a new sample.
    down, up = np.mean(reaches, axis=0)
    return max(0.0, rate - float(down)), min(1.0, rate + float(up))
