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
    """A pretraining left no weights. The message is one line and gives the reason."""


def load_pretrained(folder: Path, key: str, trial: TrialSpec) -> dict[str, np.ndarray] | None:
    """Return the parameters and batch statistics, by name, from the checkpoint of the finished `trial`.

    Args:
        folder: the checkpoint's folder.
        key: the trial key of `trial`.

    Returns:
        None if there is no checkpoint or if it is not from the last epoch.
    """
    if not folder.is_dir():
        return None
    try:
        return read_last_checkpoint(folder, key, trial, [key])
    except TrialFolderError:
        return None


def start_from(state: TrainState, pretrained: Mapping[str, np.ndarray]) -> TrainState:
    """Return the fresh `state` with the network of `pretrained`, the same for every seed, not yet on the devices.

    The classifier, the projection for a teacher and the optimiser stay fresh. So does the average, which the first
    step replaces.

    Args:
        state: the state from `Trainer.init`.
        pretrained: arrays by name, from `load_pretrained`.
    """
    fresh = {"params": state.params, "statistics": state.statistics}

    def choose(name: str, leaf: Any) -> Any:
        if name.split("/")[1] in ("classifier", "projection"):
            return leaf
        return np.broadcast_to(pretrained[name], leaf.shape)

    leaves = [choose(name, leaf) for name, leaf in name_leaves(fresh).items()]
    return state._replace(**jax.tree.unflatten(jax.tree.structure(fresh), leaves))
