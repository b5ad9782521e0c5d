"""Writes the best networks of some records as config files, with a sweep that retrains them: several seeds, all images.

A search trains each network once and tests it on few images, so the best result is partly luck. The retrained networks
are compared with networks chosen beforehand.
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
# Which of the best {count} of {trained} networks are better, each with three seeds and tested on every image?
#
#   ffem sweep finalists --config-dir {folder} launcher=joblib
#   ffem frontier outputs/finalists-{data}
#   ffem compare outputs/finalists-{data} --factor arch.name
#
# kfold also tests the images that they were chosen on: its accuracies are biased slightly upwards.
"""
# For finalists that begin from pretrained weights.
PRETRAINED = """\
# The sweep pretrains each network once: the intervals exclude variance between pretraining runs. To include it, add
# pretrain.seed=0,1,2 to the command.
"""


def choose_finalists(
    networks: Sequence[NetworkSummary], question: FrontierQuestion, count: int
) -> list[NetworkSummary]:
    """Return the `count` best of the trained networks that fit, smallest first, chosen by rank, then crowding.

    The frontier comes first; on it, isolated networks, above all the two ends, come before those with neighbours.

    Raises:
        FrontierError: no trained network fits the cap.
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
    """Write `folder`/arch/final_1.yaml etc., smallest first, and `folder`/sweeps/finalists.yaml; return the names.

    Args:
        networks: those of `records`.
        beside: configs of the group arch that the sweep also trains.

    Raises:
        FrontierError: the best differ in more than their network, while a sweep has one recipe and one resolution.
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
    """Return the settings that all trials share, except network and protocol, as overrides."""
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
    """Return YAML with one line per row of a stage table."""
    return yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False, width=10_000)
