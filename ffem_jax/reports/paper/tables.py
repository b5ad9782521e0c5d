"""Table 2 from records: each network's accuracy and size, the frontier, and which orders are confirmed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffem_jax.analysis.comparability import Run, identify
from ffem_jax.analysis.comparison import Comparison, ComparisonRow
from ffem_jax.analysis.independence import label_draws
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary, summarize_records
from ffem_jax.metrics.intervals import compute_unpaired_interval, compute_wilson_interval
from ffem_jax.metrics.paired import compute_paired_interval
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.paper.published import NETWORKS, TESTED, PaperNetwork
from ffem_jax.reports.paper.settings import Setting, is_done

QUESTION = FrontierQuestion()  # accuracy against deployed float32 bytes, under WeChat's 10 MB


@dataclass(frozen=True)
class NetworkRow:
    """One network of a table.

    Args:
        summary: sizes, trials and failures. Its accuracy is the mean over all tests, and its interval covers images
            and, if `over_seeds`, seeds.
        missing: runs of the full set that it has not done.
    """

    network: PaperNetwork
    summary: NetworkSummary
    over_seeds: bool
    missing: tuple[Run, ...]


def make_rows(setting: Setting) -> list[NetworkRow]:
    """Return a row for each network of the paper that has a record, in the order of NETWORKS."""
    rows = []
    for network in NETWORKS:
        records = [record for record in setting.records if record.arch == network.name]
        if not records:
            continue
        (summary,) = summarize_records(records)
        done = setting.get_done(network.name)
        over_seeds = False
        if done:
            accuracy, low, high, over_seeds = measure_accuracy(done, summary.tested or 0)
            summary = dataclasses.replace(summary, accuracy=accuracy, accuracy_low=low, accuracy_high=high)
        ran = {identify(record).run for record in done}
        missing = tuple(run for run in setting.wanted if run not in ran)
        rows.append(NetworkRow(network, dataclasses.replace(summary, label=network.title), over_seeds, missing))
    return rows


def measure_accuracy(records: Sequence[TrialRecord], images: int) -> tuple[float, float, float, bool]:
    """Return the mean accuracy of a network's trials, with its interval.

    If there are several seeds and the records have per-image results, the interval covers seeds: images and seeds are
    resampled independently (`metrics/paired.py`). Otherwise it is Wilson's for the distinct test images.

    Args:
        records: the network's trials.
        images: the number of distinct test images.

    Returns:
        Mean accuracy over all tests and its 95 % interval (low, high), each in 0 to 1, and whether the interval covers
        seeds as well as images.

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (158), 1927.
    """
    tests = sum(record.tested or 0 for record in records)
    accuracy = sum(_count_correct(record) for record in records) / tests
    runs = list(dict.fromkeys(_find_run(record) for record in records))
    if len(runs) < 2 or any(len(record.hits) != len(record.test_images) or not record.hits for record in records):
        return accuracy, *compute_wilson_interval(accuracy * images, images), False
    names = sorted({(_identify_pictures(record), image) for record in records for image in record.test_images})
    column = {name: number for number, name in enumerate(names)}
    right, counts = np.zeros((2, len(runs), len(names)))
    for record in records:
        columns = [column[_identify_pictures(record), image] for image in record.test_images]
        run = runs.index(_find_run(record))
        right[run, columns] += np.frombuffer(record.hits.encode(), np.uint8) == ord("1")
        counts[run, columns] += 1
    labels = label_draws([(run, run.pretraining_seed) for run in runs])
    if right.sum() < counts.sum():
        low, high = compute_paired_interval(right, counts, **labels)
        return accuracy, max(0.0, low), high, True
    # Resampling only correct answers gives zero width, so use the interval of the errors.
    _, high = compute_paired_interval(counts - right, counts, **labels)
    return accuracy, 1.0 - high, 1.0, True


def _count_correct(record: TrialRecord) -> float:
    return (record.accuracy or 0.0) * (record.tested or 0) if record.correct is None else record.correct


def _find_run(record: TrialRecord) -> Run:
    """Return the run with all its folds."""
    return identify(record).run._replace(fold=0)


def _identify_pictures(record: TrialRecord) -> str:
    return record.pictures_fingerprint or record.data_fingerprint


# ------------------------------------------------------------------------------- the frontier


@dataclass(frozen=True)
class PaperFrontier:
    """Accuracy against deployed bytes, over the trials that all trained networks have.

    Args:
        summaries: by network, from those trials only.
        names: the networks on the frontier.
        whole: whether there are no other trials.
    """

    summaries: dict[str, NetworkSummary]
    names: tuple[str, ...]
    whole: bool

    def find_smaller(self, name: str) -> list[str]:
        """Return the other networks with at most the bytes of `name`."""
        own = QUESTION.get_bytes(self.summaries[name])
        return [other for other, s in self.summaries.items() if other != name and QUESTION.get_bytes(s) <= own]

    def find_dominators(self, name: str) -> list[str]:
        """Return the networks that are at least as small and as accurate as `name`, and better in one of the two."""
        own = self.summaries[name]
        found = []
        for other in self.find_smaller(name):
            gain = (self.summaries[other].accuracy or 0.0) - (own.accuracy or 0.0)
            smaller = QUESTION.get_bytes(self.summaries[other]) < QUESTION.get_bytes(own)
            if gain > 0 or (gain == 0 and smaller):
                found.append(other)
        return found


def find_frontier(setting: Setting) -> PaperFrontier | None:
    """Return the frontier of a setting; None if its networks share no trial (the same seed, split and fold)."""
    ran = {
        name: {identify(record).run for record in records}
        for name in (network.name for network in NETWORKS)
        if (records := setting.get_done(name))
    }
    shared = set.intersection(*ran.values()) if ran else set()
    if not shared:
        return None
    kept = tuple(record for record in setting.records if is_done(record) and identify(record).run in shared)
    rows = make_rows(dataclasses.replace(setting, records=kept))
    summaries = {row.network.name: row.summary for row in rows}
    marks = QUESTION.mark_frontier(list(summaries.values()))
    names = tuple(name for name, marked in zip(summaries, marks, strict=True) if marked)
    return PaperFrontier(summaries, names, all(own == shared for own in ran.values()))


# -------------------------------------------------------------------------------- the order


@dataclass(frozen=True)
class OrderedPair:
    """Two networks of the paper's Table 2, which ranks `higher` above `lower`.

    Args:
        claimed: the paper's difference, with the 95 % interval for two sets of TESTED images in `claimed_low` and
            `claimed_high`.
        difference: the difference measured here, in the same direction, with `low`, `high` and `p_corrected`; None if
            there is no pair.
        verdict: `confirmed`, `reversed`, `not told apart` or `not compared`.
    """

    lower: PaperNetwork
    higher: PaperNetwork
    claimed: float
    claimed_low: float
    claimed_high: float
    difference: float | None
    low: float | None
    high: float | None
    p_corrected: float | None
    verdict: str


def order_pairs(networks: Comparison | None) -> list[OrderedPair]:
    """Return every two networks of the paper's Table 2 with their result in `networks`, the comparison by name."""
    ranked = sorted((n for n in NETWORKS if n.correct is not None), key=lambda n: n.correct or 0)
    return [_judge(lower, higher, networks) for lower, higher in itertools.combinations(ranked, 2)]


