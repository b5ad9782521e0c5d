"""How reliably recorded accuracies rank networks: against another seed, against size alone, against fewer epochs."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffem_jax.analysis.comparability import Run, identify
from ffem_jax.analysis.independence import count_pretrainings
from ffem_jax.metrics.ranking import RankAgreement, compute_rank_agreement
from ffem_jax.records.measures import MEASURES, count_correct, read_rate
from ffem_jax.records.record import TrialRecord, latest_records

FEWEST_NETWORKS = 5  # below this, no rank agreement is reported


@dataclass(frozen=True)
class OrderAgreement:
    """Kendall's taus that put a ranking of networks by accuracy into perspective; None if not known.

    Args:
        seeds: accuracies with one seed against another; tau and the ends of its interval are means over pairs of seeds.
        macs: MACs against accuracy, a ranking that needs no training.
        epoch: accuracy after `rung_epoch` of `epochs` epochs against accuracy at the end.
        one_pretraining: whether the seeds of each network began from the same pretrained weights.
    """

    seeds: RankAgreement | None = None
    macs: RankAgreement | None = None
    epoch: RankAgreement | None = None
    rung_epoch: int = 0
    epochs: int = 0
    one_pretraining: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the taus as nested dicts, ready for JSON."""

        def plain(part: RankAgreement | None) -> dict[str, float] | None:
            return {"tau": part.tau, "low": part.low, "high": part.high, "networks": part.count} if part else None

        rung = {**(plain(self.epoch) or {}), "epoch": self.rung_epoch, "epochs": self.epochs} if self.epoch else None
        return {"seed_to_seed": plain(self.seeds), "macs_only": plain(self.macs), "early_epoch": rung}


def measure_agreement(records: Sequence[TrialRecord], metric: str = "accuracy") -> OrderAgreement:
    """Return the taus of `records`, which share one data set and protocol. Only networks trained to the end count.

    With fewer than FEWEST_NETWORKS networks a tau is None.

    Args:
        metric: see `summarize_records`.
    """
    latest = latest_records(latest_records(records), identify)
    done = [r for r in latest if r.status == "done" and r.tested and read_rate(r, metric) is not None]
    # Network -> run -> its folds.
    networks: dict[str, dict[Run, list[TrialRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in done:
        identity = identify(record)
        networks[identity.network][identity.run._replace(fold=0)].append(record)
    wanted = max((record.view.folds for record in done), default=1)
    runs = {
        network: {run: trials for run, trials in by_run.items() if len(trials) >= wanted}
        for network, by_run in networks.items()
    }
    runs = {network: by_run for network, by_run in runs.items() if by_run}
    accuracies = {
        network: {run: _pool(trials, lambda r: count_correct(r, metric)) for run, trials in by_run.items()}
        for network, by_run in runs.items()
    }
    means = {network: sum(by_run.values()) / len(by_run) for network, by_run in accuracies.items()}
    macs = {network: next(iter(by_run.values()))[0].macs for network, by_run in runs.items()}
    known = [network for network in means if macs[network] is not None]
    rung, epochs, early = _read_early(runs)
    return OrderAgreement(
        seeds=_compare_seeds(accuracies),
        macs=_compare([macs[n] or 0 for n in known], [MEASURES[metric].score(means[n]) for n in known]),
        epoch=_compare(list(early.values()), [MEASURES[metric].score(means[network]) for network in early]),
        rung_epoch=rung,
        epochs=epochs,
        one_pretraining=set(count_pretrainings(done).values()) == {1},
    )


def _compare(first: Sequence[float], second: Sequence[float]) -> RankAgreement | None:
    if len(first) < FEWEST_NETWORKS:
        return None
    found = compute_rank_agreement(first, second)
    return None if math.isnan(found.tau) else found


def _compare_seeds(accuracies: Mapping[str, Mapping[Run, float]]) -> RankAgreement | None:
    every = sorted({run for by_run in accuracies.values() for run in by_run})
    found = []
    for first, second in itertools.combinations(every, 2):
        both = [by_run for by_run in accuracies.values() if first in by_run and second in by_run]
        if first.pretraining_seed == second.pretraining_seed:
            # If a network has several pretrainings, two seeds that share one are not independent trainings.
            both = [by_run for by_run in both if len({run.pretraining_seed for run in by_run}) == 1]
        pair = _compare([by_run[first] for by_run in both], [by_run[second] for by_run in both])
        if pair:
            found.append(pair)
    if not found:
        return None
    tau, low, high = (sum(getattr(pair, name) for pair in found) / len(found) for name in ("tau", "low", "high"))
    return RankAgreement(tau, low, high, max(pair.count for pair in found))


def _read_early(
    runs: Mapping[str, Mapping[Run, Sequence[TrialRecord]]],
) -> tuple[int, int, dict[str, float]]:
    """Return a third of the epochs, all epochs, and each network's accuracy at the third; empty if lengths differ."""
    every = {network: [r for trials in by_run.values() for r in trials] for network, by_run in runs.items()}
    lengths = {len(record.validation_accuracy) for trials in every.values() for record in trials}
    epochs = lengths.pop() if len(lengths) == 1 else 0
    if epochs < 3:
        return 0, 0, {}
    rung = round(epochs / 3)
    early = {
        network: _pool(trials, lambda r: r.validation_accuracy[rung - 1] * (r.tested or 0))
        for network, trials in every.items()
    }
    return rung, epochs, early


def _pool(trials: Sequence[TrialRecord], count: Callable[[TrialRecord], float]) -> float:
    return sum(count(record) for record in trials) / sum(record.tested or 0 for record in trials)
