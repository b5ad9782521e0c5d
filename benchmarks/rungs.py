"""How well do early epochs predict the final ranking by accuracy? Kendall's tau, from the curves in records.

    python -m benchmarks.rungs results/placement/records.jsonl results/paper/records.jsonl
    python -m benchmarks.rungs outputs/search-lfw52/records.jsonl --epochs 1 2 4 --json

Successive halving depends on this (ffem_jax/search/halving.py): it decides on a trial by its accuracy at an early epoch
of its full schedule, where the learning rate is high. For comparison, the table has the agreement of two full trainings
of the same networks, which bounds what can be kept, and the ranking by MACs, which costs no training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import report
from ffem_jax.analysis.comparability import identify_network
from ffem_jax.metrics.ranking import RankAgreement, compute_kendall_tau, compute_rank_agreement
from ffem_jax.records.record import TrialRecord, latest_records, read_records

FEWEST_TRIALS = 5


@dataclass(frozen=True)
class Rung:
    """The agreement of `epoch` with the end. kept: of the final best 1 / reduction, the share kept by a cut to the best
    1 / reduction at this epoch. lost: final accuracy of the best trial, less that of the best trial kept."""

    epoch: int
    agreement: RankAgreement
    kept: float
    lost: float


@dataclass(frozen=True)
class Result:
    """Trials that may be ranked together.

    networks: their number; a network with another recipe counts separately. repeated: the mean tau of two runs of the
    same networks, over `pairs` pairs of runs; NaN if nothing was run twice.
    """

    title: str
    trials: int
    networks: int
    test_sets: int
    rungs: tuple[Rung, ...]
    repeated: float
    pairs: int
    macs: RankAgreement


def group_records(records: Sequence[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Group the finished trials that have a curve, by a title of what they share.

    The curve is the accuracy after each epoch. A trial without one, such as under protocol=open_set, has as its curve
    the records of its earlier stops (`run.stop_epoch`), with NaN in between.
    """
    stops: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        if record.status == "pruned" and record.accuracy is not None:
            stops[record.trial_key][record.epochs] = record.accuracy
    groups = defaultdict(list)
    for record in latest_records(records):
        if record.status != "done" or record.accuracy is None:
            continue
        if record.trial_key in stops and not record.validation_accuracy:
            curve = [stops[record.trial_key].get(epoch, math.nan) for epoch in range(1, record.epochs)]
            record = replace(record, validation_accuracy=[*curve, record.accuracy])
        if len(record.validation_accuracy) == record.epochs:
            title = f"{record.data}, {record.resolution} pixels, {record.protocol}, {record.epochs} epochs"
            title += f", pretrained on {record.view.pretrain.name}" * record.view.is_pretrained
            title += f", taught by {record.view.teacher.name}" * (record.view.teacher.name != "none")
            groups[title + ", synthetic faces" * record.synthetic].append(record)
    return dict(groups)


