"""Networks that tell their inputs apart, as trained ones do, without training one; and pictures to tell apart."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ffem_jax.arch import ArchSpec
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import LayerList
from ffem_jax.models import FaceNetwork, build_model

RESOLUTION = 32


def shrink(arch: ArchSpec, kind: str | None = None, **changes) -> ArchSpec:
    """`arch`, a fraction as wide and deep; with `kind`, that attention in every block."""
    if kind is not None:
        changes["attention"] = dataclasses.replace(arch.attention, kind=kind, placement="all", reduction=4)
    small = {"width_multiplier": 0.25, "depth_multiplier": 0.3, "head_channels": 48, "embedding_dim": 16}
    return dataclasses.replace(arch, **{**small, **changes})


def make_pixels(resolution: int, count: int = 8) -> np.ndarray:
    """Blurred coloured noise [count, R, R, 3] as a network takes it, -1 to 1: every image another."""
    noise = np.random.default_rng(0).uniform(-1, 1, (count, 5, 5, 3))
    return np.asarray(jax.image.resize(noise, (count, resolution, resolution, 3), "cubic").clip(-1, 1), np.float32)


@lru_cache(maxsize=64)
def make_network(arch: ArchSpec, resolution: int = RESOLUTION) -> tuple[FaceNetwork, LayerList]:
    """A network as if trained, and its layers.

    Its BatchNorms hold the statistics of the pictures, moved at random, and gains and biases of every size: folding
    is then not the identity, and no layer is so saturated that what goes in is lost.
    """
    model = build_model(arch, resolution, rngs=nnx.Rngs(0))
    norms = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.BatchNorm)]
    generator = np.random.default_rng(1)

    def draw(low: float, high: float, like: jax.Array) -> jax.Array:
        return jnp.asarray(generator.uniform(low, high, like.shape), jnp.float32)

    for norm in norms:
        norm.momentum = 0.0
        norm.scale[...], norm.bias[...] = draw(0.6, 1.8, norm.scale[...]), draw(-0.5, 0.7, norm.bias[...])
    model.train()
    graph, state = nnx.split(model)

    @jax.jit
    def run(state, pixels):
        model = nnx.merge(graph, state)
        embeddings = model((pixels + 1) * 127.5)
        return nnx.state(model), embeddings

    nnx.update(model, run(state, make_pixels(resolution, 16))[0])
    for norm in norms:
        norm.mean[...] = norm.mean[...] + jnp.sqrt(norm.var[...]) * draw(-0.2, 0.2, norm.mean[...])
        norm.var[...] = norm.var[...] * draw(0.7, 1.4, norm.var[...])
    model.eval()
    return model, fold_network(model, resolution)


def embed(model: FaceNetwork, pixels: np.ndarray) -> np.ndarray:
    """The network's own embeddings of pixels in -1 to 1."""
    graph, state = nnx.split(model)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graph, state)((x + 1) * 127.5))(state, pixels))


def compute_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine between the two vectors of each row."""
    first, second = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (first, second))
    return (first * second).sum(axis=1)
