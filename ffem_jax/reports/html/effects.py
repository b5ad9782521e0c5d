"""The effects of settings: means by level, paired comparisons, and the growth of the frontier over trainings."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.comparison import Comparison
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.analysis.pairing import shorten
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import FrontierError, NetworkSummary
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.records.measures import count_correct, read_rate
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.comparison import format_interval, write_sentence
from ffem_jax.text.numbers import format_p

# Maximum number of trials: pairs grow with its square. `ffem compare` has no limit.
MOST_COMPARED = 600
MOST_LEVELS = 12  # per factor; more would be a list of networks, not a comparison
MOST_STEPS = 200  # points of the hypervolume curve


def describe_levels(
    networks: Sequence[dict[str, Any]], factors: dict[str, list[str]], metric: str
) -> list[dict[str, Any]]:
    """Return, per factor and level, the mean accuracy, the quartiles and the number of its trained networks."""
    rows = []
    for number, (name, levels) in enumerate(factors.items()):
        rates: dict[str, list[float]] = defaultdict(list)
        for network in networks:
            level = network["settings"][number]
            if level is not None and metric in network["rates"]:
                rates[level].append(network["rates"][metric][0])
        for level in levels:
            if own := rates.get(level):
                low, _, high = statistics.quantiles(own, n=4, method="inclusive") if len(own) > 1 else (own[0],) * 3
                row = {"factor": shorten(name), "level": level, "mean": statistics.fmean(own), "networks": len(own)}
                rows.append(row | {"low": low, "high": high})
    return rows


def compare_factors(
    records: Sequence[TrialRecord], factors: dict[str, list[str]], question: FrontierQuestion
) -> list[dict[str, Any]]:
    """Return, per factor, the rows of `ffem compare` with their sentences, or a note why there are none."""
    done = [record for record in records if record.status == "done"]
    found = []
    for name, levels in factors.items():
        entry: dict[str, Any] = {"factor": shorten(name), "rows": [], "notes": []}
        if len(done) > MOST_COMPARED or len(levels) > MOST_LEVELS:
            many = f"{len(done)} trials" if len(done) > MOST_COMPARED else f"{len(levels)} levels"
            entry["notes"].append(f"{many} are too many for a page: ffem compare RECORDS --factor {shorten(name)}")
        else:
            try:
                comparison = compare_records(done, shorten(name), metric=question.metric, precision=question.precision)
            except FrontierError as error:
                entry["notes"].append(str(error))
            else:
                entry |= {"rows": _list_rows(comparison), "notes": [*comparison.notes, *comparison.exclusions]}
        found.append(entry)
    return found


def _list_rows(comparison: Comparison) -> list[dict[str, Any]]:
    fields = ("first", "second", "context", "overall", "pairs", "images", "difference", "low", "high", "p_corrected")
    return [
        {name: getattr(row, name) for name in fields}
        | {
            "shown": row.significant,
            "better": comparison.is_better(row),
            "points": format_interval(row),
            "p": format_p(row.p_corrected),
        }
        | {"sentence": write_sentence(row, comparison)}
        for row in comparison.rows
    ]


def follow_hypervolume(
    records: Sequence[TrialRecord], summaries: Sequence[NetworkSummary], question: FrontierQuestion
) -> list[list[float]]:
    """Return (trainings done, share of cap and perfect accuracy that the frontier covers), in order of start time.

    A network counts with the images of its trials so far. There are at most MOST_STEPS points, including the last.
    """
    place = {key: number for number, summary in enumerate(summaries) for key in summary.trial_keys}
    done = [r for r in records if r.status == "done" and read_rate(r, question.metric) is not None and r.tested]
    done.sort(key=lambda record: record.started_at)
    cap = question.cap_mb * BYTES_PER_MB
    costs = [question.get_bytes(summary) for summary in summaries]
    right, tested = [0.0] * len(summaries), [0] * len(summaries)
    step = -(-len(done) // MOST_STEPS)
    points = []
    for number, record in enumerate(done, 1):
        own, images = place[record.trial_key], record.tested or 0
        right[own] += count_correct(record, question.metric)
        tested[own] += images
        if (len(done) - number) % step == 0:
            score = question.measure.score
            values = [score(a / n) if n else float("nan") for a, n in zip(right, tested, strict=True)]
            points.append([number, round(compute_hypervolume(costs, values, cap, 0.0) / cap, 6)])
    return points
