"""The parts a network is made of: stem, blocks, head. NHWC; kernels as [row, column, in, out]."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.attention import ATTENTIONS
from ffem_jax.models.convolutions import (
    depthwise_conv,
    full_conv,
    global_depthwise_conv,
    max_pool,
    pointwise_conv,
)
from ffem_jax.models.draws import kernel_init
from ffem_jax.models.normalization import make_activation, make_batch_norm, normalize
from ffem_jax.specs.architecture import BlockSpec


class Pointwise(nnx.Module):
    """1x1 convolution as a matrix product, BatchNorm, activation: [N, H, W, in] -> [N, H, W, out]."""

    def __init__(self, in_channels: int, out_channels: int, activation: str, *, rngs: nnx.Rngs):
        self.conv = nnx.Linear(in_channels, out_channels, use_bias=False, kernel_init=kernel_init, rngs=rngs)
        self.norm = make_batch_norm(out_channels, rngs)
        self.activation = make_activation(activation, out_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalize(self.norm, self.activation, pointwise_conv(x, self.conv.kernel[...]))


class Depthwise(nnx.Module):
    """3x3 depthwise convolution, BatchNorm, activation: [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), C]."""

    def __init__(self, channels: int, stride: int, activation: str, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)
        self.activation = make_activation(activation, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalize(self.norm, self.activation, depthwise_conv(x, self.kernel[...], self.stride))


class Stem(nnx.Module):
    """3x3 convolution, BatchNorm, activation: [N, H, W, 3] -> [N, ceil(H / stride), ceil(W / stride), channels].

    extra: one of arch.STEM_EXTRAS, done to that; `max_pool` halves it again.
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


def _make_stem_extra(
    name: str, channels: int, activation: str, rngs: nnx.Rngs
) -> Callable[[jax.Array], jax.Array] | None:
    if name == "depthwise":
        return Depthwise(channels, 1, activation, rngs=rngs)
    return max_pool if name == "max_pool" else None


class Branch(nnx.Module):
    """(1x1 expand) -> 3x3 depthwise -> (attention) -> 1x1 project -> (attention), a BatchNorm after each convolution.

    [N, H, W, in] -> [N, ceil(H / stride), ceil(W / stride), out]. activations: of the three convolutions. attention: as
    in arch.BlockSpec.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        stride: int,
        activations: tuple[str, str, str],
        attention: tuple[str, str, str, int] | None = None,
        *,
        expands: bool,
        rngs: nnx.Rngs,
    ):
        inputs, hidden, outputs = channels
        self.expand = Pointwise(inputs, hidden, activations[0], rngs=rngs) if expands else None
        self.depthwise = Depthwise(hidden, stride, activations[1], rngs=rngs)
        self.project = Pointwise(hidden, outputs, activations[2], rngs=rngs)
        kind, self.position, fusion, size = attention or ("", "", "", 0)
        attended = hidden if self.position == "depthwise" else outputs
        self.attention = ATTENTIONS[kind](attended, size, fusion, rngs=rngs) if kind else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.attention is not None and self.position == "depthwise":
            y = self.attention(y)
        y = self.project(y)
        if self.attention is not None and self.position == "projection":
            y = self.attention(y)
        return y


class Bottleneck(Branch):
    """Inverted residual with linear bottleneck (Sandler et al., CVPR 2018), attention where its spec puts one.

    No expand convolution where hidden equals in. Identity shortcut where the stride is 1 and the channels match.
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


class ShuffleUnit(nnx.Module):
    """ShuffleNetV2's unit (Ma et al., ECCV 2018, Fig. 3c and d): two halves of the output, their channels interleaved.

    One half is computed by a branch that begins with a 1x1 convolution; only this one has attention. The other half is
    the first half of the input as it is or, where the stride is 2 or the channels change, a branch without that
    convolution; both branches then see the whole input. No activation after a depthwise convolution.
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


def interleave_channels(first: jax.Array, second: jax.Array) -> jax.Array:
    """Channels of [..., C] and [..., C] by turns -> [..., 2 C]: the channel shuffle in two groups."""
    return jnp.stack((first, second), axis=-1).reshape(*first.shape[:-1], -1)


# Every kind of block: a class called as cls(spec, rngs=rngs).
BLOCKS: dict[str, Callable[..., Bottleneck | ShuffleUnit]] = {"bottleneck": Bottleneck, "shuffle": ShuffleUnit}


class GlobalDepthwise(nnx.Module):
    """A depthwise convolution as large as the map, then BatchNorm, linear (MobileFaceNet): [N, H, W, C] -> [N, C]."""

    def __init__(self, size: int, channels: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalize(self.norm, nnx.identity, global_depthwise_conv(x, self.kernel[...]))


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
