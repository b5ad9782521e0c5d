"""The effect of one factor, from pairs of trials that differ in nothing else.

docs/comparing.md explains how images, seeds and rows are counted.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ffem_jax.analysis.comparability import FrontierError, UnpairedError, select_comparable
from ffem_jax.analysis.comparison import Comparison, ComparisonRow
from ffem_jax.analysis.independence import describe_exclusions, label_draws
from ffem_jax.analysis.labels import describe_data
from ffem_jax.analysis.pairing import Pair, find_factor, find_pairs, read_settings, shorten, sort_levels
from ffem_jax.analysis.pooling import (
    compute_pooled_interval,
    names_people,
    read_hits,
)
from ffem_jax.analysis.summary import check_metric, count_images, describe_guessing
from ffem_jax.metrics.intervals import compute_difference_interval
from ffem_jax.metrics.paired import (
    compute_mean_difference,
    compute_paired_interval,
    compute_sign_flip_p_value,
    correct_holm,
)
from ffem_jax.records.measures import MEASURES, count_correct, read_rate
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.specs.trial import PRECISIONS


def compare_records(
    records: Sequence[TrialRecord],
    factor: str,
    *,
    against: str = "",
    metric: str = "accuracy",
    precision: str = "float32",
    faces: str = "",
) -> Comparison:
    """Compare the levels of `factor` (`attention.kind`, `arch.width_multiplier`, `recipe.loss`) pair by pair.

    Args:
        against: compare every other level with this one only: fewer rows, so a milder correction.
        faces: the fingerprint of the faces to use if there are several versions; empty for the newest.

    Raises:
        FrontierError: the factor does not vary (the message names those that do); `against` is not one of its levels;
            the records mix data sets or protocols; no two trials differ only in the factor.
    """
    for name, value, choices in (("metric", metric, tuple(MEASURES)), ("precision", precision, PRECISIONS)):
        if value not in choices:
            raise FrontierError(f"{name}={value!r} is not known; choose one of: {', '.join(choices)}")
    latest = latest_records(records)
    check_metric(latest, metric)
    done = [record for record in latest if _is_done(record, metric)]
    if not done:
        raise FrontierError(
            f"none of the {len(latest)} recorded trials is done with an {metric}; there is nothing to compare"
        )
    full = f"arch.{factor}" if factor.startswith("attention.") else factor
    done, other_faces = select_comparable(done, faces=faces, varying=full)
    try:
        full = find_factor(done, factor)
        pairs, alone = find_pairs(done, full, against)
        if not pairs:
            raise UnpairedError(
                f"no two of {len(done)} trials differ only in {shorten(full)} (same faces, split and seed)"
            )
    except FrontierError as error:
        # The omitted records may be the reason.
        raise type(error)("; ".join([str(error), *other_faces])) from None
    rows = _correct(
        [_make_row(group, context, overall, metric, precision) for group, context, overall in _group(pairs)]
    )
    used = {id(record): record for pair in pairs for record in (pair.first, pair.second)}.values()
    drawn = any(row.test for row in rows)
    return Comparison(
        factor=shorten(full),
        metric=metric,
        precision=precision,
        title=describe_data(list(used), (r.resolution for r in used), (row.images for row in rows)),
        synthetic=any(record.synthetic or record.data == "synthetic" for record in used),
        rows=tuple(rows),
        notes=(*other_faces, *_describe_left_out(latest, alone, pairs, full, metric)),
        protocol=done[0].view.protocol.name,
        exclusions=(*describe_guessing(list(used), metric), *describe_exclusions(list(used), drawn=drawn)),
    )


def _is_done(record: TrialRecord, metric: str) -> bool:
    return record.status == "done" and read_rate(record, metric) is not None and bool(record.tested)


def _group(pairs: Sequence[Pair]) -> list[tuple[list[Pair], str, bool]]:
    """Return (pairs, context, overall) per row: for two levels, one row per context and one over all contexts."""
    order = sort_levels(dict.fromkeys(level for pair in pairs for level in pair.levels))
    by_levels: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        by_levels.setdefault(pair.levels, []).append(pair)
    rows: list[tuple[list[Pair], str, bool]] = []
    for _, group in sorted(by_levels.items(), key=lambda item: tuple(map(order.index, item[0]))):
        names = list(dict.fromkeys(name for pair in group for name in pair.context))
        # A setting that only some pairs have depends on another one, which varies and is named.
        varying = [n for n in names if len({pair.context[n] for pair in group if n in pair.context}) > 1]
        contexts: dict[str, list[Pair]] = {}
        for pair in group:
            words = [f"{_say(name)} {pair.context[name]}" for name in varying if name in pair.context]
            contexts.setdefault(", ".join(words), []).append(pair)
        rows += [(own, context, False) for context, own in contexts.items()]
        if len(contexts) > 1:
            rows.append((group, f"all {len(contexts)}", True))
    return rows


def _say(name: str) -> str:
    group, _, setting = name.rpartition(".")
    # A kind or a name is only clear with its group.
    return (group.split(".")[-1] if setting in ("kind", "name") else setting).replace("_", " ")


def _make_row(pairs: Sequence[Pair], context: str, overall: bool, metric: str, precision: str) -> ComparisonRow:
    known = [pair for pair in pairs if has_hits(pair, metric)]
    pairs = known or pairs
    sides = [pair.first for pair in pairs], [pair.second for pair in pairs]
    tests = [sum(record.tested or 0 for record in side) for side in sides]
    accuracy = [sum(count_correct(r, metric) for r in side) / n for side, n in zip(sides, tests, strict=True)]
    values: dict[str, Any] = {"difference": accuracy[1] - accuracy[0]}
    if known:
        values |= _measure_paired(known, metric)
    else:
        images = count_images([pair.first for pair in pairs])
        ends = [compute_pooled_interval(side, metric, rate, images) for side, rate in zip(sides, accuracy, strict=True)]
        low, high = compute_difference_interval((accuracy[0], *ends[0]), (accuracy[1], *ends[1]))
        values |= {"images": images, "low": low, "high": high, "only_first": None, "only_second": None}
        values |= {"test": "", "p_value": None}
    return ComparisonRow(
        first=pairs[0].levels[0],
        second=pairs[0].levels[1],
        context=context,
        overall=overall,
        pairs=len(pairs),
        seeds=len({pair.run for pair in pairs}),
        pretrainings=len({pair.start for pair in pairs} - {None}),
        tests=tests[0],
        accuracy_first=accuracy[0],
        accuracy_second=accuracy[1],
        p_corrected=None,
        bytes_first=_find_sizes(sides[0], precision),
        bytes_second=_find_sizes(sides[1], precision),
        **values,
    )


def has_hits(pair: Pair, metric: str) -> bool:
    """Whether both trials record which of the same images they classified correctly."""
    images = pair.first.test_images
    whole = all(len(read_hits(record, metric)) == len(images) > 0 for record in (pair.first, pair.second))
    return bool(pair.pictures) and whole and images == pair.second.test_images


def _measure_paired(pairs: Sequence[Pair], metric: str) -> dict[str, Any]:
    # When pretrainings are compared, one run occurs with several starts, because it does not include their seeds.
    runs = list(dict.fromkeys((pair.run, pair.start) for pair in pairs))
    # An image at several resolutions is still one image.
    pictures = [pair.first.pictures_fingerprint or pair.pictures for pair in pairs]
    images = len({(p, i) for p, pair in zip(pictures, pairs, strict=True) for i in pair.first.test_images})
    # If the records name people, all images of a person are resampled together and flip their sign together.
    clustered = all(names_people(pair.first) for pair in pairs)
    units = [pair.first.test_identities if clustered else pair.first.test_images for pair in pairs]
    names = sorted({(p, i) for p, own in zip(pictures, units, strict=True) for i in own})
    column = {name: number for number, name in enumerate(names)}
    totals, counts = np.zeros((2, len(runs), len(names)))
    only = np.zeros(2, int)
    for own, unit, pair in zip(pictures, units, pairs, strict=True):
        first, second = (read_hits(record, metric) for record in (pair.first, pair.second))
        columns = [column[own, one] for one in unit]
        run = runs.index((pair.run, pair.start))
        np.add.at(totals[run], columns, second.astype(int) - first.astype(int))
        np.add.at(counts[run], columns, 1)
        only += [(first & ~second).sum(), (second & ~first).sum()]
    low, high = compute_paired_interval(totals, counts, **label_draws(runs))
    return {
        "difference": compute_mean_difference(totals, counts),
        "images": images,
        "people": len(names) if clustered else None,
        "low": low,
        "high": high,
        "only_first": int(only[0]),
        "only_second": int(only[1]),
        "test": _name_test(clustered, counts),
        "p_value": compute_sign_flip_p_value(totals.sum(axis=0)),
    }


def _name_test(clustered: bool, counts: np.ndarray) -> str:
    if clustered:
        return "sign flip of people"
    return "mcnemar" if counts.sum(axis=0).max() == 1 else "sign flip"


def _find_sizes(records: Sequence[TrialRecord], precision: str) -> tuple[int, int] | None:
    sizes = [size for record in records if (size := getattr(record, f"bytes_{precision}")) is not None]
    return (min(sizes), max(sizes)) if sizes else None


def _correct(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    tested = [row.p_value for row in rows if row.p_value is not None]
    corrected = iter(correct_holm(tested))
    return [dataclasses.replace(row, p_corrected=None if row.p_value is None else next(corrected)) for row in rows]


def describe_blind(pairs: Sequence[Pair], metric: str) -> list[str]:
    """Return a note on the pairs that lack per-image results; none if all have them."""
    notes: list[str] = []
    blind = [pair for pair in pairs if not has_hits(pair, metric)]
    if blind and not MEASURES[metric].hits:
        notes.append(
            f"{metric} is not a share of tests: the two levels are treated as tested on different people, which makes "
            "the intervals wider than a paired comparison would, and they exclude variance between seeds; "
            "--metric accuracy compares the same networks image by image"
        )
    elif blind:
        how = (
            "they are left out of the rows that have other pairs"
            if len(blind) < len(pairs)
            else "the two levels are treated as tested on different images, which makes the intervals wider than a "
            "paired comparison would, and they exclude variance between seeds; run.retrain=true records the images"
        )
        notes.append(
            f"{len(blind)} of {len(pairs)} pairs do not record which of the same images were classified correctly "
            f"(older records, or different images): {how}"
        )
    return notes


def _describe_left_out(
    latest: Sequence[TrialRecord],
    alone: Sequence[TrialRecord],
    pairs: Sequence[Pair],
    factor: str,
    metric: str,
) -> list[str]:
    notes = describe_blind(pairs, metric)
    status = Counter(record.status for record in latest if not _is_done(record, metric))
    names = {
        "pruned": "pruned before the end",
        "over_cap": "over the cap",
        "failed": "failed",
        "done": f"done, without {metric}",
    }
    if status:
        notes.append("not compared: " + ", ".join(f"{count} {names[name]}" for name, count in status.items()))
    without = sum(factor not in read_settings(record) for record in alone if not factor.endswith(".name"))
    if without:
        notes.append(f"not compared, because they have no {shorten(factor)}: {_count(without)}")
    if len(alone) > without:
        notes.append(
            f"not compared, because no other trial differs from them only in the factor: {_count(len(alone) - without)}"
        )
    return notes


def _count(trials: int) -> str:
    return f"{trials} trial{'' if trials == 1 else 's'}"
