"""Tables of trained networks to replay searches on: NAS-Bench-Macro, or any records of this project."""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.analysis.comparability import check_comparable, identify_network
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.records.record import TrialRecord, latest_records, read_records
from ffem_jax.search.model.encoding import embed_codes, encode_points
from ffem_jax.search.space import Choice, Point, SearchSpace

COSTS = ("macs", "params", "bytes_float32", "bytes_float16", "bytes_int8")
ABSENT = "absent"  # the value of a choice that a spec lacks


@dataclass
class Memory:
    """The knowledge of a search. seen: the accuracy of each fully trained network; started: all that were started."""

    seen: dict[int, float] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)


@dataclass
class Table:
    """Networks with known trainings.

    trainings: each network's accuracies, one per training, in 0 to 1; truth: their means, [network]. whole: every point
    of the space is in the table. tested: test images per accuracy, or None. curves: [network, epoch], the accuracy
    after each epoch, or None. codes, features: of the networks, [network, choice] and [network, feature]. reference:
    the reference point of hypervolumes, the largest cost and the 1 % quantile of accuracy. best: the hypervolume of the
    table's own frontier.
    """

    name: str
    title: str
    space: SearchSpace
    points: list[Point]
    costs: np.ndarray
    cost_name: str
    trainings: list[np.ndarray]
    whole: bool
    tested: int | None = None
    curves: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.truth = np.array([accuracies.mean() for accuracies in self.trainings])
        self.codes = encode_points(self.space, self.points)
        self.features = embed_codes(self.space, self.codes)
        self.reference = float(self.costs.max()), float(np.quantile(self.truth, 0.01))
        self.best = compute_hypervolume(self.costs, self.truth, *self.reference)

    def score(self, seen: dict[int, float]) -> float:
        """Return the true hypervolume of the frontier found from the accuracies `seen`, as a share of the table's
        own."""
        networks = np.array(list(seen))
        shown = networks[find_pareto(self.costs[networks], list(seen.values()))]
        return compute_hypervolume(self.costs[shown], self.truth[shown], *self.reference) / self.best


def find_table(options: argparse.Namespace) -> Table:
    """Read NAS-Bench-Macro from --table or FFEM_NAS_BENCH_MACRO. Raises SystemExit if neither is a file."""
    path = options.table or os.environ.get("FFEM_NAS_BENCH_MACRO")
    if not path or not Path(path).is_file():
        raise SystemExit("give NAS-Bench-Macro's JSON with --table or FFEM_NAS_BENCH_MACRO, or use --records FILE")
    return read_nas_bench_macro(Path(path), getattr(options, "cost", "macs"))


def read_nas_bench_macro(path: Path, cost: str = "macs") -> Table:
    """Read NAS-Bench-Macro: eight layers, each left out (0), a MobileNetV2 block with expansion 3 and kernel 3 (1), or
    with 6 and 5 (2); each network trained three times on CIFAR-10.

    Source: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021. Its
    `flops` are MACs.
    """
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = sorted(rows)
    column = {"macs": "flops", "params": "params"}.get(cost)
    if column is None:
        raise SystemExit(f"--cost {cost} is not in this table; choose macs or params")
    layers = [f"layer{index}" for index in range(len(names[0]))]
    return Table(
        name="nas_bench_macro",
        title="NAS-Bench-Macro, CIFAR-10",
        space=SearchSpace(tuple(Choice(layer, ("0", "1", "2"), ordered=True) for layer in layers)),
        points=[dict(zip(layers, name, strict=True)) for name in names],
        costs=np.array([rows[name][column] for name in names], dtype=float),
        cost_name=cost,
        trainings=[np.array(rows[name]["test_acc"]) / 100 for name in names],
        whole=True,
    )


def read_recorded(paths: Sequence[Path], cost: str = "macs") -> Table:
    """Read records as a table: a network's seeds are its trainings, the settings that differ are the choices."""
    every = latest_records(record for path in paths for record in read_records(path))
    check_comparable(every)
    records = [record for record in every if record.status == "done" and record.accuracy is not None]
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        groups[identify_network(record)].append(record)
    firsts = [group[0] for group in groups.values()]
    if len(firsts) < 20:
        raise SystemExit(f"{len(firsts)} trained networks are too few to search among; give records of 20 or more")
    flat = [_flatten({part: first.spec[part] for part in ("arch", "data", "recipe")}) for first in firsts]
    points: list[Point] = [{} for _ in firsts]
    choices = []
    for name in sorted(set().union(*flat) - {"arch.name", "recipe.name", "data.root"}):
        column = [json.dumps(row[name]) if name in row else ABSENT for row in flat]
        if len(set(column)) > 1:
            ordered = all(type(row.get(name)) in (int, float) for row in flat)
            values = sorted(set(column), key=json.loads if ordered else None)
            choices.append(Choice(name, tuple(values), ordered=ordered))
            for point, value in zip(points, column, strict=True):
                point[name] = value
    curves = [[record.validation_accuracy for record in group] for group in groups.values()]
    lengths = {len(record.validation_accuracy) for record in records}
    synthetic = " (synthetic)" if any(record.synthetic for record in records) else ""
    return Table(
        name=f"{records[0].data}_records",
        title=f"{len(firsts)} recorded networks on {records[0].data}{synthetic}",
        space=SearchSpace(tuple(choices)),
        points=points,
        costs=np.array([getattr(first, cost) for first in firsts], dtype=float),
        cost_name=cost,
        trainings=[np.array([record.accuracy for record in group]) for group in groups.values()],
        whole=False,
        tested=records[0].tested,
        curves=np.array([np.mean(own, axis=0) for own in curves]) if len(lengths) == 1 and lengths != {0} else None,
    )


def _flatten(node: Any, name: str = "") -> dict[str, Any]:
    """Return dotted name -> value for all leaves; a stage table by its rows."""
    if isinstance(node, dict):
        pairs = list(node.items())
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        pairs = list(enumerate(node))
    else:
        return {name: node}
    named = [(f"{name}.{child}".removeprefix("."), value) for child, value in pairs]
    return {key: leaf for own, value in named for key, leaf in _flatten(value, own).items()}
