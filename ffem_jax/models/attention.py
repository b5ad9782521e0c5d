"""Attention modules [N, H, W, C] -> [N, H, W, C], built from their declarations in specs/attention.py. ECA and SE."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.graph import Graph, fold_dense
from ffem_jax.specs.architecture import SpecError, get_attention_kind
from ffem_jax.specs.registry import resolve


def build_attention(attention: tuple[Any, ...], channels: int, *, rngs: nnx.Rngs) -> Any:
    """Build the module for a BlockSpec's `attention` (kind, position, fusion and sizes) and maps with `channels`.

    Raises:
        SpecError: the kind is not declared, or its class does not accept the channels, its sizes and rngs.
    """
    name, _, _, *sizes = attention
    made_by = resolve(get_attention_kind(name).implementation)
    # Calling an nnx.Module class accepts any arguments; its __init__ has the real signature.
    called, first = (made_by.__init__, (None,)) if inspect.isclass(made_by) else (made_by, ())
    try:
        inspect.signature(called).bind(*first, channels, *sizes, rngs=rngs)
    except TypeError as error:
        call = ", ".join(["channels", *map(str, sizes), "rngs=rngs"])
        raise SpecError(
            f"arch.attention.kind={name}: {_name(made_by)} cannot be called as {_name(made_by)}({call}): {error}"
        ) from None
    return made_by(channels, *sizes, rngs=rngs)


def apply_attention(attention: Any, fusion: str, x: jax.Array) -> jax.Array:
    """Apply `attention` to x [N, H, W, C]; with the fusion `residual` add x to its output, with `scale` return it.

    Raises:
        SpecError: the attention does not return an array with the shape and dtype of its input.
    """
    try:
        inspect.signature(attention).bind(x)
    except TypeError as error:
        raise SpecError(f"the attention {_name(attention)} cannot be called with a map alone: {error}") from None
    y = attention(x)
    # An attention may compute in float32 from a bfloat16 map: cast its output back.
    if x.dtype == jnp.bfloat16 and isinstance(y, jax.Array) and y.dtype == jnp.float32:
        y = y.astype(x.dtype)
    if not isinstance(y, jax.Array) or (y.shape, y.dtype) != (x.shape, x.dtype):
        given = f"{y.dtype}{list(y.shape)}" if isinstance(y, jax.Array) else type(y).__name__
        raise SpecError(
            f"the attention {_name(attention)} returns {given} for a map {x.dtype}{list(x.shape)}; it must return an "
            "array of the same shape and type"
        )
    return x + y if fusion == "residual" else y


def _name(part: Any) -> str:
    return str(getattr(part, "__name__", type(part).__name__))


class ChannelAttention(nnx.Module):
    """The base of ECA and SE: one gate per channel, computed from the channels' means over the map."""

    @abstractmethod
    def compute_logits(self, means: jax.Array) -> jax.Array:
        """Means over the map [N, C] -> the gate before its sigmoid [N, C]."""

    @abstractmethod
    def fold_gate(self, graph: Graph, means: str, name: str) -> str:
        """Describe for export how the gate, after its sigmoid, is computed from the means."""

    def __call__(self, x: jax.Array) -> jax.Array:
        gate = nnx.sigmoid(self.compute_logits(jnp.mean(x, axis=(1, 2))))
        return x * gate[:, None, None, :]

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export."""
        means = graph.average(f"{name}/mean", x)
        return graph.multiply(f"{name}/scale", x, self.fold_gate(graph, means, name))


class EfficientChannelAttention(ChannelAttention):
    """ECA: mean over the map, a 1-D convolution across neighbouring channels, sigmoid.

    kernel_size: odd; neighbours beyond the first and last channel count as zero. No bias.

    References:
        Wang et al., CVPR 2020.
    """

    def __init__(self, channels: int, kernel_size: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 1, (kernel_size,), padding="SAME", use_bias=False, rngs=rngs)

    def compute_logits(self, means: jax.Array) -> jax.Array:
        return self.conv(means[:, :, None])[:, :, 0]

    def fold_gate(self, graph: Graph, means: str, name: str) -> str:
        return graph.channel_gate(f"{name}/gate", means, self.conv.kernel[:, 0, 0])


class SqueezeExcitation(ChannelAttention):
    """SE: mean over the map, two dense layers with bias and a ReLU between, sigmoid.

    hidden_channels: channels // reduction; the authors' reduction is 16.

    References:
        Hu et al., CVPR 2018.
    """

    def __init__(self, channels: int, hidden_channels: int, *, rngs: nnx.Rngs):
        self.reduce = nnx.Linear(channels, hidden_channels, rngs=rngs)
        self.expand = nnx.Linear(hidden_channels, channels, rngs=rngs)

    def compute_logits(self, means: jax.Array) -> jax.Array:
        return self.expand(nnx.relu(self.reduce(means)))

    def fold_gate(self, graph: Graph, means: str, name: str) -> str:
        hidden = fold_dense(graph, self.reduce, means, f"{name}/reduce", nnx.relu)
        return fold_dense(graph, self.expand, hidden, f"{name}/gate", nnx.sigmoid)
