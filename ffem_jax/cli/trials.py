"""Resolves a key or a name to recorded trials and their folders."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.recorded import find_records
from ffem_jax.cli.terminal import UsageError, add_config_dir, say

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord

# Shortest accepted prefix of a key, and the number of candidates an error lists.
KEY_LETTERS, LISTED = 6, 6


@dataclass(frozen=True)
class Listed:
    """A recorded trial. label: the network's name among the others of this call; folder: the trial's folder, None if it
    is not beside its records; records: the file."""

    record: TrialRecord
    label: str
    folder: Path | None
    records: Path

    @property
    def run(self) -> tuple[int, int]:
        """Seed and fold, which distinguish a network's trials."""
        return self.record.seed, self.record.view.protocol.fold


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """The arguments --network and --best, which choose among the trials of a folder of records, and --config-dir."""
    add_config_dir(parser)
    parser.add_argument(
        "--network", default="", metavar="NAME|LABEL|KEY",
        help="in a folder of records: the network or trial of that name in ffem list; six letters of a key suffice",
    )  # fmt: skip
    parser.add_argument(
        "--best", action="store_true", help="in a folder of records: the most accurate network under its size limit"
    )


def list_trials(paths: Sequence[Path], where: Sequence[str] = ()) -> list[Listed]:
    """Every trial of the records that `paths` name, in order, as last recorded.

    Raises:
        UsageError: a path contains no records.
        FrontierError: a condition of `where` cannot be met; see `select_where`.
    """
    from ffem_jax.analysis.comparability import identify_network
    from ffem_jax.analysis.selection import select_where
    from ffem_jax.analysis.summary import label_networks
    from ffem_jax.records.record import latest_records, read_records

    files = find_records(paths)
    found = {path: latest_records(read_records(path)) for path in files}
    places = {record.trial_key: path for path, records in found.items() for record in records}
    records = latest_records(record for some in found.values() for record in some)
    labels = label_networks(records)
    folders = {path: find_folders(path.parent) for path in files}
    return [
        Listed(
            record,
            labels[identify_network(record)],
            _find_folder(record, places[record.trial_key], folders[places[record.trial_key]]),
            places[record.trial_key],
        )
        for record in select_where(records, where)
    ]


