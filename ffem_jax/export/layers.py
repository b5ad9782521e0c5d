"""A network as a phone runs it: a flat list of typed layers without BatchNorm, which the writers of all formats share.

A tensor is named after the layer that makes it, and all tensors are NHWC in float32; a vector is a map of one pixel, so
that a dense layer is a 1x1 convolution of it. Weights are plain NumPy arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ffem_jax.export.errors import ExportError

AXES = ("rows", "columns", "channels")
# The sizes of one image's map along these, as in models/graph.py, which needs JAX: who runs a file has none of it.
Shape = tuple[int, int, int]

# max(x, 0); min(max(x, 0), 6); max(x, 0) + slope * min(x, 0), one slope per channel; x * min(max(x + 3, 0), 6) / 6; and
# 1 / (1 + exp(-x)).
ACTIVATIONS = ("linear", "relu", "relu6", "prelu", "hard_swish", "sigmoid")

INPUT_NAME = "pixels"
OUTPUT_NAME = "embedding"

# What training makes of a byte: value = pixel * scale + offset (models.normalize_pixels).
INPUT_SCALE = 1 / 127.5
INPUT_OFFSET = -1.0


@dataclass(frozen=True, eq=False)
class Layer:
    """One operation: what it reads (names of tensors) and the tensor it makes, which has its name."""

    name: str
    inputs: tuple[str, ...]

    def compute_shape(self, *inputs: Shape) -> Shape:
        """The shape of what it makes of maps of the shapes `inputs`. Raises ExportError where a kind has not said."""
        raise refuse_layer(self, "the list of layers")


@dataclass(frozen=True, eq=False)
class _Weighted(Layer):
    """kernel: float32; bias [out]; padding: zeros around the input, each side; slope [out], of `prelu` alone."""

    kernel: np.ndarray
    bias: np.ndarray
    stride: int = 1
    padding: int = 0
    activation: str = "linear"
    slope: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ExportError(f"{self.name}: activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns = (
            (size + 2 * self.padding - kernel) // self.stride + 1
            for size, kernel in zip(inputs[0][:2], self.kernel.shape, strict=False)
        )
        return rows, columns, self.kernel.shape[-1]


@dataclass(frozen=True, eq=False)
class Convolution(_Weighted):
    """Convolution with a bias, then the activation. kernel [row, column, in, out]; a dense layer where all is 1x1."""


@dataclass(frozen=True, eq=False)
class Depthwise(_Weighted):
    """Each channel convolved with a kernel of its own, a bias, then the activation. kernel [row, column, channel]."""


@dataclass(frozen=True, eq=False)
class _SameShape(Layer):
    """A layer that keeps the shape of what it reads."""

    def compute_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True, eq=False)
class ChannelConvolution(_SameShape):
    """A convolution along the channels of a vector, then a sigmoid (ECA). kernel [tap], odd; zeros beyond the ends."""

    kernel: np.ndarray


@dataclass(frozen=True, eq=False)
class Activation(_SameShape):
    """An activation without weights, by itself."""

    function: str = "sigmoid"

    def __post_init__(self) -> None:
        known = [name for name in ACTIVATIONS if name not in ("linear", "prelu")]
        if self.function not in known:
            raise ExportError(f"{self.name}: activation {self.function!r} is none of {', '.join(known)}")


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """The largest of size x size pixels; what lies outside the map is never the largest."""

    size: int = 3
    stride: int = 2
    padding: int = 1

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns = ((size + 2 * self.padding - self.size) // self.stride + 1 for size in inputs[0][:2])
        return rows, columns, inputs[0][2]


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Layer):
    """The mean over the map: a vector."""

    def compute_shape(self, *inputs: Shape) -> Shape:
        return 1, 1, inputs[0][2]


@dataclass(frozen=True, eq=False)
class Reduce(Layer):
    """The `mean` or the `max` over some of AXES, which are then of size 1."""

    operation: str = "mean"
    axes: tuple[str, ...] = ("rows", "columns")

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns, channels = (1 if axis in self.axes else size for axis, size in zip(AXES, inputs[0], strict=True))
        return rows, columns, channels


@dataclass(frozen=True, eq=False)
class Multiply(Layer):
    """The product of two maps; one of size 1 along an axis, as a vector is, counts everywhere along it."""

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns, channels = np.broadcast_shapes(*inputs)
        return rows, columns, channels


@dataclass(frozen=True, eq=False)
class Add(_SameShape):
    """The sum of two maps."""


@dataclass(frozen=True, eq=False)
class Concatenate(Layer):
    """Maps one after another along one of AXES."""

    axis: str = "channels"

    def compute_shape(self, *inputs: Shape) -> Shape:
        place = AXES.index(self.axis)
        rows, columns, channels = (
            sum(each[axis] for each in inputs) if axis == place else inputs[0][axis] for axis in range(3)
        )
        return rows, columns, channels


@dataclass(frozen=True, eq=False)
class SliceChannels(Layer):
    """Channels `first` to `first + count` of a map."""

    first: int = 0
    count: int = 0

    def compute_shape(self, *inputs: Shape) -> Shape:
        return *inputs[0][:2], self.count


@dataclass(frozen=True, eq=False)
class Slice(Layer):
    """Entries `first` to `first + count` of a map along one of AXES."""

    axis: str = "rows"
    first: int = 0
    count: int = 0

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns, channels = (
            self.count if axis == self.axis else size for axis, size in zip(AXES, inputs[0], strict=True)
        )
        return rows, columns, channels


@dataclass(frozen=True, eq=False)
class SwapAxes(Layer):
    """Rows and columns exchanged."""

    def compute_shape(self, *inputs: Shape) -> Shape:
        rows, columns, channels = inputs[0]
        return columns, rows, channels


@dataclass(frozen=True, eq=False)
class InterleaveChannels(Layer):
    """The channels of two maps by turns: concatenated, and shuffled in two groups."""

    def compute_shape(self, *inputs: Shape) -> Shape:
        return *inputs[0][:2], 2 * inputs[0][2]


@dataclass(frozen=True, eq=False)
class Flatten(_SameShape):
    """A vector without the axes of its one pixel: [N, 1, 1, C] -> [N, C]."""


@dataclass(frozen=True, eq=False)
class LayerList:
    """A folded network: pixels [N, resolution, resolution, 3], value = byte * INPUT_SCALE + INPUT_OFFSET -> [N, D].

    layers: in an order in which each can be computed; the last makes the embedding, which is not normalised.
    """

    resolution: int
    layers: tuple[Layer, ...]

    @property
    def embedding_dim(self) -> int:
        """How many numbers come out."""
        return self.compute_shapes()[OUTPUT_NAME][2]

    def compute_shapes(self) -> dict[str, Shape]:
        """The shape of every tensor, the input's too, by name."""
        shapes: dict[str, Shape] = {INPUT_NAME: (self.resolution, self.resolution, 3)}
        for layer in self.layers:
            shapes[layer.name] = layer.compute_shape(*(shapes[name] for name in layer.inputs))
        return shapes

    def iterate_weights(self) -> Iterator[tuple[Layer, str, np.ndarray]]:
        """Each weight array with its layer and its field's name, in order."""
        for layer in self.layers:
            for f in dataclasses.fields(layer):
                value = getattr(layer, f.name)
                if isinstance(value, np.ndarray):
                    yield layer, f.name, value


def compute_same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after `size` pixels that TensorFlow's SAME means: of an odd number the larger part comes after.

    A convolution here has as many on both sides, as it was trained; where SAME means another, it is spelt out.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def refuse_layer(layer: Layer, where: str) -> ExportError:
    """The error of a writer that does not know a kind of layer."""
    return ExportError(f"{where} cannot write a layer of kind {type(layer).__name__} ({layer.name})")


def compute_model_id(network: LayerList) -> str:
    """16 hexadecimal digits over the layers and their float32 weights: the name of what was trained.

    Every format and dtype of one trial has the same; vectors of two of them are never compared.
    """
    digest = hashlib.sha256(json.dumps(["ffem", 1, network.resolution, INPUT_SCALE, INPUT_OFFSET]).encode())
    for layer in network.layers:
        plain = {
            f.name: value.shape if isinstance(value, np.ndarray) else value
            for f in dataclasses.fields(layer)
            for value in [getattr(layer, f.name)]
        }
        digest.update(json.dumps([type(layer).__name__, plain], sort_keys=True).encode())
    for _, _, values in network.iterate_weights():
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return digest.hexdigest()[:16]
