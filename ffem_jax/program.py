"""The compiled parts of training one network: start, steps of an epoch, embeddings.

Nothing random is carried from step to step: each step's draws follow from (seed, epoch, step), so a trial that
goes on from a checkpoint makes the very steps that it would have made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax
from jax.stages import Wrapped

from ffem_jax.arch import NetworkSpec
from ffem_jax.data.augment import augment_images
from ffem_jax.losses import compute_cross_entropy, normalize
from ffem_jax.models import build_model
from ffem_jax.models.blocks import kernel_init
from ffem_jax.recipes import make_optimizer
from ffem_jax.spec import RecipeSpec


class TrainState(NamedTuple):
    """All that an epoch changes. With several seeds each leaf has a leading axis [seed]."""

    params: Any
    statistics: Any
    optimizer: Any


class EpochSums(NamedTuple):
    """Sums over an epoch's steps so far: of batch losses, of images classified right; bad_step is the first step
    whose loss was not finite, or -1. With several seeds each has a leading axis [seed]."""

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
    """Jitted functions for one key or, with several seeds, for an array of keys; every result then has an axis [seed].

    init(key) -> TrainState.
    train_steps(state, sums, key, images, labels, pool, train_count, rates, epoch, first, last) -> state, sums:
        makes steps first to last of an epoch and adds them to `sums`. images uint8 [image, R, R, 3]; labels int32
        [image]; pool int32 [image], the training images' indices first; rates float32 [step], the epoch's
        learning rates.
    embed(state, images, indices) -> embeddings [index, embedding_dim], logits [index, people], not augmented.
    """

    init: Wrapped
    train_steps: Wrapped
    embed: Wrapped


def build_program(network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, seeds: int = 1) -> Program:
    """Write the training program of `network`; nothing is compiled before its first call.

    Counts, rates, epoch and step enter as values and the faces as whole arrays with index lists, so that folds,
    schedules and lengths share one compilation. The network's state is a pytree of plain arrays, merged into a
    module only where it is applied.
    """
    optimizer = make_optimizer(recipe)

    def build(key):
        return FaceClassifier(network, resolution, people, recipe, rngs=nnx.Rngs(params=key))

    def split(model):
        parts: Any = nnx.split(model, nnx.Param, ...)
        return parts[0], nnx.as_pure(parts[1]), nnx.as_pure(parts[2])

    graph = split(nnx.eval_shape(lambda: build(0)))[0]

    def init(key):
        _, params, statistics = split(build(key))
        return TrainState(params, statistics, optimizer.init(params))

    def apply(params, statistics, pixels, *, train):
        model = nnx.merge(graph, params, statistics)
        model.train() if train else model.eval()
        embeddings, logits = model(pixels)
        return embeddings, logits, split(model)[2]

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

    def train_steps(state, sums, key, images, labels, pool, train_count, rates, epoch, first, last):
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

        # A loop with its bounds as values: one program for a whole epoch and for any part of it.
        return lax.fori_loop(first, last, body, (state, sums))

    def embed(state, images, indices):
        pixels = images[indices]
        embeddings, logits, _ = apply(state.params, state.statistics, pixels, train=False)
        if recipe.flip_test:
            mirrored, mirrored_logits, _ = apply(state.params, state.statistics, pixels[:, :, ::-1], train=False)
            embeddings, logits = (embeddings + mirrored) / 2, (logits + mirrored_logits) / 2
        return embeddings, logits

    if seeds > 1:
        init = jax.vmap(init)
        train_steps = jax.vmap(train_steps, in_axes=(0, 0, 0, *[None] * 8))
        embed = jax.vmap(embed, in_axes=(0, None, None))
    return Program(jax.jit(init), jax.jit(train_steps, donate_argnums=0), jax.jit(embed))
