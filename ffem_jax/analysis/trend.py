"""Slopes over ordered levels: how accuracy changes along a factor, and how what one factor changes depends on another.

A ladder is trials that differ in one factor alone, a trial per level. Its slope is that of the straight line through
its levels by least squares. The interval is `compare`'s, over images (or people) and seeds.
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

# Levels that lie closer together than this are a step apart and no doubling.
DOUBLING = 2.0
# Below so many units that differ between levels the normal approximation of the test is too coarse.
FEW_UNITS = 40
PERMUTATIONS = 20_000


@dataclass(frozen=True)
class Scale:
    """Where ordered levels stand. places: float [level], one unit apart where accuracy is said to change by a slope.

    unit: `doubling`, or `step of 0.1`.
    """

    levels: tuple[str, ...]
    places: tuple[float, ...]
    unit: str


@dataclass(frozen=True)
class Slope:
    """A slope in accuracy (0 to 1) per unit of the scale, with its 95 % interval.

    ladders, seeds, images, tests: how many; tests are those at one level. people, pretrainings: as in `ComparisonRow`.
    lowest, highest: accuracy, or the difference that is followed, at both ends.
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
    """What was measured at every level with one run on the same images.

    Args:
        run: of all, fold 0 for all folds. pictures: which pictures `images` are of.
        values: [level, image], 0 or 1 where an image was right or wrong, or the difference of two such.
        units: for each image its person where the records name people, else the image.
        named: whether units are people. start: the pretrainings that its trials begin from.
    """

    run: Run
    pictures: str
    images: tuple[int, ...]
    units: tuple[int, ...]
    named: bool
    values: np.ndarray
    start: Hashable = None


def scale_levels(levels: Sequence[str]) -> Scale | None:
    """The places of `levels`, which are in order; None where they are no numbers.

    By doublings where the largest is at least twice the smallest and that is above 0, else by their smallest gap.
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
    """The ladders with a trial at each of `levels`, and how many lack a level or do not say what was right.

    Args:
        pairs: all pairs of one factor's levels, as `find_pairs` gives them.
    """
    rungs = _Rungs()
    for pair in pairs:
        # Which pictures, or nothing where the levels were not seen to share them.
        pictures = pair.pictures and (pair.first.pictures_fingerprint or pair.pictures)
        for level, record in zip(pair.levels, (pair.first, pair.second), strict=True):
            rungs.add(_name_place(pair, (), pair.pictures), (pair.run, pictures), level, find_start(record), record)

    def read(record: TrialRecord) -> np.ndarray:
        return read_hits(record, metric).astype(int)

    return _build_ladders(rungs, levels, read, lambda record: [record])


def find_ladders_of_differences(
    pairs: Sequence[Pair], other: str, levels: Sequence[str], metric: str
) -> tuple[list[Ladder], int]:
    """Ladders over `levels` of the factor `other` (in full), of what two levels of the first factor differ by.

    Args:
        pairs: of the same two levels. Pairs that share a trial between levels of `other` are no ladder: no attention
            pairs with every placement, and that would be the main effect of placement again.
    """
    dropped = ("pretrain.",) if other.startswith("pretrain.") else (other,)
    rungs = _Rungs()
    for pair in pairs:
        if other not in pair.context:
            continue
        # Drawn faces are drawn anew at each resolution; photographs are the same ones.
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
    """What was measured, by place, level and pretraining."""

    def __init__(self) -> None:
        self.items: dict[Hashable, dict[str, dict[Hashable, Any]]] = {}
        self.runs: dict[Hashable, tuple[Run, str]] = {}

    def add(self, place: Hashable, run: tuple[Run, str], level: str, start: Hashable, item: Any) -> None:
        self.items.setdefault(place, {}).setdefault(level, {})[start] = item
        self.runs[place] = run

    def list_steps(self, place: Hashable, levels: Sequence[str]) -> list[tuple[Hashable, list[Any]]]:
        """(pretraining, an item per level that is there), for each pretraining; what has none stands in for all."""
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
    """The mean slope of `ladders`, whose levels stand at `places` [level].

    Raises ValueError without a ladder, or where all levels stand at one place.
    """
    if not ladders:
        raise ValueError("no ladder: no slope")
    places = np.asarray(places, dtype=float)
    sums, counts, runs = tabulate_ladders(ladders)
    weights = weigh_places(places)
    # The interval takes differences of at most 1 per test.
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
    """The weights [level] whose sum with the values is the slope of least squares. ValueError for a single place."""
    centred = places - places.mean()
    if not centred.any():
        raise ValueError("all levels stand at one place")
    return np.asarray(centred / (centred**2).sum())


def tabulate_ladders(ladders: Sequence[Ladder]) -> tuple[np.ndarray, np.ndarray, list[tuple[Run, Hashable]]]:
    """Sums [run, unit, level] of the ladders' values, how many tests [run, unit] each level had, and the runs, each
    with its pretraining."""
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
    """The two-sided p-value of the hypothesis that permuting the levels of a unit changes no distribution.

    Two levels: the exact test of `compare`, which turns signs. More: Mantel's test, stratified by unit, whose variance
    over all permutations is exact and whose sum is taken for normal; where fewer than 40 units differ between levels,
    20,000 permutations are drawn. It says nothing about other seeds.

    Args:
        sums: [unit, level], whole numbers: right answers of an image or a person at each level.
        places: [level]. seed: of the permutations.

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
