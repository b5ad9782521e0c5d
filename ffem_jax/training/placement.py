"""Placement of a training's arrays: replicated on every device of its mesh, or a batch split over the devices.

With several processes each one manages its own devices and provides only their rows of a batch.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Placement:
    """Puts arrays on the devices of a mesh.

    Args:
        mesh: a mesh with one axis, along which each process's devices are adjacent (`machine.devices.make_batch_mesh`).
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.whole = NamedSharding(mesh, PartitionSpec())
        processes = [device.process_index for device in mesh.devices.flat]
        self._processes = len(set(processes))
        self._process = sorted(set(processes)).index(jax.process_index())

    def put(self, tree: Any) -> Any:
        """Replicate `tree` on every device. All processes pass the same values and call this in the same order."""
        if self._processes == 1:
            return jax.device_put(tree, self.whole)
        return jax.tree.map(self._put_leaf, tree)

    def _put_leaf(self, leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            if leaf.sharding == self.whole:
                return leaf
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(self._put_leaf(jax.random.key_data(leaf)))
        # Not device_put, which makes all processes compare their values.
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, self.whole, lambda index: values[index])

    def find_rows(self, batch: int) -> slice:
        """Return the rows of a batch that belong to this process's devices."""
        share = batch // self._processes
        return slice(self._process * share, (self._process + 1) * share)

    def put_rows(self, rows: np.ndarray, axis: int = 0) -> jax.Array:
        """Split a batch over the devices.

        Args:
            rows: only the rows of `find_rows`, along `axis`.
            axis: the image axis of the batch.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, self.mesh.axis_names[0]))
        shape = [*rows.shape]
        shape[axis] *= self._processes
        return jax.make_array_from_process_local_data(sharding, rows, tuple(shape))
