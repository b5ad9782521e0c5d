"""The bytes of an attention's operations in the topology file, counted from the attention's own description.

The counter receives the same description as export (`fold(graph, x, name)`, see models/graph.py), so attentions need
not declare their size. Kernels and vectors are excluded: cost.py counts them with the weights. tests/export checks the
sums against files of `ffem export --format tfjs`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from ffem_jax.models.graph import AXES, Shape

# Bytes per operation with its entry in the file, without constants that the whole network shares, such as axes.
AVERAGE = 75
REDUCTION = 80
CHANNEL_GATE = 400
PRODUCT = SUM = SIGMOID = 50
HARD_SWISH = 190
CONCATENATION = 58
SLICE = 54
SLICE_SHAPE = 75  # of 122, since blocks of one stage share it
TRANSPOSE = 53
INTERLEAVING = 427
MAX_POOL = 420
FLATTENING = 90


def count_bytes(part: nnx.Module, channels: int) -> int:
    """Return the bytes of the operations without weights in `part`, which may be abstract, for maps with `channels`.

    0 for a part that does not describe its layers and so cannot be exported.
    """
    if not hasattr(part, "fold"):
        return 0
    graph, state = nnx.split(part)
    # The values do not matter, but a part may compute with them. NumPy creates them: JAX would compile one program per
    # shape.
    part = nnx.merge(graph, jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype)), state))
    counter = TopologyCounter((8, 8, channels))
    part.fold(counter, "x", "part")
    return counter.total


class TopologyCounter:
    """Counts the bytes of the layers that a part describes. Implements `models.graph.Graph`."""

    def __init__(self, shape: Shape) -> None:
        self.total = 0
        self.shapes: dict[str, Shape] = {"x": shape}
        self.sliced: set[Shape] = set()

    def get_shape(self, x: str) -> Shape:
        return self.shapes[x]

    def fold(self, part: Any, x: str, name: str) -> str:
        return str(part.fold(self, x, name))

    def convolution(self, name: str, x: str, kernel: Any, *, activation: Any = nnx.identity, **how: Any) -> str:
        shape = (*_compute_size(self.shapes[x], kernel, how), kernel.shape[-1])
        return self._add(name, shape, _weigh_activation(activation))

    def depthwise(self, name: str, x: str, kernel: Any, *, activation: Any = nnx.identity, **how: Any) -> str:
        shape = (*_compute_size(self.shapes[x], kernel, how), kernel.shape[-1])
        return self._add(name, shape, _weigh_activation(activation))

    def channel_gate(self, name: str, x: str, kernel: Any) -> str:
        return self._add(name, self.shapes[x], CHANNEL_GATE)

    def activate(self, name: str, x: str, activation: Callable[..., Any]) -> str:
        return self._add(name, self.shapes[x], HARD_SWISH if activation is nnx.hard_swish else SIGMOID)

    def average(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        whole = set(axes) == {"rows", "columns"}
        return self._add(name, _reduce(self.shapes[x], axes), AVERAGE if whole else REDUCTION)

    def maximum(self, name: str, x: str, axes: Sequence[str] = ("rows", "columns")) -> str:
        return self._add(name, _reduce(self.shapes[x], axes), REDUCTION)

    def max_pool(self, name: str, x: str) -> str:
        rows, columns, channels = self.shapes[x]
        return self._add(name, (-(-rows // 2), -(-columns // 2), channels), MAX_POOL)

    def multiply(self, name: str, x: str, y: str) -> str:
        rows, columns, channels = map(max, self.shapes[x], self.shapes[y])
        return self._add(name, (rows, columns, channels), PRODUCT)

    def add(self, name: str, x: str, y: str) -> str:
        return self._add(name, self.shapes[x], SUM)

    def concatenate(self, name: str, inputs: Sequence[str], axis: str) -> str:
        sizes = dict(zip(AXES, self.shapes[inputs[0]], strict=True))
        total = sum(self.shapes[x][AXES.index(axis)] for x in inputs)
        return self._add(name, _replace(sizes, axis, total), CONCATENATION)

    def cut(self, name: str, x: str, axis: str, first: int, count: int) -> str:
        shape = _replace(dict(zip(AXES, self.shapes[x], strict=True)), axis, count)
        extra = 0 if shape in self.sliced else SLICE_SHAPE
        self.sliced.add(shape)
        return self._add(name, shape, SLICE + extra)

    def swap(self, name: str, x: str) -> str:
        rows, columns, channels = self.shapes[x]
        return self._add(name, (columns, rows, channels), TRANSPOSE)

    def interleave(self, name: str, x: str, y: str) -> str:
        rows, columns, channels = self.shapes[x]
        return self._add(name, (rows, columns, 2 * channels), INTERLEAVING)

    def flatten(self, name: str, x: str) -> str:
        return self._add(name, self.shapes[x], FLATTENING)

    def _add(self, name: str, shape: Shape, size: int) -> str:
        self.shapes[name] = shape
        self.total += size
        return name


def _weigh_activation(activation: Any) -> int:
    # Other activations are fused into the convolution's operation.
    return {nnx.sigmoid: SIGMOID, nnx.hard_swish: HARD_SWISH}.get(activation, 0)


def _compute_size(shape: Shape, kernel: Any, how: dict[str, Any]) -> tuple[int, int]:
    size = kernel.shape[0] if len(kernel.shape) > 2 else 1
    rows, columns = ((each + 2 * how.get("padding", 0) - size) // how.get("stride", 1) + 1 for each in shape[:2])
    return rows, columns


def _reduce(shape: Shape, axes: Sequence[str]) -> Shape:
    rows, columns, channels = (1 if axis in axes else size for axis, size in zip(AXES, shape, strict=True))
    return rows, columns, channels


def _replace(sizes: dict[str, int], axis: str, size: int) -> Shape:
    rows, columns, channels = {**sizes, axis: size}.values()
    return rows, columns, channels
