"""What a trial computes on: the cores of a CPU, each as a device of its own, or all accelerators there are.

Each CPU core is a device, and a batch is split over them: a compiled kernel keeps to the core that calls it, and XLA
spreads small operations over cores badly. BatchNorm's statistics and gradients are summed over the cores, so the
training is that of the whole batch, whatever their number. Several trials at a time take a core each, which wastes
nothing on waiting. They run every network once before any twice, since two trials of one network side by side would
both compile it.

Accelerators share a batch in the same way, those of several processes too (`hosts`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os

import jax
import joblib
import numpy as np
from jax.sharding import Mesh

from ffem_jax.specs.fields import SpecError

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


def make_batch_mesh(axis: str, batch: int, limit: int = 0) -> Mesh:
    """The devices that each batch of a training is split over: all accelerators, or as many CPU cores as pay.

    Of several processes each gives equally many. Where their number does not divide the batch, fewer are taken.

    Args:
        axis: the name of the mesh's one axis.
        batch: images per batch; the mesh's size divides it.
        limit: the devices of each process that are taken at most; 0 takes all.

    Returns:
        A mesh in which the devices of a process lie side by side.

    Raises:
        SpecError: a process has fewer devices than `limit`, or the processes cannot share the batch.
    """
    groups = _list_devices()
    there = min(map(len, groups))
    if limit > there:
        raise SpecError(f"run.devices={limit} is more than the {there} there are here; leave it out to take all")
    if batch % len(groups):
        raise SpecError(f"recipe.batch_size={batch} must be a multiple of the {len(groups)} processes that share it")
    share = batch // len(groups)
    most = min(limit or there, share)
    if groups[0][0].platform == "cpu":
        most = min(most, max(1, share // IMAGES_PER_CORE))
    size = max(size for size in range(1, most + 1) if share % size == 0)
    return Mesh(np.asarray([device for group in groups for device in group[:size]]), (axis,))


def describe_idle(size: int, batch: int, limit: int = 0) -> str:
    """One line where a mesh of `size` leaves accelerators idle, or cores that were asked for; else empty.

    Args:
        size: of what `make_batch_mesh` made of `batch` and `limit`.
    """
    groups = _list_devices()
    wanted = (limit or min(map(len, groups))) * len(groups)
    if size == wanted or (groups[0][0].platform == "cpu" and not limit):
        return ""
    best = max(1, round(batch / wanted)) * wanted
    return (
        f"recipe.batch_size={batch} is split over {size} of {wanted} devices, since more would not share it evenly or "
        f"not pay; a multiple of {wanted}, such as {max(best, wanted)}, can take all"
    )


def _list_devices() -> list[list[jax.Device]]:
    """The devices of each process, in order."""
    if jax.process_count() == 1:
        return [jax.local_devices()]
    groups: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        groups.setdefault(device.process_index, []).append(device)
    return [groups[process] for process in sorted(groups)]


def release_memory() -> None:
    """Return the memory that compiling took to the system: glibc would keep over a gigabyte for this process."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