def _judge(lower: PaperNetwork, higher: PaperNetwork, networks: Comparison | None) -> OrderedPair:
    counts = lower.correct or 0, higher.correct or 0
    claimed = (counts[1] - counts[0]) / TESTED
    ends = compute_unpaired_interval((counts[0], TESTED), (counts[1], TESTED))
    row = find_row(networks, lower.name, higher.name)
    if row is None:
        return OrderedPair(lower, higher, claimed, *ends, None, None, None, None, "not compared")
    verdict = "not told apart" if not row.significant else "confirmed" if row.difference > 0 else "reversed"
    return OrderedPair(lower, higher, claimed, *ends, row.difference, row.low, row.high, row.p_corrected, verdict)


def find_row(comparison: Comparison | None, first: str, second: str) -> ComparisonRow | None:
    """Return the row `second` minus `first`, inverted if it is stored the other way; None if there is none."""
    for row in comparison.rows if comparison else ():
        if (row.first, row.second) == (first, second):
            return row
        if (row.first, row.second) == (second, first):
            return dataclasses.replace(
                row,
                first=first,
                second=second,
                accuracy_first=row.accuracy_second,
                accuracy_second=row.accuracy_first,
                difference=-row.difference,
                low=-row.high,
                high=-row.low,
                only_first=row.only_second,
                only_second=row.only_first,
                bytes_first=row.bytes_second,
                bytes_second=row.bytes_first,
            )
    return None
