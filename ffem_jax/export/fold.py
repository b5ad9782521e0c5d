"""A trained network to its list of layers: each BatchNorm goes into the convolution before it.

The parts of the network say what their layers are (`fold` in models/); what is written here is how a layer comes to its
numbers. Of y = norm(conv(x)) the gain scale / sqrt(variance + epsilon) multiplies the kernel, and what is left is a
bias. Computed in float64, so that rounding to float32 happens once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx

from ffem_jax.export import ExportError
from ffem_jax.export.layers import (
    AXES,
    INPUT_NAME,
    OUTPUT_NAME,
    Activation,
    Add,
    ChannelConvolution,
    Concatenate,
    Convolution,
    Depthwise,
    Flatten,
    GlobalAveragePool,
    InterleaveChannels,
    Layer,
    LayerList,
    MaxPool,
    Multiply,
    Reduce,
    Shape,
    Slice,
    SliceChannels,
    SwapAxes,
)
from ffem_jax.models import FaceNetwork, normalization

_ACTIVATION_NAMES: dict[Callable[..., Any], str] = {
    normalization.relu6: "relu6",
    nnx.relu: "relu",
    nnx.hard_swish: "hard_swish",
    nnx.sigmoid: "sigmoid",
    nnx.identity: "linear",
}


def fold_network(model: FaceNetwork, resolution: int) -> LayerList:
    """The layers of `model`, trained for images of `resolution` pixels per side, in evaluation.

    Raises:
        ExportError: naming a block, an attention or an activation that cannot be exported.
    """
    graph = LayerGraph((resolution, resolution, 3))
    graph.fold(model, INPUT_NAME, OUTPUT_NAME)
    return LayerList(resolution, tuple(graph.layers))


class LayerGraph:
    """Collects layers as parts describe them: a `models.graph.Graph`, where its methods are explained."""

    def __init__(self, shape: Shape) -> None:
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {INPUT_NAME: shape}

    def get_shape(self, x: str) -> Shape:
        return self.shapes[x]

    def fold(self, part: Any, x: str, name: str) -> str:
        fold = getattr(part, "fold", None)
        if not callable(fold):
            raise ExportError(
                f"export does not know {_describe(part)} ({name}); give it a method fold(self, graph, x, name) that "
                "says what its layers are"
            )
        y = fold(self, x, name)
        if y not in self.shapes:
            raise ExportError(f"{_describe(part)}.fold gives {y!r}; it must return the name of the tensor it made last")
        return str(y)

    def convolution(
        self,
        name: str,
        x: str,
        kernel: Any,
        *,
        norm: nnx.BatchNorm | None = None,
        bias: Any = None,
        stride: int = 1,
        padding: int = 0,
        activation: Callable[..., Any] = nnx.identity,
    ) -> str:
        weights = _fold_norm(kernel, norm, bias)
        kernel = weights[0][None, None] if weights[0].ndim == 2 else weights[0]
        return self._add(Convolution(name, (x,), kernel, weights[1], stride, padding, *_name_activation(activation)))

    def depthwise(
        self,
        name: str,
        x: str,
        kernel: Any,
        *,
        norm: nnx.BatchNorm | None = None,
        bias: Any = None,
        stride: int = 1,
        padding: int = 0,
        activation: Callable[..., Any] = nnx.identity,
    ) -> str:
        weights = _fold_norm(kernel, norm, bias)
        return self._add(Depthwise(name, (x,), *weights, stride, padding, *_name_activation(activation)))

    def channel_gate(self, name: str, x: str, kernel: Any) -> str:
        return self._add(ChannelConvolution(name, (x,), _to_float32(kernel)))

    def activate(self, name: str, x: str, activation: Callable[..., Any]) -> str:
        return self._add(Activation(name, (x,), _name_activation(activation)[0]))

    def average(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        whole = set(_check_axes(name, axes)) == {"rows", "columns"}
        return self._add(GlobalAveragePool(name, (x,)) if whole else Reduce(name, (x,), "mean", tuple(axes)))

    def maximum(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        return self._add(Reduce(name, (x,), "max", _check_axes(name, axes)))

    def max_pool(self, name: str, x: str) -> str:
        return self._add(MaxPool(name, (x,)))

    def multiply(self, name: str, x: str, y: str) -> str:
        return self._add(Multiply(name, (x, y)))

    def add(self, name: str, x: str, y: str) -> str:
        return self._add(Add(name, (x, y)))

    def concatenate(self, name: str, inputs: Sequence[str], axis: str) -> str:
        _check_axes(name, (axis,))
        return self._add(Concatenate(name, tuple(inputs), axis))

    def cut(self, name: str, x: str, axis: str, first: int, count: int) -> str:
        _check_axes(name, (axis,))
        if axis == "channels":
            return self._add(SliceChannels(name, (x,), first, count))
        return self._add(Slice(name, (x,), axis, first, count))

    def swap(self, name: str, x: str) -> str:
        return self._add(SwapAxes(name, (x,)))

    def interleave(self, name: str, x: str, y: str) -> str:
        return self._add(InterleaveChannels(name, (x, y)))

    def flatten(self, name: str, x: str) -> str:
        return self._add(Flatten(name, (x,)))

    def _add(self, layer: Layer) -> str:
        if layer.name in self.shapes:
            raise ExportError(
                f"two layers are called {layer.name}; begin their names with the `name` that fold is given"
            )
        missing = [name for name in layer.inputs if name not in self.shapes]
        if missing:
            raise ExportError(f"{layer.name} reads {missing[0]!r}, which no layer has made")
        self.layers.append(layer)
        self.shapes[layer.name] = layer.compute_shape(*(self.shapes[name] for name in layer.inputs))
        return layer.name


def _check_axes(name: str, axes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(axes, str) or not set(axes) <= set(AXES):
        raise ExportError(f"{name}: axes={axes!r} must be a tuple of some of {', '.join(AXES)}")
    return tuple(axes)


def _fold_norm(kernel: Any, norm: nnx.BatchNorm | None, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [..., out] and bias [out] of a convolution with `kernel` and `bias`, and of `norm` behind it."""
    kernel = np.asarray(kernel, np.float64)
    bias = np.zeros(kernel.shape[-1]) if bias is None else np.asarray(bias, np.float64)
    if norm is None:
        return _to_float32(kernel), _to_float32(bias)
    mean, variance = (np.asarray(values[...], np.float64) for values in (norm.mean, norm.var))
    gain = 1 if norm.scale is None else np.asarray(norm.scale[...], np.float64)
    gain = gain / np.sqrt(variance + norm.epsilon)
    shift = 0 if norm.bias is None else np.asarray(norm.bias[...], np.float64)
    return _to_float32(kernel * gain), _to_float32(shift + (bias - mean) * gain)


def _to_float32(values: Any) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


def _name_activation(activation: Any) -> tuple[str, np.ndarray | None]:
    """The name of an activation, and the slopes that it has of its own."""
    if isinstance(activation, normalization.PReLU):
        return "prelu", _to_float32(activation.slope[...])
    if activation not in _ACTIVATION_NAMES:
        raise ExportError(f"export does not know the activation {_describe(activation)}")
    return _ACTIVATION_NAMES[activation], None


def _describe(part: Any) -> str:
    return str(getattr(part, "__name__", type(part).__name__))
