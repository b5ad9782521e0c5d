"""Networks and trials for the page: numbers, settings, stage tables, learning curves, commands."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from typing import Any

from ffem_jax.analysis.pairing import list_levels, read_settings, shorten, sort_levels
from ffem_jax.analysis.summary import NetworkSummary, summarize_records
from ffem_jax.records.costs import COST_AXES
from ffem_jax.records.measures import MEASURES, list_metrics, read_interval, read_rate
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import UNREADABLE
from ffem_jax.reports.html.commands import make_overrides, make_run_overrides
from ffem_jax.reports.html.privacy import remove_paths
from ffem_jax.specs.architecture import ArchSpec, scale_repeats
from ffem_jax.specs.attention import get_attention_kind, get_title
from ffem_jax.specs.trial import PRECISIONS

LONGEST_LEVEL = 40  # letters; longer levels, such as stage tables, are not offered in a list
MANY_TRIALS = 1000  # with more, a curve keeps CURVE_POINTS epochs, so that the page stays small
CURVE_POINTS = 20
RATE_DIGITS = 9  # enough for the page and the commands to round alike
CURVES = {"loss": "loss", "train": "train_accuracy", "validation": "validation_accuracy"}


def list_factors(records: Sequence[TrialRecord]) -> dict[str, list[str]]:
    """Return the settings that vary between finished trials (or all, if none is), by full name, with their levels."""
    done = [record for record in records if record.status == "done"]
    levels = list_levels(done or records)
    return {
        name: sort_levels(dict.fromkeys(sorted(own)))
        for name, own in levels.items()
        if len(own) > 1 and max(map(len, own)) <= LONGEST_LEVEL
    }


class Words:
    """A table of texts, each stored once because many networks share it."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the index of `text` in the table."""
        return self.texts.setdefault(text, len(self.texts))


def describe_networks(
    records: Sequence[TrialRecord],
    factors: dict[str, list[str]],
    words: Words,
    metric: str,
    among: Sequence[TrialRecord] = (),
) -> tuple[list[dict[str, Any]], list[NetworkSummary]]:
    """Return one row per network, and their summaries by `metric` in the same order; among: see `label_networks`."""
    summaries = summarize_records(records, metric, among)
    by_key = {record.trial_key: record for record in records}
    rates: dict[str, list[list[float] | None]] = {metric: [_list_rate(s) for s in summaries]}
    for other in list_metrics(records):
        if other != metric:
            rates[other] = [_list_rate(s) for s in summarize_records(records, other)]
    rows = []
    for number, summary in enumerate(summaries):
        record = by_key[summary.trial_keys[0]]
        settings = read_settings(record) | {"arch.name": record.arch, "recipe.name": record.recipe}
        rows.append(
            {
                "label": summary.label,
                "attention": summary.attention,
                "status": _find_status(summary, [by_key[key] for key in summary.trial_keys]),
                "settings": [settings.get(name) for name in factors],
                "bytes": [getattr(summary, f"bytes_{precision}") for precision in PRECISIONS],
                **{axis.name: getattr(summary, axis.field) for axis in COST_AXES.values() if not axis.by_precision},
                "px": summary.resolution,
                "rates": {name: own[number] for name, own in rates.items() if own[number]},
                "seeds": len(summary.seeds),
                "folds": len(summary.folds),
                "complete": summary.complete,
                "stages": words.number(describe_stages(record)),
                "train": [words.number(word) for word in make_overrides(record.view)],
            }
        )
    return rows, summaries


def _list_rate(summary: NetworkSummary) -> list[float] | None:
    """Return accuracy, the ends of its interval, deviation between seeds (or -1) and number of test images."""
    if summary.accuracy is None or summary.accuracy_low is None or summary.accuracy_high is None:
        return None
    deviation = -1.0 if summary.seed_deviation is None else summary.seed_deviation
    rates = (summary.accuracy, summary.accuracy_low, summary.accuracy_high, deviation)
    return [*(round(rate, RATE_DIGITS) for rate in rates), summary.tested or 0]


def _find_status(summary: NetworkSummary, own: Sequence[TrialRecord]) -> str:
    """Return `done` if a trial has an accuracy, else the status of its trials."""
    statuses = [record.status for record in own]
    if summary.accuracy is not None or summary.status in statuses:
        return summary.status
    return statuses[0]


