"""The batches of a training whose images are not on the device: each is read ahead of its step and put there alone.

The order of an epoch is `step.shuffle_epoch`'s, as for images on the device: both ways take the same batches, and a
training that goes on at any step of any epoch takes the very images that it would have taken.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ffem_jax.data.stream import StreamedImages, StreamError, read_batches
from ffem_jax.training.step import TrainingFaces, shuffle_epoch

# Of an accelerator's free memory: the rest is for the network.
DEVICE_SHARE = 0.5


def fits_device(images: Any) -> bool:
    """Whether an accelerator's memory takes all of the images; a CPU's is the memory that they lie in already."""
    if isinstance(images, StreamedImages):
        return False
    device = jax.local_devices()[0]
    measured = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    free = measured.get("bytes_limit", 0) - measured.get("bytes_in_use", 0)
    return not measured or images.nbytes <= DEVICE_SHARE * free


class BatchFeed:
    """Gives the faces of each step, and counts how long training waited for them.

    Args:
        images: StreamedImages, or an array uint8 [image, R, R, 3].
        faces: labels, training images and what a teacher says, on the host; `images` of it is not read.
        keys: of one seed, or of several [seed].
        batch_size: images of a batch.
        steps: batches of an epoch.
        sharding: where a batch is put.
    """

    def __init__(
        self, images: Any, faces: TrainingFaces, keys: jax.Array, batch_size: int, steps: int, sharding: Any
    ) -> None:
        self.images, self.faces, self.keys = images, faces, keys
        self.batch_size, self.steps, self.sharding = batch_size, steps, sharding
        self.waited = 0.0
        self._batches: Generator[np.ndarray] | None = None
        self._places = np.zeros((0, batch_size), np.int32)
        self._next = (-1, 0)
        shuffle = partial(_shuffle, count=faces.train_count)
        self._shuffle = jax.jit(jax.vmap(shuffle, in_axes=(0, None, None)) if keys.ndim else shuffle)

    def take(self, epoch: int, step: int) -> TrainingFaces:
        """The faces of that step alone, in its order, on the device; with several seeds [seed, image].

        Raises:
            StreamError: an image cannot be read any more; the message says at which epoch and step.
        """
        if self._next != (epoch, step) or self._batches is None:
            self._begin(epoch, step)
        assert self._batches is not None
        started = time.perf_counter()
        try:
            pixels = next(self._batches)
        except StreamError as error:
            self.close()
            raise StreamError(f"epoch {epoch + 1}, step {step + 1}: {error}") from error
        self.waited += time.perf_counter() - started
        self._next = (epoch, step + 1)
        chosen = self._places[step]
        faces = self.faces._replace(images=pixels, labels=self.faces.labels[chosen])
        if faces.targets is not None:
            faces = faces._replace(targets=faces.targets[chosen])
        placed = jax.device_put(faces._replace(train_indices=np.zeros(0, np.int32), train_count=None), self.sharding)
        return placed._replace(train_count=0)

    def _begin(self, epoch: int, step: int) -> None:
        self.close()
        order = np.asarray(self._shuffle(self.keys, self.faces.train_indices, epoch))
        order = order[..., : self.steps * self.batch_size]
        # [step, batch], or [step, seed, batch].
        self._places = np.moveaxis(order.reshape(*order.shape[:-1], self.steps, self.batch_size), -2, 0)
        self._batches = read_batches(self.images, self._places[step:])

    def close(self) -> None:
        """End the threads that read ahead."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None


def _shuffle(key: jax.Array, indices: jax.Array, epoch: Any, count: int) -> jax.Array:
    faces: Sequence[Any] = (None, None, indices, count)
    return shuffle_epoch(key, TrainingFaces(*faces), epoch)[1]
