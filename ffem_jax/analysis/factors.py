"""The factors that a sweep's trials can compare, each with the main effects of its levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ffem_jax.analysis.comparability import FrontierError, UnpairedError
from ffem_jax.analysis.compare import compare_records, describe_blind
from ffem_jax.analysis.comparison import Comparison, ComparisonRow
from ffem_jax.analysis.pairing import NAMES, Pair, find_factor, find_pairs, list_levels, shorten, sort_levels
from ffem_jax.analysis.trend import Scale, scale_levels
from ffem_jax.records.record import TrialRecord

LONGEST_LEVEL = 40  # letters; longer ones are tables of stages or of settings


@dataclass
class Factor:
    """A factor (full name), with its main effects as rows, its pairs by levels, its levels in order and their scale."""

    name: str
    comparison: Comparison
    pairs: dict[tuple[str, str], list[Pair]]
    levels: list[str]
    scale: Scale | None


def compare_factors(
    done: Sequence[TrialRecord], factors: Sequence[str], against: str, metric: str, precision: str
) -> tuple[list[Factor], list[str]]:
    """Return the factors that can be compared, and notes on those that cannot.

    Args:
        done: comparable records of finished trials.
        factors, against, metric, precision: see `answer_records`.

    Raises:
        FrontierError: nothing can be compared (with the reason); an unknown factor or level.
    """
    varying = {name: levels for name, levels in list_levels(done).items() if len(levels) > 1}
    names = _choose_names(done, varying, factors, against)
    found: list[Factor] = []
    failures: dict[str, FrontierError] = {}
    seen: dict[frozenset[tuple[str, str]], str] = {}
    notes: list[str] = []
    for name in names:
        try:
            factor = _compare_factor(done, name, against if against in varying[name] else "", metric, precision)
        except FrontierError as error:
            failures[shorten(name)] = error
            continue
        rows = [row for row in factor.comparison.rows if seen.setdefault(_identify(factor, row), name) == name]
        repeated = len(factor.comparison.rows) - len(rows)
        if repeated:
            share = f"{repeated} of {len(factor.comparison.rows)} differences"
            notes.append(f"{shorten(name)}: {share} compare the trials of another factor, and are listed there")
        # What one factor lacks, such as partners, another may have.
        own = describe_blind([pair for pairs in factor.pairs.values() for pair in pairs], metric)
        notes += [n for n in factor.comparison.notes if not n.startswith("not compared") and n not in own]
        if rows:
            factor.comparison = dataclasses.replace(factor.comparison, rows=tuple(rows))
            found.append(factor)
    if not found:
        raise FrontierError("; ".join(dict.fromkeys(map(str, failures.values()))))
    alone = [name for name, error in failures.items() if isinstance(error, UnpairedError)]
    if alone:
        notes.append(f"not answered, because no two trials differ only in this factor: {', '.join(alone)}")
    notes += [f"{name} is not answered: {error}" for name, error in failures.items() if name not in alone]
    # Reported once for the pairs of all factors.
    notes += describe_blind([pair for factor in found for own in factor.pairs.values() for pair in own], metric)
    used = {id(r) for factor in found for own in factor.pairs.values() for p in own for r in (p.first, p.second)}
    if len(used) < len(done):
        notes.append(f"in no pair, because no other trial differs in only one factor: {len(done) - len(used)} trials")
    return found, notes


def _choose_names(
    done: Sequence[TrialRecord], varying: dict[str, set[str]], factors: Sequence[str], against: str
) -> list[str]:
    """Return the full names of the factors to answer, in order; FrontierError if none varies or has level `against`."""
    names = list(dict.fromkeys(find_factor(done, factor) for factor in factors))
    names = names or sorted(varying, key=lambda name: _rank(name, varying[name]))
    if not names:
        trials = "one trial" if len(done) == 1 else f"{len(done)} trials"
        raise FrontierError(
            f"nothing varies: the records have {trials} of one network; an answer needs two levels of a factor"
        )
    if against and not any(against in varying[name] for name in names):
        known = "; ".join(f"{shorten(name)}: {', '.join(sort_levels(sorted(varying[name])))}" for name in names)
        raise FrontierError(f"against={against!r} is not a level of any factor here; choose one of: {known}")
    return names


def _compare_factor(done: Sequence[TrialRecord], name: str, against: str, metric: str, precision: str) -> Factor:
    comparison = compare_records(done, name, against=against, metric=metric, precision=precision)
    pairs, _ = find_pairs(done, name, against)
    by_levels: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        by_levels.setdefault(pair.levels, []).append(pair)
    levels = sort_levels(dict.fromkeys(level for pair in pairs for level in pair.levels))
    kept = dataclasses.replace(comparison, rows=tuple(_select_main(comparison.rows)))
    return Factor(name, kept, by_levels, levels, scale_levels(levels))


def _identify(factor: Factor, row: ComparisonRow) -> frozenset[tuple[str, str]]:
    """Return the pairs of trials behind a row, in either direction."""
    pairs = factor.pairs[row.first, row.second]
    keys = [sorted((pair.first.trial_key, pair.second.trial_key)) for pair in pairs]
    return frozenset((first, second) for first, second in keys)


def _rank(name: str, levels: Iterable[str]) -> int:
    """Sort key: settings first, then names, which combine several settings, then whole tables."""
    return 2 if max(map(len, levels)) > LONGEST_LEVEL else int(name in NAMES)


def _select_main(rows: Iterable[ComparisonRow]) -> list[ComparisonRow]:
    """Return for each pair of levels the row over all contexts, or the only one."""
    groups: dict[tuple[str, str], list[ComparisonRow]] = {}
    for row in rows:
        groups.setdefault((row.first, row.second), []).append(row)
    return [next((row for row in own if row.overall), own[0]) for own in groups.values()]
