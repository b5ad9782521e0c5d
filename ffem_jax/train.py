"""The loop: one compiled program an epoch, the faces on the device as bytes, several seeds at once if asked.

Nothing random is carried from step to step: each step's draws follow from (seed, epoch, step), so a trial that
goes on from a checkpoint makes the very steps that it would have made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from ffem_jax.data.augment import augment_images
from ffem_jax.losses import compute_cross_entropy, normalize
from ffem_jax.models import build_model
from ffem_jax.models.blocks import kernel_init
from ffem_jax.recipes import compute_learning_rates, make_optimizer
from ffem_jax.spec import NetworkSpec, RecipeSpec, SpecError

EMBED_BATCH = 64


class TrainState(NamedTuple):
    """All that an epoch changes. With several seeds each leaf has a leading axis [seed]."""

    params: Any
    statistics: Any
    optimizer: Any


class EpochSums(NamedTuple):
    """Sums over steps: of batch losses, of images classified right; bad_step is the first step whose loss was not
    finite, or -1."""

    loss: jax.Array
    correct: jax.Array
    bad_step: jax.Array


class FaceClassifier(nnx.Module):
    """The network and the dense layer over the people that training needs and deployment drops."""

    def __init__(self, network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, *, rngs: nnx.Rngs):
        self.network = build_model(network, resolution, rngs=rngs)
        self.scale = recipe.scale if recipe.loss == "normalized_softmax" else None
        self.classifier = nnx.Linear(
            network.embedding_dim, people, use_bias=self.scale is None, kernel_init=kernel_init, rngs=rngs
        )

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixels [N, R, R, 3] -> embeddings [N, embedding_dim], logits [N, people]."""
        embeddings = self.network(pixels)
        if self.scale is None:
            return embeddings, self.classifier(embeddings)
        people = normalize(self.classifier.kernel[...], axis=0)
        return embeddings, self.scale * normalize(embeddings, axis=1) @ people


@dataclass(frozen=True)
class Program:
    """The jitted parts of training one network, for one key or, with several seeds, for an array of keys.

    init(key) -> TrainState.
    train_steps(state, key, images, labels, pool, train_count, rates, epoch, first, last) -> TrainState, EpochSums:
        steps first to last of an epoch. images uint8 [image, R, R, 3]; pool int32 [image], the training images'
        indices first; rates float32 [step], the epoch's learning rates.
    embed(state, images, indices) -> embeddings [index, embedding_dim], logits [index, people], not augmented.
    """

    init: Callable
    train_steps: Callable
    embed: Callable


