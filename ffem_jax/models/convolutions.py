"""Convolutions in the form that is fast where they run: which form is decided here and nowhere else.

`xla` is XLA's own convolution and the plain definition of each block: the fast one on an accelerator. On a CPU, XLA's
grouped convolution is many times slower than nine shifted multiply-adds, and a step is bound by the memory that the
expanded maps go through: `streamed` takes a few images at a time that stay in the cache (streaming.py). Both forms
compute the same numbers and are tested against each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

FORMS = ("xla", "streamed")

# Of more images than these the gradient of a depthwise kernel is left to XLA's own sum: they are small, and written out
# row by row they would be most of a program. Of fewer and larger ones its sum takes three times as long.
IMAGES_UNROLLED = 8

_form: ContextVar[str | None] = ContextVar("convolution_form", default=None)


@contextlib.contextmanager
def use_convolution_form(form: str) -> Iterator[None]:
    """Trace networks in `form`, `xla` or `streamed`, whatever the backend."""
    if form not in FORMS:
        raise ValueError(f"convolution form {form!r} is not known; choose one of: {', '.join(FORMS)}")
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def get_convolution_form() -> str:
    """The form that networks are traced in now."""
    return _form.get() or ("streamed" if jax.default_backend() == "cpu" else "xla")


def compute_output_size(shape: tuple[int, ...], stride: int) -> tuple[int, int]:
    """Rows and columns that a 3x3 convolution, one pixel of zeros around, makes of [N, H, W, C]."""
    return -(-shape[1] // stride), -(-shape[2] // stride)


def depthwise_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with its own 3x3 kernel, one pixel of zeros around the input.

    x [N, H, W, C], weight [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C].
    """
    if get_convolution_form() == "xla":
        return _xla_conv(x, weight, stride, groups=x.shape[-1])
    _, columns = compute_output_size(x.shape, stride)
    return shifted_depthwise(x, make_taps(weight, columns), stride)


def full_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve all channels with 3x3 kernels, one pixel of zeros around the input.

    x [N, H, W, C], weight [3, 3, C, K] -> [N, ceil(H / stride), ceil(W / stride), K].
    """
    if get_convolution_form() == "xla":
        return _xla_conv(x, weight, stride, groups=1)
    patches = jnp.concatenate(_shifts(_pad(x), *compute_output_size(x.shape, stride), stride), axis=-1)
    return _product(patches, weight.reshape(-1, weight.shape[-1]))


def pointwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """1x1 convolution. x [..., in], weight [in, out] -> [..., out]."""
    return x @ weight if get_convolution_form() == "xla" else _product(x, weight)


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3x3 pixels, of stride 2: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]."""
    if get_convolution_form() == "xla":
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
    # On a CPU the gradient of reduce_window goes pixel by pixel; that of shifted maxima is elementwise.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    rows, columns = compute_output_size(x.shape, 2)
    tall = [padded[:, i : i + 2 * rows - 1 : 2] for i in range(3)]
    highest = jnp.maximum(jnp.maximum(tall[0], tall[1]), tall[2])
    wide = [highest[:, :, j : j + 2 * columns - 1 : 2] for j in range(3)]
    return jnp.maximum(jnp.maximum(wide[0], wide[1]), wide[2])


def _xla_conv(x: jax.Array, weight: jax.Array, stride: int, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@jax.custom_vjp
def _product(x: jax.Array, weight: jax.Array) -> jax.Array:
    return x @ weight


def _product_forward(x, weight):
    return x @ weight, (x, weight)


def _product_backward(residuals, grad):
    # With its positions in several axes XLA copies x transposed and takes its fast product; flat, it does neither.
    x, weight = residuals
    positions = tuple(range(x.ndim - 1))
    return grad @ weight.T, lax.dot_general(x, grad, ((positions, positions), ((), ())))


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def compute_second_moments(x: jax.Array) -> jax.Array:
    """Sums over positions of the products of each two channels: [..., C] -> [C, C]."""
    flat = x.reshape(-1, x.shape[-1])
    return lax.dot_general(flat, flat, (((0,), (0,)), ((), ())))


compute_second_moments.defvjp(lambda x: (compute_second_moments(x), x), lambda x, grad: (x @ (grad + grad.T),))


def _pad(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _shifts(padded: jax.Array, rows: int, columns: int, stride: int) -> list[jax.Array]:
    """The nine views of `padded` that meet the nine weights, in the kernel's row-major order."""
    batch, _, _, channels = padded.shape
    return [
        lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, channels),
            (1, stride, stride, 1),
        )
        for i in range(3)
        for j in range(3)
    ]


def _multiply_add(padded: jax.Array, weights: list[jax.Array], rows: int, columns: int, stride: int) -> jax.Array:
    taps = _shifts(padded, rows, columns, stride)
    total = taps[0] * weights[0]
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total = total + tap * weight
    return total


def make_taps(weight: jax.Array, columns: int) -> tuple[jax.Array, ...]:
    """The nine weights [1, 1, columns, C] of a depthwise kernel [3, 3, 1, C], one and the same for every column.

    The gradient then comes as sums over rows, an elementwise loop that LLVM vectorises, and the sum over columns is
    left to what made the taps: outside a loop over images it is done once. Summed over all positions at once, the
    kernel's gradient takes three times as long.
    """
    return tuple(jnp.broadcast_to(tap, (1, 1, columns, tap.size)) for tap in weight.reshape(9, 1, 1, 1, -1))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_depthwise(x: jax.Array, taps: tuple[jax.Array, ...], stride: int) -> jax.Array:
    """`depthwise_conv` with the kernel as `make_taps` gives it, as nine shifted multiply-adds."""
    return _multiply_add(_pad(x), _get_weights(taps), *compute_output_size(x.shape, stride), stride)


def _get_weights(taps):
    return [tap[0, 0, 0] for tap in taps]


def _shifted_forward(x, taps, stride):
    return shifted_depthwise(x, taps, stride), (x, taps)


def _shifted_backward(stride, residuals, grad):
    x, taps = residuals
    batch, height, width, channels = x.shape
    rows, columns = grad.shape[1:3]
    padded = _pad(x)
    # The input's gradient is the stride-1 convolution of the spread-out gradient with the kernel turned round.
    spread = lax.pad(
        grad,
        jnp.zeros((), grad.dtype),
        (
            (0, 0, 0),
            (1, height - (rows - 1) * stride, stride - 1),
            (1, width - (columns - 1) * stride, stride - 1),
            (0, 0, 0),
        ),
    )
    grad_x = _multiply_add(spread, _get_weights(taps)[::-1], height, width, 1)
    if batch > IMAGES_UNROLLED:
        shifts = _shifts(padded, rows, columns, stride)
        return grad_x, tuple(jnp.sum(shift * grad, axis=(0, 1))[None, None] for shift in shifts)

    def take_row(array, image, row, column):
        end = (image + 1, row + 1, column + (columns - 1) * stride + 1, channels)
        return lax.slice(array, (image, row, column, 0), end, (1, 1, stride, 1))

    # Both sides are read from padded arrays, and more than fifteen times each: XLA then keeps these in memory rather
    # than computing them anew at every use, which would also keep the loop from being vectorised.
    grad_taps = [
        sum(
            take_row(padded, image, row * stride + i, j) * take_row(spread, image, 1 + row * stride, 1)
            for image in range(batch)
            for row in range(rows)
        )
        for i in range(3)
        for j in range(3)
    ]
    return grad_x, tuple(grad_taps)


shifted_depthwise.defvjp(_shifted_forward, _shifted_backward)
