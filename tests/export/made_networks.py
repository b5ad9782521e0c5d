"""Networks that tell their inputs apart, as trained ones do, without training one; and pictures to tell apart."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import jax
import numpy as np
from flax import nnx

from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import (
    INPUT_NAME,
    OUTPUT_NAME,
    Add,
    Convolution,
    Depthwise,
    Flatten,
    GlobalAveragePool,
    LayerList,
)
from ffem_jax.export.quantize import ROUNDINGS
from ffem_jax.export.reference import run_layer, run_layers
from ffem_jax.models import FaceNetwork, build_model
from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec

RESOLUTION = 32

# Two vectors whose cosine is below this are further apart than 0.4 of their length: 4000 times what a file may be off.
APART = 0.92
# Of the largest number of all vectors: how far a file's numbers may be from those that its weights, as it holds them,
# stand for.
CLOSE = 1e-4

# What no preset has, at a resolution with odd and even maps (37, 19, 10, 5, 3).
VARIATIONS = {
    "hard_swish": ({"activation": "hard_swish"}, 32),
    "relu, no head": ({"activation": "relu", "head_channels": 0}, 37),
    "prelu, max pool": ({"activation": "prelu", "stem_extra": "max_pool"}, 37),
    "stem depthwise, stride 1": ({"stem_extra": "depthwise", "stem_stride": 1}, 19),
    "global depthwise, norm": ({"pooling": "global_depthwise", "embedding_norm": True}, 37),
    "eca residual": ({"attention": AttentionSpec(kind="eca", placement="all", fusion="residual")}, 37),
    "se after projection": ({"attention": AttentionSpec(kind="se", placement="all", position="projection")}, 37),
}
# Presets with attentions that the fast tests go over.
FAST = {("ffem", "none"), ("ffem", "eca"), ("ffem", "se"), ("shufflenetv2", "eca"), ("mobilefacenet", "se")}


def shrink(arch: ArchSpec, kind: str | None = None, **changes) -> ArchSpec:
    """`arch`, a fraction as wide and deep; with `kind`, that attention in every block."""
    if kind is not None:
        changes["attention"] = dataclasses.replace(arch.attention, kind=kind, placement="all", reduction=4)
    small = {"width_multiplier": 0.25, "depth_multiplier": 0.3, "head_channels": 48, "embedding_dim": 16}
    return dataclasses.replace(arch, **{**small, **changes})


def make_pixels(resolution: int, count: int = 8) -> np.ndarray:
    """Coloured blots [count, R, R, 3] as a network takes them, -1 to 1: every image another."""
    noise = np.random.default_rng(0).uniform(-1, 1, (count, 5, 5, 3)).astype(np.float32)
    places = np.arange(resolution) * 5 // resolution
    return noise[:, places][:, :, places]


def draw_model(arch: ArchSpec, resolution: int = RESOLUTION, settled: bool = True) -> FaceNetwork:
    """A network of drawn weights, made without compiling anything, whose vectors of pictures lie in all directions.

    Gains and biases of BatchNorms have every size; their means and variances are those of what they see, unless it is
    not `settled`, which is quicker where only sizes matter.
    """
    model = nnx.merge(*_draw_parts(arch, resolution, settled), copy=True)
    model.eval()
    return model


@lru_cache(maxsize=64)
def _draw_parts(arch: ArchSpec, resolution: int, settled: bool) -> tuple[nnx.GraphDef, nnx.State]:
    model, _ = plan_draws(lambda keys: build_model(arch, resolution, rngs=keys))
    graph, state = nnx.split(model)
    generator = np.random.default_rng(1)
    ranges = {"mean": (-0.3, 0.3), "var": (0.5, 1.5), "scale": (0.6, 1.6), "bias": (-0.3, 0.6), "slope": (0.1, 0.4)}

    def draw(path, leaf):
        name = [entry.key for entry in path if hasattr(entry, "key")][-1]
        if name in ranges:
            return generator.uniform(*ranges[name], leaf.shape).astype(np.float32)
        inputs = np.prod(leaf.shape[:-1])
        return (generator.normal(size=leaf.shape) * np.sqrt(2 / inputs)).astype(np.float32)

    model = nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, state))
    model.eval()
    if settled:
        settle(model, resolution)
    return nnx.split(model)


def settle(model: FaceNetwork, resolution: int) -> None:
    """Give each BatchNorm the mean and the variance that it meets on pictures, as training does; where the embedding
    has none, take its mean off by its bias."""
    tensors = {INPUT_NAME: make_pixels(resolution, 16)}
    for layer in fold_network(model, resolution).layers:
        inputs = [tensors[name] for name in layer.inputs]
        norm = find_norm(model, layer.name)
        if norm is not None:
            linear = run_layer(dataclasses.replace(layer, activation="linear"), *inputs)
            gain = norm.scale[...] / np.sqrt(norm.var[...] + norm.epsilon)
            means, sizes = linear.mean(axis=(0, 1, 2)), linear.std(axis=(0, 1, 2))
            norm.mean[...] += (means - norm.bias[...]) / gain
            norm.var[...] = (sizes / gain) ** 2
            again = norm.scale[...] / np.sqrt(norm.var[...] + norm.epsilon) / gain
            bias = norm.bias[...] + (layer.bias - means) * again
            layer = dataclasses.replace(layer, kernel=np.asarray(layer.kernel * again), bias=np.asarray(bias))
        tensors[layer.name] = np.asarray(run_layer(layer, *inputs))
    if model.head.norm is None:
        model.head.embedding.bias[...] -= tensors[OUTPUT_NAME].mean(axis=0)


def find_norm(model: FaceNetwork, name: str) -> nnx.BatchNorm | None:
    """The BatchNorm that was folded into the layer `name`."""
    place, *parts = name.split("/")
    part = model.blocks[int(place[5:])] if place.startswith("block") else getattr(model, place, None)
    if name == "stem/depthwise":
        part, parts = part.extra, []
    elif name == "head":
        part = part.conv
    elif name == "head/embedding":
        parts = []
    for each in parts:
        part = getattr(part, each, None)
    return getattr(part, "norm", None)


@lru_cache(maxsize=64)
def make_network(arch: ArchSpec, resolution: int = RESOLUTION) -> LayerList:
    """The layers of such a network."""
    return fold_network(draw_model(arch, resolution), resolution)


@lru_cache(maxsize=64)
def embed(arch: ArchSpec, resolution: int = RESOLUTION) -> np.ndarray:
    """Embeddings of `make_pixels`, and behind them those of the same with red and blue exchanged, by the layers."""
    pixels = make_pixels(resolution)
    both = np.concatenate([pixels, pixels[..., ::-1]])
    network = make_network(arch, resolution)
    return run_layers(network, both)[OUTPUT_NAME]


def round_weights(network: LayerList, dtype: str) -> LayerList:
    """What a file of `dtype` stands for: float16 of every weight, integers of the kernels of convolutions."""

    def change(layer):
        if dtype == "float16":
            own = [(name, value) for each, name, value in network.iterate_weights() if each is layer]
            return dataclasses.replace(layer, **{name: value.astype("f2").astype("f4") for name, value in own})
        if dtype in ROUNDINGS and isinstance(layer, Convolution | Depthwise):
            return dataclasses.replace(layer, kernel=ROUNDINGS[dtype](layer.kernel))
        return layer

    return LayerList(network.resolution, tuple(map(change, network.layers)))


def compute_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine between the two vectors of each row."""
    first, second = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (first, second))
    return (first * second).sum(axis=1)


def make_layers(resolution: int = 12, spread: float = 1.0) -> LayerList:
    """A bottleneck with a shortcut and an embedding of four numbers, as layers: nothing is compiled or trained for it.

    spread: how many times larger the kernel of the depthwise convolution's last channel is than that of its first.
    """
    generator = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        size = np.sqrt(2 / np.prod(shape[:-1]))
        return (generator.uniform(-1, 1, shape) * size).astype(np.float32)

    sizes = np.geomspace(1, spread, 8).astype(np.float32)
    sizes /= sizes.mean()
    return LayerList(
        resolution,
        (
            Convolution("stem", (INPUT_NAME,), 2 * draw(3, 3, 3, 8), draw(8), 2, 1, "relu6"),
            Depthwise("depthwise", ("stem",), 3 * draw(3, 3, 8) * sizes, draw(8), 1, 1, "relu"),
            Convolution("project", ("depthwise",), draw(1, 1, 8, 8), draw(8)),
            Add("add", ("stem", "project")),
            GlobalAveragePool("pool", ("add",)),
            Convolution("dense", ("pool",), draw(1, 1, 8, 4), draw(4)),
            Flatten(OUTPUT_NAME, ("dense",)),
        ),
    )
