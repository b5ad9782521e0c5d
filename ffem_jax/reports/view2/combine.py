"""From trials to networks: the folds of one network with one seed become one accuracy and one ROC."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ffem_jax.analysis.comparability import Run, check_comparable, identify
from ffem_jax.analysis.summary import label_networks
from ffem_jax.errors import FfemError
from ffem_jax.metrics.verification import (
    Roc,
    compute_area,
    compute_equal_error_rate,
    compute_mean_and_error,
    compute_roc,
    compute_tar_at_far,
    compute_view2_accuracy,
)
from ffem_jax.records.record import TrialRecord, latest_records


class View2Error(FfemError):
    """There is no fold of View 2 in the records. The message is one line and says what to do."""


@dataclass(frozen=True)
class View2Result:
    """One network with one seed, trained separately for each fold. Rates are in 0 to 1.

    Args:
        label: distinguishes it from the other networks of the same call.
        folds, accuracies: the finished folds and their accuracies.
        missing: the unfinished folds.
        accuracy: the mean over `folds`.
        standard_error: the sample deviation over folds / sqrt(folds); None for one fold.
        accuracy_strangers, standard_error_strangers: the same at another threshold. For each fold it is the best
            threshold on the pairs of the other folds, at the distances from these folds' own networks, which were not
            trained on either person of a pair. None for one fold.
        same_pairs, different_pairs: the numbers of tested pairs over all folds.
        eer, auc, tar_at_far_1e2, tar_at_far_1e3: from all pairs pooled, at the distance from the network of their fold.
        pooled: the ROC of these pairs.
    """

    label: str
    seed: int
    params: int | None
    bytes_float32: int | None
    folds: tuple[int, ...]
    missing: tuple[int, ...]
    errors: tuple[str, ...]
    accuracies: tuple[float, ...]
    accuracy: float
    standard_error: float | None
    accuracy_strangers: float | None
    standard_error_strangers: float | None
    same_pairs: int
    different_pairs: int
    eer: float
    auc: float
    tar_at_far_1e2: float
    tar_at_far_1e3: float
    pooled: Roc


def combine_folds(records: Iterable[TrialRecord], among: Iterable[TrialRecord] = ()) -> list[View2Result]:
    """Return a result for each network and seed with a finished fold, in order of first appearance.

    Trials of other protocols are ignored.

    Args:
        among: all recorded trials, if `records` is a subset; it determines the network labels.

    Raises:
        View2Error: no fold of View 2 is done.
        FrontierError: the records mix data sets or their settings, so that accuracies are not comparable.
    """
    folds = [record for record in latest_records(records) if record.view.tests_pairs]
    if not any(_is_done(record) for record in folds):
        seen = f"; {len(folds)} trials of it failed, were pruned or refused" if folds else ""
        raise View2Error(
            f"no fold of View 2 is recorded as done{seen}: ffem train -m protocol=view2 protocol.fold=0,1,... data=lfw"
        )
    check_comparable(folds)
    # A run is all folds with one seed and one pretraining.
    groups: dict[tuple[str, Run], list[TrialRecord]] = defaultdict(list)
    for record in folds:
        identity = identify(record)
        groups[identity.network, identity.run._replace(fold=0)].append(record)
    done = {key: group for key, group in groups.items() if any(_is_done(record) for record in group)}
    labels = label_networks([*among, *folds])
    runs = {run for _, run in done}
    return [_combine(group, labels[network] + _tell_run(run, runs), run.seed) for (network, run), group in done.items()]


def _tell_run(run: Run, runs: Collection[Run]) -> str:
    """Return the text that distinguishes the run from the others, to append to a network's label."""
    words = [f"seed {run.seed}"] if len({one.seed for one in runs}) > 1 else []
    several = len({one.pretraining_seed for one in runs}) > 1
    words += [f"pretraining {run.pretraining_seed}"] if several else []
    words += [f"split {run.split_seed}"] if len({one.split_seed for one in runs}) > 1 else []
    return "".join(f", {word}" for word in words)


def _is_done(record: TrialRecord) -> bool:
    return record.status == "done" and bool(record.verification) and bool(record.tested)


def _combine(group: Sequence[TrialRecord], label: str, seed: int) -> View2Result:
    # Use the last record of a fold: an earlier one with another key had other pixels or other pairs.
    by_fold = {record.view.protocol.fold: record for record in group if _is_done(record)}
    folds = tuple(sorted(by_fold))
    done = [by_fold[fold] for fold in folds]
    wanted = range(done[0].view.folds)
    kinds = ("distances_same", "distances_different")
    distances, same, fold_of = zip(
        *((d, kind == kinds[0], fold) for kind in kinds for fold in folds for d in by_fold[fold].verification[kind]),
        strict=True,
    )
    roc = compute_roc(distances, same)
    accuracies = tuple((record.correct or 0) / (record.tested or 1) for record in done)
    accuracy, error = compute_mean_and_error(accuracies)
    strangers = compute_view2_accuracy(distances, same, fold_of) if len(folds) > 1 else (None, None)
    return View2Result(
        label=label,
        seed=seed,
        params=done[0].params,
        bytes_float32=done[0].bytes_float32,
        folds=folds,
        missing=tuple(fold for fold in wanted if fold not in by_fold),
        errors=tuple(dict.fromkeys(record.error for record in group if record.status == "failed")),
        accuracies=accuracies,
        accuracy=accuracy,
        standard_error=None if math.isnan(error) else error,
        accuracy_strangers=strangers[0],
        standard_error_strangers=strangers[1],
        same_pairs=sum(same),
        different_pairs=len(same) - sum(same),
        eer=compute_equal_error_rate(roc),
        auc=compute_area(roc),
        tar_at_far_1e2=compute_tar_at_far(roc, 1e-2),
        tar_at_far_1e3=compute_tar_at_far(roc, 1e-3),
        pooled=roc,
    )
