"""Finds the recorded trials of the paper's networks and groups them by table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ffem_jax.analysis.comparability import FrontierError, Run, check_comparable, describe_pretraining, identify
from ffem_jax.analysis.independence import count_pretrainings, describe_exclusions
from ffem_jax.analysis.pairing import read_settings
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.reports.paper.published import NETWORKS, PaperNetwork, find_network, load_arch
from ffem_jax.specs.trial import to_plain


@dataclass(frozen=True)
class Setting:
    """The paper's networks under one recipe at one resolution, which form one table.

    Args:
        recipe: its name, with the settings that distinguish it from another recipe of that name.
        records: one per trial, in the order of NETWORKS, with the network's name and fields from conf/arch/, whatever
            its name in the trial.
    """

    recipe: str
    resolution: int
    records: tuple[TrialRecord, ...]

    @property
    def label(self) -> str:
        """Recipe and resolution."""
        return f"{self.recipe}, {self.resolution} x {self.resolution}"

    @property
    def pretrained_once(self) -> bool:
        """Whether its trials began from pretrained weights, the same in each of a network's trials."""
        return max(count_pretrainings(list(filter(is_done, self.records))).values(), default=0) == 1

    @property
    def folds(self) -> int:
        """The number of folds of the full set."""
        return self.records[0].view.folds

    @property
    def wanted(self) -> list[Run]:
        """The runs of a network in the full set: every fold with every seed that any network was trained with."""
        runs = sorted({identify(record).run._replace(fold=0) for record in self.records})
        return [run._replace(fold=fold) for run in runs for fold in range(self.folds)]

    def describe_exclusions(self, drawn: bool) -> list[str]:
        """Return a sentence for each thing that the finished trials share; drawn: whether trainings are resampled."""
        return describe_exclusions(list(filter(is_done, self.records)), drawn=drawn)

    def get_done(self, name: str) -> list[TrialRecord]:
        """Return the finished trials of the network `name`."""
        return [record for record in self.records if record.arch == name and is_done(record)]


def find_settings(records: Iterable[TrialRecord]) -> tuple[list[Setting], int]:
    """Return the settings, by label, and the number of trials of other networks, which are left out.

    Raises:
        FrontierError: there is no trial of the paper's networks, they mix data sets or protocols, or the protocol is
            open_set or view2, whose accuracies are not closed-set.
    """
    latest = latest_records(records)
    named = [(record, network) for record in latest if (network := find_network(record))]
    if not named:
        names = ", ".join(network.name for network in NETWORKS)
        raise FrontierError(
            f"none of {len(latest)} recorded trials is of one of the paper's networks ({names}, as defined in "
            "conf/arch); ffem sweep paper trains them"
        )
    check_comparable([record for record, _ in named])
    if any(record.view.protocol.name == "open_set" for record, _ in named):
        raise FrontierError(
            "the paper's tables are for people known to the classifier, but protocol=open_set tests others; use "
            "ffem frontier or ffem compare"
        )
    if any(record.view.tests_pairs for record, _ in named):
        raise FrontierError("the paper's tables are for images, but protocol=view2 tests pairs; use ffem verify")
    groups: dict[str, list[tuple[TrialRecord, PaperNetwork]]] = {}
    for record, network in sorted(named, key=lambda both: NETWORKS.index(both[1])):
        groups.setdefault(_identify(record), []).append((record, network))
    recipes = _name_recipes([group[0][0] for group in groups.values()])
    settings = [
        Setting(recipe, group[0][0].pixels, tuple(_rename(*both, group[0][0]) for both in group))
        for recipe, group in zip(recipes, groups.values(), strict=True)
    ]
    return sorted(settings, key=lambda setting: (setting.recipe, setting.resolution)), len(latest) - len(named)


def is_done(record: TrialRecord) -> bool:
    """Whether the trial has an accuracy."""
    return record.status == "done" and record.accuracy is not None and bool(record.tested)


def _identify(record: TrialRecord) -> str:
    started_from = describe_pretraining(record.view)
    return json.dumps([record.pixels, _read_recipe(record), started_from], sort_keys=True)


def _read_recipe(record: TrialRecord) -> dict[str, str]:
    settings = read_settings(record)
    return {name.removeprefix("recipe."): value for name, value in settings.items() if name.startswith("recipe.")}


def _name_recipes(firsts: Sequence[TrialRecord]) -> list[str]:
    """Return a name for each recipe, given a trial of each; equal names get the settings that differ."""
    names = []
    for record in firsts:
        own = _read_recipe(record)
        peers = [_read_recipe(other) for other in firsts if other.recipe == record.recipe]
        differing = [name for name, value in own.items() if any(peer.get(name) != value for peer in peers)]
        words = [record.recipe or "recipe", *(f"{name.replace('_', ' ')} {own[name]}" for name in differing)]
        names.append(
            ", ".join(words) + (f", pretrained on {record.view.pretrain.name}" if record.view.is_pretrained else "")
        )
    return names


def _rename(record: TrialRecord, network: PaperNetwork, first: TrialRecord) -> TrialRecord:
    """Return the record with canonical network and recipe, so that equal networks have equal descriptions."""
    spec = {**record.spec, "arch": to_plain(load_arch(network.name)), "recipe": first.view.get_written("recipe")}
    return dataclasses.replace(record, arch=network.name, spec=spec)
