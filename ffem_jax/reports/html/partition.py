"""Splits records into groups that may share an axis: one data set, one protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ffem_jax.analysis.comparability import FrontierError, check_comparable, describe_pretraining, identify
from ffem_jax.records.record import TrialRecord


def split_comparable(records: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Return `records` in groups with comparable accuracies, by `check_comparable`, in order of appearance.

    A trial that never loaded its faces joins the first group that it fits.
    """
    alike: dict[str, list[TrialRecord]] = {}
    for record in records:
        alike.setdefault(_describe_axis(record), []).append(record)
    # Records with a fingerprint of their faces first: the others would fit too many groups.
    ordered = sorted(alike.values(), key=lambda group: not group[0].data_fingerprint)
    groups: list[list[TrialRecord]] = []
    representatives: list[list[TrialRecord]] = []
    for own in ordered:
        for group, known in zip(groups, representatives, strict=True):
            try:
                check_comparable([*known, own[0]])
            except FrontierError:
                continue
            group.extend(own)
            known.append(own[0])
            break
        else:
            groups.append(list(own))
            representatives.append([own[0]])
    place = {id(record): number for number, record in enumerate(records)}
    groups = [sorted(group, key=lambda record: place[id(record)]) for group in groups]
    return sorted(groups, key=lambda group: place[id(group[0])])


def _describe_axis(record: TrialRecord) -> str:
    """Return everything that `check_comparable` checks, as text."""
    fingerprints = [record.pictures_fingerprint, record.data_fingerprint, record.pretraining_fingerprint]
    setting = [identify(record).setting, describe_pretraining(record.view)]
    return json.dumps([setting, record.resolution, record.data_variant, record.synthetic, *fingerprints])
