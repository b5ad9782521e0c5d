"""The training loop: epochs of one network, several seeds at once if asked.

The faces are on the device as bytes, where they fit; else they come a batch at a time (`feed`).
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

# Images embedded at a time, whatever the training batch.
EMBED_BATCH = 64


@dataclass
class History:
    """What each epoch gave, as lists [epoch][seed].

    Args:
        loss: the mean loss of the epoch's steps.
        train_accuracy: the share of its training images classified correctly, each before the step it was used in.
        validation_accuracy: the same of the validation images after the epoch; no epochs where there are none.
        bad_steps: for each seed "epoch E, step S" where its loss first was not finite, else empty.
    """

    loss: list[list[float]] = field(default_factory=list)
    train_accuracy: list[list[float]] = field(default_factory=list)
    validation_accuracy: list[list[float]] = field(default_factory=list)
    bad_steps: list[str] = field(default_factory=list)


class Position(NamedTuple):
    """Where a training is, between two of its steps.

    Args:
        epochs: how many are done. state, history: after the last step.
        step: how many steps of the next epoch are done. metrics: what these gave; None before the first.
    """

    epochs: int
    state: TrainState
    history: History
    step: int = 0
    metrics: EpochMetrics | None = None


@dataclass
class Throughput:
    """How fast training steps are, and so how many to ask the device for at a time: about a second's worth."""

    seconds: float = 0.0
    images: int = 0
    # The first call is short, to learn how long a step takes.
    steps_per_call: int = 1

    def add(self, steps: int, images: int, seconds: float) -> None:
        """Count a call of so many steps on so many images."""
        self.seconds += seconds
        self.images += images
        self.steps_per_call = max(1, int(steps / seconds))

    @property
    def images_per_second(self) -> float | None:
        """None before the first step."""
        return self.images / self.seconds if self.seconds else None


@dataclass(frozen=True)
class Training:
    """A trained network: its state, history, and how long that took.

    images_per_second counts the images of all seeds over the seconds of training steps alone; None where a
    checkpoint had left nothing to train. data_wait_fraction is the share of these seconds in which training waited for
    images, 0 to 1; None where they are on the device.
    """

    state: TrainState
    history: History
    compile_seconds: float
    images_per_second: float | None
    data_wait_fraction: float | None = None


