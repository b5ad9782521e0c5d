"""The training loop: epochs of one network, with one or several seeds at once.

The faces are on the device as bytes if they fit; otherwise they arrive one batch at a time (`feed`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ffem_jax.data.read_ahead import read_batches
from ffem_jax.data.stream import StreamedImages
from ffem_jax.machine import hosts
from ffem_jax.machine.devices import describe_idle, make_batch_mesh
from ffem_jax.specs.architecture import NetworkSpec, SpecError
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.feed import BatchFeed, fits_device
from ffem_jax.training.placement import Placement
from ffem_jax.training.program import build_embed_batch, compile_program
from ffem_jax.training.recipes import Schedule, compute_schedule
from ffem_jax.training.step import BATCH_AXIS, EpochMetrics, TrainingFaces, TrainState
from ffem_jax.training.teaching import compute_centres

# Images embedded at a time, independent of the training batch.
EMBED_BATCH = 64


@dataclass
class History:
    """The metrics of each epoch, as lists [epoch][seed].

    Args:
        loss: the mean loss of the epoch's steps.
        train_accuracy: the share of the training images classified correctly, each before the step that used it.
        validation_accuracy: the same for the validation images after the epoch; empty without validation images.
        bad_steps: per seed, "epoch E, step S" of its first non-finite loss, else empty.
    """

    loss: list[list[float]] = field(default_factory=list)
    train_accuracy: list[list[float]] = field(default_factory=list)
    validation_accuracy: list[list[float]] = field(default_factory=list)
    bad_steps: list[str] = field(default_factory=list)


class Position(NamedTuple):
    """The position of a training between two steps.

    Args:
        epochs: completed epochs.
        state, history: after the last step.
        step: completed steps of the next epoch.
        metrics: the metrics of these steps; None before the first.
    """

    epochs: int
    state: TrainState
    history: History
    step: int = 0
    metrics: EpochMetrics | None = None


@dataclass
class Throughput:
    """Measures the speed of training steps and sets how many to run per device call: about one second's worth."""

    seconds: float = 0.0
    images: int = 0
    # The first call is short, to learn how long a step takes.
    steps_per_call: int = 1

    def add(self, steps: int, images: int, seconds: float) -> None:
        """Add one call of `steps` steps on `images` images."""
        self.seconds += seconds
        self.images += images
        self.steps_per_call = max(1, int(steps / seconds))

    @property
    def images_per_second(self) -> float | None:
        """Images per second; None before the first step."""
        return self.images / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Training:
    """A trained network: its state, history and speed.

    images_per_second counts the images of all seeds over the seconds of the training steps alone; None if the
    checkpoint left nothing to train. data_wait_fraction is the share of these seconds in which training waited for
    images, 0 to 1; None if the images are on the device.
    """

    state: TrainState
    history: History
    compile_seconds: float
    images_per_second: float | None
    data_wait_fraction: float | None = None


