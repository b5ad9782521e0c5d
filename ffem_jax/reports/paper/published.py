"""The paper's published numbers and networks.

Source: Xiao et al., "Attention-Mechanism-Based Face Feature Extraction Model for WeChat Applet on Mobile Devices",
Electronics 2024, 13, 201, Tables 2 and 3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from ffem_jax.config.compose import find_conf_dir
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import UNREADABLE, read_arch
from ffem_jax.specs.architecture import ArchSpec, NetworkSpec, resolve_network


@dataclass(frozen=True)
class PaperNetwork:
    """A network of the paper.

    Args:
        name: in conf/arch/.
        title: its name in the paper.
        accuracy: from Table 2, in 0 to 1; None if the paper gives none.
        correct: the number of correct photographs out of TESTED; None if the paper gives none.
    """

    name: str
    title: str
    accuracy: float | None = None
    correct: int | None = None


TESTED = 104  # two photographs of each of 52 people
# One of 104 photographs is 0.96 points, so each percentage corresponds to exactly one number of photographs.
NETWORKS = (
    PaperNetwork("ffem", "FFEM", 0.904, 94),
    PaperNetwork("ffem_am", "FFEM-AM", 0.981, 102),
    PaperNetwork("ffem_se", "FFEM-SE"),  # not in the paper: the rival attention at FFEM-AM's positions
    PaperNetwork("mobilenetv2", "MobileNetV2", 0.961, 100),
    PaperNetwork("shufflenetv2", "ShuffleNetV2 1.0x", 0.971, 101),
)
TITLES = {network.name: network.title for network in NETWORKS}

# FFEM-AM's Table 3, by column and group of LFW's attributes.csv, whose eyeglasses_probability is a model's estimate.
GROUP_COLUMNS = ("gender", "eyeglasses_probability:0.1,0.5")
GROUP_ACCURACIES = {
    ("gender", "male"): 0.986,
    ("gender", "female"): 0.966,
    ("eyeglasses_probability", "above 0.5"): 0.972,
    ("eyeglasses_probability", "0.1 or less"): 0.970,
}
GROUP_NAMES = {
    ("eyeglasses_probability", "above 0.5"): "with glasses",
    ("eyeglasses_probability", "above 0.1 to 0.5"): "unsure of glasses",
    ("eyeglasses_probability", "0.1 or less"): "without glasses",
}


@functools.cache
def load_arch(name: str) -> ArchSpec:
    """Return the network of conf/arch/`name`.yaml."""
    import yaml

    return read_arch(yaml.safe_load((find_conf_dir() / "arch" / f"{name}.yaml").read_text(encoding="utf-8")))


def find_network(record: TrialRecord) -> PaperNetwork | None:
    """Return the paper's network that the trial built, whatever its name; None for any other network."""
    try:
        built = record.view.network
    except UNREADABLE:  # written by a package with other fields
        return None
    return _load_networks().get(built)


@functools.cache
def _load_networks() -> dict[NetworkSpec, PaperNetwork]:
    return {resolve_network(load_arch(network.name)): network for network in NETWORKS}


def choose_columns(names: Iterable[str]) -> list[str]:
    """Return the columns of Table 3 among `names`, with their cuts; empty (which means all) if there are none."""
    there = set(names)
    return [wanted for wanted in GROUP_COLUMNS if wanted.partition(":")[0] in there]