def describe_stages(record: TrialRecord) -> str:
    """Describe the network stage by stage: one line each with blocks, hidden, out, stride, attention, `|` between.

    Empty if this version cannot build the record's network.
    """
    try:
        network = record.view.network
    except UNREADABLE:
        return ""
    extra = "" if network.stem_extra == "none" else f" + {network.stem_extra.replace('_', ' ')}"
    lines = [f"stem{extra}|1||{network.stem_channels}|{network.stem_total_stride}|"]
    ends = itertools.accumulate(_count_blocks(record.view.arch), initial=0)
    for number, (first, last) in enumerate(itertools.pairwise(ends), 1):
        blocks = network.blocks[first:last]
        hidden = "/".join(dict.fromkeys(str(block.hidden_channels) for block in blocks))
        attention = ", ".join(
            f"{get_title(block.attention[0])} in block {first + place} ({_say_size(block.attention)})"
            for place, block in enumerate(blocks)
            if block.attention
        )
        out, stride = blocks[0].out_channels, blocks[0].stride
        lines.append(f"stage {number}, {blocks[0].kind}|{len(blocks)}|{hidden}|{out}|{stride}|{attention}")
    if network.head_channels:
        lines.append(f"head, 1x1|1||{network.head_channels}|1|")
    lines.append(f"pooling, {network.pooling.replace('_', ' ')}|1||{network.trunk_channels}||")
    lines.append(f"embedding|1||{network.embedding_dim}||")
    return "\n".join(lines)


def _count_blocks(arch: ArchSpec) -> list[int]:
    return [scale_repeats(stage.repeats, arch.depth_multiplier) for stage in arch.stages]


def _say_size(attention: tuple[Any, ...]) -> str:
    kind, position, _, *sizes = attention
    return ", ".join(filter(None, (get_attention_kind(kind).describe_sizes(tuple(sizes)), f"on the {position}")))


TRIAL_COLUMNS = (
    "network", "key", "seed", "fold", "status", "accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery",
    "epochs", "wall_seconds", "images_per_second", "started_at", "folder", "error", "run", "others",
)  # fmt: skip


def describe_trials(
    records: Sequence[TrialRecord], summaries: Sequence[NetworkSummary], words: Words
) -> list[list[Any]]:
    """Return a row of TRIAL_COLUMNS per trial.

    Errors are without paths. `folder` is the trial's folder inside the sweep's, quoted for a shell. `others` has the
    measures without a column, each with its interval.
    """
    network = {key: number for number, summary in enumerate(summaries) for key in summary.trial_keys}
    return [
        [
            network[record.trial_key],
            record.trial_key,
            record.seed,
            record.view.protocol.fold,
            record.status,
            *(_round(rate, RATE_DIGITS) for rate in (record.accuracy, record.accuracy_low, record.accuracy_high)),
            _round(record.accuracy_gallery, RATE_DIGITS),
            record.epochs,
            _round(record.wall_seconds, 1),
            _round(record.train_images_per_second, 1),
            record.started_at,
            _name_folder(record.trial_dir),
            remove_paths(record.error, _list_folders(record)),
            words.number(" ".join(make_run_overrides(record.view))),
            _list_others(record),
        ]
        for record in records
    ]


def _list_others(record: TrialRecord) -> dict[str, list[float]]:
    found = {}
    for name, measure in MEASURES.items():
        if measure.within and (rate := read_rate(record, name)) is not None:
            found[name] = [round(one, RATE_DIGITS) for one in (rate, *(read_interval(record, name) or ()))]
    return found


def _list_folders(record: TrialRecord) -> list[str]:
    data = [record.view.data, record.view.pretrain.data]
    return [record.trial_dir, *(str(getattr(one, name)) for one in data for name in ("root", "cache_dir"))]


def _name_folder(trial_dir: str) -> str:
    """Return the last part of a path of any operating system, quoted for a shell; empty if there is none."""
    # In a path with slashes, a backslash is an ordinary character.
    name = re.split(r"/" if "/" in trial_dir else r"\\", trial_dir.rstrip("/"))[-1]
    return shlex.quote(name) if name else ""


def describe_curves(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return, per trial and curve of CURVES, the values by epoch in thousandths; `at`: their epochs, if thinned.

    A missing value is null. A thinned curve keeps at most CURVE_POINTS epochs, including the last.
    """
    thinned = len(records) > MANY_TRIALS
    curves: dict[str, Any] = {name: [] for name in CURVES} | {"at": []}
    for record in records:
        epochs = max(len(getattr(record, field)) for field in CURVES.values())
        step = -(-epochs // CURVE_POINTS) if thinned and epochs else 1
        at = list(range((epochs - 1) % step, epochs, step)) if epochs else []
        curves["at"].append([epoch + 1 for epoch in at] if step > 1 else 0)
        for name, field in CURVES.items():
            values = getattr(record, field)
            kept = [values[epoch] for epoch in at if epoch < len(values)]
            curves[name].append([None if value is None else round(1000 * value) for value in kept])
    return curves


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def name_factors(factors: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return the factors as the page lists them."""
    return [{"name": shorten(name), "levels": levels} for name, levels in factors.items()]
