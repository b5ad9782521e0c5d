"""The parts a network is made of: stem, bottleneck, head. NHWC; kernels as [row, column, in, out]."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.arch import BlockSpec
from ffem_jax.models.attention import ATTENTIONS
from ffem_jax.models.convolutions import depthwise_conv, full_conv, pointwise_conv

# PyTorch's default for convolutions and dense layers: uniform, of variance 1 / (3 * inputs). A normal draw takes twice
# as long to compile.
kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0), a slope a channel, 0.25 at first (He et al., 2015)."""

    def __init__(self, channels: int):
        self.slope = nnx.Param(jnp.full((channels,), 0.25))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, x * self.slope[...])


@jax.custom_jvp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), of slope 0 where it bends, as PyTorch's."""
    return jnp.clip(x, 0.0, 6.0)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return relu6(x), jnp.where((x > 0) & (x < 6), tangent, 0)


def make_activation(name: str, channels: int) -> Callable[[jax.Array], jax.Array]:
    """The activation `name` (arch.ACTIVATIONS, or `linear`), with parameters of its own where it has any."""
    if name == "prelu":
        return PReLU(channels)
    activations: dict[str, Callable[[jax.Array], jax.Array]] = {
        "relu6": relu6,
        "hard_swish": nnx.hard_swish,
        "linear": nnx.identity,
    }
    return activations[name]


def make_batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """BatchNorm over all axes but the channels; running statistics keep 0.9 of themselves a step."""
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Pointwise(nnx.Module):
    """1x1 convolution as a matrix product, BatchNorm, activation: [N, H, W, in] -> [N, H, W, out]."""

    def __init__(self, in_channels: int, out_channels: int, activation: str, *, rngs: nnx.Rngs):
        self.conv = nnx.Linear(in_channels, out_channels, use_bias=False, kernel_init=kernel_init, rngs=rngs)
        self.norm = make_batch_norm(out_channels, rngs)
        self.activation = make_activation(activation, out_channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.norm(pointwise_conv(x, self.conv.kernel[...])))


class Depthwise(nnx.Module):
    """3x3 depthwise convolution, BatchNorm, activation: [N, H, W, C] -> [N, ceil(H / stride), ceil(W / stride), C]."""

    def __init__(self, channels: int, stride: int, activation: str, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)
        self.activation = make_activation(activation, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.norm(depthwise_conv(x, self.kernel[...], self.stride)))


class Stem(nnx.Module):
    """3x3 convolution, BatchNorm, activation: [N, H, W, 3] -> [N, ceil(H / stride), ceil(W / stride), channels]."""

    def __init__(self, channels: int, stride: int, activation: str, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(kernel_init(rngs.params(), (3, 3, 3, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)
        self.activation = make_activation(activation, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(self.norm(full_conv(x, self.kernel[...], self.stride)))


class Bottleneck(nnx.Module):
    """Inverted residual with linear bottleneck (Sandler et al., CVPR 2018), attention where its spec puts one.

    1x1 expand -> 3x3 depthwise -> (attention) -> 1x1 project, linear -> (attention); no expand convolution where
    hidden equals in. Identity shortcut where the stride is 1 and the channels match.
    """

    def __init__(self, spec: BlockSpec, *, rngs: nnx.Rngs):
        hidden, act = spec.hidden_channels, spec.activation
        self.expand = Pointwise(spec.in_channels, hidden, act, rngs=rngs) if hidden != spec.in_channels else None
        self.depthwise = Depthwise(hidden, spec.stride, act, rngs=rngs)
        self.project = Pointwise(hidden, spec.out_channels, "linear", rngs=rngs)
        self.shortcut = spec.stride == 1 and spec.in_channels == spec.out_channels
        kind, self.position, fusion, size = spec.attention or ("", "", "", 0)
        attended = hidden if self.position == "depthwise" else spec.out_channels
        self.attention = ATTENTIONS[kind](attended, size, fusion, rngs=rngs) if kind else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.attention is not None and self.position == "depthwise":
            y = self.attention(y)
        y = self.project(y)
        if self.attention is not None and self.position == "projection":
            y = self.attention(y)
        return x + y if self.shortcut else y


class GlobalDepthwise(nnx.Module):
    """A depthwise convolution as large as the map, then BatchNorm, linear (MobileFaceNet): [N, H, W, C] -> [N, C]."""

    def __init__(self, size: int, channels: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, 1, channels), jnp.float32))
        self.norm = make_batch_norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(jnp.einsum("nhwc,hwc->nc", x, self.kernel[:, :, 0]))


class Head(nnx.Module):
    """1x1 convolution (unless head_channels is 0), pooling, 1x1 convolution with bias: the embedding.

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
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = Pointwise(in_channels, head_channels, activation, rngs=rngs) if head_channels else None
        channels = head_channels or in_channels
        self.pool = GlobalDepthwise(size, channels, rngs=rngs) if pooling == "global_depthwise" else None
        self.embedding = nnx.Linear(channels, embedding_dim, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.conv is None else self.conv(x)
        x = jnp.mean(x, axis=(1, 2)) if self.pool is None else self.pool(x)
        return self.embedding(x)
