"""`ffem show KEY|NAME [RECORDS]`: shows everything recorded about one trial or network, and its files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffem_jax.cli.list_trials import add_record_paths, describe_trial
from ffem_jax.cli.terminal import DONE, Parser, print_table, show
from ffem_jax.cli.trials import find_network, list_trials
from ffem_jax.text.tables import Column, make_table

if TYPE_CHECKING:
    from ffem_jax.cli.trials import Listed


def run(words: Sequence[str]) -> int:
    """Print settings, accuracy, cost and files."""
    parser = Parser("show", "Show one recorded trial or network: settings, accuracy of each seed, cost, folder, files.")
    parser.add_argument("network", metavar="KEY|NAME", help="as shown by ffem list; six letters of a key suffice")
    add_record_paths(parser)
    options = parser.parse_intermixed_args(words)
    trials = find_network(list_trials(options.records), options.network)
    settings = find_settings(trials[0])
    if options.json:
        rows = [describe_trial(one) | {"files": list_files(one.folder)} for one in trials]
        print(json.dumps({"network": trials[0].label, "settings": settings, "trials": rows}))
        return DONE
    show_network(trials, settings)
    return DONE


def find_settings(one: Listed) -> dict[str, Any]:
    """Return a trial's non-default settings by command-line key, without file locations and without the settings that
    distinguish the network's trials."""
    from ffem_jax.specs.teacher import TeacherSpec
    from ffem_jax.specs.trial import TrialSpec, to_plain

    defaults = _flatten(to_plain(TrialSpec()) | {"teacher": dataclasses.asdict(TeacherSpec())})
    left_out = ["seed", "protocol.fold", "protocol.split_seed", "data.cache_dir", "pretrain.data.cache_dir"]
    if one.record.view.arch.attention.kind == "none":
        left_out += [key for key in defaults if key.startswith("arch.attention.")]  # which this attention does not read
    return {
        key: value
        for key, value in _flatten(one.record.spec).items()
        if key not in left_out and (key not in defaults or defaults[key] != value)
    }


def _flatten(spec: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings by command-line key."""
    from ffem_jax.records.record import flatten_spec

    flat = flatten_spec(json.loads(json.dumps(spec)))  # tuples become lists, as in the record
    return {f"arch.{key}" if key.startswith("attention.") else key: value for key, value in flat.items()}


def list_files(folder: Path | None) -> dict[str, int]:
    """Return the files directly in a trial's folder with their sizes in bytes."""
    if folder is None:
        return {}
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def show_network(trials: Sequence[Listed], settings: dict[str, Any]) -> None:
    """Print everything as text."""
    first = trials[0].record
    drawn = " (synthetic faces)" if first.synthetic else ""
    show(f"{trials[0].label}: data={first.data}{drawn} at {first.pixels} pixels, protocol={first.protocol}")
    show("non-default settings:")
    for key, value in settings.items():
        show(f"  {key}={json.dumps(value) if isinstance(value, list) else value}", whole=True)
    rows = [[name, text] for name, text in _describe_cost(trials)]
    if rows:
        print_table(make_table(["cost", Column("", right=True)], rows))
    folds = any(one.run[1] for one in trials)
    columns: list[Column | str] = [
        Column("seed", right=True),
        *([Column("fold", right=True)] if folds else []),
        Column("key", whole=True),
        "status",
        Column("accuracy % [95 %]", right=True),
        Column("folder", fold=True, rank=1),
    ]
    print_table(make_table(columns, [_make_row(one, folds) for one in trials]))
    for one in trials:
        if one.record.error:
            show(f"{one.record.trial_key}: {one.record.error}")
    for folder in dict.fromkeys(one.folder for one in trials if one.folder is not None):
        show(f"{folder}:", whole=True)
        for name, size in list_files(folder).items():
            show(f"  {name}: {size:,} bytes")


def _describe_cost(trials: Sequence[Listed]) -> list[tuple[str, str]]:
    sized = next((one.record for one in trials if one.record.params is not None), trials[0].record)
    timed = next((one.record.latency_ms_wasm for one in trials if one.record.latency_ms_wasm is not None), None)
    names = ("params", "macs", "bytes_float32", "bytes_float16", "bytes_int8", "peak_activation_bytes")
    rows = [(name, f"{value:,}") for name in names if (value := getattr(sized, name)) is not None]
    return rows + ([("latency_ms_wasm", f"{timed:.2f}")] if timed is not None else [])


def _make_row(one: Listed, with_fold: bool) -> list[str]:
    record, (seed, fold) = one.record, one.run
    accuracy = "-"
    if record.accuracy is not None:
        accuracy = f"{100 * record.accuracy:.1f}"
        if record.accuracy_low is not None and record.accuracy_high is not None:
            accuracy += f" [{100 * record.accuracy_low:.1f}, {100 * record.accuracy_high:.1f}]"
    run = [str(seed), *([str(fold)] if with_fold else [])]
    return [*run, record.trial_key, record.status, accuracy, "-" if one.folder is None else str(one.folder)]