class Trainer:
    """Trains one network with one or several seeds on images that stay on the device or arrive one batch at a time.

    Validation images show the training identities. Their accuracy is recorded after each epoch and selects nothing. The
    classifier has one output per training identity, in order of label.

    Args:
        network: the network to train.
        recipe: the training settings.
        seeds: one, or several that are trained side by side as one program.
        images: uint8 [image, R, R, 3], training and test: an array, or `data.stream.StreamedImages`.
        labels: int32 [image].
        train: indices of the training images.
        validation: indices of the validation images; may be empty.
        targets: float32 [image, feature], L2-normalised embeddings from a teacher; None without a teacher.
        images_per_epoch: training images per epoch, a different subset in each; 0 uses all.
        feed: whether to feed one batch at a time even if all images fit on the device.
        devices: the largest number of devices per process that share a batch; 0 uses all.

    Attributes:
        placement: where the arrays are.
        idle: one line about devices that could have shared a batch but are idle; else empty.

    Raises:
        SpecError: the batch is larger than the training set or an epoch, or there are fewer devices than `devices`.
    """

    def __init__(
        self,
        network: NetworkSpec,
        recipe: RecipeSpec,
        seeds: Sequence[int],
        images: np.ndarray | StreamedImages,
        labels: np.ndarray,
        train: np.ndarray,
        validation: np.ndarray,
        targets: np.ndarray | None = None,
        images_per_epoch: int = 0,
        feed: bool = False,
        devices: int = 0,
    ):
        if len(train) < recipe.batch_size:
            raise SpecError(
                f"recipe.batch_size={recipe.batch_size} is more than the {len(train)} training images; "
                f"set at most {len(train)}"
            )
        if 0 < images_per_epoch < recipe.batch_size:
            raise SpecError(
                f"data.images_per_epoch={images_per_epoch} is less than a batch; set at least recipe.batch_size="
                f"{recipe.batch_size}, or 0 for all"
            )
        self.recipe, self.seeds, self.train, self.validation = recipe, tuple(seeds), train, validation
        identities = np.unique(labels[train])
        # The labels are unchanged if all identities train. Images of other identities get a number that is never read.
        self.labels_host = np.searchsorted(identities, labels)
        mesh = make_batch_mesh(BATCH_AXIS, recipe.batch_size, devices)
        self.device_count, self.idle = mesh.size, describe_idle(mesh.size, recipe.batch_size, devices)
        self.placement = Placement(mesh)
        self._embed_batch = -(-EMBED_BATCH // mesh.size) * mesh.size
        keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        keys = keys if len(self.seeds) > 1 else keys[0]
        self.keys = self.placement.put(keys)
        self.steps_per_epoch = min(len(train), images_per_epoch or len(train)) // recipe.batch_size
        self._feed: BatchFeed | None = None
        self._throughput = Throughput()
        faces = self._gather_faces(targets)
        # All processes run one program: if one of them lacks the memory, all are fed.
        if any(hosts.gather(feed or not fits_device(images))):
            self._feed = BatchFeed(
                images, faces, keys, recipe.batch_size, self.steps_per_epoch, recipe.epochs, self.placement
            )
        else:
            self.faces = self._put_faces(faces._replace(images=np.asarray(images)))
        # Padded to one length for all folds, so that a fold with one more image shares the program.
        padding = ((0, 0), (0, len(labels) // recipe.batch_size - self.steps_per_epoch))
        self.schedule = Schedule(
            *(np.pad(values, padding) for values in compute_schedule(recipe, self.steps_per_epoch))
        )

        started = time.perf_counter()
        teacher_features = 0 if targets is None else targets.shape[1]
        shapes = len(self.seeds), images.shape, len(identities), self._embed_batch, teacher_features
        self._program = compile_program(network, recipe, mesh, *shapes, fed=self._feed is not None)
        self._build_embed_batch = partial(
            build_embed_batch, network, recipe, mesh, len(self.seeds), images.shape[1], len(identities),
            teacher_features,
        )  # fmt: skip
        self.compile_seconds = time.perf_counter() - started
        self.abstract_state = self._program.abstract_state

    def _gather_faces(self, targets: np.ndarray | None) -> TrainingFaces:
        """Return everything about the faces except their images, on the host."""
        train_indices = np.zeros(len(self.labels_host), np.int32)
        train_indices[: len(self.train)] = self.train
        faces = TrainingFaces(None, self.labels_host.astype(np.int32), train_indices, len(self.train))
        if targets is None:
            return faces
        return faces._replace(targets=targets, centres=compute_centres(targets, self.labels_host, self.train))

    def _put_faces(self, faces: TrainingFaces) -> TrainingFaces:
        placed = self.placement.put(faces._replace(train_count=None))
        return placed._replace(train_count=faces.train_count)

    def init(self) -> TrainState:
        """Return the state before the first step."""
        return self._program.init(self.keys)

    def start_history(self) -> History:
        """Return the history before the first epoch."""
        return History(bad_steps=[""] * len(self.seeds))

    def zero_metrics(self) -> EpochMetrics:
        """Return the metrics of an epoch before its first step."""
        shape = (len(self.seeds),) if len(self.seeds) > 1 else ()
        return self.placement.put(EpochMetrics.zero(shape))

    def run_steps(
        self, state: TrainState, metrics: EpochMetrics, epoch: int, first: int, last: int
    ) -> tuple[TrainState, EpochMetrics]:
        """Run steps `first` to `last` of an epoch and add them to `metrics`; the buffers of `state` are consumed."""
        schedule = Schedule(*(values[epoch] for values in self.schedule))
        if self._feed is None:
            return self._program.train(state, metrics, self.keys, self.faces, schedule, epoch, first, last)
        for step in range(first, last):
            faces = self._feed.take(epoch, step)
            state, metrics = self._program.train(state, metrics, self.keys, faces, schedule, epoch, step)
            # The threads read meanwhile, so any wait for the next batch is the time by which it is late.
            jax.block_until_ready(metrics)
        return state, metrics

    def fit(
        self,
        *,
        restored: Position | tuple[int, TrainState, History] | None = None,
        stop_epoch: int = 0,
        on_epoch: Callable[[int, TrainState, History], None] | None = None,
        on_steps: Callable[[Position], None] | None = None,
        on_progress: Callable[[int, int, float, float], None] | None = None,
    ) -> Training:
        """Train to recipe.epochs, from the start or from a checkpoint.

        Stops early if the loss of every seed is no longer finite.

        Args:
            restored: the position of the checkpoint, with arrays on the devices or on the host.
            stop_epoch: if not 0, stop after this epoch of the same schedule; an epoch that has begun is finished.
            on_epoch: called with (epochs_done, state, history) after each epoch.
            on_steps: called with the position within an epoch about every second; its state is overwritten afterwards.
            on_progress: called with (epoch, step, loss, images_per_second) about every second.
        """
        start = Position(*restored) if restored else Position(0, self.init(), self.start_history())
        state, history = self.placement.put(start.state), start.history
        throughput = self._throughput = Throughput()
        if self._feed:
            self._feed.waited = 0.0
        stop = min(stop_epoch or self.recipe.epochs, self.recipe.epochs)
        for epoch in range(start.epochs, max(stop, start.epochs + bool(start.step))):
            if all(history.bad_steps):
                break
            at = start if epoch == start.epochs else Position(epoch, state, history)
            state = self._train_epoch(at._replace(state=state), throughput, on_steps, on_progress)
            if len(self.validation):
                _, logits = self.embed(state, self.validation)
                hits = logits.argmax(axis=-1) == self.labels_host[self.validation]
                history.validation_accuracy.append(np.atleast_1d(hits.mean(axis=-1)).tolist())
            if on_epoch:
                on_epoch(epoch + 1, state, history)
        self.close()
        speed = throughput.images_per_second
        return Training(state, history, self.compile_seconds, speed, self.data_wait_fraction)

    @property
    def data_wait_fraction(self) -> float | None:
        """The share of the steps' time so far spent waiting for images; None if all images are on the device."""
        if self._feed is None or not self._throughput.seconds:
            return None
        return min(1.0, self._feed.waited / self._throughput.seconds)

    def close(self) -> None:
        """Stop the threads that read images ahead, if there are any."""
        if self._feed:
            self._feed.close()

    def _train_epoch(
        self,
        start: Position,
        throughput: Throughput,
        on_steps: Callable[[Position], None] | None,
        on_progress: Callable[[int, int, float, float], None] | None,
    ) -> TrainState:
        """Run one epoch from `start` on, add its loss and accuracy to the history, and return the state."""
        epoch, state, history, first, _ = start
        metrics = self.zero_metrics() if start.metrics is None else self.placement.put(start.metrics)
        while first < self.steps_per_epoch and not all(history.bad_steps):
            last = min(first + hosts.tell(throughput.steps_per_call), self.steps_per_epoch)
            started = time.perf_counter()
            state, metrics = self.run_steps(state, metrics, epoch, first, last)
            loss, correct, bad_steps = (np.atleast_1d(values).tolist() for values in jax.device_get(metrics))
            images = (last - first) * self.recipe.batch_size * len(self.seeds)
            throughput.add(last - first, images, time.perf_counter() - started)
            for seed, step in enumerate(bad_steps):
                if step >= 0 and not history.bad_steps[seed]:
                    history.bad_steps[seed] = f"epoch {epoch + 1}, step {step + 1}"
            first = last
            if on_steps and last < self.steps_per_epoch:
                on_steps(Position(epoch, state, history, last, metrics))
            if on_progress:
                on_progress(epoch, last, sum(loss) / len(loss) / last, throughput.images_per_second or 0.0)
        history.loss.append([total / first for total in loss])
        history.train_accuracy.append([total / (first * self.recipe.batch_size) for total in correct])
        return state

    def embed(
        self, state: TrainState, indices: np.ndarray, logits_of: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embed the images at `indices`, without augmentation.

        Args:
            state: the network's state.
            indices: which images.
            logits_of: return logits for the first `logits_of` images only; None means all.

        Returns:
            Embeddings [(seed,) index, embedding_dim] and logits [(seed,) logits_of, num_classes], float32; the axis
            [seed] only with several seeds.

        Raises:
            StreamError: an image can no longer be read.
        """
        shown = len(indices) if logits_of is None else logits_of
        padded = np.zeros(-(-len(indices) // self._embed_batch) * self._embed_batch, np.int32)
        padded[: len(indices)] = indices
        embeddings, logits = [], []
        for number, (vectors, scores) in enumerate(self._embed_batches(state, padded.reshape(-1, self._embed_batch))):
            embeddings.append(vectors)
            if number * self._embed_batch < max(shown, 1):
                logits.append(scores)
        joined = (np.concatenate(jax.device_get(parts), axis=-2) for parts in (embeddings, logits))
        vectors, scores = joined
        return vectors[..., : len(indices), :], scores[..., :shown, :]

    def _embed_batches(self, state: TrainState, batches: np.ndarray) -> Iterator[tuple[Any, Any]]:
        """Yield embeddings and logits of each batch of indices [batch, index]."""
        if self._feed is None:
            for batch in batches:
                yield self._program.embed(state, self.faces.images, batch)
            return
        for pixels in read_batches(self._feed.images, batches[:, self.placement.find_rows(self._embed_batch)]):
            # Fetch each result at once, or the images of all batches would pile up on the device.
            yield jax.device_get(self._program.embed(state, self.placement.put_rows(pixels)))

    def embed_images(self, state: TrainState, images: np.ndarray) -> np.ndarray:
        """Embed images outside the data set, uint8 [image, R, R, 3], without augmentation.

        Returns:
            Embeddings [(seed,) image, embedding_dim], float32; the axis [seed] only with several seeds.
        """
        embed, size = self._program.embed if self._feed else self._build_embed_batch(), self._embed_batch
        rows, parts = self.placement.find_rows(size), []
        for start in range(0, len(images), size):
            batch = np.zeros((size, *images.shape[1:]), np.uint8)
            batch[: len(images) - start] = images[start : start + size]
            parts.append(jax.device_get(embed(state, self.placement.put_rows(batch[rows]))[0]))
        return np.concatenate(parts, axis=-2)[..., : len(images), :]
