"""The weights of a finished pretraining, and a fresh state that starts from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ffem_jax.specs.trial import TrialSpec
from ffem_jax.training.step import TrainState
from ffem_jax.training.weights import TrialFolderError, name_leaves, read_last_checkpoint


class PretrainingError(RuntimeError):
    """A pretraining that left no weights. The message says why."""


def load_pretrained(folder: Path, key: str, trial: TrialSpec) -> dict[str, np.ndarray] | None:
    """Params and statistics, by name, that the finished `trial` of that key left in the checkpoint `folder`.

    None where they are not there, or not those of its last epoch.
    """
    if not folder.is_dir():
        return None
    try:
        return read_last_checkpoint(folder, key, trial, [key])
    except TrialFolderError:
        return None


def start_from(state: TrainState, pretrained: Mapping[str, np.ndarray]) -> TrainState:
    """The fresh `state` with the network of `pretrained` (see `load_pretrained`), the same for every seed.

    The classifier and the optimiser stay fresh; an average is left too, for the first step replaces it.
    """
    fresh = {"params": state.params, "statistics": state.statistics}
    leaves = [
        leaf if "classifier" in name else jax.device_put(jnp.broadcast_to(pretrained[name], leaf.shape), leaf.sharding)
        for name, leaf in name_leaves(fresh).items()
    ]
    return state._replace(**jax.tree.unflatten(jax.tree.structure(fresh), leaves))