def build_program(network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, seeds: int = 1) -> Program:
    """Write the training program of `network`; nothing is compiled before its first call.

    Counts, rates, epoch and step enter as values and the faces as whole arrays with index lists, so that folds,
    schedules and lengths share one compilation. The network's state is a pytree of plain arrays, merged into a
    module only where it is applied.
    """
    optimizer = make_optimizer(recipe)

    def build(key):
        model = FaceClassifier(network, resolution, people, recipe, rngs=nnx.Rngs(params=key))
        graph, params, statistics = nnx.split(model, nnx.Param, ...)
        return graph, nnx.as_pure(params), nnx.as_pure(statistics)

    graph = nnx.split(nnx.eval_shape(lambda: FaceClassifier(network, resolution, people, recipe, rngs=nnx.Rngs(0))))[0]

    def init(key):
        _, params, statistics = build(key)
        return TrainState(params, statistics, optimizer.init(params))

    def apply(params, statistics, pixels, *, train):
        model = nnx.merge(graph, params, statistics)
        model.train() if train else model.eval()
        embeddings, logits = model(pixels)
        return embeddings, logits, nnx.as_pure(nnx.split(model, nnx.Param, ...)[2])

    def train_step(state, key, images, labels, rate):
        pixels = augment_images(key, images, recipe)

        def compute_loss(params):
            _, logits, statistics = apply(params, state.statistics, pixels, train=True)
            return compute_cross_entropy(logits, labels, recipe.label_smoothing), (logits, statistics)

        (loss, (logits, statistics)), grads = jax.value_and_grad(compute_loss, has_aux=True)(state.params)
        direction, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, jax.tree.map(lambda d: -rate * d, direction))
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels)
        return TrainState(params, statistics, optimizer_state), loss, correct

    def train_steps(state, key, images, labels, pool, train_count, rates, epoch, first, last):
        batch = recipe.batch_size
        epoch_key = jax.random.fold_in(key, epoch)
        # pool is padded to one length for all folds: shuffle the training images at its front alone.
        draws = jax.random.uniform(epoch_key, pool.shape)
        order = pool[jnp.argsort(jnp.where(jnp.arange(pool.size) < train_count, draws, 2.0))]

        def body(step, carry):
            state, sums = carry
            chosen = lax.dynamic_slice(order, (step * batch,), (batch,))
            step_key = jax.random.fold_in(epoch_key, step)
            state, loss, correct = train_step(state, step_key, images[chosen], labels[chosen], rates[step])
            bad_step = jnp.where((sums.bad_step < 0) & ~jnp.isfinite(loss), step, sums.bad_step)
            return state, EpochSums(sums.loss + loss, sums.correct + correct, bad_step)

        zeros = EpochSums(jnp.float32(0), jnp.int32(0), jnp.int32(-1))
        # A loop with its bounds as values: one program for a whole epoch and for any part of it.
        return lax.fori_loop(first, last, body, (state, zeros))

    def embed(state, images, indices):
        pixels = images[indices]
        embeddings, logits, _ = apply(state.params, state.statistics, pixels, train=False)
        if recipe.flip_test:
            mirrored, mirrored_logits, _ = apply(state.params, state.statistics, pixels[:, :, ::-1], train=False)
            embeddings, logits = (embeddings + mirrored) / 2, (logits + mirrored_logits) / 2
        return embeddings, logits

    if seeds > 1:
        init = jax.vmap(init)
        train_steps = jax.vmap(train_steps, in_axes=(0, 0, *[None] * 8))
        embed = jax.vmap(embed, in_axes=(0, None, None))
    return Program(jax.jit(init), jax.jit(train_steps, donate_argnums=0), jax.jit(embed))


