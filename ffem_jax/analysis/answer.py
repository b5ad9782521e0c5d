"""The answer of a sweep: main effects, trends and interactions of every factor, and the power of the design.

`compare_records` makes the pairs, their intervals and their tests. Holm's correction covers the main effects and trends
of all factors as one family, and the interactions as another.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ffem_jax.analysis.comparability import FrontierError, select_comparable
from ffem_jax.analysis.compare import has_hits
from ffem_jax.analysis.comparison import SIGNIFICANT, Comparison, ComparisonRow
from ffem_jax.analysis.factors import Factor, compare_factors
from ffem_jax.analysis.independence import describe_exclusions, label_draws
from ffem_jax.analysis.pairing import NAMES, Pair, list_levels, shorten, sort_levels
from ffem_jax.analysis.power import POWER, Chance, Design, estimate_chance, find_smallest_difference
from ffem_jax.analysis.spread import SweepDesign, describe_gaps, measure_design
from ffem_jax.analysis.summary import check_metric, describe_guessing
from ffem_jax.analysis.trend import (
    Scale,
    Slope,
    find_ladders,
    find_ladders_of_differences,
    measure_slope,
    scale_levels,
)
from ffem_jax.metrics.paired import correct_holm
from ffem_jax.records.measures import MEASURES, Measure, find_measure, read_rate
from ffem_jax.records.record import TrialRecord, latest_records

PAIR, TREND, INTERACTION = "pair", "trend", "interaction"
# Levels that a trend needs. With two levels the pair already has all the information.
FEWEST_LEVELS = 3


@dataclass(frozen=True)
class Effect:
    """One line of the answer.

    Args:
        factor: its name as typed.
        kind: `pair`, `trend` or `interaction`.
        row: for a pair, the row of `compare` over all contexts. For a trend, `difference` is the slope per `unit` and
            the two levels are the ends. For an interaction, `difference` is the change of the difference between the
            two levels per `unit` of `other`, or from the first to the second of `other_levels`.
        family: the number of tests that Holm's correction covers.
        smallest: the smallest true effect that this design detects with 80 % power; None if it detects none.
    """

    factor: str
    kind: str
    row: ComparisonRow
    family: int = 1
    smallest: float | None = None
    unit: str = ""
    other: str = ""
    other_levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The answer that the records of a sweep give.

    Args:
        comparisons: by factor, with its main effects as rows.
        chance: the basis of the power estimates; None if the records lack per-image results.
        records: the records that count.
        exclusions: limits of the whole answer: all networks guess, or trainings share something (see `independence`).
        among: the records that make network labels unique.
    """

    metric: str
    protocol: str
    title: str
    synthetic: bool
    design: SweepDesign
    effects: tuple[Effect, ...]
    comparisons: dict[str, Comparison]
    chance: Chance | None
    notes: tuple[str, ...]
    records: tuple[TrialRecord, ...] = dataclasses.field(default=(), repr=False)
    exclusions: tuple[str, ...] = ()
    among: tuple[TrialRecord, ...] = dataclasses.field(default=(), repr=False)

    @property
    def measure(self) -> Measure:
        """The measure behind the accuracy."""
        return find_measure(self.metric, self.protocol)

    def list_effects(self, *kinds: str) -> list[Effect]:
        """Return the effects of these kinds."""
        return [effect for effect in self.effects if effect.kind in kinds]


def answer_records(
    records: Sequence[TrialRecord],
    *,
    factors: Sequence[str] = (),
    against: str = "",
    metric: str = "accuracy",
    precision: str = "float32",
    faces: str = "",
    among: Sequence[TrialRecord] = (),
) -> Answer:
    """Return the answer of `records`, the trials of one sweep.

    Args:
        factors: the settings to compare; empty for all that vary.
        against: a level. In factors that have it, every other level is compared with this one only.
        metric, precision, faces: see `compare_records`.
        among: all recorded trials, if `records` is a subset; it determines the network labels.

    Raises:
        FrontierError: nothing varies or no two trials can be paired (the message says why); the records mix data sets
            or protocols; a factor or level does not exist.
    """
    if metric not in MEASURES:
        raise FrontierError(f"metric={metric!r} is not known; choose one of: {', '.join(MEASURES)}")
    latest = latest_records(records)
    among = [*among, *latest]
    check_metric(latest, metric)
    done = [r for r in latest if r.status == "done" and read_rate(r, metric) is not None and r.tested]
    if not done:
        raise FrontierError(
            f"none of the {len(latest)} recorded trials is done with an {metric}; there is no answer yet"
        )
    varying = [name for name, levels in list_levels(done).items() if len(levels) > 1]
    done, other_faces = select_comparable(done, faces=faces, varying=next((n for n in varying if n[:5] == "data."), ""))
    found, notes = compare_factors(done, factors, against, metric, precision)
    chance = _estimate_chance(done, metric)
    effects, more = _measure_effects(found, chance, metric)
    first = found[0].comparison
    return Answer(
        metric=metric,
        protocol=first.protocol,
        title=first.title,
        synthetic=any(factor.comparison.synthetic for factor in found),
        design=measure_design(done),
        effects=tuple(effects),
        comparisons={
            shorten(factor.name): dataclasses.replace(
                factor.comparison,
                rows=tuple(e.row for e in effects if e.kind == PAIR and e.factor == shorten(factor.name)),
            )
            for factor in found
        },
        chance=chance,
        notes=tuple(dict.fromkeys([*other_faces, *describe_gaps(latest, done, metric, among), *notes, *more])),
        records=tuple(done),
        exclusions=(
            *describe_guessing(done, metric),
            *describe_exclusions(done, drawn=any(effect.row.test for effect in effects)),
        ),
        among=tuple(among),
    )