class Trainer:
    """Trains one network with one or several seeds on images that stay on the device, or come a batch at a time.

    Validation images are of people who train: their accuracy is recorded after each epoch and chooses nothing. The
    classifier has an output for each person who trains, in order of label.

    Args:
        network: what is trained.
        recipe: how.
        seeds: one, or several that are trained side by side as one program.
        images: uint8 [image, R, R, 3], those of both sides: an array, or `data.stream.StreamedImages`.
        labels: int32 [image].
        train: indices of the training images.
        validation: indices of the validation images; may be empty.
        targets: float32 [image, feature], of unit length: what a teacher says of each image, where there is one.
        images_per_epoch: how many of the training images an epoch takes, others in each; 0 takes all.
        feed: whether images come a batch at a time, though they would fit on the device.
        devices: how many devices of each process share a batch at most; 0 takes all.

    Attributes:
        placement: where the arrays lie.
        idle: one line where devices are left idle that could have shared a batch; else empty.

    Raises:
        SpecError: the batch is larger than the training side, or than an epoch; there are fewer devices.
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
                f"take at most {len(train)}"
            )
        if 0 < images_per_epoch < recipe.batch_size:
            raise SpecError(
                f"data.images_per_epoch={images_per_epoch} is less than a batch; take at least recipe.batch_size="
                f"{recipe.batch_size}, or 0 for all"
            )
        self.recipe, self.seeds, self.train, self.validation = recipe, tuple(seeds), train, validation
        identities = np.unique(labels[train])
        # The same labels where everybody trains. Images of others get some number that is never read.
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
        # One program for all processes: where one of them has not the memory, each is fed.
        if any(hosts.gather(feed or not fits_device(images))):
            self._feed = BatchFeed(
                images, faces, keys, recipe.batch_size, self.steps_per_epoch, recipe.epochs, self.placement
            )
        else:
            self.faces = self._put_faces(faces._replace(images=np.asarray(images)))
        # Padded to one length for all folds, so that a fold with an image more shares the program.
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
        """All about the faces but their images, on the host."""
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
        """The state before the first step."""
        return self._program.init(self.keys)

    def start_history(self) -> History:
        """The history before the first epoch."""
        return History(bad_steps=[""] * len(self.seeds))

    def zero_metrics(self) -> EpochMetrics:
        """The metrics of an epoch before its first step."""
        shape = (len(self.seeds),) if len(self.seeds) > 1 else ()
        return self.placement.put(EpochMetrics.zero(shape))

    def run_steps(
        self, state: TrainState, metrics: EpochMetrics, epoch: int, first: int, last: int
    ) -> tuple[TrainState, EpochMetrics]:
        """The state after steps `first` to `last` of an epoch, and `metrics` with theirs; `state` is used up."""
        schedule = Schedule(*(values[epoch] for values in self.schedule))
        if self._feed is None:
            return self._program.train(state, metrics, self.keys, self.faces, schedule, epoch, first, last)
        for step in range(first, last):
            faces = self._feed.take(epoch, step)
            state, metrics = self._program.train(state, metrics, self.keys, faces, schedule, epoch, step)
            # Threads read meanwhile; what the next batch is waited for is then what it was late.
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
        """Train to recipe.epochs, from the start or from where a checkpoint was.

        Stops early where every seed's loss has stopped being finite.

        Args:
            restored: where the checkpoint was; its arrays are on the devices or on the host.
            stop_epoch: not 0 stops at the end of that epoch of the same schedule; an epoch that is begun is finished.
            on_epoch: called with (epochs_done, state, history) after each epoch.
            on_steps: called with the position within an epoch every second or so; its state is overwritten afterwards.
            on_progress: called with (epoch, step, loss, images_per_second) every second or so.
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
        """The share of the steps' seconds so far in which training waited for images; None where it has them all."""
        if self._feed is None or not self._throughput.seconds:
            return None
        return min(1.0, self._feed.waited / self._throughput.seconds)

    def close(self) -> None:
        """End the threads that read images ahead; nothing where there are none."""
        if self._feed:
            self._feed.close()

    def _train_epoch(
        self,
        start: Position,
        throughput: Throughput,
        on_steps: Callable[[Position], None] | None,
        on_progress: Callable[[int, int, float, float], None] | None,
    ) -> TrainState:
        """The state after the steps of one epoch from `start` on; its loss and accuracy are added to the history."""
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
        """Embed those images, not augmented.

        Args:
            state: of the network.
            indices: which images.
            logits_of: of how many of them, from the first on, logits are given; None gives all.

        Returns:
            Embeddings [(seed,) index, embedding_dim] and logits [(seed,) logits_of, num_classes], float32; [seed] with
            several seeds alone.

        Raises:
            StreamError: an image cannot be read any more.
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
        """Embeddings and logits of each batch of indices [batch, index]."""
        if self._feed is None:
            for batch in batches:
                yield self._program.embed(state, self.faces.images, batch)
            return
        for pixels in read_batches(self._feed.images, batches[:, self.placement.find_rows(self._embed_batch)]):
            # Off the device one by one, or the images of all batches would wait there.
            yield jax.device_get(self._program.embed(state, self.placement.put_rows(pixels)))

    def embed_images(self, state: TrainState, images: np.ndarray) -> np.ndarray:
        """Embed images that are no part of the faces, uint8 [image, R, R, 3], not augmented.

        Returns:
            Embeddings [(seed,) image, embedding_dim], float32; [seed] with several seeds alone.
        """
        embed, size = self._program.embed if self._feed else self._build_embed_batch(), self._embed_batch
        rows, parts = self.placement.find_rows(size), []
        for start in range(0, len(images), size):
            batch = np.zeros((size, *images.shape[1:]), np.uint8)
            batch[: len(images) - start] = images[start : start + size]
            parts.append(jax.device_get(embed(state, self.placement.put_rows(batch[rows]))[0]))
        return np.concatenate(parts, axis=-2)[..., : len(images), :]
