"""The state of a trial after each epoch, kept by Orbax: written beside the last one, then put in its place.

It stores the loop's own state, so it knows that type. The loop knows nothing of disks; `runs.fitting` joins the two.
Of several processes, which all have the whole state, the first one alone keeps it, so that no disk need be shared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ffem_jax.training.step import TrainState
from ffem_jax.training.trainer import History


class TrialCheckpoint:
    """The newest epoch of one trial, in a folder of its own.

    A checkpoint of another owner is not restored, nor one whose state another version of this package laid out
    differently: the trial then begins anew.

    Args:
        folder: made where it is missing.
        owner: the keys of the trials that the checkpoint belongs to.
    """

    def __init__(self, folder: Path, owner: list[str]):
        self.owner = owner
        self.stack = contextlib.ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        plain = self.stack.enter_context(_find_plainly(folder))
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=False, multiprocessing_options=_wait_for_nobody())
        self.manager = ocp.CheckpointManager(plain, options=options)

    def save(self, epochs_done: int, state: TrainState, history: History) -> None:
        """Write the state after `epochs_done` epochs; the disk is written while training goes on."""
        facts = {"owner": self.owner, "layout": _list_leaves(state), "history": dataclasses.asdict(history)}
        self.manager.save(
            epochs_done,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_fetch(_select_kept(state))), facts=ocp.args.JsonSave(facts)
            ),
        )

    def restore(self, abstract_state: Any) -> tuple[int, TrainState, History] | None:
        """Epochs done, state and history of the newest whole checkpoint of this owner, or None."""
        newest = self.manager.latest_step()
        if newest is None:
            return None
        facts = self.manager.restore(newest, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        if facts["owner"] != self.owner or facts.get("layout") != _list_leaves(abstract_state):
            self.manager.delete(newest)
            return None
        target = ocp.args.Composite(state=ocp.args.StandardRestore(_bring_near(_select_kept(abstract_state))))
        try:
            state = TrainState(**self.manager.restore(newest, args=target)["state"])
        except ValueError:  # a part that has no arrays is laid out differently
            self.manager.delete(newest)
            return None
        return newest, jax.tree.map(jax.numpy.asarray, state), History(**facts["history"])

    def close(self) -> None:
        """Wait until the last save is on the disk."""
        with self.stack:
            self.manager.wait_until_finished()
            self.manager.close()


def _wait_for_nobody() -> ocp.options.MultiprocessingOptions:
    """Of several processes this one saves and restores alone; Orbax would have it wait for the others."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix="ffem")


def _fetch(tree: Any) -> Any:
    """`tree` without arrays that lie on other processes' devices too: these are then on this host."""
    return jax.tree.map(
        lambda leaf: leaf if getattr(leaf, "is_fully_addressable", True) else jax.device_get(leaf), tree
    )


def _bring_near(shapes: Any) -> Any:
    """`shapes` on this process's first device, where they lie on other processes' devices too."""
    near = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> Any:
        if leaf.sharding is None or leaf.sharding.is_fully_addressable:
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=near)

    return jax.tree.map(place, shapes)


@contextlib.contextmanager
def _find_plainly(folder: Path) -> Iterator[Path]:
    """A path to `folder` without the characters of patterns: Orbax looks for its files by patterns of their paths, and
    does not find those that it wrote below `faces [1]`."""
    if glob.escape(str(folder.absolute())) == str(folder.absolute()):
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="ffem-checkpoint-") as scratch:
        link = Path(scratch) / "checkpoint"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def read_checkpoint(folder: Path) -> tuple[int, list[str], dict[str, Any]] | None:
    """Epochs done, owner and state (a tree by name, on this process' first device) of the newest checkpoint in
    `folder`, whoever wrote it on however many devices; None where there is none."""
    whole, alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), _wait_for_nobody()
    # Named, so that Orbax does not warn of items it was not told of.
    handlers = {
        "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        "facts": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    }
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _find_plainly(folder) as plain,
        ocp.CheckpointManager(plain, options=options, item_handlers=handlers) as manager,
    ):
        newest = manager.latest_step()
        if newest is None:
            return None
        shapes = manager.item_metadata(newest)["state"]
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), shapes)
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(target), facts=ocp.args.JsonRestore())
        restored = manager.restore(newest, args=wanted)
    return newest, restored["facts"]["owner"], restored["state"]


def _list_leaves(state: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(_select_kept(state))
    return [f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in leaves]


def _select_kept(state: TrainState) -> dict[str, Any]:
    # Without an average a checkpoint is laid out as it was before there were averages, and older ones are restored.
    return {name: part for name, part in state._asdict().items() if name != "average" or part}
