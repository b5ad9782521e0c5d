"""The best networks of some records as config files, and a sweep that trains them again: with seeds, on every image.

A search trains each network once and tests it on few images, so what comes out best is partly luck. Trained again, the
best are compared with networks chosen beforehand.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ffem_jax.analysis.pareto import sort_points
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import FrontierError, NetworkSummary
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import TrialView
from ffem_jax.reports.html.commands import find_settings

SWEEP = "finalists"
HEAD = """\
# @package _global_
# Which of the best {count} of {trained} networks are better, each trained with three seeds, every image tested?
#
#   ffem sweep finalists --config-dir {folder} launcher=joblib
#   ffem frontier outputs/finalists-{data}
#   ffem compare outputs/finalists-{data} --factor arch.name
#
# They were chosen by images that kfold tests with the others: accuracies there lean a little high.
"""
# Of finalists that begin from pretrained weights.
PRETRAINED = """\
# The sweep pretrains each network once: the intervals exclude variance between pretraining runs. Independent ones are
# in them with pretrain.seed=0,1,2 after the command.
"""


def choose_finalists(
    networks: Sequence[NetworkSummary], question: FrontierQuestion, count: int
) -> list[NetworkSummary]:
    """The `count` best of the trained networks that fit, smallest first: by rank, those of one rank by crowding.

    The frontier comes first; what stands alone on it, its ends above all, before what has neighbours. Raises
    FrontierError where nothing was trained that fits.
    """
    fitting = [network for network in networks if network.accuracy is not None and question.fits(network)]
    if not fitting:
        raise FrontierError("no trained network fits the cap; raise --cap-mb")
    losses = [(-(network.accuracy or 0.0), question.get_cost(network)) for network in fitting]
    return sorted((fitting[index] for index in sort_points(losses)[:count]), key=question.get_cost)


def write_finalists(
    records: Sequence[TrialRecord],
    networks: Sequence[NetworkSummary],
    question: FrontierQuestion,
    folder: Path,
    count: int,
    beside: Sequence[str] = (),
) -> list[str]:
    """Write `folder`/arch/final_1.yaml and so on, smallest first, and `folder`/sweeps/finalists.yaml: the names.

    networks: those of `records`. beside: configs of the group arch that the sweep trains, too.

    Raises FrontierError where the best differ in more than their network: a sweep has one recipe and one resolution.
    """
    finalists = choose_finalists(networks, question, count)
    views = {record.trial_key: record.view for record in records}
    own = [views[network.trial_keys[0]] for network in finalists]
    settings = _find_shared(own)
    names = [f"final_{number}" for number in range(1, len(own) + 1)]
    for kind in ("arch", "sweeps"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for old in (folder / "arch").glob("final_*.yaml"):
        old.unlink()
    for name, view, network in zip(names, own, finalists, strict=True):
        head = f"# {_describe(network)}\n#\n#   ffem train arch={name} --config-dir {shlex.quote(str(folder))}\n"
        (folder / "arch" / f"{name}.yaml").write_text(
            head + _dump(view.get_written("arch") | {"name": name}), encoding="utf-8"
        )
    params = {"seed": "0,1,2", "protocol": "kfold", "protocol.fold": "0,1,2,3,4", **settings}
    params["arch"] = ",".join([*names, *beside])
    trained = sum(network.accuracy is not None for network in networks)
    head = HEAD.format(
        count=len(names), trained=trained, folder=shlex.quote(str(folder)), data=settings.get("data", "folder")
    )
    head += PRETRAINED if own[0].is_pretrained else ""
    sweep = head + _dump({"hydra": {"sweeper": {"params": params}}})
    (folder / "sweeps" / f"{SWEEP}.yaml").write_text(sweep, encoding="utf-8")
    return names


def _find_shared(views: Sequence[TrialView]) -> dict[str, str]:
    """What all trials have in common but network and protocol, as overrides."""
    first, *others = (find_settings(view, ("data", "recipe", "pretrain")) for view in views)
    differing = {key for other in others for key in first.keys() | other.keys() if first.get(key) != other.get(key)}
    if differing:
        raise FrontierError(f"the best networks differ in {', '.join(sorted(differing))}; give records of one setting")
    return first


def _describe(network: NetworkSummary) -> str:
    rates = (network.accuracy, network.accuracy_low, network.accuracy_high)
    rate, low, high = (100 * (value or 0.0) for value in rates)
    images, size = network.tested, (network.bytes_float32 or 0) / BYTES_PER_MB
    return f"{rate:.1f} % [{low:.1f}, {high:.1f}] of {images} images when it was chosen; {size:.2f} MB as float32."


def _dump(values: Mapping[str, Any]) -> str:
    """As YAML, the rows of a stage table a line each."""
    return yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False, width=10_000)
