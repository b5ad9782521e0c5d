"""CBAM: channel attention, then spatial attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ffem_jax.models.convolutions import get_convolution_form
from ffem_jax.models.draws import kernel_init
from ffem_jax.models.graph import Graph, fold_dense
from ffem_jax.models.normalization import make_batch_norm, normalize


class ConvolutionalBlockAttention(nnx.Module):
    """CBAM: a gate per channel, then a gate per pixel. [N, H, W, C] -> [N, H, W, C].

    The channel gate applies two dense layers, with bias and a ReLU between, to the means over the map and to the
    maxima, and takes the sigmoid of the sum. The pixel gate is the sigmoid of a convolution over the mean and the
    maximum of each pixel's channels. As in the authors' code, a BatchNorm follows that convolution in place of a bias.

    hidden_channels: channels // reduction; the authors' reduction is 16.
    spatial_kernel: odd; 7 in the paper. Pixels beyond the border count as zero.

    References:
        Woo et al., ECCV 2018, Eq. 2 and 3.
    """

    def __init__(self, channels: int, hidden_channels: int, spatial_kernel: int = 7, *, rngs: nnx.Rngs):
        self.reduce = nnx.Linear(channels, hidden_channels, rngs=rngs)
        self.expand = nnx.Linear(hidden_channels, channels, rngs=rngs)
        self.kernel = nnx.Param(kernel_init(rngs.params(), (spatial_kernel, spatial_kernel, 2, 1), jnp.float32))
        self.norm = make_batch_norm(1, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[3])
        pooled = jnp.stack((pixels.mean(axis=1), take_largest(pixels, 1)), axis=1)
        logits = self.expand(nnx.relu(self.reduce(pooled))).sum(axis=1)
        x = x * nnx.sigmoid(logits)[:, None, None, :]
        pooled = jnp.stack((x.mean(axis=-1), take_largest(x, x.ndim - 1)), axis=-1)
        return x * nnx.sigmoid(normalize(self.norm, nnx.identity, spatial_conv(pooled, self.kernel[...])))

    def fold(self, graph: Graph, x: str, name: str) -> str:
        """Describe its layers for export."""
        # Both vectors are rows of one map, so that the dense layers' weights are stored once.
        means, largest = graph.average(f"{name}/mean", x), graph.maximum(f"{name}/max", x)
        pooled = graph.concatenate(f"{name}/pooled", (means, largest), "rows")
        hidden = fold_dense(graph, self.reduce, pooled, f"{name}/reduce", nnx.relu)
        logits = fold_dense(graph, self.expand, hidden, f"{name}/expand")
        parts = [graph.cut(f"{name}/of_{part}", logits, "rows", row, 1) for row, part in enumerate(("mean", "max"))]
        gate = graph.activate(f"{name}/gate", graph.add(f"{name}/logits", *parts), nnx.sigmoid)
        y = graph.multiply(f"{name}/channels", x, gate)
        means = graph.average(f"{name}/pixel_mean", y, ("channels",))
        largest = graph.maximum(f"{name}/pixel_max", y, ("channels",))
        pooled = graph.concatenate(f"{name}/pixels", (means, largest), "channels")
        kernel, rim = self.kernel[...], self.kernel.shape[0] // 2
        gate = graph.convolution(
            f"{name}/pixel_gate", pooled, kernel, norm=self.norm, padding=rim, activation=nnx.sigmoid
        )
        return graph.multiply(f"{name}/scale", y, gate)


def take_largest(x: jax.Array, axis: int) -> jax.Array:
    """Return the largest value along `axis`; the gradient goes to its first position.

    The gradient of jnp.max compares the maximum with the operand, which XLA may recompute with another rounding. Then
    no entry is equal, and the gradient is 0 / 0.
    """
    place = lax.stop_gradient(jnp.argmax(x, axis=axis, keepdims=True))
    chosen = lax.broadcasted_iota(place.dtype, x.shape, axis) == place
    return jnp.sum(jnp.where(chosen, x, 0), axis=axis)


def spatial_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Convolve with stride 1 and zero padding, for few channels: x [N, H, W, C], weight [K, K, C, D] -> [N, H, W, D].

    K is odd.
    """
    size, outputs = weight.shape[0], weight.shape[3]
    rim = (size // 2, size // 2)
    if get_convolution_form() == "xla":
        return lax.conv_general_dilated(x, weight, (1, 1), (rim, rim), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    # One product per pixel over the K columns around it yields the contributions of the K rows, which are then summed.
    # With several seeds, vmap would turn a plain convolution into a grouped one, which XLA computes slowly on a CPU.
    rows, columns = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), rim, rim, (0, 0)))
    around = jnp.concatenate([padded[:, :, j : j + columns] for j in range(size)], axis=-1)
    taps = weight.transpose(1, 2, 0, 3).reshape(-1, size * outputs)
    shares = (around @ taps).reshape(*around.shape[:-1], size, outputs)
    return sum((shares[:, i : i + rows, :, i] for i in range(1, size)), shares[:, :rows, :, 0])
