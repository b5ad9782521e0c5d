"""What the paper reports, and which networks it reports it of.

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
    """A network of the paper's.

    Args:
        name: in conf/arch/.
        title: as the paper has it.
        accuracy: in its Table 2, in 0 to 1; None where the paper gives none.
        correct: how many of the TESTED photographs that is; None where the paper gives none.
    """

    name: str
    title: str
    accuracy: float | None = None
    correct: int | None = None


TESTED = 104  # two photographs of each of 52 people
# Of 104 one photograph is 0.96 points, so each percentage is one whole number of them.
NETWORKS = (
    PaperNetwork("ffem", "FFEM", 0.904, 94),
    PaperNetwork("ffem_am", "FFEM-AM", 0.981, 102),
    PaperNetwork("ffem_se", "FFEM-SE"),  # not the paper's: the rival attention in FFEM-AM's places
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
    """The network conf/arch/`name`.yaml."""
    import yaml

    return read_arch(yaml.safe_load((find_conf_dir() / "arch" / f"{name}.yaml").read_text(encoding="utf-8")))


def find_network(record: TrialRecord) -> PaperNetwork | None:
    """The paper's network that the trial built, whatever it was called; None for any other."""
    try:
        built = record.view.network
    except UNREADABLE:  # written by a package with other fields
        return None
    return _load_networks().get(built)


@functools.cache
def _load_networks() -> dict[NetworkSpec, PaperNetwork]:
    return {resolve_network(load_arch(network.name)): network for network in NETWORKS}


def choose_columns(names: Iterable[str]) -> list[str]:
    """The columns of Table 3 among `names`, with their cuts; empty, which stands for all, where none is there."""
    there = set(names)
    return [wanted for wanted in GROUP_COLUMNS if wanted.partition(":")[0] in there]
