"""A branch (blocks.Branch) on a CPU: a few images at a time, so that its expanded maps stay in the cache.

An expanded map is six times as large as what goes into it. Written to memory and read back by each BatchNorm,
activation and convolution, forward and backward, these maps are most of a training step. Here each is made where it
is used and made again in the backward pass, and only the depthwise convolution's result is kept. What stands in the
way is BatchNorm, which needs the whole batch before the first pixel. For the 1x1 expansion its statistics follow from
the smaller input: of y = x W the mean is (mean of x) W, and the mean of squares is the diagonal of
W^T (mean of x x^T) W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ffem_jax.models.blocks import Bottleneck, Branch, Depthwise, ShuffleUnit, Stem
from ffem_jax.models.convolutions import (
    compute_output_size,
    compute_second_moments,
    full_conv,
    make_taps,
    pointwise_conv,
    shifted_depthwise,
)

# Rows of output a pass should have at least (convolutions._shifted_backward says why), and bytes of an expanded map
# it may have where that leaves a choice.
ROWS_AT_LEAST = 16
BYTES_AT_MOST = 400_000
# A whole batch's map that is no larger lies in the cache as it is. Taken at once it is kept and not made again, and it
# compiles in half the time: at 48 pixels these are two blocks in three.
WHOLE_BYTES_AT_MOST = 1_000_000


def stream_trunk(stem: Stem, blocks: Sequence[Bottleneck | ShuffleUnit], x: jax.Array) -> jax.Array:
    """What `stem` and then `blocks` compute of x [N, H, W, 3]: [N, rows, columns, channels]."""
    x, prepare = stream_stem(stem, x)
    first = blocks[0]
    if isinstance(first, Bottleneck) and first.expand is None and not first.shortcut:
        # Nothing but its depthwise convolution reads what the stem makes.
        x, blocks = stream_branch(first, x, prepare), blocks[1:]
    else:
        x = prepare(x)
    for block in blocks:
        x = stream_block(block, x)
    return x


def stream_block(block: Bottleneck | ShuffleUnit, x: jax.Array) -> jax.Array:
    """What `block` computes of x [N, H, W, in]: [N, rows, columns, out]."""
    if isinstance(block, ShuffleUnit):
        return block.combine(x, stream_branch)
    y = stream_branch(block, x)
    return x + y if block.shortcut else y


def stream_stem(stem: Stem, x: jax.Array) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """What `stem` computes of x [N, H, W, 3], in two parts: its last convolution's [N, rows, columns, channels], and
    what is to be done to it: BatchNorm and activation, left to where it is read."""
    rows, columns = compute_output_size(x.shape, stem.stride)
    kernel = stem.kernel[...]
    patch_bytes = rows * columns * (kernel.size + kernel.shape[-1]) * 4
    y, means, squares = map_images(
        lambda x: _with_moments(full_conv(x, kernel, stem.stride)), choose_images(x.shape[0], rows, patch_bytes), x
    )
    gain, offset = fold_batch_norm(stem.norm, lambda: (jnp.mean(means, 0), jnp.mean(squares, 0)))

    def activate(y):
        return stem.activation(y * gain + offset)

    if isinstance(stem.extra, Depthwise):
        y, activate, _ = stream_depthwise(stem.extra, y, activate)
        return y, activate
    return (y, activate) if stem.extra is None else (stem.extra(activate(y)), _identity)


def _with_moments(y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return y, jnp.mean(y, (1, 2)), jnp.mean(y * y, (1, 2))


def stream_branch(branch: Branch, x: jax.Array, prepare: Callable[[jax.Array], jax.Array] | None = None) -> jax.Array:
    """What `branch`, without a bottleneck's shortcut, computes of x [N, H, W, in]: [N, rows, columns, out].

    prepare is what is still to be done to x, image by image, where the branch has no expansion.
    """
    attention = branch.attention
    expand = (prepare or _identity) if branch.expand is None else _fold_pointwise(branch.expand, x)
    y, activate, images = stream_depthwise(branch.depthwise, x, expand)
    weight = branch.project.conv.kernel[...]
    if attention is not None and branch.position == "depthwise":
        gate = attention.gate(map_images(lambda y: jnp.mean(activate(y), (1, 2)), images, y))
        y = map_images(lambda y, gate: pointwise_conv(activate(y) * gate[:, None, None], weight), images, y, gate)
    else:
        y = map_images(lambda y: pointwise_conv(activate(y), weight), images, y)
    y = branch.project.activation(branch.project.norm(y))
    return attention(y) if attention is not None and branch.position == "projection" else y


def stream_depthwise(
    depthwise: Depthwise, x: jax.Array, prepare: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array], int]:
    """The convolution of `depthwise` on prepare(x), BatchNorm and activation to be done to it, and how many images to
    take at a time."""
    rows, columns = compute_output_size(x.shape, depthwise.stride)
    kernel = depthwise.kernel[...]
    images = choose_images(x.shape[0], rows, math.prod(x.shape[1:3]) * kernel.shape[-1] * x.dtype.itemsize)
    taps = make_taps(kernel, columns)

    def convolve(x):
        return _with_moments(shifted_depthwise(prepare(x), taps, depthwise.stride))

    y, means, squares = map_images(convolve, images, x)
    gain, offset = fold_batch_norm(depthwise.norm, lambda: (jnp.mean(means, 0), jnp.mean(squares, 0)))
    return y, lambda y: depthwise.activation(y * gain + offset), images


def choose_images(batch: int, rows: int, image_bytes: int) -> int:
    """How many images of an expanded map of `image_bytes` each to take at a time: a divisor of `batch`."""
    if batch * image_bytes <= WHOLE_BYTES_AT_MOST:
        return batch
    wanted = max(-(-ROWS_AT_LEAST // rows), BYTES_AT_MOST // image_bytes)
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= wanted or size == 1))


def map_images(function: Callable[..., Any], images: int, *arrays: jax.Array) -> Any:
    """`function` of `images` images at a time, its results put together along the first axis.

    In the backward pass it is computed again, so that nothing but its arguments is kept.
    """
    if arrays[0].shape[0] == images:
        return function(*arrays)
    split = [array.reshape(-1, images, *array.shape[1:]) for array in arrays]
    results = lax.map(jax.checkpoint(lambda parts: function(*parts)), tuple(split))
    return jax.tree.map(lambda result: result.reshape(-1, *result.shape[2:]), results)


def fold_batch_norm(
    norm: nnx.BatchNorm, compute_moments: Callable[[], tuple[jax.Array, jax.Array]]
) -> tuple[jax.Array, jax.Array]:
    """BatchNorm as gain [C] and offset [C] of x * gain + offset, its running statistics moved on in training.

    compute_moments() gives the mean [C] and the mean of squares [C] of the batch, of this device's share of it where
    norm.axis_name names an axis; it is not called in evaluation.
    """
    if norm.use_running_average:
        mean, variance = norm.mean[...], norm.var[...]
    else:
        moments = jnp.stack(compute_moments())
        mean, square = lax.pmean(moments, norm.axis_name) if norm.axis_name else moments
        variance = jnp.maximum(0.0, square - mean * mean)
        norm.mean[...] = norm.momentum * norm.mean[...] + (1 - norm.momentum) * mean
        norm.var[...] = norm.momentum * norm.var[...] + (1 - norm.momentum) * variance
    assert norm.scale is not None
    assert norm.bias is not None
    gain = lax.rsqrt(variance + norm.epsilon) * norm.scale[...]
    return gain, norm.bias[...] - mean * gain


def _fold_pointwise(layer: Any, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """`layer` (blocks.Pointwise) with its BatchNorm folded into its kernel, statistics taken from its input."""
    weight = layer.conv.kernel[...]

    def compute_moments():
        positions = math.prod(x.shape[:-1])
        square = jnp.sum(weight * (compute_second_moments(x) @ weight), 0) / positions
        return jnp.mean(x, (0, 1, 2)) @ weight, square

    gain, offset = fold_batch_norm(layer.norm, compute_moments)
    folded = weight * gain
    return lambda x: layer.activation(pointwise_conv(x, folded) + offset)


def _identity(x: jax.Array) -> jax.Array:
    return x
