"""What a trial computes on: the cores of a CPU, each as a device of its own, or one accelerator."""

from __future__ import annotations

import contextlib
import ctypes
import os

import jax
import joblib
import numpy as np
from jax.sharding import Mesh

# Fewer images than this a core, and the cores wait for each other more than they save.
IMAGES_A_CORE = 4


def use_cpu_cores(cores: int = 0) -> None:
    """Make each of `cores` CPU cores a JAX device, all that this process may use where 0.

    JAX_NUM_CPU_DEVICES goes before it. Does nothing once JAX has started its backend: what it started with stays.
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
    """A mesh of the one axis `axis` for batches of `batch` images: an accelerator, or as many CPU cores as pay.

    Its size divides `batch`.
    """
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        devices = devices[:1]
    most = min(len(devices), max(1, batch // IMAGES_A_CORE))
    size = max(size for size in range(1, most + 1) if batch % size == 0)
    return Mesh(np.asarray(devices[:size]), (axis,))


def release_memory() -> None:
    """Give back what compiling took: with glibc, over a gigabyte that it would keep for this process's next use."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
