"""Retrain records drawn at random: is each new accuracy within its own interval?

    FFEM_LFW_ROOT=lfw python -m benchmarks.rerun results/placement results/depth results/attention

It prints a table and keeps the trials in outputs/rerun, where a stopped one resumes. The draw is the same each time.
Taught records need their teacher's vectors at the recorded path, such as teacher.npz in this folder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks import harness, report
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.records.view import read_trial
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.trial import RunSpec

HEAD = ["folder", "trial", "network", "attention", "seed", "then, % [95 %]", "now, %", "within"]


def train_again(record: TrialRecord, folder: Path) -> TrialRecord:
    """Retrain a record's trial and return the new record. Raises SystemExit if the trial fails."""
    place = folder / record.trial_key
    (again,) = run_trials(read_trial(record.spec), RunSpec(train_over_cap=True), place, place / "records.jsonl")
    if again.accuracy is None:
        raise SystemExit(f"{record.trial_key} ended as {again.status}: {again.error}")
    return again


def describe(name: str, then: TrialRecord, now: TrialRecord) -> list[str]:
    """Format a row of the table."""
    accuracy, low, high, again = (
        value or 0.0 for value in (then.accuracy, then.accuracy_low, then.accuracy_high, now.accuracy)
    )
    attention = then.view.arch.attention
    return [
        *(name, f"`{then.trial_key}`", then.arch, f"{attention.kind} {attention.placement}", str(then.seed)),
        *(f"{100 * accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]", f"{100 * again:.1f}"),
        "yes" if low <= again <= high else "**no**",
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Draw, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with records.jsonl")
    parser.add_argument("--out", type=Path, default=Path("outputs/rerun"), help="where trials are kept")
    harness.add_numbers(parser, draw=(3, "number of records"))
    options = parser.parse_args(words)
    harness.check_positive(options, "draw")
    known = {
        record.trial_key: (folder.name, record)
        for folder in options.folders
        for record in latest_records(read_records(folder / "records.jsonl"))
        if record.status == "done" and not record.pretraining_fingerprint
    }
    drawn = random.Random(0).sample(sorted(known), min(options.draw, len(known)))
    rows = [describe(*known[key], train_again(known[key][1], options.out)) for key in drawn]
    print(report.write_table(HEAD, rows, left=4))


if __name__ == "__main__":
    main()
