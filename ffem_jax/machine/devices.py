"""What a trial computes on: the cores of a CPU, each as a device of its own, or one accelerator.

Each CPU core is a device, and a batch is split over them: a compiled kernel keeps to the core that calls it, and XLA
spreads small operations over cores badly. BatchNorm's statistics and gradients are summed over the cores, so the
training is that of the whole batch, whatever their number. Several trials at a time take a core each, which wastes
nothing on waiting. They run every network once before any twice, since two trials of one network side by side would
both compile it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

import jax
import joblib
import numpy as np
from jax.sharding import Mesh

# With fewer images per core, the cores wait for each other longer than they save.
IMAGES_PER_CORE = 4


def use_cpu_cores(cores: int = 0) -> None:
    """Make each of `cores` CPU cores a JAX device, all that this process may use where 0.

    The environment's JAX_NUM_CPU_DEVICES wins over `cores`. Once JAX has started its backend this does nothing.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    # joblib knows of affinity masks and of a container's share, which os.cpu_count does not.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores or joblib.cpu_count(only_physical_cores=True))


def use_float32() -> contextlib.AbstractContextManager[None]:
    """Trace and call programs with 32-bit numbers, even if JAX_ENABLE_X64 asks for 64: the same draws and results."""
    return jax.enable_x64(False)


def make_batch_mesh(axis: str, batch: int) -> Mesh:
    """The devices that each batch of a training is split over: one accelerator, or as many CPU cores as pay.

    Args:
        axis: the name of the mesh's one axis.
        batch: images per batch; the mesh's size divides it.
    """
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        devices = devices[:1]
    most = min(len(devices), max(1, batch // IMAGES_PER_CORE))
    size = max(size for size in range(1, most + 1) if batch % size == 0)
    return Mesh(np.asarray(devices[:size]), (axis,))


def release_memory() -> None:
    """Return the memory that compiling took to the system: glibc would keep over a gigabyte for this process."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
