"""The weights of a finished pretraining, and a fresh state that starts from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ffem_jax.specs.trial import TrialSpec
from ffem_jax.training.step import TrainState
from ffem_jax.training.weights import TrialFolderError, name_leaves, read_last_checkpoint


class PretrainingError(RuntimeError):
    """A pretraining that left no weights. The message is one line and says why."""


def load_pretrained(folder: Path, key: str, trial: TrialSpec) -> dict[str, np.ndarray] | None:
    """Parameters and BatchNorm statistics, by name, that the finished `trial` left in its checkpoint.

    Args:
        folder: of the checkpoint.
        key: of `trial`.

    Returns:
        None where there is no checkpoint, or it is not of the last epoch.
    """
    if not folder.is_dir():
        return None
    try:
        return read_last_checkpoint(folder, key, trial, [key])
    except TrialFolderError:
        return None


def start_from(state: TrainState, pretrained: Mapping[str, np.ndarray]) -> TrainState:
    """The fresh `state` with the network of `pretrained`, the same for every seed, not yet on the devices.

    The classifier, a teacher's projection and the optimiser stay fresh, and so does an average, which the first step
    replaces.

    Args:
        state: as `Trainer.init` makes it.
        pretrained: arrays by name, as `load_pretrained` gives them.
    """
    fresh = {"params": state.params, "statistics": state.statistics}

    def choose(name: str, leaf: Any) -> Any:
        if name.split("/")[1] in ("classifier", "projection"):
            return leaf
        return np.broadcast_to(pretrained[name], leaf.shape)

    leaves = [choose(name, leaf) for name, leaf in name_leaves(fresh).items()]
    return state._replace(**jax.tree.unflatten(jax.tree.structure(fresh), leaves))
