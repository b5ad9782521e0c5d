"""Where the arrays of a training lie: whole on every device of its mesh, or a batch split over them.

Of several processes each holds the devices that it can reach, and gives of a batch its own rows alone.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Placement:
    """Puts arrays on the devices of a mesh.

    Args:
        mesh: of one axis, in which the devices of a process lie side by side (`machine.devices.make_batch_mesh`).
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.whole = NamedSharding(mesh, PartitionSpec())
        processes = [device.process_index for device in mesh.devices.flat]
        self._processes = len(set(processes))
        self._process = sorted(set(processes)).index(jax.process_index())

    def put(self, tree: Any) -> Any:
        """`tree` whole on every device. All processes give the same, and call this in the same order."""
        if self._processes == 1:
            return jax.device_put(tree, self.whole)
        return jax.tree.map(self._put_leaf, tree)

    def _put_leaf(self, leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array):
            if leaf.sharding == self.whole:
                return leaf
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(self._put_leaf(jax.random.key_data(leaf)))
        # Not by device_put, which has all processes compare what they give.
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, self.whole, lambda index: values[index])

    def find_rows(self, batch: int) -> slice:
        """The rows of a batch that lie on this process's devices."""
        share = batch // self._processes
        return slice(self._process * share, (self._process + 1) * share)

    def put_rows(self, rows: np.ndarray, axis: int = 0) -> jax.Array:
        """A batch split over the devices.

        Args:
            rows: those of `find_rows` alone, along `axis`.
            axis: which axis of the batch counts its images.
        """
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, self.mesh.axis_names[0]))
        shape = [*rows.shape]
        shape[axis] *= self._processes
        return jax.make_array_from_process_local_data(sharding, rows, tuple(shape))