def compute_result(title: str, records: Sequence[TrialRecord], epochs: Sequence[int], reduction: int) -> Result | None:
    """Compute the agreement at each of `epochs` before the last; None for fewer than five trials.

    The mean over all trials on the same test images is subtracted, so that a hard fold does not make a network worse.
    """
    if len(records) < FEWEST_TRIALS:
        return None
    protocols = [{**record.spec["protocol"], "sigma": None} for record in records]
    tests = [json.dumps([r.data_fingerprint, p], sort_keys=True) for r, p in zip(records, protocols, strict=True)]
    _, of_test = np.unique(tests, return_inverse=True)

    def centre(accuracies: Sequence[float]) -> np.ndarray:
        means = np.bincount(of_test, accuracies) / np.bincount(of_test)
        return (accuracies - means[of_test]).round(12)  # so that equal counts stay equal

    final, places = centre([record.accuracy or 0.0 for record in records]), max(1, len(records) // reduction)
    rungs = []
    for epoch in sorted(set(epochs)):
        if 0 < epoch < records[0].epochs:
            early = centre([record.validation_accuracy[epoch - 1] for record in records])
            if np.isnan(early).any():
                continue
            kept, best = (np.argsort(-values, kind="stable")[:places] for values in (early, final))
            share, lost = len(set(kept) & set(best)) / places, float(final.max() - final[kept].max())
            rungs.append(Rung(epoch, compute_rank_agreement(early, final), share, lost))
    networks = [identify_network(record) for record in records]
    repeated = _compare_runs(networks, final)
    return Result(
        title=title,
        trials=len(records),
        networks=len(set(networks)),
        test_sets=len(set(tests)),
        rungs=tuple(rungs),
        repeated=float(np.mean(repeated)) if repeated else math.nan,
        pairs=len(repeated),
        macs=compute_rank_agreement([float(record.macs or 0) for record in records], final),
    )


def _compare_runs(networks: Sequence[str], final: np.ndarray) -> list[float]:
    """Return tau for each pair of runs; run n consists of the n-th trial of each network that has n trials."""
    runs: dict[str, list[float]] = defaultdict(list)
    for network, accuracy in zip(networks, final, strict=True):
        runs[network].append(float(accuracy))
    taus = []
    for one, other in itertools.combinations(range(max(map(len, runs.values()))), 2):
        both = [(run[one], run[other]) for run in runs.values() if len(run) > other]
        if len(both) > 1:
            taus.append(compute_kendall_tau(*np.transpose(both)))
    return [tau for tau in taus if not math.isnan(tau)]


def write_table(results: Sequence[Result], reduction: int) -> str:
    """Return a Markdown table of the results: a line for each rung of each group."""
    rows = []
    for result in results:
        sets = f", on {result.test_sets} sets of test images" if result.test_sets > 1 else ""
        name = f"{result.title}: {result.trials} trials of {result.networks} networks{sets}"
        for rung in result.rungs:
            rows.append([name, str(rung.epoch), str(rung.agreement), f"{rung.kept:.0%}", f"{100 * rung.lost:.1f}"])
            name = ""
        repeated = "not run twice" if math.isnan(result.repeated) else f"{result.repeated:.2f}"
        pairs = f", mean of {result.pairs} pairs of runs" if result.pairs > 1 else ""
        rows.append([name, f"another full training{pairs}", repeated, "", ""])
        rows.append(["", "none: by MACs alone", str(result.macs), "", ""])
    head = ["trials", "epoch", "tau with the end [95 %]", f"of the best 1/{reduction}, kept", "lost, points"]
    return report.write_table(head, rows, left=5)


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, or the numbers with --json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rungs", description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path, help="records files; each is evaluated separately")
    parser.add_argument("--epochs", nargs="+", type=int, default=[4, 8, 15], help="rungs (4 8 15)")
    parser.add_argument("--reduction", type=int, default=3, help="a cut keeps the best 1 / reduction (3)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    if options.reduction < 2:
        parser.error(f"--reduction {options.reduction} must be at least 2")
    results: list[Result] = []
    for path in options.records:
        try:
            groups = group_records(read_records(path))
        except OSError as error:
            parser.error(f"{path}: {error.strerror}")
        for title, records in groups.items():
            whole = f"{path.parent.name or path.stem}: {title}"
            if result := compute_result(whole, records, options.epochs, options.reduction):
                results.append(result)
            else:
                print(f"{path}: {len(records)} trials of {title} are too few to rank", file=sys.stderr)
    if not results:
        parser.error(f"no group has {FEWEST_TRIALS} finished trials with a curve; nothing can be ranked")
    if options.json:
        rows = json.dumps([asdict(result) for result in results])
        print(json.dumps(json.loads(rows, parse_constant=lambda _: None)))  # a NaN is null
    else:
        print(write_table(results, options.reduction))


if __name__ == "__main__":
    main()
