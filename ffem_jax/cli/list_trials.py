"""`ffem list RECORDS...`: lists every recorded trial with its key and its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.recorded import add_metric, add_where
from ffem_jax.cli.terminal import DONE, Parser, add_config_dir, print_table
from ffem_jax.cli.trials import list_trials
from ffem_jax.records.measures import MEASURES, read_rate
from ffem_jax.text.tables import Column, make_table

if TYPE_CHECKING:
    from ffem_jax.cli.trials import Listed


def run(words: Sequence[str]) -> int:
    """Print the trials."""
    parser = Parser("list", "Every recorded trial: network, seed, key, status, accuracy, bytes, folder.",
                    epilog="then: ffem show KEY RECORDS, or ffem export RECORDS --network KEY")  # fmt: skip
    add_record_paths(parser)
    add_where(parser)
    add_metric(parser)
    options = parser.parse_intermixed_args(words)
    trials = list_trials(options.records, options.where)
    if options.json:
        print(json.dumps([describe_trial(one, options.metric) for one in trials]))
        return DONE
    columns: list[Column | str] = [
        Column("network", fold=True),
        Column("seed", right=True, rank=1),
        *([Column("fold", right=True, rank=3)] if any(one.run[1] for one in trials) else []),
        Column("key", whole=True),
        "status",
        Column(f"{MEASURES[options.metric].word} %", right=True),
        Column("MB float32", right=True, rank=2),
        Column("folder", fold=True, rank=4),
    ]
    print_table(make_table(columns, [_make_row(one, len(columns) == 8, options.metric) for one in trials]))
    return DONE


def add_record_paths(parser: Parser) -> None:
    """The arguments RECORDS..., by default `outputs`, and --config-dir."""
    from pathlib import Path

    add_config_dir(parser)
    parser.add_argument(
        "records", nargs="*", type=Path, default=[Path("outputs")], metavar="RECORDS",
        help="records.jsonl, or a folder with some; default: outputs",
    )  # fmt: skip


def describe_trial(one: Listed, metric: str = "accuracy") -> dict[str, Any]:
    """Return a trial for JSON; rates in 0 to 1. metric: one of MEASURES, given in addition to accuracy."""
    record, (seed, fold) = one.record, one.run
    rates = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery")
    costs = ("params", "macs", "bytes_float32", "bytes_float16", "bytes_int8", "peak_activation_bytes")
    return {
        "network": one.label,
        "arch": record.arch,
        "seed": seed,
        "fold": fold,
        "trial_key": record.trial_key,
        "status": record.status,
        "synthetic": record.synthetic,
        **{name: getattr(record, name) for name in (*rates, *costs, "latency_ms_wasm")},
        metric: read_rate(record, metric),
        "error": record.error,
        "folder": None if one.folder is None else str(one.folder),
        "records": str(one.records),
    }


def _make_row(one: Listed, with_fold: bool, metric: str) -> list[str]:
    record, (seed, fold), rate = one.record, one.run, read_rate(one.record, metric)
    return [
        one.label,
        str(seed),
        *([str(fold)] if with_fold else []),
        record.trial_key,
        record.status,
        "-" if rate is None else f"{100 * rate:.1f}",
        "-" if record.bytes_float32 is None else f"{record.bytes_float32 / 1e6:.2f}",
        "-" if one.folder is None else str(one.folder),
    ]
