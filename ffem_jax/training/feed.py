"""Batches of a training whose images do not fit on the device: each is read ahead of its step and transferred.

The order of an epoch comes from `step.shuffle_epoch`, as for images on the device. Both ways therefore take the same
batches, and a training that resumes at any step of any epoch takes the same images as an uninterrupted one. A batch is
split over the devices. With several processes each one reads only the rows of its own devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from ffem_jax.data.read_ahead import StreamError, read_batches
from ffem_jax.data.stream import StreamedImages
from ffem_jax.training.placement import Placement
from ffem_jax.training.step import TrainingFaces, shuffle_epoch

# The share of an accelerator's free memory that images may take: the rest is for the network.
DEVICE_SHARE = 0.5
# The order of about this many images is computed ahead, so that reading does not restart at each epoch.
IMAGES_AHEAD = 2_000_000


def fits_device(images: Any) -> bool:
    """Whether all images fit into the memory of each accelerator. On a CPU they are in its memory already."""
    if isinstance(images, StreamedImages):
        return False
    return all(images.nbytes <= DEVICE_SHARE * free for free in map(_measure_free, jax.local_devices()))


def _measure_free(device: jax.Device) -> float:
    """Return the free bytes of an accelerator's memory; infinity on a CPU or if the device does not report them."""
    measured = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    return measured["bytes_limit"] - measured.get("bytes_in_use", 0) if "bytes_limit" in measured else math.inf


class BatchFeed:
    """Provides the faces of each step, and measures how long training waited for them.

    Args:
        images: StreamedImages, or an array uint8 [image, R, R, 3].
        faces: labels, training indices and teacher targets, on the host; its `images` field is not read.
        keys: the key of one seed, or the keys of several [seed].
        batch_size: images per batch.
        steps: batches per epoch.
        epochs: epochs of the whole training.
        placement: puts a batch on the devices.

    Attributes:
        waited: seconds that training waited for images so far.
    """

    def __init__(
        self,
        images: Any,
        faces: TrainingFaces,
        keys: jax.Array,
        batch_size: int,
        steps: int,
        epochs: int,
        placement: Placement,
    ) -> None:
        self.images, self.faces, self.keys = images, faces, keys
        self.batch_size, self.steps, self.epochs, self._placement = batch_size, steps, epochs, placement
        self.waited = 0.0
        self._batches: Generator[np.ndarray] | None = None
        # Image indices of each batch that is read ahead. _first and _next count batches from the start of the training.
        self._places = np.zeros((0, batch_size), np.int32)
        self._first = self._next = -1
        # The same for every batch: put on the devices once.
        self._nobody = placement.put(np.zeros(0, np.int32))
        self._centres = None if faces.centres is None else placement.put(faces.centres)
        shuffle = partial(_shuffle, count=faces.train_count)
        self._shuffle = jax.jit(jax.vmap(shuffle, in_axes=(0, None, None)) if keys.ndim else shuffle)

    def take(self, epoch: int, step: int) -> TrainingFaces:
        """Return the faces of one step, in its order, split over the devices; with several seeds [seed, image].

        Raises:
            StreamError: an image can no longer be read; the message names the epoch and step.
        """
        number = epoch * self.steps + step
        if self._batches is None or number != self._next or number - self._first >= len(self._places):
            self._begin(epoch, step)
        assert self._batches is not None
        started = time.perf_counter()
        try:
            pixels = next(self._batches)
        except StreamError as error:
            self.close()
            raise StreamError(f"epoch {epoch + 1}, step {step + 1}: {error}") from error
        self.waited += time.perf_counter() - started
        chosen, self._next = self._places[number - self._first], number + 1
        put_rows = partial(self._placement.put_rows, axis=self.keys.ndim)
        targets = None if self.faces.targets is None else put_rows(self.faces.targets[chosen])
        labels = put_rows(self.faces.labels[chosen])
        return TrainingFaces(put_rows(pixels), labels, self._nobody, 0, targets, self._centres)

    def _begin(self, epoch: int, step: int) -> None:
        self.close()
        ahead = max(1, IMAGES_AHEAD // (self.steps * self.batch_size))
        places = [self._list_places(one) for one in range(epoch, max(min(epoch + ahead, self.epochs), epoch + 1))]
        self._places, self._first = np.concatenate(places)[step:], epoch * self.steps + step
        self._batches = read_batches(self.images, self._places)

    def _list_places(self, epoch: int) -> np.ndarray:
        """Return the image indices of each batch of an epoch on this process, [step, row] or [step, seed, row]."""
        order = np.asarray(self._shuffle(self.keys, self.faces.train_indices, epoch))
        order = order[..., : self.steps * self.batch_size]
        places = np.moveaxis(order.reshape(*order.shape[:-1], self.steps, self.batch_size), -2, 0)
        return places[..., self._placement.find_rows(self.batch_size)]

    def close(self) -> None:
        """Stop the threads that read ahead."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None


def _shuffle(key: jax.Array, indices: jax.Array, epoch: Any, count: int) -> jax.Array:
    faces: Sequence[Any] = (None, None, indices, count)
    return shuffle_epoch(key, TrainingFaces(*faces), epoch)[1]
