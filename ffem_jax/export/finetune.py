"""Quantisation-aware fine-tuning: a folded network trained on with its kernels rounded as the file has them.

It starts from the finished trial's weights, BatchNorm folded, and learns to give the embeddings that the network in
float32 gives of the same training faces and their mirror images: no person's label is used, and the classifier and the
galleries of the network stay of use. Rounding has slope 1 in the backward pass (Bengio et al., 2013), and BatchNorm is
folded before rounding, as it is when the file is written (Jacob et al., CVPR 2018).

What comes out are other float32 weights, hence another model_id, which rounded as `dtype` lie closer.

It works on folded layers, and so stands here and not in `training/`: the kernels that a file rounds are those with
BatchNorm folded in, and all formats share the list of layers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ffem_jax.export import ExportError
from ffem_jax.export.layers import OUTPUT_NAME, Convolution, Depthwise, LayerList
from ffem_jax.export.quantize import ROUNDINGS
from ffem_jax.export.reference import run_layers
from ffem_jax.models import normalize_pixels

# name of a layer -> its fields that are trained.
Weights = dict[str, dict[str, jax.Array]]

BATCH_SIZE = 32
# The peak of Adam's steps, down to nothing along a cosine. A step of int8 is 0.0005 to 0.02 in trained kernels; ten
# times this rate takes held-out vectors further from the network's than rounding does (results/quantisation).
LEARNING_RATE = 1e-5


def finetune(
    network: LayerList,
    dtype: str,
    images: np.ndarray,
    epochs: int,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> LayerList:
    """`network` after `epochs` over uint8 faces [N, R, R, 3], with kernels that bear rounding to `dtype`.

    on_epoch(epochs done, mean loss): the loss is the squared error of the embeddings over the mean square of the
    network's own. Deterministic in `seed`. Raises ExportError for a dtype without rounding or too few images.
    """
    if dtype not in ROUNDINGS:
        raise ExportError(f"fine-tuning for {dtype} has nothing to round; choose one of: {', '.join(ROUNDINGS)}")
    if len(images) < BATCH_SIZE:
        raise ExportError(f"fine-tuning needs {BATCH_SIZE} training images or more, and there are {len(images)}")
    faces = np.concatenate([images, images[:, :, ::-1]])
    targets = _embed(network, faces)
    power = np.mean(targets**2)
    steps = len(faces) // BATCH_SIZE
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, epochs * steps))

    @jax.jit
    def train_step(weights, state, pixels, wanted, power):
        def compute_loss(weights):
            return jnp.mean((run_rounded(network, weights, dtype, normalize_pixels(pixels)) - wanted) ** 2) / power

        loss, grads = jax.value_and_grad(compute_loss)(weights)
        changes, state = optimizer.update(grads, state, weights)
        return optax.apply_updates(weights, changes), state, loss

    weights = get_weights(network)
    state: Any = optimizer.init(weights)
    generator = np.random.default_rng(seed)
    for epoch in range(epochs):
        order = generator.permutation(len(faces))[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)
        losses = []
        for chosen in order:
            weights, state, loss = train_step(weights, state, faces[chosen], targets[chosen], power)
            losses.append(float(loss))
        if on_epoch:
            on_epoch(epoch + 1, sum(losses) / len(losses))
    return replace_weights(network, jax.tree.map(np.asarray, weights))


def get_weights(network: LayerList) -> Weights:
    """What fine-tuning changes: every weight of the network."""
    weights: Weights = {}
    for layer, field, values in network.iterate_weights():
        weights.setdefault(layer.name, {})[field] = jax.device_put(values)
    return weights


def replace_weights(network: LayerList, weights: Any) -> LayerList:
    """The same layers with other weights."""
    layers = [dataclasses.replace(layer, **weights.get(layer.name, {})) for layer in network.layers]
    return LayerList(network.resolution, tuple(layers))


def run_rounded(network: LayerList, weights: Weights, dtype: str, pixels: jax.Array) -> jax.Array:
    """Embeddings [N, D] of normalised pixels with the kernels rounded to `dtype`, differentiable in `weights`."""
    rounded = {
        layer.name: {**weights[layer.name], "kernel": round_straight_through(weights[layer.name]["kernel"], dtype)}
        for layer in network.layers
        if isinstance(layer, Convolution | Depthwise)
    }
    return run_layers(replace_weights(network, {**weights, **rounded}), pixels)[OUTPUT_NAME]


def round_straight_through(kernel: jax.Array, dtype: str) -> jax.Array:
    """The kernel as a file of `dtype` gives it back, to the last bit; its gradient passes as if nothing was rounded."""
    return lax.stop_gradient(ROUNDINGS[dtype](kernel)) + (kernel - lax.stop_gradient(kernel))


def _embed(network: LayerList, faces: np.ndarray) -> np.ndarray:
    # Weights are arguments, and `power` above: one compiled program does for all networks of a kind.
    @jax.jit
    def compute(weights, batch):
        return run_layers(replace_weights(network, weights), normalize_pixels(batch))[OUTPUT_NAME]

    weights = get_weights(network)
    padded = np.concatenate([faces, faces[: -len(faces) % BATCH_SIZE]])
    batches = padded.reshape(-1, BATCH_SIZE, *faces.shape[1:])
    return np.concatenate([np.asarray(compute(weights, batch)) for batch in batches])[: len(faces)]
