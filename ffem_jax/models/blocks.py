"""The parts a network is made of: stem, blocks, head. NHWC; kernels as [row, column, in, out].

Each part computes in `__call__` and describes its layers for export in `fold` (see `models.graph.Graph`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.attention import apply_attention, build_attention
from ffem_jax.models.convolutions import full_conv, global_depthwise_conv, max_pool
from ffem_jax.models.draws import kernel_init
from ffem_jax.models.graph import Graph, fold_dense
from ffem_jax.models.layers import Depthwise, Pointwise
from ffem_jax.models.normalization import make_activation, make_batch_norm, normalize
from ffem_jax.specs.architecture import BlockSpec
from ffem_jax.specs.block import BLOCKS
from ffem_jax.specs.registry import resolve


class Stem(nnx.Module):
    """3x3 convolution, BatchNorm, activation: [N, H, W, 3] -> [N, ceil(H / stride), ceil(W / stride), channels].

    extra: one of arch.STEM_EXTRAS, applied to the result; `max_pool` halves it again.
    """

    def __init__(self, channels: int, stride: int, activation: str, extra: str = "none", *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, 3, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)
        self.activation = make_activation(activation, channels)
        self.extra = _make_stem_extra(extra, channels, activation, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = normalize(self.norm, self.activation, full_conv(x, self.kernel[...], self.stride))
        return x if self.extra is None else self.extra(x)

    def fold(self, graph: Graph, x: str, name: str) -> str:
        kernel, activation = self.kernel[...], self.activation
        y = graph.convolution(name, x, kernel, norm=self.norm, stride=self.stride, padding=1, activation=activation)
        if self.extra is None:
            return y
        return (
            graph.max_pool(f"{name}/pool", y)
            if self.extra is max_pool
            else graph.fold(self.extra, y, f"{name}/depthwise")
        )


def _make_stem_extra(
    name: str, channels: int, activation: str, rngs: nnx.Rngs
) -> Callable[[jax.Array], jax.Array] | None:
    if name == "depthwise":
        return Depthwise(channels, 1, activation, rngs=rngs)
    return max_pool if name == "max_pool" else None


class Branch(nnx.Module):
    """(1x1 expand) -> 3x3 depthwise -> (attention) -> 1x1 project -> (attention), a BatchNorm after each convolution.

    [N, H, W, in] -> [N, ceil(H / stride), ceil(W / stride), out]. activations: of the three convolutions. attention:
    kind, position, fusion and sizes, as in BlockSpec; None for none.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        stride: int,
        activations: tuple[str, str, str],
        attention: tuple[Any, ...] | None = None,
        *,
        expands: bool,
        rngs: nnx.Rngs,
    ):
        inputs, hidden, outputs = channels
        self.expand = Pointwise(inputs, hidden, activations[0], rngs=rngs) if expands else None
        self.depthwise = Depthwise(hidden, stride, activations[1], rngs=rngs)
        self.project = Pointwise(hidden, outputs, activations[2], rngs=rngs)
        _, self.position, self.fusion, *_ = attention or ("", "", "")
        attended = hidden if self.position == "depthwise" else outputs
        self.attention = build_attention(attention, attended, rngs=rngs) if attention else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._attend(self.depthwise(x, self.expand), "depthwise")
        return self._attend(self.project(y), "projection")

    def _attend(self, x: jax.Array, position: str) -> jax.Array:
        return apply_attention(self.attention, self.fusion, x) if self._attends(position) else x

    def _attends(self, position: str) -> bool:
        return self.attention is not None and self.position == position

    def fold(self, graph: Graph, x: str, name: str) -> str:
        y = x if self.expand is None else graph.fold(self.expand, x, f"{name}/expand")
        y = self._fold_attention(graph, graph.fold(self.depthwise, y, f"{name}/depthwise"), "depthwise", name)
        return self._fold_attention(graph, graph.fold(self.project, y, f"{name}/project"), "projection", name)

    def _fold_attention(self, graph: Graph, x: str, position: str, name: str) -> str:
        if not self._attends(position):
            return x
        y = graph.fold(self.attention, x, f"{name}/attention")
        return graph.add(f"{name}/attention/add", x, y) if self.fusion == "residual" else y


class Bottleneck(Branch):
    """Inverted residual with linear bottleneck (Sandler et al., CVPR 2018), with attention if the spec has one.

    No expand convolution if hidden equals in. Identity shortcut if the stride is 1 and the channels match.
    """

    def __init__(self, spec: BlockSpec, *, rngs: nnx.Rngs):
        channels = (spec.in_channels, spec.hidden_channels, spec.out_channels)
        activations = (spec.activation, spec.activation, "linear")
        expands = spec.hidden_channels != spec.in_channels
        super().__init__(channels, spec.stride, activations, spec.attention, expands=expands, rngs=rngs)
        self.shortcut = spec.stride == 1 and spec.in_channels == spec.out_channels

    def __call__(self, x: jax.Array) -> jax.Array:
        y = super().__call__(x)
        return x + y if self.shortcut else y

    def fold(self, graph: Graph, x: str, name: str) -> str:
        y = super().fold(graph, x, name)
        return graph.add(f"{name}/add", x, y) if self.shortcut else y