# ------------------------------------------------------------------------------------------ effects


def _measure_effects(found: Sequence[Factor], chance: Chance | None, metric: str) -> tuple[list[Effect], list[str]]:
    main: list[Effect] = []
    notes: list[str] = []
    for factor in found:
        main += [Effect(shorten(factor.name), PAIR, row) for row in factor.comparison.rows]
        trend, note = _measure_trend(factor, metric)
        main += [trend] if trend else []
        notes += [note] if note else []
    interactions = _measure_interactions(found, metric)
    pairs = {shorten(factor.name): factor.pairs for factor in found}
    known: dict[tuple[int, ...], float | None] = {}
    effects = []
    for effect in (*_correct(main), *_correct(interactions)):
        if effect.kind == PAIR:
            own = [p for p in pairs[effect.factor][effect.row.first, effect.row.second] if has_hits(p, metric)]
            smallest = _find_smallest(own, effect, chance, known)
        else:
            smallest = _estimate_smallest(effect)
        effects.append(dataclasses.replace(effect, smallest=smallest))
    return effects, notes


def _measure_trend(factor: Factor, metric: str) -> tuple[Effect | None, str]:
    if factor.scale is None or len(factor.levels) < FEWEST_LEVELS:
        return None, ""
    ladders, broken = find_ladders([p for own in factor.pairs.values() for p in own], factor.levels, metric)
    name = shorten(factor.name)
    if not ladders:
        why = f"no run records for all {len(factor.levels)} levels which of the same images were classified correctly"
        return None, f"no trend along {name}: {why}"
    count = f"{broken} of {broken + len(ladders)} runs (seed, fold, context)"
    note = f"not in the trend along {name}, because a level is missing: {count}" if broken else ""
    slope = measure_slope(ladders, factor.scale.places)
    row = _make_row(factor.levels[0], factor.levels[-1], "", slope)
    return Effect(name, TREND, row, unit=factor.scale.unit), note


def _measure_interactions(found: Sequence[Factor], metric: str) -> list[Effect]:
    """Return how one factor's effect depends on another: its slope along an ordered one, else between two levels."""
    effects: list[Effect] = []
    # Of two factors, the effect of the unordered one is followed along the other.
    ordered = sorted(found, key=lambda factor: (factor.scale is not None, factor.name in NAMES))
    for factor, other in itertools.combinations(ordered, 2):
        for levels, pairs in _choose_pairs(factor):
            for steps, scale in _list_steps(pairs, other.name):
                ladders, _ = find_ladders_of_differences(pairs, other.name, steps, metric)
                if not ladders:
                    continue
                row = _make_row(*levels, shorten(other.name), measure_slope(ladders, scale.places))
                effects.append(
                    Effect(
                        shorten(factor.name), INTERACTION, row, unit=scale.unit,
                        other=shorten(other.name), other_levels=tuple(steps),
                    )
                )  # fmt: skip
    return effects


def _choose_pairs(factor: Factor) -> list[tuple[tuple[str, str], list[Pair]]]:
    """Return the pairs of levels whose difference is followed: all pairs, or the two ends of an ordered factor."""
    ends = factor.levels[0], factor.levels[-1]
    if factor.scale is not None and ends in factor.pairs:
        return [(ends, factor.pairs[ends])]
    return list(factor.pairs.items())


