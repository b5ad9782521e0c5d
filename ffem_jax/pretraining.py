"""The weights of a finished pretraining, and a fresh state that starts from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from ffem_jax.arch import resolve_network
from ffem_jax.checkpoint import TrialCheckpoint
from ffem_jax.devices import make_batch_mesh
from ffem_jax.program import BATCH_AXIS, TrainState, build_program
from ffem_jax.spec import TrialSpec


class PretrainingError(RuntimeError):
    """A pretraining that left no weights. The message says why."""


def load_pretrained(folder: Path, key: str, trial: TrialSpec, people: int) -> tuple[Any, Any] | None:
    """Params and statistics that the finished `trial` of that key, on so many people, left in the checkpoint `folder`.

    None where they are not there, or not those of its last epoch.
    """
    if not folder.is_dir():
        return None
    mesh = make_batch_mesh(BATCH_AXIS, trial.recipe.batch_size)
    program = build_program(resolve_network(trial.arch), trial.data.resolution, people, trial.recipe, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    abstract_state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        jax.eval_shape(program.init, jax.random.key(0)),
    )
    checkpoint = TrialCheckpoint(folder, [key])
    try:
        restored = checkpoint.restore(abstract_state)
    finally:
        checkpoint.close()
    return restored[1].evaluated if restored and restored[0] == trial.recipe.epochs else None


def start_from(state: TrainState, pretrained: tuple[Any, Any]) -> TrainState:
    """The fresh `state` with the network of `pretrained` (params, statistics), the same for every seed.

    The classifier and the optimiser stay fresh; an average is left too, for the first step replaces it.
    """

    trained = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(pretrained)}

    def take_over(path, fresh):
        name = jax.tree_util.keystr(path)
        if "classifier" in name:
            return fresh
        return jax.device_put(jnp.broadcast_to(trained[name], fresh.shape), fresh.sharding)

    params, statistics = jax.tree_util.tree_map_with_path(take_over, (state.params, state.statistics))
    return state._replace(params=params, statistics=statistics)
