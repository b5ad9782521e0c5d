"""3x3 convolutions in the form that is fast where they run: which form is decided here and nowhere else.

On a CPU, XLA's grouped convolution is about nine times slower than the sum of nine shifted copies of the input,
each times its weight, and its gradient for a strided convolution of three channels costs a quarter of a whole
training step; on an accelerator XLA's own are the fast ones. Both forms compute the same numbers and are
tested against each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

FORMS = ("xla", "shifted")

_form: ContextVar[str | None] = ContextVar("convolution_form", default=None)


@contextlib.contextmanager
def use_convolution_form(form: str) -> Iterator[None]:
    """Trace convolutions in `form`, `xla` or `shifted`, whatever the backend."""
    if form not in FORMS:
        raise ValueError(f"convolution form {form!r} is not known; choose one of: {', '.join(FORMS)}")
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def _get_form() -> str:
    return _form.get() or ("shifted" if jax.default_backend() == "cpu" else "xla")


def depthwise_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with its own 3x3 kernel, one pixel of zeros around the input.

    x [N, H, W, C], weight [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C].
    """
    if _get_form() == "xla":
        return _xla_conv(x, weight, stride, groups=x.shape[-1])
    return _shifted_depthwise(x, weight[:, :, 0], stride)


def full_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve all channels with 3x3 kernels, one pixel of zeros around the input.

    x [N, H, W, C], weight [3, 3, C, K] -> [N, ceil(H / stride), ceil(W / stride), K].
    """
    if _get_form() == "xla":
        return _xla_conv(x, weight, stride, groups=1)
    rows, columns = (-(-size // stride) for size in x.shape[1:3])
    patches = jnp.concatenate(_shifts(_pad(x), rows, columns, stride), axis=-1)
    return patches @ weight.reshape(-1, weight.shape[-1])


def _xla_conv(x: jax.Array, weight: jax.Array, stride: int, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


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


def _multiply_add(padded: jax.Array, weight: jax.Array, rows: int, columns: int, stride: int) -> jax.Array:
    taps = _shifts(padded, rows, columns, stride)
    flat = weight.reshape(9, -1)
    total = taps[0] * flat[0]
    for tap, w in zip(taps[1:], flat[1:], strict=True):
        total = total + tap * w
    return total


def _add_all(totals, more):
    return [a + b for a, b in zip(totals, more, strict=True)]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_depthwise(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    rows, columns = (-(-size // stride) for size in x.shape[1:3])
    return _multiply_add(_pad(x), weight, rows, columns, stride)


def _shifted_forward(x, weight, stride):
    return _shifted_depthwise(x, weight, stride), (x, weight)


def _shifted_backward(stride, residuals, grad):
    x, weight = residuals
    rows, columns = grad.shape[1:3]
    padded = _pad(x)

    # An image at a time stays in the cache, and one variadic reduction reads it once for all nine sums:
    # 3 to 8 times faster on a CPU than one reduction over the whole batch.
    def add_image(total, pair):
        image, image_grad = (side[None] for side in pair)
        products = [tap * image_grad for tap in _shifts(image, rows, columns, stride)]
        sums = lax.reduce(products, [jnp.zeros((), x.dtype)] * 9, _add_all, (0, 1, 2))
        return total + jnp.stack(sums), None

    grad_weight, _ = lax.scan(add_image, jnp.zeros((9, x.shape[-1]), x.dtype), (padded, grad))
    # The input's gradient is the stride-1 convolution of the spread-out gradient with the kernel turned round.
    height, width = x.shape[1:3]
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
    grad_x = _multiply_add(spread, weight[::-1, ::-1], height, width, 1)
    return grad_x, grad_weight.reshape(weight.shape)


_shifted_depthwise.defvjp(_shifted_forward, _shifted_backward)
