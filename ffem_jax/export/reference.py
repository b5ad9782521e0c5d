"""The list of layers run plainly: held against the network it was folded from, and what every file is to compute.

With NumPy's arrays nothing is compiled; with JAX's it can be traced, which is how fine-tuning (finetune.py) runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ffem_jax.export import layers
from ffem_jax.export.layers import AXES, INPUT_NAME, Layer, LayerList, refuse_layer

# An array of NumPy or of JAX.
Array = Any


def run_layers(network: LayerList, pixels: Array) -> dict[str, Array]:
    """Every tensor by name, of pixels [N, R, R, 3] normalised as training does; embeddings are under `embedding`."""
    tensors = {INPUT_NAME: pixels}
    for layer in network.layers:
        tensors[layer.name] = run_layer(layer, *(tensors[name] for name in layer.inputs))
    return tensors


@functools.singledispatch
def run_layer(layer: Layer, *inputs: Array) -> Array:
    """What `layer` makes of its inputs. Raises ExportError for a kind it does not know."""
    raise refuse_layer(layer, "the reference")


@run_layer.register
def _(layer: layers.Convolution, x: Array) -> Array:
    shifts = _shift(x, layer.kernel.shape[0], layer.stride, layer.padding, 0)
    taps = layer.kernel.reshape(-1, *layer.kernel.shape[2:])
    total = sum(shift @ tap for shift, tap in zip(shifts, taps, strict=True))
    return activate(layer, total + layer.bias)


@run_layer.register
def _(layer: layers.Depthwise, x: Array) -> Array:
    shifts = _shift(x, layer.kernel.shape[0], layer.stride, layer.padding, 0)
    taps = layer.kernel.reshape(-1, layer.kernel.shape[2])
    total = sum(shift * tap for shift, tap in zip(shifts, taps, strict=True))
    return activate(layer, total + layer.bias)


@run_layer.register
def _(layer: layers.ChannelConvolution, x: Array) -> Array:
    half, channels = len(layer.kernel) // 2, x.shape[-1]
    padded = x.__array_namespace__().pad(x, ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(tap * padded[..., place : place + channels] for place, tap in enumerate(layer.kernel))
    return _sigmoid(total)


@run_layer.register
def _(layer: layers.Activation, x: Array) -> Array:
    return FUNCTIONS[layer.function](x)


@run_layer.register
def _(layer: layers.MaxPool, x: Array) -> Array:
    xp = x.__array_namespace__()
    return xp.max(xp.stack(_shift(x, layer.size, layer.stride, layer.padding, -xp.inf)), axis=0)


@run_layer.register
def _(layer: layers.GlobalAveragePool, x: Array) -> Array:
    return x.mean(axis=(1, 2), keepdims=True)


@run_layer.register
def _(layer: layers.Reduce, x: Array) -> Array:
    axes = tuple(1 + AXES.index(axis) for axis in layer.axes)
    return getattr(x, layer.operation)(axis=axes, keepdims=True)


@run_layer.register
def _(layer: layers.Multiply, x: Array, y: Array) -> Array:
    return x * y


@run_layer.register
def _(layer: layers.Add, x: Array, y: Array) -> Array:
    return x + y


@run_layer.register
def _(layer: layers.Concatenate, *inputs: Array) -> Array:
    return inputs[0].__array_namespace__().concatenate(inputs, axis=1 + AXES.index(layer.axis))


@run_layer.register
def _(layer: layers.SliceChannels, x: Array) -> Array:
    return x[..., layer.first : layer.first + layer.count]


@run_layer.register
def _(layer: layers.Slice, x: Array) -> Array:
    own = slice(layer.first, layer.first + layer.count)
    return x[(slice(None), *(own if axis == layer.axis else slice(None) for axis in AXES))]


@run_layer.register
def _(layer: layers.SwapAxes, x: Array) -> Array:
    return x.swapaxes(1, 2)


@run_layer.register
def _(layer: layers.InterleaveChannels, x: Array, y: Array) -> Array:
    return x.__array_namespace__().stack((x, y), axis=-1).reshape(*x.shape[:-1], -1)


@run_layer.register
def _(layer: layers.Flatten, x: Array) -> Array:
    return x.reshape(len(x), -1)


def _shift(x: Array, size: int, stride: int, padding: int, rim: float) -> list[Array]:
    """The views of x, `rim` around it, that meet the size * size taps of a kernel, row by row."""
    around = (padding, padding)
    padded = x.__array_namespace__().pad(x, ((0, 0), around, around, (0, 0)), constant_values=rim)
    rows, columns = ((length - size) // stride + 1 for length in padded.shape[1:3])
    return [
        padded[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]


def activate(layer: layers.Convolution | layers.Depthwise, x: Array) -> Array:
    """The activation of `layer`, done to x."""
    if layer.activation == "prelu":
        return x.__array_namespace__().where(x > 0, x, x * layer.slope)
    return FUNCTIONS[layer.activation](x)


def _clip(x: Array, low: float, high: float) -> Array:
    return x.__array_namespace__().clip(x, low, high)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + x.__array_namespace__().exp(-x))


# The activations without weights.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: x.__array_namespace__().maximum(x, 0),
    "relu6": lambda x: _clip(x, 0, 6),
    "hard_swish": lambda x: x * _clip(x + 3, 0, 6) / 6,
    "sigmoid": _sigmoid,
}