class ShuffleUnit(nnx.Module):
    """ShuffleNetV2's unit (Ma et al., ECCV 2018, Fig. 3c and d): two halves of the output, their channels interleaved.

    One half comes from a branch that starts with a 1x1 convolution; only this branch has attention. The other half is
    the first half of the input, unchanged. If the stride is 2 or the channels change, it comes instead from a branch
    without that convolution, and both branches see the whole input. No activation after a depthwise convolution.
    """

    def __init__(self, spec: BlockSpec, *, rngs: nnx.Rngs):
        half, activations = spec.out_channels // 2, (spec.activation, "linear", spec.activation)
        splits = spec.stride == 1 and spec.in_channels == spec.out_channels
        inputs = half if splits else spec.in_channels
        first, second = (inputs, inputs, half), (inputs, spec.hidden_channels, half)
        self.first = None if splits else Branch(first, spec.stride, activations, expands=False, rngs=rngs)
        self.second = Branch(second, spec.stride, activations, spec.attention, expands=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.first is None:
            first, x = jnp.split(x, 2, axis=-1)
        else:
            first = self.first(x)
        return interleave_channels(first, self.second(x))

    def fold(self, graph: Graph, x: str, name: str) -> str:
        if self.first is None:
            half = graph.get_shape(x)[2] // 2
            first = graph.cut(f"{name}/left", x, "channels", 0, half)
            x = graph.cut(f"{name}/right", x, "channels", half, half)
        else:
            first = graph.fold(self.first, x, f"{name}/first")
        return graph.interleave(f"{name}/interleave", first, graph.fold(self.second, x, f"{name}/second"))


def interleave_channels(first: jax.Array, second: jax.Array) -> jax.Array:
    """Alternate the channels of [..., C] and [..., C] -> [..., 2 C]: a channel shuffle with two groups."""
    return jnp.stack((first, second), axis=-1).reshape(*first.shape[:-1], -1)


def build_block(spec: BlockSpec, *, rngs: nnx.Rngs) -> Any:
    """Build the module of a block. Raises SpecError if its kind is not declared in specs/block.py."""
    return resolve(BLOCKS[spec.kind].implementation)(spec, rngs=rngs)


class GlobalDepthwise(nnx.Module):
    """A depthwise convolution as large as the map, then BatchNorm, linear (MobileFaceNet): [N, H, W, C] -> [N, C]."""

    def __init__(self, size: int, channels: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalize(self.norm, nnx.identity, global_depthwise_conv(x, self.kernel[...]))

    def fold(self, graph: Graph, x: str, name: str) -> str:
        return graph.depthwise(name, x, self.kernel[:, :, 0], norm=self.norm)


class Head(nnx.Module):
    """1x1 convolution (unless head_channels is 0), pooling, 1x1 convolution with bias or BatchNorm: the embedding.

    [N, size, size, in_channels] -> [N, embedding_dim], not normalised.
    """

    def __init__(
        self,
        in_channels: int,
        head_channels: int,
        size: int,
        pooling: str,
        activation: str,
        embedding_dim: int,
        embedding_norm: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = Pointwise(in_channels, head_channels, activation, rngs=rngs) if head_channels else None
        channels = head_channels or in_channels
        self.pool = GlobalDepthwise(size, channels, rngs=rngs) if pooling == "global_depthwise" else None
        self.embedding = nnx.Linear(
            channels, embedding_dim, use_bias=not embedding_norm, kernel_init=kernel_init, rngs=rngs
        )
        self.norm = make_batch_norm(embedding_dim, rngs) if embedding_norm else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.conv is None else self.conv(x)
        x = jnp.mean(x, axis=(1, 2)) if self.pool is None else self.pool(x)
        x = self.embedding(x)
        return x if self.norm is None else normalize(self.norm, nnx.identity, x)

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export. The caller names the last one, which computes the embedding."""
        x = x if self.conv is None else graph.fold(self.conv, x, name)
        pooled = f"{name}/pool"
        x = graph.average(pooled, x) if self.pool is None else graph.fold(self.pool, x, pooled)
        if self.norm is None:
            return fold_dense(graph, self.embedding, x, f"{name}/embedding")
        return graph.convolution(f"{name}/embedding", x, self.embedding.kernel[...], norm=self.norm)
