"""`ffem groups`: the accuracy of each recorded network on groups of its test images."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ffem_jax.analysis.comparability import FrontierError, check_comparable, identify, identify_network
from ffem_jax.analysis.pooling import read_hits
from ffem_jax.analysis.summary import label_networks
from ffem_jax.metrics.paired import correct_holm
from ffem_jax.metrics.subgroups import (
    Gap,
    GroupAccuracy,
    compute_group_accuracies,
    compute_largest_gap,
)
from ffem_jax.records.measures import MEASURES
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.text.names import tidy_name

MOST_VALUES = 6  # maximum for a numeric column to be used as group names


@dataclass(frozen=True)
class NetworkGroups:
    """One network by one column. unknown: tested images without a value. p_corrected: p-value of the gap, by Holm."""

    network: str
    column: str
    groups: tuple[GroupAccuracy, ...]
    gap: Gap | None
    p_corrected: float | None
    images: int
    unknown: int
    seeds: int


def choose_records(records: Sequence[TrialRecord], metric: str = "accuracy") -> list[TrialRecord]:
    """Select the trials that record which test images were correct, one per training. Raises FrontierError if there are
    none, for several data sets, and for a metric that is not a share of images."""
    if not MEASURES[metric].hits:
        counted = ", ".join(name for name, measure in MEASURES.items() if measure.hits)
        raise FrontierError(f"--metric {metric} is not a share of images, which groups need; choose one of: {counted}")
    done = [record for record in latest_records(records) if record.status == "done"]
    chosen = [r for r in done if len(read_hits(r, metric)) == len(r.test_images) > 0]
    strangers = [record for record in done if record.view.tests_strangers]
    if not chosen and strangers:
        raise FrontierError(
            f"no record of protocol={strangers[0].view.protocol.name} says which images are correct by {metric}; "
            "choose --metric accuracy and records of images"
        )
    if not chosen:
        raise FrontierError(
            f"none of the {len(done)} finished trials records which images were classified correctly: an "
            "older release wrote them; retrain with run.retrain=true"
        )
    check_comparable(chosen)
    return latest_records(chosen, identify)


def compute_groups(
    records: Sequence[TrialRecord],
    columns: Mapping[str, np.ndarray],
    people: np.ndarray,
    metric: str = "accuracy",
    *,
    among: Sequence[TrialRecord] = (),
) -> list[NetworkGroups]:
    """Evaluate each network by each column, from the records of `choose_records`.

    Args:
        columns: for each, the group name of every image in the data set, "" if unknown.
        people: int [image].
        among: all recorded trials, including `records`: networks get the same labels as in their frontier.
    """
    networks: dict[str, list[TrialRecord]] = {}
    for record in records:
        networks.setdefault(identify_network(record), []).append(record)
    labels = label_networks([*among, *records])
    found = []
    for network, group in networks.items():
        label = labels[network]
        right, tests = np.zeros((2, len(people)))
        for record in group:
            right[record.test_images] += read_hits(record, metric)
            tests[record.test_images] += 1
        for column, names in columns.items():
            kept = (tests > 0) & (names != "")
            arrays = right[kept] / tests[kept], names[kept], people[kept]
            found.append(
                NetworkGroups(
                    network=label,
                    column=column,
                    groups=compute_group_accuracies(*arrays),
                    gap=compute_largest_gap(*arrays),
                    p_corrected=None,
                    images=int((tests > 0).sum()),
                    unknown=int(((tests > 0) & (names == "")).sum()),
                    seeds=len({record.seed for record in group}),
                )
            )
    corrected = iter(correct_holm([one.gap.p_value for one in found if one.gap]))
    return [dataclasses.replace(one, p_corrected=next(corrected) if one.gap else None) for one in found]


def cut_columns(attributes: Mapping[str, np.ndarray], wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return group names by column, and a note on each skipped column.

    wanted: `gender`, or `glasses:0.1,0.5` to bin numbers into three; empty uses every column whose values can be names.
    Raises FrontierError for a missing column, or one whose numbers need bins.
    """
    columns: dict[str, np.ndarray] = {}
    notes = []
    for word in wanted or attributes:
        name, cuts = _split_wish(word, attributes)
        if name in columns:
            raise FrontierError(f"column {name} is requested twice; give it once, with all cuts, as in {name}:0.1,0.5")
        values = attributes[name]
        if cuts:
            columns[name] = _cut(name, values, cuts)
        elif values.dtype.kind != "f":
            columns[name] = values.astype(str)
        elif len(np.unique(values[~np.isnan(values)])) <= MOST_VALUES:
            columns[name] = np.array(["" if np.isnan(value) else _name_number(value) for value in values])
        elif wanted:
            raise FrontierError(f"column {name} has many numbers; give cuts, as in {name}:0.5")
        else:
            notes.append(f"{name} has many numbers and is skipped; --by {name}:0.5 bins it")
    return columns, notes


def _split_wish(word: str, attributes: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Parse column and cuts of `glasses:0.1,0.5`; a column's name may contain a colon, in any normal form."""
    columns = {tidy_name(name): name for name in attributes}
    for wish, cuts in ((word, ""), word.rpartition(":")[::2]):
        if (name := tidy_name(wish)) in columns:
            return columns[name], cuts
    name = word.rpartition(":")[0] or word
    raise FrontierError(f"there is no column {name!r}; choose one of: {', '.join(attributes) or 'none'}")


def _name_number(value: float) -> str:
    return f"{value:.15g}"  # with fewer digits two numbers could share a name


def _cut(name: str, values: np.ndarray, cuts: str) -> np.ndarray:
    try:
        edges = sorted({float(cut) for cut in cuts.split(",")})
        numbers = values.astype(float)
        if not np.isfinite(edges).all():
            raise ValueError
    except ValueError:
        raise FrontierError(f"{name}:{cuts} is not valid: both the cuts and the column must be numbers") from None
    texts = [_name_number(edge) for edge in edges]
    between = [f"above {a} to {b}" for a, b in itertools.pairwise(texts)]
    names = np.array([f"{texts[0]} or less", *between, f"above {texts[-1]}"])
    return np.where(np.isnan(numbers), "", names[np.searchsorted(edges, numbers).clip(max=len(edges))])
