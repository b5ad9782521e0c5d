"""The interface to which a part of a network describes its layers for export: `part.fold(graph, x, name)`.

A part knows its computation in evaluation, and `export` knows the formats. A part calls one of the methods below per
layer, with the name of the tensor that it reads, and returns the name of the resulting tensor. All maps are
[N, H, W, C]; a vector is a map of one pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from flax import nnx

AXES = ("rows", "columns", "channels")
# The sizes of one image's map along these axes.
Shape = tuple[int, int, int]


class Graph(Protocol):
    """The layers that every export format supports. Each method adds one layer called `name` and returns its name."""

    def get_shape(self, x: str) -> Shape:
        """Return rows, columns and channels of the tensor `x`."""

    def fold(self, part: Any, x: str, name: str) -> str:
        """Let `part` describe itself with its own `fold`. Raises ExportError if it has none."""

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
        """A convolution with kernel [row, column, in, out], or [in, out] for 1x1, and what follows it.

        First `norm` or `bias` [out], then the activation: one of normalization.ACTIVATIONS, a PReLU or nnx.sigmoid.
        """

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
        """Like `convolution`, with one kernel per channel, [row, column, channel]."""

    def channel_gate(self, name: str, x: str, kernel: Any) -> str:
        """A convolution along the channels of a vector with kernel [tap], zeros beyond the ends; then a sigmoid."""

    def activate(self, name: str, x: str, activation: Callable[..., Any]) -> str:
        """An activation on its own: relu, relu6, hard_swish or sigmoid."""

    def average(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        """The mean over `axes` (of rows, columns and channels), which then have size 1."""

    def maximum(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        """The maximum over `axes`, which then have size 1."""

    def max_pool(self, name: str, x: str) -> str:
        """3x3 max pooling with stride 2."""

    def multiply(self, name: str, x: str, y: str) -> str:
        """The product of two maps; a map of size 1 along an axis is broadcast."""

    def add(self, name: str, x: str, y: str) -> str:
        """The sum of two maps of the same shape."""

    def concatenate(self, name: str, inputs: Sequence[str], axis: str) -> str:
        """Maps one after another along `axis`: rows, columns or channels."""

    def cut(self, name: str, x: str, axis: str, first: int, count: int) -> str:
        """Entries `first` to `first + count` along `axis`."""

    def swap(self, name: str, x: str) -> str:
        """Rows and columns exchanged."""

    def interleave(self, name: str, x: str, y: str) -> str:
        """The channels of two maps, alternating."""

    def flatten(self, name: str, x: str) -> str:
        """A vector without the axes of its one pixel."""


def fold_dense(graph: Graph, layer: nnx.Linear, x: str, name: str, activation: Any = nnx.identity) -> str:
    """A dense layer over the channels of every pixel of `x`, then the activation."""
    bias = None if layer.bias is None else layer.bias[...]
    return graph.convolution(name, x, layer.kernel[...], bias=bias, activation=activation)
