"""Convolutions in the fastest form for the backend; only this module chooses the form.

`xla` is XLA's own convolution, used on accelerators and for computing costs. On a CPU, XLA's grouped convolution takes
a hundred times as long as the compiled kernels (ffem_jax/kernels), the form `kernels`. If these are missing, `shifted`
computes a depthwise convolution as the sum of nine shifted products. All forms compute the same numbers and are tested
against each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ffem_jax.kernels import calls

FORMS = ("xla", "kernels", "shifted")

_form: ContextVar[str | None] = ContextVar("convolution_form", default=None)


def list_forms() -> tuple[str, ...]:
    """Return the forms available here: all, except `kernels` if the compiled kernels are missing."""
    return FORMS if calls.are_there() else tuple(form for form in FORMS if form != "kernels")


@contextlib.contextmanager
def use_convolution_form(form: str) -> Iterator[None]:
    """Trace networks in `form`, one of `list_forms()`, on any backend."""
    if form not in list_forms():
        raise ValueError(f"convolution form {form!r} is not available; choose one of: {', '.join(list_forms())}")
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


def get_convolution_form() -> str:
    """Return the form in which networks are currently traced."""
    if form := _form.get():
        return form
    if jax.default_backend() != "cpu":
        return "xla"
    return "kernels" if calls.are_there() else "shifted"


def takes_kernels(x: jax.Array) -> bool:
    """Whether the compiled kernels process x; they support float32 only."""
    return x.dtype == jnp.float32 and get_convolution_form() == "kernels"


def compute_output_size(shape: tuple[int, ...], stride: int) -> tuple[int, int]:
    """Return the rows and columns of a 3x3 convolution of [N, H, W, C], zero-padded by one pixel."""
    return -(-shape[1] // stride), -(-shape[2] // stride)


def depthwise_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with its own 3x3 kernel, zero-padded by one pixel.

    x [N, H, W, C], weight [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C].
    """
    if takes_kernels(x):
        return calls.depthwise(x, weight, stride)
    if get_convolution_form() == "xla":
        return _xla_conv(x, weight, stride, groups=x.shape[-1])
    return _shifted_depthwise(x, weight, stride)


def global_depthwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the sum of each channel of x [N, H, W, C] over the map, weighted by weight [H, W, 1, C]: [N, C]."""
    return calls.global_depthwise(x, weight) if takes_kernels(x) else jnp.einsum("nhwc,hwc->nc", x, weight[:, :, 0])


def full_conv(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    """Convolve all channels with 3x3 kernels, zero-padded by one pixel.

    x [N, H, W, C], weight [3, 3, C, K] -> [N, ceil(H / stride), ceil(W / stride), K].
    """
    if get_convolution_form() == "xla":
        return _xla_conv(x, weight, stride, groups=1)
    patches = jnp.concatenate(_shifts(_pad(x), *compute_output_size(x.shape, stride), stride), axis=-1)
    return pointwise_conv(patches, weight.reshape(-1, weight.shape[-1]))


def pointwise_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """1x1 convolution. x [..., in], weight [in, out] -> [..., out]."""
    if takes_kernels(x):
        return calls.pointwise(x, weight)
    return x @ weight if get_convolution_form() == "xla" else _product(x, weight)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max pooling with stride 2: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]."""
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
    # Contracting over several axes makes XLA transpose x and use its fast product; on a flattened x it does neither.
    x, weight = residuals
    positions = tuple(range(x.ndim - 1))
    return grad @ weight.T, lax.dot_general(x, grad, ((positions, positions), ((), ())))


_product.defvjp(_product_forward, _product_backward)


def _pad(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _shifts(padded: jax.Array, rows: int, columns: int, stride: int) -> list[jax.Array]:
    """Return the nine views of `padded` for the nine weights, in the kernel's row-major order."""
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


def _multiply_add(shifts: list[jax.Array], weight: jax.Array) -> jax.Array:
    return sum(shift * tap for shift, tap in zip(shifts, weight.reshape(9, -1), strict=True))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted_depthwise(x: jax.Array, weight: jax.Array, stride: int) -> jax.Array:
    return _multiply_add(_shifts(_pad(x), *compute_output_size(x.shape, stride), stride), weight)


def _shifted_forward(x, weight, stride):
    return _shifted_depthwise(x, weight, stride), (x, weight)


def _shifted_backward(stride, residuals, grad):
    x, weight = residuals
    _, height, width, _ = x.shape
    rows, columns = grad.shape[1:3]
    # The input's gradient is the stride-1 convolution of the dilated gradient with the flipped kernel.
    below, right = height - (rows - 1) * stride, width - (columns - 1) * stride
    gaps = ((0, 0, 0), (1, below, stride - 1), (1, right, stride - 1), (0, 0, 0))
    spread = lax.pad(grad, jnp.zeros((), grad.dtype), gaps)
    grad_x = _multiply_add(_shifts(spread, height, width, 1), weight.reshape(9, -1)[::-1])
    # Summing over rows first is an elementwise loop; summing over all positions at once takes three times as long.
    taps = [jnp.sum(jnp.sum(shift * grad, (0, 1)), 0) for shift in _shifts(_pad(x), rows, columns, stride)]
    return grad_x, jnp.stack(taps).reshape(weight.shape)


_shifted_depthwise.defvjp(_shifted_forward, _shifted_backward)
