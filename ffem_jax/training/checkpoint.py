"""Checkpoints of a trial after each epoch, and occasionally within one, written by Orbax.

A new checkpoint is written beside the previous one and then replaces it. This module stores the loop's own state type.
The loop itself does no disk access; `runs.fitting` connects the two. With several processes, all of which have the
complete state, only the first one saves it, so no shared disk is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ffem_jax.training.step import EpochMetrics, TrainState
from ffem_jax.training.trainer import History, Position


class TrialCheckpoint:
    """The newest position of one trial, in its own folder.

    A checkpoint of another owner is not restored, nor one whose state layout comes from another version of this
    package. The trial then starts from scratch.

    Args:
        folder: created if missing.
        owner: the keys of the trials that the checkpoint belongs to.
    """

    def __init__(self, folder: Path, owner: list[str]):
        self.owner = owner
        self._saved_at = time.monotonic()
        self.stack = contextlib.ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        plain = self.stack.enter_context(_find_plainly(folder))
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=False, multiprocessing_options=_wait_for_nobody())
        self.manager = ocp.CheckpointManager(plain, options=options)

    @property
    def seconds_since_save(self) -> float:
        """Seconds since the last save, or since the start."""
        return time.monotonic() - self._saved_at

    def save(
        self, epochs: int, state: TrainState, history: History, step: int = 0, metrics: EpochMetrics | None = None
    ) -> None:
        """Save the position with these parts (see `Position`); writing overlaps with training."""
        self._saved_at = time.monotonic()
        facts = {
            "owner": self.owner,
            "layout": _list_leaves(state),
            "history": dataclasses.asdict(history),
            "epochs": epochs,
            "step": step,
            "metrics": list_metrics(metrics),
        }
        self.manager.save(
            (self.manager.latest_step() or 0) + 1,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_fetch(_select_kept(state))), facts=ocp.args.JsonSave(facts)
            ),
        )

    def restore(self, abstract_state: Any) -> Position | None:
        """Return the newest complete checkpoint of this owner, or None."""
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
        except ValueError:  # a part without arrays has another layout
            self.manager.delete(newest)
            return None
        history, metrics = History(**facts["history"]), read_metrics(facts.get("metrics"))
        state = jax.tree.map(jax.numpy.asarray, state)
        return Position(_count_epochs(facts, newest), state, history, facts.get("step", 0), metrics)

    def close(self) -> None:
        """Wait until the last save is on the disk."""
        with self.stack:
            self.manager.wait_until_finished()
            self.manager.close()


def _count_epochs(facts: dict[str, Any], number: int) -> int:
    # Earlier versions numbered checkpoints by completed epochs and had none within an epoch.
    return int(facts.get("epochs", number))


def list_metrics(metrics: EpochMetrics | None) -> list[Any] | None:
    """Return the metrics as JSON values, without loss of precision."""
    return None if metrics is None else [np.asarray(values).tolist() for values in jax.device_get(metrics)]


def read_metrics(listed: list[Any] | None) -> EpochMetrics | None:
    """Return the metrics from the output of `list_metrics`."""
    if listed is None:
        return None
    types = (np.float32, np.int32, np.int32)
    return EpochMetrics(*(jax.numpy.asarray(values, kind) for values, kind in zip(listed, types, strict=True)))


def _wait_for_nobody() -> ocp.options.MultiprocessingOptions:
    """Let this process save and restore alone; by default Orbax waits for all processes."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix="ffem")


def _fetch(tree: Any) -> Any:
    """Return `tree` with arrays that span other processes' devices copied to this host."""
    return jax.tree.map(
        lambda leaf: leaf if getattr(leaf, "is_fully_addressable", True) else jax.device_get(leaf), tree
    )


def _bring_near(shapes: Any) -> Any:
    """Return `shapes` with those that span other processes' devices placed on this process's first device."""
    near = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> Any:
        if leaf.sharding is None or leaf.sharding.is_fully_addressable:
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=near)

    return jax.tree.map(place, shapes)


@contextlib.contextmanager
def _find_plainly(folder: Path) -> Iterator[Path]:
    """Yield a path to `folder` without glob characters.

    Orbax finds its files by glob patterns of their paths, and misses those that it wrote below `faces [1]`.
    """
    if glob.escape(str(folder.absolute())) == str(folder.absolute()):
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="ffem-checkpoint-") as scratch:
        link = Path(scratch) / "checkpoint"
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def read_checkpoint(folder: Path) -> tuple[int, list[str], dict[str, Any]] | None:
    """Return completed epochs, owner and state of the newest checkpoint in `folder`; None if there is none.

    The owner and the number of devices that wrote it may be any. The state is a tree by name, on this process's first
    device.
    """
    whole, alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), _wait_for_nobody()
    # Named, so that Orbax does not warn about unknown items.
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
    return _count_epochs(restored["facts"], newest), restored["facts"]["owner"], restored["state"]


def _list_leaves(state: Any) -> list[str]:
    leaves = jax.tree_util.tree_leaves_with_path(_select_kept(state))
    return [f"{jax.tree_util.keystr(path)} {leaf.shape}" for path, leaf in leaves]


def _select_kept(state: TrainState) -> dict[str, Any]:
    # Without an average the layout is that of versions without averaging, so older checkpoints can be restored.
    return {name: part for name, part in state._asdict().items() if name != "average" or part}
