"""The loop: epochs of one network, the faces on the device as bytes, several seeds at once if asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ffem_jax.machine.devices import make_batch_mesh
from ffem_jax.specs.architecture import NetworkSpec, SpecError
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.recipes import Schedule, compute_schedule
from ffem_jax.training.step import BATCH_AXIS, EpochSums, TrainState, compile_program

# Images embedded at a time, whatever the training batch.
EMBED_BATCH = 64


@dataclass
class History:
    """What each epoch gave, as lists [epoch][seed].

    validation_accuracy: of the images given for it; no epochs where there were none.
    bad_steps: for each seed "epoch E, step S" where its loss first was not finite, else empty.
    """

    loss: list[list[float]] = field(default_factory=list)
    train_accuracy: list[list[float]] = field(default_factory=list)
    validation_accuracy: list[list[float]] = field(default_factory=list)
    bad_steps: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A trained network: its state, history, and how long that took.

    images_per_second counts the images of all seeds over the seconds of training steps alone; None where a
    checkpoint had left nothing to train.
    """

    state: TrainState
    history: History
    compile_seconds: float
    images_per_second: float | None


class Trainer:
    """Trains one network with one or several seeds on images that stay on the device.

    images uint8 [image, R, R, 3] and labels int32 [image] hold both sides; train and validation are index arrays.
    Validation images are of people who train: their accuracy is recorded after each epoch and chooses nothing. The
    classifier has an output for each person who trains, in order of label.
    """

    def __init__(
        self,
        network: NetworkSpec,
        recipe: RecipeSpec,
        seeds: Sequence[int],
        images: np.ndarray,
        labels: np.ndarray,
        train: np.ndarray,
        validation: np.ndarray,
    ):
        if len(train) < recipe.batch_size:
            raise SpecError(
                f"recipe.batch_size={recipe.batch_size} is more than the {len(train)} training images; "
                f"take at most {len(train)}"
            )
        self.recipe, self.seeds, self.train, self.validation = recipe, tuple(seeds), train, validation
        trained = np.unique(labels[train])
        # The same labels where everybody trains. Images of others get some number that is never read.
        self.labels_host = labels = np.searchsorted(trained, labels)
        mesh = make_batch_mesh(BATCH_AXIS, recipe.batch_size)
        self.device_count = mesh.size
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._embed_batch = -(-EMBED_BATCH // mesh.size) * mesh.size
        self.images = jax.device_put(images, self._whole)
        self.labels = jax.device_put(labels.astype(np.int32), self._whole)
        pool = np.zeros(len(labels), np.int32)
        pool[: len(train)] = train
        self.pool = jax.device_put(pool, self._whole)
        self.steps_per_epoch = len(train) // recipe.batch_size
        people = len(trained)
        keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        self.keys = jax.device_put(keys if len(self.seeds) > 1 else keys[0], self._whole)
        # Padded to one length for all folds, so that a fold with an image more shares the program.
        padding = ((0, 0), (0, len(labels) // recipe.batch_size - self.steps_per_epoch))
        self.schedule = Schedule(
            *(np.pad(values, padding) for values in compute_schedule(recipe, self.steps_per_epoch))
        )

        started = time.perf_counter()
        shapes = len(self.seeds), images.shape, people, self._embed_batch
        self._program = compile_program(network, recipe, mesh, *shapes)
        self.compile_seconds = time.perf_counter() - started
        self.abstract_state = self._program.abstract_state

    @property
    def _faces(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, int]:
        return self.keys, self.images, self.labels, self.pool, len(self.train)

    def init(self) -> TrainState:
        """The state before the first step."""
        return self._program.init(self.keys)

    def _zero_sums(self) -> EpochSums:
        shape = () if len(self.seeds) == 1 else (len(self.seeds),)
        sums = EpochSums(jnp.zeros(shape), jnp.zeros(shape, jnp.int32), jnp.full(shape, -1, jnp.int32))
        return jax.device_put(sums, self._whole)

    def fit(
        self,
        *,
        restored: tuple[int, TrainState, History] | None = None,
        stop_epoch: int = 0,
        on_epoch: Callable[[int, TrainState, History], None] | None = None,
        on_progress: Callable[[int, int, float, float], None] | None = None,
    ) -> Training:
        """Train to recipe.epochs, from the start or from `restored` (epochs done, state, history).

        With stop_epoch, which is not 0, to the end of that epoch of the same schedule at most.

        on_epoch(epochs_done, state, history) after each epoch; on_progress(epoch, step, loss, images_per_second)
        every second or so. Stops early where every seed's loss has stopped being finite.
        """
        done, state, history = restored or (0, self.init(), History(bad_steps=[""] * len(self.seeds)))
        seconds = images = 0.0
        # The first call is short, to learn how long a step takes; then about a second a call.
        stride = 1
        for epoch in range(done, min(stop_epoch or self.recipe.epochs, self.recipe.epochs)):
            if all(history.bad_steps):
                break
            sums, first = self._zero_sums(), 0
            while first < self.steps_per_epoch and not all(history.bad_steps):
                last = min(first + stride, self.steps_per_epoch)
                started = time.perf_counter()
                schedule = Schedule(*(values[epoch] for values in self.schedule))
                state, sums = self._program.train_steps(state, sums, *self._faces, schedule, epoch, first, last)
                loss, correct, bad_steps = (np.atleast_1d(total).tolist() for total in jax.device_get(sums))
                elapsed = time.perf_counter() - started
                seconds += elapsed
                images += (last - first) * self.recipe.batch_size * len(self.seeds)
                stride = max(1, int((last - first) / elapsed))
                for index, step in enumerate(bad_steps):
                    if step >= 0 and not history.bad_steps[index]:
                        history.bad_steps[index] = f"epoch {epoch + 1}, step {step + 1}"
                first = last
                if on_progress:
                    on_progress(epoch, last, sum(loss) / len(loss) / last, images / seconds)
            history.loss.append([total / first for total in loss])
            history.train_accuracy.append([total / (first * self.recipe.batch_size) for total in correct])
            if len(self.validation):
                _, logits = self.embed(state, self.validation)
                right = (logits.argmax(axis=-1) == self.labels_host[self.validation]).mean(axis=-1)
                history.validation_accuracy.append(np.atleast_1d(right).tolist())
            if on_epoch:
                on_epoch(epoch + 1, state, history)
        return Training(state, history, self.compile_seconds, images / seconds if seconds else None)

    def embed(self, state: TrainState, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [(seed,) index, embedding_dim] and logits [(seed,) index, people] of those images, float32."""
        padded = np.zeros(-(-len(indices) // self._embed_batch) * self._embed_batch, np.int32)
        padded[: len(indices)] = indices
        batches = [self._program.embed(state, self.images, batch) for batch in padded.reshape(-1, self._embed_batch)]
        embeddings, logits = (np.concatenate(parts, axis=-2) for parts in zip(*jax.device_get(batches), strict=True))
        return embeddings[..., : len(indices), :], logits[..., : len(indices), :]