def _list_steps(pairs: Sequence[Pair], other: str) -> list[tuple[list[str], Scale]]:
    """Return the levels of `other` to follow a difference along: all if they are ordered, else every two."""
    levels = sort_levels(dict.fromkeys(pair.context[other] for pair in pairs if other in pair.context))
    if len(levels) < 2:
        return []
    if scale := scale_levels(levels):
        unit = scale.unit if len(levels) > 2 else ""
        return [(levels, scale if unit else Scale(tuple(levels), (0.0, 1.0), ""))]
    return [([a, b], Scale((a, b), (0.0, 1.0), "")) for a, b in itertools.combinations(levels, 2)]


def _make_row(first: str, second: str, context: str, slope: Slope) -> ComparisonRow:
    return ComparisonRow(
        first=first, second=second, context=context, overall=False, pairs=slope.ladders, seeds=slope.seeds,
        images=slope.images, tests=slope.tests, accuracy_first=slope.lowest, accuracy_second=slope.highest,
        difference=slope.value, low=slope.low, high=slope.high, only_first=None, only_second=None,
        test="permutation of levels", p_value=slope.p_value, p_corrected=None, bytes_first=None, bytes_second=None,
        people=slope.people, pretrainings=slope.pretrainings,
    )  # fmt: skip


def _correct(effects: Sequence[Effect]) -> list[Effect]:
    tested = [effect.row.p_value for effect in effects if effect.row.p_value is not None]
    corrected = iter(correct_holm(tested))
    return [
        dataclasses.replace(
            effect,
            family=len(tested),
            row=dataclasses.replace(effect.row, p_corrected=None if effect.row.p_value is None else next(corrected)),
        )
        for effect in effects
    ]


# -------------------------------------------------------------------------------------------- power


def _estimate_chance(done: Sequence[TrialRecord], metric: str) -> Chance | None:
    field = MEASURES[metric].hits
    if not field:
        return None
    return estimate_chance([dataclasses.replace(record, hits=getattr(record, field)) for record in done])


def _find_smallest(
    pairs: Sequence[Pair], effect: Effect, chance: Chance | None, known: dict[tuple[int, ...], float | None]
) -> float | None:
    """Return the smallest detectable effect, by simulating the tests that these pairs made."""
    if chance is None or not pairs or effect.row.p_value is None:
        return None
    row = effect.row
    shape = (row.seeds, row.pretrainings, len(pairs), row.tests, row.images, row.people or 0)
    if shape not in known:
        known[shape] = find_smallest_difference(lay_out(pairs, effect.family), chance)
    return known[shape]


def lay_out(pairs: Sequence[Pair], rows: int) -> Design:
    """Return the tests of `pairs` for the simulation in power.py, corrected for `rows` rows."""
    import numpy as np

    labels = label_draws([(pair.run, pair.start) for pair in pairs])
    drawn, few = labels["starts"] or labels["units"], labels["starts"] is not None
    runs = {unit: number for number, unit in enumerate(dict.fromkeys(drawn))}
    # Trainings that share a pretraining differ less than others, so their whole difference is attributed to it.
    shifts = [
        (unit, tuple(pair.context.items())) if few else number
        for number, (unit, pair) in enumerate(zip(drawn, pairs, strict=True))
    ]
    trainings = {shift: number for number, shift in enumerate(dict.fromkeys(shifts))}
    pictures = [pair.first.pictures_fingerprint or pair.pictures for pair in pairs]
    clustered = all(len(pair.first.test_identities) == len(pair.first.test_images) for pair in pairs)
    whose = {
        (name, image): (name, person)
        for name, pair in zip(pictures, pairs, strict=True)
        for image, person in zip(
            pair.first.test_images, pair.first.test_identities if clustered else pair.first.test_images, strict=True
        )
    }
    columns = {key: number for number, key in enumerate(sorted(whose))}
    people = {key: number for number, key in enumerate(dict.fromkeys(whose[key] for key in columns))}
    tests = sorted(
        (columns[name, image], runs[unit], trainings[shift])
        for name, unit, shift, pair in zip(pictures, drawn, shifts, pairs, strict=True)
        for image in pair.first.test_images
    )
    table = np.array(tests)
    owners = np.array([people[whose[key]] for key in columns])
    return Design(table[:, 1], table[:, 2], table[:, 0], owners, rows, clustered, few)


def _estimate_smallest(effect: Effect) -> float | None:
    """Return the smallest detectable effect, from the width of the interval under a normal approximation."""
    if effect.row.p_value is None:
        return None
    normal = NormalDist()
    deviation = (effect.row.high - effect.row.low) / (2 * normal.inv_cdf(0.975))
    return deviation * (normal.inv_cdf(1 - SIGNIFICANT / (2 * effect.family)) + normal.inv_cdf(POWER))
