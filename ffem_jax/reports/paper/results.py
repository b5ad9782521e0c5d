"""The results behind the page: each setting's tables, comparisons, groups and curves."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.comparison import Comparison
from ffem_jax.analysis.groups import NetworkGroups, choose_records, compute_groups
from ffem_jax.analysis.labels import describe_data
from ffem_jax.analysis.summary import FrontierError
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.comparison import comparison_to_dict
from ffem_jax.reports.groups import groups_to_dict
from ffem_jax.reports.paper.curves import Curve, describe_validation, make_curves
from ffem_jax.reports.paper.published import TESTED
from ffem_jax.reports.paper.settings import Setting, find_settings, is_done
from ffem_jax.reports.paper.tables import NetworkRow, OrderedPair, PaperFrontier, find_frontier, make_rows, order_pairs

FAMILY = ("ffem", "ffem_am", "ffem_se")  # they differ in attention alone


@dataclass(frozen=True)
class ImageGroups:
    """By column, the group name of every image of the data set ("" if not known), and the person on each image."""

    columns: Mapping[str, np.ndarray]
    people: np.ndarray


@dataclass(frozen=True)
class SettingResult:
    """The results under one recipe at one resolution. A text in place of a result says why there is none."""

    setting: Setting
    rows: tuple[NetworkRow, ...]
    frontier: PaperFrontier | None
    attention: Comparison | str
    networks: Comparison | str
    order: tuple[OrderedPair, ...]
    groups: tuple[NetworkGroups, ...] | str
    curves: tuple[Curve, ...]
    validation: str

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists."""
        names = self.frontier.names if self.frontier else ()
        networks = [
            {
                **dataclasses.asdict(row.summary),
                "name": row.network.name,
                "over_seeds": row.over_seeds,
                "missing": [[run.seed, run.split_seed, run.fold] for run in row.missing],
                "on_frontier": row.network.name in names if self.frontier else None,
                "paper_accuracy": row.network.accuracy,
                "paper_correct": row.network.correct,
                "paper_tested": TESTED if row.network.correct is not None else None,
            }
            for row in self.rows
        ]
        groups = self.groups
        return {
            "recipe": self.setting.recipe,
            "resolution": self.setting.resolution,
            "networks": networks,
            "frontier_over_all_trials": self.frontier.whole if self.frontier else None,
            "attention": self.attention if isinstance(self.attention, str) else comparison_to_dict(self.attention),
            "comparison": self.networks if isinstance(self.networks, str) else comparison_to_dict(self.networks),
            "order": [
                dataclasses.asdict(pair) | {"lower": pair.lower.name, "higher": pair.higher.name} for pair in self.order
            ],
            "groups": groups if isinstance(groups, str) else [groups_to_dict(one) for one in groups],
            "curves": [{**dataclasses.asdict(curve), "network": curve.network.name} for curve in self.curves],
            "validation": self.validation,
        }


@dataclass(frozen=True)
class PaperResult:
    """All settings. title: data set, protocol and test images. left_out: trials of other networks."""

    title: str
    synthetic: bool
    devices: Mapping[str, int]
    left_out: int
    settings: tuple[SettingResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists, ready for JSON; NaN becomes null."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "settings"}
        whole = {**fields, "settings": [result.to_dict() for result in self.settings]}
        # JSON has no NaN, which a curve may contain.
        return json.loads(json.dumps(whole), parse_constant=lambda _: None)


def compute_paper(records: Sequence[TrialRecord], groups: ImageGroups | str) -> PaperResult:
    """Return the results of every setting in `records`.

    Args:
        records: trials of the paper's networks; others are only counted.
        groups: the groups of the images, or why there are none.

    Raises:
        FrontierError: no trial is done, or see `find_settings`.
    """
    settings, left_out = find_settings(records)
    used = [record for setting in settings for record in setting.records]
    if not any(is_done(record) for record in used):
        status = Counter(record.status for record in used)
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in status.items())
        raise FrontierError(f"no trial of the paper's networks is done ({counts}); ffem sweep paper trains them")
    results = tuple(_compute_setting(setting, groups) for setting in settings)
    tests = (row.summary.tested for result in results for row in result.rows)
    return PaperResult(
        title=describe_data(used, (setting.resolution for setting in settings), tests),
        synthetic=any(record.synthetic or record.data == "synthetic" for record in used),
        devices=dict(Counter(record.device for record in used if is_done(record) and record.device)),
        left_out=left_out,
        settings=results,
    )


def _compute_setting(setting: Setting, groups: ImageGroups | str) -> SettingResult:
    networks = _compare(setting.records, "arch.name")
    done = [record for record in setting.records if is_done(record)]
    return SettingResult(
        setting=setting,
        rows=tuple(make_rows(setting)),
        frontier=find_frontier(setting),
        attention=_compare([record for record in setting.records if record.arch in FAMILY], "attention.kind"),
        networks=networks,
        order=tuple(order_pairs(None if isinstance(networks, str) else networks)),
        groups=groups if isinstance(groups, str) else _compute_groups(setting, groups),
        curves=tuple(make_curves(setting)),
        validation=describe_validation(done) if done else "",
    )


def _compare(records: Sequence[TrialRecord], factor: str) -> Comparison | str:
    try:
        return compare_records(records, factor)
    except FrontierError as error:
        return str(error)


def _compute_groups(setting: Setting, groups: ImageGroups) -> tuple[NetworkGroups, ...] | str:
    try:
        return tuple(compute_groups(choose_records(setting.records), groups.columns, groups.people))
    except FrontierError as error:
        return str(error)
