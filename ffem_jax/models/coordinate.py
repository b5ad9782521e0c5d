"""Coordinate attention: channel gates that keep the position along each axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.graph import Graph, fold_dense
from ffem_jax.models.layers import Pointwise


class CoordinateAttention(nnx.Module):
    """One gate per channel and row times one gate per channel and column. [N, H, W, C] -> [N, H, W, C].

    The means over each row and over each column pass together through a 1x1 convolution with BatchNorm and hard-swish,
    then separately through a 1x1 convolution with bias and a sigmoid.

    hidden_channels: max(8, channels // reduction); the authors' reduction is 32.

    References:
        Hou et al., CVPR 2021, Eq. 4 to 8, and the authors' code.
    """

    def __init__(self, channels: int, hidden_channels: int, *, rngs: nnx.Rngs):
        self.reduce = Pointwise(channels, hidden_channels, "hard_swish", rngs=rngs)
        self.rows = nnx.Linear(hidden_channels, channels, rngs=rngs)
        self.columns = nnx.Linear(hidden_channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        means = jnp.concatenate((x.mean(axis=2), x.mean(axis=1)), axis=1)
        hidden = self.reduce(means[:, :, None])[:, :, 0]
        rows, columns = hidden[:, : x.shape[1]], hidden[:, x.shape[1] :]
        return x * nnx.sigmoid(self.rows(rows))[:, :, None] * nnx.sigmoid(self.columns(columns))[:, None]

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export."""
        height, width, _ = graph.get_shape(x)
        rows = graph.average(f"{name}/row_means", x, ("columns",))
        columns = graph.swap(f"{name}/turned", graph.average(f"{name}/column_means", x, ("rows",)))
        means = graph.concatenate(f"{name}/means", (rows, columns), "rows")
        hidden = graph.fold(self.reduce, means, f"{name}/reduce")
        rows = graph.cut(f"{name}/rows", hidden, "rows", 0, height)
        columns = graph.swap(f"{name}/back", graph.cut(f"{name}/columns", hidden, "rows", height, width))
        y = graph.multiply(f"{name}/by_row", x, fold_dense(graph, self.rows, rows, f"{name}/row_gate", nnx.sigmoid))
        gate = fold_dense(graph, self.columns, columns, f"{name}/column_gate", nnx.sigmoid)
        return graph.multiply(f"{name}/scale", y, gate)
