"""The loop: one compiled program an epoch, the faces on the device as bytes, several seeds at once if asked.

Nothing random is carried from step to step: each step's draws follow from (seed, epoch, step), so a trial that
goes on from a checkpoint makes the very steps that it would have made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import lax

from ffem_jax.data.augment import augment_images
from ffem_jax.losses import compute_cross_entropy
from ffem_jax.models import build_model
from ffem_jax.recipes import make_optimizer
from ffem_jax.spec import NetworkSpec, RecipeSpec

EMBED_BATCH = 64


class TrainState(NamedTuple):
    """All that an epoch changes. With several seeds each leaf has a leading axis [seed]."""

    params: Any
    statistics: Any
    optimizer: Any


class EpochSums(NamedTuple):
    """Sums over the steps so far; bad_step is the first step with a loss that is not finite, or -1."""

    loss: jax.Array
    correct: jax.Array
    images: jax.Array
    bad_step: jax.Array


class FaceClassifier(nnx.Module):
    """The network and the dense layer over the people that training needs and deployment drops."""

    def __init__(self, network: NetworkSpec, resolution: int, people: int, *, rngs: nnx.Rngs):
        self.network = build_model(network, resolution, rngs=rngs)
        self.classifier = nnx.Linear(network.embedding_dim, people, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixels [N, R, R, 3] -> embeddings [N, embedding_dim], logits [N, people]."""
        embeddings = self.network(pixels)
        return embeddings, self.classifier(embeddings)


@dataclass(frozen=True)
class Program:
    """The compiled parts of training one network.

    init(keys) -> TrainState. train_steps(state, keys, images, labels, order_pool, train_count, rates, epoch, first,
    last) -> TrainState, EpochSums: steps first to last of an epoch. embed(state, images, indices) ->
    embeddings, logits. `keys` is a key, or [seed] keys with several seeds.
    """

    init: Callable
    train_steps: Callable
    embed: Callable


def build_program(network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, seeds: int = 1) -> Program:
    """Write the training program of `network`; nothing is compiled before its first call.

    Counts, rates, epoch and step enter as values and the faces as whole arrays with index lists, so that folds,
    schedules and lengths share one compilation.
    """
    optimizer = make_optimizer(recipe)
    abstract = nnx.eval_shape(lambda: FaceClassifier(network, resolution, people, rngs=nnx.Rngs(0)))
    graph = nnx.split(abstract, nnx.Param, ...)[0]

    def init(key):
        _, params, statistics = nnx.split(
            FaceClassifier(network, resolution, people, rngs=nnx.Rngs(params=key)), nnx.Param, ...
        )
        return TrainState(params, statistics, optimizer.init(params))

    def apply(params, statistics, pixels, *, train):
        model = nnx.merge(graph, params, statistics, copy=True)
        model.train() if train else model.eval()
        embeddings, logits = model(pixels)
        return embeddings, logits, nnx.split(model, nnx.Param, ...)[2]

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
        # pool lists the training images first and is padded to one length for all folds: shuffle only those.
        draws = jax.random.uniform(epoch_key, pool.shape)
        order = pool[jnp.argsort(jnp.where(jnp.arange(pool.size) < train_count, draws, 2.0))]

        def body(step, carry):
            state, sums = carry
            chosen = lax.dynamic_slice(order, (step * batch,), (batch,))
            step_key = jax.random.fold_in(epoch_key, step)
            state, loss, correct = train_step(state, step_key, images[chosen], labels[chosen], rates[step])
            bad = (sums.bad_step < 0) & ~jnp.isfinite(loss)
            return state, EpochSums(
                sums.loss + loss * batch,
                sums.correct + correct,
                sums.images + batch,
                jnp.where(bad, step, sums.bad_step),
            )

        zeros = EpochSums(jnp.float32(0), jnp.int32(0), jnp.int32(0), jnp.int32(-1))
        # A loop with its bounds as values: one program for a whole epoch and for any part of it.
        return lax.fori_loop(first, last, body, (state, zeros))

    def embed(state, images, indices):
        pixels = images[indices].astype(jnp.float32)
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
