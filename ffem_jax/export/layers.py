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

# max(x, 0); min(max(x, 0), 6); max(x, 0) + slope * min(x, 0), a slope a channel; x * min(max(x + 3, 0), 6) / 6; and
# 1 / (1 + exp(-x)).
ACTIVATIONS = ("linear", "relu", "relu6", "prelu", "hard_swish", "sigmoid")

INPUT_NAME = "pixels"
OUTPUT_NAME = "embedding"

# What training makes of a byte: value = pixel * scale + offset (models.normalize_pixels).
INPUT_SCALE = 1 / 127.5
INPUT_OFFSET = -1.0

# rows, columns, channels of one image's map.
Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """One operation: what it reads (names of tensors) and the tensor it makes, which has its name."""

    name: str
    inputs: tuple[str, ...]


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


@dataclass(frozen=True, eq=False)
class Convolution(_Weighted):
    """Convolution with a bias, then the activation. kernel [row, column, in, out]; a dense layer where all is 1x1."""


@dataclass(frozen=True, eq=False)
class Depthwise(_Weighted):
    """Each channel convolved with a kernel of its own, a bias, then the activation. kernel [row, column, channel]."""


@dataclass(frozen=True, eq=False)
class ChannelConvolution(Layer):
    """A convolution along the channels of a vector, then a sigmoid (ECA). kernel [tap], odd; zeros beyond the ends."""

    kernel: np.ndarray


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """The largest of size x size pixels; what lies outside the map is never the largest."""

    size: int = 3
    stride: int = 2
    padding: int = 1


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(Layer):
    """The mean over the map: a vector."""


@dataclass(frozen=True, eq=False)
class Multiply(Layer):
    """A map times a vector, channel by channel."""


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """The sum of two maps."""


@dataclass(frozen=True, eq=False)
class SliceChannels(Layer):
    """Channels `first` to `first + count` of a map."""

    first: int = 0
    count: int = 0


@dataclass(frozen=True, eq=False)
class InterleaveChannels(Layer):
    """The channels of two maps by turns: concatenated, and shuffled in two groups."""


@dataclass(frozen=True, eq=False)
class Flatten(Layer):
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
            shapes[layer.name] = _compute_shape(layer, [shapes[name] for name in layer.inputs])
        return shapes

    def iterate_weights(self) -> Iterator[tuple[Layer, str, np.ndarray]]:
        """Each weight array with its layer and its field's name, in order."""
        for layer in self.layers:
            for f in dataclasses.fields(layer):
                value = getattr(layer, f.name)
                if isinstance(value, np.ndarray):
                    yield layer, f.name, value


def _compute_shape(layer: Layer, inputs: list[Shape]) -> Shape:
    rows, columns, channels = inputs[0]
    if isinstance(layer, Convolution | Depthwise):
        sizes = [
            (size + 2 * layer.padding - kernel) // layer.stride + 1
            for size, kernel in zip((rows, columns), layer.kernel.shape, strict=False)
        ]
        return sizes[0], sizes[1], layer.kernel.shape[-1]
    if isinstance(layer, MaxPool):
        rows, columns = ((size + 2 * layer.padding - layer.size) // layer.stride + 1 for size in (rows, columns))
        return rows, columns, channels
    if isinstance(layer, GlobalAveragePool):
        return 1, 1, channels
    if isinstance(layer, SliceChannels):
        return rows, columns, layer.count
    if isinstance(layer, InterleaveChannels):
        return rows, columns, 2 * channels
    if isinstance(layer, ChannelConvolution | Multiply | Add | Flatten):
        return inputs[0]
    raise refuse_layer(layer, "the list of layers")


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
