"""Slopes over ordered levels: how accuracy changes along a factor, and how one factor's effect depends on another.

A ladder is a set of trials that differ only in one factor, with one trial per level. Its slope is that of the
least-squares line through its levels. The interval covers images (or people) and seeds, as in `compare`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from ffem_jax.analysis.comparability import Run, identify
from ffem_jax.analysis.independence import find_start, label_draws
from ffem_jax.analysis.pairing import Pair
from ffem_jax.analysis.pooling import names_people, read_hits
from ffem_jax.metrics.paired import compute_mean_difference, compute_paired_interval, compute_sign_flip_p_value
from ffem_jax.records.record import TrialRecord

# A smaller range than this is measured in steps, not in doublings.
DOUBLING = 2.0
# With fewer units that differ between levels, the normal approximation of the test is too coarse.
FEW_UNITS = 40
PERMUTATIONS = 20_000


@dataclass(frozen=True)
class Scale:
    """The positions of ordered levels.

    Args:
        places: float [level], in units of the slope.
        unit: `doubling`, or a step such as `step of 0.1`.
    """

    levels: tuple[str, ...]
    places: tuple[float, ...]
    unit: str


@dataclass(frozen=True)
class Slope:
    """A slope in accuracy (0 to 1) per unit of the scale, with its 95 % interval.

    Args:
        ladders, seeds, images, tests: their numbers; tests are counted at one level.
        lowest, highest: accuracy, or the difference that is followed, at both ends.
        people, pretrainings: see `ComparisonRow`.
    """

    value: float
    low: float
    high: float
    p_value: float
    ladders: int
    seeds: int
    images: int
    tests: int
    lowest: float
    highest: float
    people: int | None = None
    pretrainings: int = 0


@dataclass(frozen=True)
class Ladder:
    """The results of one run at every level, on the same images.

    Args:
        run: the run of all levels, with fold 0 for all folds.
        pictures: fingerprint of the images that `images` refers to.
        units: for each image its person if the records name people, else the image itself.
        named: whether units are people.
        values: [level, image], 1 for a correct and 0 for an incorrect image, or the difference of two such values.
        start: the pretrainings that its trials begin from.
    """

    run: Run
    pictures: str
    images: tuple[int, ...]
    units: tuple[int, ...]
    named: bool
    values: np.ndarray
    start: Hashable = None


def scale_levels(levels: Sequence[str]) -> Scale | None:
    """Return the positions of `levels`, which are in order; None if they are not numbers.

    The unit is a doubling if the smallest level is above 0 and the largest is at least twice as large, else the
    smallest gap.
    """
    try:
        numbers = [float(level) for level in levels]
    except ValueError:
        return None
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers) or not all(map(math.isfinite, numbers)):
        return None
    if min(numbers) > 0 and max(numbers) >= DOUBLING * min(numbers):
        return Scale(tuple(levels), tuple(math.log2(number) for number in numbers), "doubling")
    ordered = sorted(numbers)
    gap = min(b - a for a, b in itertools.pairwise(ordered))
    return Scale(tuple(levels), tuple(number / gap for number in numbers), f"step of {gap:g}")


# ------------------------------------------------------------------------------------------- ladders


def find_ladders(pairs: Sequence[Pair], levels: Sequence[str], metric: str) -> tuple[list[Ladder], int]:
    """Return the ladders with a trial at each of `levels`, and how many lack a level or per-image results.

    Args:
        pairs: all pairs of one factor's levels, from `find_pairs`.
    """
    rungs = _Rungs()
    for pair in pairs:
        # Empty if the levels are not known to share their images.
        pictures = pair.pictures and (pair.first.pictures_fingerprint or pair.pictures)
        for level, record in zip(pair.levels, (pair.first, pair.second), strict=True):
            rungs.add(_name_place(pair, (), pair.pictures), (pair.run, pictures), level, find_start(record), record)

    def read(record: TrialRecord) -> np.ndarray:
        return read_hits(record, metric).astype(int)

    return _build_ladders(rungs, levels, read, lambda record: [record])


def find_ladders_of_differences(
    pairs: Sequence[Pair], other: str, levels: Sequence[str], metric: str
) -> tuple[list[Ladder], int]:
    """Return ladders over `levels` of the factor `other` (full name), for the difference of two levels of a factor.

    Args:
        pairs: pairs of the same two levels. Pairs that share a trial between levels of `other` form no ladder: a
            network without attention pairs with every placement, so such a ladder would repeat the main effect of
            placement.
    """
    dropped = ("pretrain.",) if other.startswith("pretrain.") else (other,)
    rungs = _Rungs()
    for pair in pairs:
        if other not in pair.context:
            continue
        # Synthetic faces are redrawn at each resolution; photographs stay the same.
        pictures = pair.pictures if pair.first.synthetic else pair.first.pictures_fingerprint or pair.pictures
        run = pair.run._replace(pretraining_seed=0) if other.startswith("pretrain.") else pair.run
        rungs.add(_name_place(pair, dropped, pictures, run), (run, pictures), pair.context[other], pair.start, pair)

    def read(pair: Pair) -> np.ndarray:
        first, second = (read_hits(record, metric).astype(int) for record in (pair.first, pair.second))
        return second - first if len(first) == len(second) else np.zeros(0, int)

    return _build_ladders(rungs, levels, read, lambda pair: [pair.first, pair.second])


def _name_place(pair: Pair, dropped: tuple[str, ...], pictures: str, run: Run | None = None) -> Hashable:
    kept = {name: value for name, value in pair.context.items() if not (dropped and name.startswith(dropped))}
    return (run or pair.run, identify(pair.first).run.fold, pictures, tuple(sorted(kept.items())))


class _Rungs:
    """The results by place, level and pretraining."""

    def __init__(self) -> None:
        self.items: dict[Hashable, dict[str, dict[Hashable, Any]]] = {}
        self.runs: dict[Hashable, tuple[Run, str]] = {}

    def add(self, place: Hashable, run: tuple[Run, str], level: str, start: Hashable, item: Any) -> None:
        self.items.setdefault(place, {}).setdefault(level, {})[start] = item
        self.runs[place] = run

    def list_steps(self, place: Hashable, levels: Sequence[str]) -> list[tuple[Hashable, list[Any]]]:
        """Return (pretraining, its items by level) per pretraining; an item without a pretraining serves them all."""
        own = [self.items[place].get(level, {}) for level in levels]
        starts = dict.fromkeys(start for items in own for start in items if start is not None)
        steps = [(start, [items.get(start, items.get(None)) for items in own]) for start in starts or (None,)]
        return [(start, [item for item in items if item is not None]) for start, items in steps]


def _build_ladders(
    rungs: _Rungs,
    levels: Sequence[str],
    read: Callable[[Any], np.ndarray],
    list_records: Callable[[Any], list[TrialRecord]],
) -> tuple[list[Ladder], int]:
    ladders, broken = [], 0
    for place, (run, pictures) in rungs.runs.items():
        for start, steps in rungs.list_steps(place, levels):
            records = [record for step in steps for record in list_records(step)]
            if len(steps) < len(levels) or not pictures or not _match(records):
                broken += 1
                continue
            if len({id(record) for record in records}) < len(records):
                continue
            values = [read(step) for step in steps]
            images = tuple(records[0].test_images)
            if any(len(value) != len(images) for value in values):
                broken += 1
                continue
            named = all(map(names_people, records))
            units = tuple(records[0].test_identities) if named else images
            ladders.append(Ladder(run, pictures, images, units, named, np.stack(values), start))
    return ladders, broken


def _match(records: Sequence[TrialRecord]) -> bool:
    first = records[0].test_images
    return bool(first) and all(record.test_images == first for record in records)


# -------------------------------------------------------------------------------------------- slopes


def measure_slope(ladders: Sequence[Ladder], places: npt.ArrayLike) -> Slope:
    """Return the mean slope of `ladders`, whose levels are at `places` [level].

    Raises:
        ValueError: there is no ladder, or all levels are at one place.
    """
    if not ladders:
        raise ValueError("no ladder: no slope")
    places = np.asarray(places, dtype=float)
    sums, counts, runs = tabulate_ladders(ladders)
    weights = weigh_places(places)
    # compute_paired_interval expects differences of at most 1 per test.
    largest = float(np.abs(weights).sum())
    totals = np.round(sums @ weights / largest, 12)
    low, high = compute_paired_interval(totals, counts, **label_draws(runs))
    rates = sums.sum(axis=(0, 1)) / counts.sum()
    named = all(ladder.named for ladder in ladders)
    return Slope(
        value=largest * compute_mean_difference(totals, counts),
        low=largest * low,
        high=largest * high,
        p_value=compute_permutation_p_value(sums.sum(axis=0), places),
        ladders=len(ladders),
        seeds=len({run for run, _ in runs}),
        pretrainings=len({start for _, start in runs} - {None}),
        images=len({(ladder.pictures, image) for ladder in ladders for image in ladder.images}),
        tests=int(counts.sum()),
        lowest=float(rates[int(places.argmin())]),
        highest=float(rates[int(places.argmax())]),
        people=counts.shape[1] if named else None,
    )


def weigh_places(places: np.ndarray) -> np.ndarray:
    """Return weights [level] whose weighted sum of the values is the least-squares slope. ValueError for one place."""
    centred = places - places.mean()
    if not centred.any():
        raise ValueError("all levels are at one place")
    return np.asarray(centred / (centred**2).sum())


def tabulate_ladders(ladders: Sequence[Ladder]) -> tuple[np.ndarray, np.ndarray, list[tuple[Run, Hashable]]]:
    """Return sums [run, unit, level] of the ladders' values, tests per level [run, unit], and the runs.

    Each run comes with its pretraining.
    """
    keys_of_runs = list(dict.fromkeys((ladder.run, ladder.start) for ladder in ladders))
    runs = {run: number for number, run in enumerate(keys_of_runs)}
    named = all(ladder.named for ladder in ladders)
    keys = [[(ladder.pictures, unit) for unit in (ladder.units if named else ladder.images)] for ladder in ladders]
    columns = {key: number for number, key in enumerate(sorted({key for own in keys for key in own}))}
    sums = np.zeros((len(runs), len(columns), len(ladders[0].values)))
    counts = np.zeros(sums.shape[:2])
    for own, ladder in zip(keys, ladders, strict=True):
        places, run = [columns[key] for key in own], runs[ladder.run, ladder.start]
        np.add.at(sums[run], places, ladder.values.T)
        np.add.at(counts[run], places, 1)
    return sums, counts, keys_of_runs


def compute_permutation_p_value(sums: npt.ArrayLike, places: npt.ArrayLike, *, seed: int = 0) -> float:
    """Return the two-sided p-value for the hypothesis that permuting the levels of a unit changes no distribution.

    Two levels use the exact sign-flip test of `compare`. More use Mantel's test, stratified by unit: the variance over
    all permutations is exact and the sum is treated as normal. If fewer than 40 units differ between levels, 20,000
    random permutations are used instead. The test does not generalise to other seeds.

    Args:
        sums: [unit, level], integers: correct answers for an image or a person at each level.
        places: [level], the positions of the levels.
        seed: for the permutations.

    References:
        Mantel, J. Am. Stat. Assoc. 58 (1963) 690; Page, J. Am. Stat. Assoc. 58 (1963) 216.
    """
    table, where = np.asarray(sums, dtype=float), np.asarray(places, dtype=float)
    if table.shape[1] == 2:
        return compute_sign_flip_p_value(table[:, 1] - table[:, 0])
    table = table - table.mean(axis=1, keepdims=True)
    table = table[np.abs(table).max(axis=1) > 1e-9]
    if not len(table):
        return 1.0
    centred = where - where.mean()
    observed = abs(float((table @ centred).sum()))
    if len(table) >= FEW_UNITS:
        variance = (centred**2).sum() * (table**2).sum() / (len(centred) - 1)
        return float(min(1.0, 2 * NormalDist().cdf(-observed / math.sqrt(variance))))
    random = np.random.default_rng(seed)
    drawn = np.zeros(PERMUTATIONS)
    for unit in table:
        drawn += random.permuted(np.broadcast_to(unit, (PERMUTATIONS, len(unit))), axis=1) @ centred
    return float((1 + (np.abs(drawn) >= observed - 1e-9).sum()) / (1 + PERMUTATIONS))
