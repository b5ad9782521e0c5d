"""Channel attention: modules [N, H, W, C] -> [N, H, W, C] that scale each channel by a learnt gate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx


class ChannelAttention(nnx.Module):
    """What the kinds share: a gate a channel, computed from the channels' means over the map.

    fusion: `scale` x * a, or `residual` x + x * a.
    """

    def __init__(self, fusion: str):
        self.fusion = fusion

    def gate(self, means: jax.Array) -> jax.Array:
        """Means over the map [N, C] -> what to multiply the channels by [N, C]."""
        gate = nnx.sigmoid(self.compute_logits(means))
        return 1 + gate if self.fusion == "residual" else gate

    @abstractmethod
    def compute_logits(self, means: jax.Array) -> jax.Array:
        """Means over the map [N, C] -> the gate before its sigmoid [N, C]."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gate(jnp.mean(x, axis=(1, 2)))[:, None, None, :]


class EfficientChannelAttention(ChannelAttention):
    """ECA: mean over the map, a 1-D convolution across neighbouring channels, sigmoid (Wang et al., CVPR 2020).

    kernel_size: odd; neighbours beyond the first and last channel count as zero. No bias.
    """

    def __init__(self, channels: int, kernel_size: int, fusion: str = "scale", *, rngs: nnx.Rngs):
        super().__init__(fusion)
        self.conv = nnx.Conv(1, 1, (kernel_size,), padding="SAME", use_bias=False, rngs=rngs)

    def compute_logits(self, means: jax.Array) -> jax.Array:
        return self.conv(means[:, :, None])[:, :, 0]


class SqueezeExcitation(ChannelAttention):
    """SE: mean over the map, two dense layers with bias and a ReLU between, sigmoid (Hu et al., CVPR 2018).

    hidden_channels: channels // reduction; the authors' reduction is 16.
    """

    def __init__(self, channels: int, hidden_channels: int, fusion: str = "scale", *, rngs: nnx.Rngs):
        super().__init__(fusion)
        self.reduce = nnx.Linear(channels, hidden_channels, rngs=rngs)
        self.expand = nnx.Linear(hidden_channels, channels, rngs=rngs)

    def compute_logits(self, means: jax.Array) -> jax.Array:
        return self.expand(nnx.relu(self.reduce(means)))


# Every kind but `none`: a class called as cls(channels, size, fusion, rngs=rngs), where size is what
# arch.resolve_network makes of the kind's own options.
ATTENTIONS: dict[str, Callable[..., ChannelAttention]] = {"eca": EfficientChannelAttention, "se": SqueezeExcitation}