def find_folders(root: Path) -> dict[str, Path]:
    """The folder of each trial below `root`, by key: those whose trial.json or weights file names it."""
    folders: dict[str, Path] = {}
    for path in sorted(root.rglob("trial.json")):
        for weights in path.parent.glob("weights-*"):
            folders[weights.stem.removeprefix("weights-")] = path.parent
        try:
            keys = json.loads(path.read_text(encoding="utf-8"))["keys"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a trial's; loading it reports the error
        folders |= {key: path.parent for key in keys if isinstance(key, str)}
    return folders


def _find_folder(record: TrialRecord, path: Path, folders: dict[str, Path]) -> Path | None:
    named = path.parent / record.trial_dir
    if record.trial_key in folders or not record.trial_dir:
        return folders.get(record.trial_key)
    # Refused and failed trials leave no trial.json.
    return named if named.is_dir() else None


def find_network(trials: Sequence[Listed], called: str) -> list[Listed]:
    """Find the trials that `called` names: one by its key or a prefix of it, or all trials of one network by its label,
    name or folder.

    Raises:
        UsageError: it names no network, or several; the message lists the candidates.
    """
    if re.fullmatch(rf"[0-9a-f]{{{KEY_LETTERS},16}}", called):
        found = [one for one in trials if one.record.trial_key.startswith(called)]
        if len(found) > 1:
            raise UsageError(f"{called} is a prefix of several keys: {_join(one.record.trial_key for one in found)}")
        if found:
            return found
    for get in (lambda one: one.label, lambda one: one.record.arch, lambda one: one.record.trial_dir):
        found = [one for one in trials if called and get(one) == called]
        labels = list(dict.fromkeys(one.label for one in found))
        if len(labels) > 1:
            raise UsageError(f"{called!r} is the name of several networks; choose one of: {_join(map(repr, labels))}")
        if found:
            return found
    known = list(dict.fromkeys(name for one in trials for name in (one.label, one.record.arch) if name))
    near = difflib.get_close_matches(called, known, n=3)
    hint = f"did you mean {_join(map(repr, near))}?" if near else f"there are {_join(map(repr, known))};"
    raise UsageError(f"no recorded network or trial is called {called!r}; {hint} ffem list RECORDS lists all")


def find_best(trials: Sequence[Listed]) -> list[Listed]:
    """Find the done trials of the most accurate network under the records' size limit; the smallest among equals.

    Raises:
        UsageError: none is done and under the limit. FrontierError: the trials are not comparable.
    """
    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.analysis.comparability import select_comparable
    from ffem_jax.analysis.summary import summarize_records

    recorded = [one.record for one in trials]
    records, notes = select_comparable(recorded)
    cap, more = choose_cap(records)
    for note in (*notes, *more):
        say(f"ffem: warning: {note}")
    size = f"bytes_{cap.precision}"
    fitting = [
        one
        for one in summarize_records(records, among=recorded)
        if one.accuracy is not None and (getattr(one, size) or float("inf")) <= cap.megabytes * 1e6
    ]
    if not fitting:
        raise UsageError(f"no trained network is under the size limit of {cap}; choose one by name with --network")
    best = max(fitting, key=lambda one: (one.accuracy or 0.0, -getattr(one, size)))
    say(f"the best under {cap}: {best.label}, {100 * (best.accuracy or 0):.1f} %")
    if not best.above_chance:
        say(f"ffem: warning: it does not significantly beat guessing ({100 * (best.chance or 0):.1f} %); train longer")
    return [one for one in trials if one.record.trial_key in best.trial_keys and one.record.status == "done"]


def choose_folder(path: Path, network: str, best: bool, seed: int | None) -> tuple[Path, int | None]:
    """Return the trial folder and the seed to use: `path` itself, or one from its records.

    Args:
        path: a trial's folder or, with one of the options, records.
        network, best, seed: the options.

    Raises:
        UsageError: the options do not select one finished trial with an existing folder.
    """
    _check_options(network, best)
    if not (network or best):
        if path.is_dir() and not (path / "trial.json").exists() and any(path.rglob("records.jsonl")):
            raise UsageError(f"{path} contains records of several trials; choose one with --network NAME or --best")
        return path, seed
    trials = list_trials([path])
    chosen = find_network(trials, network) if network else find_best(trials)
    done = [one for one in chosen if one.record.status == "done"]
    if not done:
        record = chosen[0].record
        why = f", {record.error}" if record.error else ""
        raise UsageError(f"{chosen[0].label} has no finished trial: {record.status}{why}")
    seeds = sorted({one.record.seed for one in done})
    if seed is not None and seed not in seeds:
        raise UsageError(f"{done[0].label} has the seeds {', '.join(map(str, seeds))}; choose one of them with --seed")
    runs = sorted((one for one in done if seed in (None, one.record.seed)), key=lambda one: one.run)
    there = [one for one in runs if one.folder is not None]
    if not there:
        raise UsageError(
            f"the folder {runs[0].record.trial_dir or 'of the trial'} of {runs[0].label} is not below "
            f"{runs[0].records.parent}; give the trial's own folder"
        )
    one = there[0]
    fold = f", fold {one.run[1]}" if len({other.run[1] for other in runs}) > 1 else ""
    others = f" (of {len(done)} finished trials; --seed chooses)" if len(done) > 1 else ""
    say(f"trial: {one.label}, seed {one.record.seed}{fold}{others}, in {one.folder}")
    assert one.folder is not None
    return one.folder, one.record.seed


def find_trial_records(folder: Path) -> list[TrialRecord]:
    """The records of the trial in `folder`: see `find_nearest_records`."""
    from ffem_jax.records.record import find_nearest_records

    folder = folder.absolute()
    return find_nearest_records(folder, {key for key, place in find_folders(folder).items() if place == folder})


def choose_keys(paths: Sequence[Path], network: str, best: bool) -> list[str] | None:
    """Return the keys of the trials selected by the options from the records at `paths`; None without options.

    Raises:
        UsageError: as `find_network` and `find_best` do.
    """
    _check_options(network, best)
    if not (network or best):
        return None
    trials = list_trials(paths)
    return [one.record.trial_key for one in (find_network(trials, network) if network else find_best(trials))]


def _check_options(network: str, best: bool) -> None:
    if network and best:
        raise UsageError("--network and --best exclude each other; give one of them")


def _join(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
