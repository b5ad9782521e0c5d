"""The list of layers run plainly: held against the network it was folded from, and what every file is to compute.

With NumPy's arrays nothing is compiled; with JAX's it can be traced, which is how fine-tuning (finetune.py) runs it.
"""

from __future__ import annotations

from typing import Any

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

# An array of NumPy or of JAX.
Array = Any


def run_layers(network: LayerList, pixels: Array) -> dict[str, Array]:
    """Every tensor by name, of pixels [N, R, R, 3] normalised as training does; embeddings are under `embedding`."""
    tensors = {INPUT_NAME: pixels}
    for layer in network.layers:
        tensors[layer.name] = run_layer(layer, *(tensors[name] for name in layer.inputs))
    return tensors


def run_layer(layer: Layer, *inputs: Array) -> Array:
    """What `layer` makes of its inputs. Raises ExportError for a kind it does not know."""
    x, xp = inputs[0], inputs[0].__array_namespace__()
    if isinstance(layer, Convolution):
        shifts = _shift(x, layer.kernel.shape[0], layer.stride, layer.padding, 0)
        taps = layer.kernel.reshape(-1, *layer.kernel.shape[2:])
        total = sum(shift @ tap for shift, tap in zip(shifts, taps, strict=True))
        return activate(layer, total + layer.bias)
    if isinstance(layer, Depthwise):
        shifts = _shift(x, layer.kernel.shape[0], layer.stride, layer.padding, 0)
        taps = layer.kernel.reshape(-1, layer.kernel.shape[2])
        total = sum(shift * tap for shift, tap in zip(shifts, taps, strict=True))
        return activate(layer, total + layer.bias)
    if isinstance(layer, ChannelConvolution):
        reach, channels = len(layer.kernel) // 2, x.shape[-1]
        padded = xp.pad(x, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        total = sum(tap * padded[..., place : place + channels] for place, tap in enumerate(layer.kernel))
        return _sigmoid(total)
    if isinstance(layer, MaxPool):
        return xp.max(xp.stack(_shift(x, layer.size, layer.stride, layer.padding, -xp.inf)), axis=0)
    if isinstance(layer, GlobalAveragePool):
        return x.mean(axis=(1, 2), keepdims=True)
    if isinstance(layer, Multiply):
        return x * inputs[1]
    if isinstance(layer, Add):
        return x + inputs[1]
    if isinstance(layer, SliceChannels):
        return x[..., layer.first : layer.first + layer.count]
    if isinstance(layer, InterleaveChannels):
        return xp.stack(inputs, axis=-1).reshape(*x.shape[:-1], -1)
    if isinstance(layer, Flatten):
        return x.reshape(len(x), -1)
    raise refuse_layer(layer, "the reference")


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


def activate(layer: Convolution | Depthwise, x: Array) -> Array:
    """The activation of `layer`, done to x."""
    xp = x.__array_namespace__()
    if layer.activation == "prelu":
        return xp.where(x > 0, x, x * layer.slope)
    functions = {
        "linear": lambda x: x,
        "relu": lambda x: xp.maximum(x, 0),
        "relu6": lambda x: xp.clip(x, 0, 6),
        "hard_swish": lambda x: x * xp.clip(x + 3, 0, 6) / 6,
        "sigmoid": _sigmoid,
    }
    return functions[layer.activation](x)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + x.__array_namespace__().exp(-x))
