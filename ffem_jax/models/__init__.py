"""Networks: `build_model(network, resolution, rngs=...)` for every ArchSpec."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.blocks import Head, Stem, build_block
from ffem_jax.models.graph import Graph
from ffem_jax.specs.architecture import ArchSpec, NetworkSpec, resolve_network


class FaceNetwork(nnx.Module):
    """Pixels in 0 to 255 [N, resolution, resolution, 3] -> embeddings [N, embedding_dim], not normalised."""

    def __init__(self, network: NetworkSpec, resolution: int, *, rngs: nnx.Rngs):
        sizes = compute_map_sizes(network, resolution)
        self.stem = Stem(*stem_arguments(network), rngs=rngs)
        self.blocks = nnx.List([build_block(block, rngs=rngs) for block in network.blocks])
        self.head = Head(*head_arguments(network, sizes[-1]), rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        # Maps keep the dtype of the kernels, whatever dtype a block computes in.
        x = self.stem(normalize_pixels(pixels).astype(self.stem.kernel.dtype))
        for block in self.blocks:
            x = block(x).astype(x.dtype)
        return self.head(x)

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export, from normalised pixels; `name` is the embedding's name."""
        x = graph.fold(self.stem, x, "stem")
        for index, block in enumerate(self.blocks):
            x = graph.fold(block, x, f"block{index}")
        return graph.flatten(name, graph.fold(self.head, x, "head"))


def normalize_pixels(pixels: jax.Array) -> jax.Array:
    """Bytes or floats in 0 to 255 -> float32 in -1 to 1."""
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def compute_map_sizes(network: NetworkSpec, resolution: int) -> list[int]:
    """Return the pixels per side of the input, after the stem, and after each block."""
    sizes = [resolution]
    for stride in (network.stem_total_stride, *(block.stride for block in network.blocks)):
        sizes.append(-(-sizes[-1] // stride))
    return sizes


def stem_arguments(network: NetworkSpec) -> tuple[int, int, str, str]:
    """Return the arguments of `Stem` for this network."""
    return network.stem_channels, network.stem_stride, network.activation, network.stem_extra


def head_arguments(network: NetworkSpec, size: int) -> tuple[int, int, int, str, str, int, bool]:
    """Return the arguments of `Head` for this network and a last feature map of `size` pixels per side."""
    last, norm = network.blocks[-1].out_channels, network.embedding_norm
    return last, network.head_channels, size, network.pooling, network.activation, network.embedding_dim, norm


def build_model(arch: ArchSpec | NetworkSpec, resolution: int, *, rngs: nnx.Rngs) -> FaceNetwork:
    """Build the network `arch` for square images of `resolution` pixels per side."""
    network = resolve_network(arch) if isinstance(arch, ArchSpec) else arch
    return FaceNetwork(network, resolution, rngs=rngs)