@dataclass
class History:
    """What each epoch gave, as lists [epoch][seed]; seconds are summed over epochs of this process.

    bad_steps: for each seed "epoch E, step S" where its loss stopped being finite, else empty.
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

    images uint8 [image, R, R, 3] and labels int32 [image] hold both sides; train and test are index arrays.
    """

    def __init__(
        self,
        network: NetworkSpec,
        recipe: RecipeSpec,
        seeds: Sequence[int],
        images: np.ndarray,
        labels: np.ndarray,
        train: np.ndarray,
        test: np.ndarray,
    ):
        if len(train) < recipe.batch_size:
            raise SpecError(
                f"recipe.batch_size={recipe.batch_size} is more than the {len(train)} training images; "
                f"take at most {len(train)}"
            )
        self.recipe, self.seeds, self.train, self.test = recipe, tuple(seeds), train, test
        self.labels_host = labels
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
        pool = np.zeros(len(labels), np.int32)
        pool[: len(train)] = train
        self.pool = jnp.asarray(pool)
        self.steps_per_epoch = len(train) // recipe.batch_size
        people = int(labels.max()) + 1
        program = build_program(network, images.shape[1], people, recipe, len(self.seeds))
        keys = jnp.stack([jax.random.key(seed) for seed in self.seeds])
        self.keys = keys if len(self.seeds) > 1 else keys[0]
        # Rates are padded to one length for all folds, so that a fold with an image more shares the program.
        self.rates = np.zeros((recipe.epochs, len(labels) // recipe.batch_size), np.float32)
        self.rates[:, : self.steps_per_epoch] = compute_learning_rates(recipe, self.steps_per_epoch)

        started = time.perf_counter()
        init = program.init.lower(self.keys).compile()
        abstract = jax.eval_shape(program.init, self.keys)
        arguments = (self.images, self.labels, self.pool, len(train), self.rates[0], 0, 0, 0)
        self._train_steps = program.train_steps.lower(abstract, self.keys, *arguments).compile()
        self._embed = program.embed.lower(abstract, self.images, np.zeros(EMBED_BATCH, np.int32)).compile()
        self.compile_seconds = time.perf_counter() - started
        self.abstract_state = abstract
        self._init = init

    def fit(
        self,
        *,
        restored: tuple[int, TrainState, History] | None = None,
        on_epoch: Callable[[int, TrainState, History], None] | None = None,
        on_progress: Callable[[int, int, float, float], None] | None = None,
    ) -> Training:
        """Train to recipe.epochs, from the start or from `restored` (epochs done, state, history).

        on_epoch(epochs_done, state, history) after each epoch; on_progress(epoch, step, loss, images_per_second)
        every second or so. Stops early where every seed's loss has stopped being finite.
        """
        done, state, history = restored or (0, self._init(self.keys), History(bad_steps=[""] * len(self.seeds)))
        seconds = images = 0.0
        # The first call is short, to learn how long a step takes; then about a second a call.
        stride = 1
        for epoch in range(done, self.recipe.epochs):
            if all(history.bad_steps):
                break
            loss, correct = np.zeros(len(self.seeds)), np.zeros(len(self.seeds))
            first = 0
            while first < self.steps_per_epoch:
                last = min(first + stride, self.steps_per_epoch)
                started = time.perf_counter()
                arguments = (
                    self.images,
                    self.labels,
                    self.pool,
                    len(self.train),
                    self.rates[epoch],
                    epoch,
                    first,
                    last,
                )
                state, sums = self._train_steps(state, self.keys, *arguments)
                bad_step = np.atleast_1d(jax.device_get(sums.bad_step))
                elapsed = time.perf_counter() - started
                seconds += elapsed
                images += (last - first) * self.recipe.batch_size * len(self.seeds)
                stride = max(1, int((last - first) / elapsed))
                loss += np.atleast_1d(sums.loss)
                correct += np.atleast_1d(sums.correct)
                for index, step in enumerate(bad_step):
                    if step >= 0 and not history.bad_steps[index]:
                        history.bad_steps[index] = f"epoch {epoch + 1}, step {int(step) + 1}"
                first = last
                if on_progress:
                    on_progress(epoch, last, float(np.mean(loss)) / last, images / seconds)
                if all(history.bad_steps):
                    break
            _, logits = self.embed(state, self.test)
            right = (logits.argmax(axis=-1) == self.labels_host[self.test]).mean(axis=-1)
            history.loss.append((loss / self.steps_per_epoch).tolist())
            history.train_accuracy.append((correct / (self.steps_per_epoch * self.recipe.batch_size)).tolist())
            history.validation_accuracy.append(np.atleast_1d(right).tolist())
            if on_epoch:
                on_epoch(epoch + 1, state, history)
        return Training(state, history, self.compile_seconds, images / seconds if seconds else None)

    def embed(self, state: TrainState, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [(seed,) index, embedding_dim] and logits [(seed,) index, people] of those images, float32."""
        padded = np.zeros(-(-len(indices) // EMBED_BATCH) * EMBED_BATCH, np.int32)
        padded[: len(indices)] = indices
        batches = [self._embed(state, self.images, batch) for batch in padded.reshape(-1, EMBED_BATCH)]
        embeddings, logits = (np.concatenate(parts, axis=-2) for parts in zip(*jax.device_get(batches), strict=True))
        return embeddings[..., : len(indices), :], logits[..., : len(indices), :]
