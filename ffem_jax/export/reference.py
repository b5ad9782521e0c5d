"""The list of layers run in JAX, plainly: held against the network it was folded from, and what every file is to
compute. Its inner tensors are what activation ranges are calibrated on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ffem_jax.export.layers import (
    INPUT_NAME,
    Add,
    ChannelConvolution,
    Convolution,
    Depthwise,
    Flatten,
    GlobalAveragePool,
    InterleaveChannels,
    Layer,
    LayerList,
    MaxPool,
    Multiply,
    SliceChannels,
    refuse_layer,
)


def run_layers(network: LayerList, pixels: jax.Array) -> dict[str, jax.Array]:
    """Every tensor by name, of pixels [N, R, R, 3] normalised as training does; embeddings are under `embedding`."""
    tensors = {INPUT_NAME: jnp.asarray(pixels)}
    for layer in network.layers:
        tensors[layer.name] = run_layer(layer, *(tensors[name] for name in layer.inputs))
    return tensors


def run_layer(layer: Layer, x: jax.Array, other: jax.Array | None = None) -> jax.Array:
    """What `layer` makes of its inputs. Raises ExportError for a kind it does not know."""
    if isinstance(layer, Convolution | Depthwise):
        return activate(layer, _convolve(layer, x) + layer.bias)
    if isinstance(layer, ChannelConvolution):
        reach = len(layer.kernel) // 2
        padded = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        channels = x.shape[-1]
        total = sum(tap * padded[..., place : place + channels] for place, tap in enumerate(layer.kernel))
        return jax.nn.sigmoid(total)
    if isinstance(layer, MaxPool):
        around = (layer.padding, layer.padding)
        window, strides = (1, layer.size, layer.size, 1), (1, layer.stride, layer.stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), around, around, (0, 0)))
    if isinstance(layer, GlobalAveragePool):
        return jnp.mean(x, axis=(1, 2), keepdims=True)
    if isinstance(layer, Multiply):
        return x * other
    if isinstance(layer, Add):
        return x + other
    if isinstance(layer, SliceChannels):
        return x[..., layer.first : layer.first + layer.count]
    if isinstance(layer, InterleaveChannels):
        return jnp.stack((x, other), axis=-1).reshape(*x.shape[:-1], -1)
    if isinstance(layer, Flatten):
        return x.reshape(x.shape[0], -1)
    raise refuse_layer(layer, "the reference")


def _convolve(layer: Convolution | Depthwise, x: jax.Array) -> jax.Array:
    kernel, groups = layer.kernel, 1
    if isinstance(layer, Depthwise):
        kernel, groups = kernel[:, :, None], x.shape[-1]
    around = (layer.padding, layer.padding)
    return lax.conv_general_dilated(
        x,
        kernel,
        (layer.stride, layer.stride),
        (around, around),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def activate(layer: Convolution | Depthwise, x: jax.Array) -> jax.Array:
    """The activation of `layer`, done to x."""
    if layer.activation == "prelu":
        return jnp.where(x > 0, x, x * layer.slope)
    functions = {
        "linear": lambda x: x,
        "relu": lambda x: jnp.maximum(x, 0),
        "relu6": lambda x: jnp.clip(x, 0, 6),
        "hard_swish": lambda x: x * jnp.clip(x + 3, 0, 6) / 6,
        "sigmoid": jax.nn.sigmoid,
    }
    return functions[layer.activation](x)
