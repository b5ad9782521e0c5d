"""Channel attention: modules [N, H, W, C] -> [N, H, W, C] that scale each channel by a learnt gate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class EfficientChannelAttention(nnx.Module):
    """ECA: mean over the map, a 1-D convolution across neighbouring channels, sigmoid (Wang et al., CVPR 2020).

    kernel_size: odd; neighbours beyond the first and last channel count as zero. No bias.
    """

    def __init__(self, channels: int, kernel_size: int, fusion: str = "scale", *, rngs: nnx.Rngs):
        self.fusion = fusion
        self.conv = nnx.Conv(1, 1, (kernel_size,), padding="SAME", use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.conv(jnp.mean(x, axis=(1, 2))[:, :, None])[:, :, 0]
        return _fuse(x, gate, self.fusion)


class SqueezeExcitation(nnx.Module):
    """SE: mean over the map, two dense layers with bias and a ReLU between, sigmoid (Hu et al., CVPR 2018).

    hidden_channels: channels // reduction; the authors' reduction is 16.
    """

    def __init__(self, channels: int, hidden_channels: int, fusion: str = "scale", *, rngs: nnx.Rngs):
        self.fusion = fusion
        self.reduce = nnx.Linear(channels, hidden_channels, rngs=rngs)
        self.expand = nnx.Linear(hidden_channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = self.expand(nnx.relu(self.reduce(jnp.mean(x, axis=(1, 2)))))
        return _fuse(x, gate, self.fusion)


def _fuse(x: jax.Array, gate: jax.Array, fusion: str) -> jax.Array:
    attended = x * nnx.sigmoid(gate)[:, None, None, :]
    return x + attended if fusion == "residual" else attended


# Every kind but `none`: a class called as cls(channels, size, fusion, rngs=rngs), where size is what
# arch.resolve_network makes of the kind's own options.
ATTENTIONS = {"eca": EfficientChannelAttention, "se": SqueezeExcitation}
