"""Convolutions with BatchNorm and activation: the building parts of blocks and attentions. NHWC."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.convolutions import depthwise_conv, pointwise_conv
from ffem_jax.models.draws import kernel_init
from ffem_jax.models.graph import Graph
from ffem_jax.models.normalization import make_activation, make_batch_norm, normalize, normalize_depthwise


class Pointwise(nnx.Module):
    """1x1 convolution as a matrix product, BatchNorm, activation: [N, H, W, in] -> [N, H, W, out]."""

    def __init__(self, in_channels: int, out_channels: int, activation: str, *, rngs: nnx.Rngs):
        self.conv = nnx.Linear(in_channels, out_channels, use_bias=False, kernel_init=kernel_init, rngs=rngs)
        self.norm = make_batch_norm(out_channels, rngs)
        self.activation = make_activation(activation, out_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return normalize(self.norm, self.activation, pointwise_conv(x, self.conv.kernel[...]))

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export."""
        return graph.convolution(name, x, self.conv.kernel[...], norm=self.norm, activation=self.activation)


class Depthwise(nnx.Module):
    """3x3 depthwise convolution, BatchNorm, activation: [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), C]."""

    def __init__(self, channels: int, stride: int, activation: str, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)
        self.activation = make_activation(activation, channels)

    def __call__(self, x: jax.Array, expand: Pointwise | None = None) -> jax.Array:
        """Convolve x, or with `expand` its output for x; its BatchNorm, activation and this convolution are fused."""
        kernel, stride = self.kernel[...], self.stride
        if expand is None:
            y = depthwise_conv(x, kernel, stride)
        else:
            y = pointwise_conv(x, expand.conv.kernel[...])
            y = normalize_depthwise(expand.norm, expand.activation, y, kernel, stride)
        return normalize(self.norm, self.activation, y)

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export."""
        kernel, activation = self.kernel[:, :, 0], self.activation
        return graph.depthwise(name, x, kernel, norm=self.norm, stride=self.stride, padding=1, activation=activation)
