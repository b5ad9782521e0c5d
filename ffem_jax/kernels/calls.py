"""The compiled kernels as JAX functions with gradients: float32, channels last, on a CPU.

Under `vmap` every argument gets a leading axis, over which the kernels loop. If devices share a batch (`axis_name` of
`jax.shard_map`), BatchNorm's sums are reduced over the devices here, not in the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ffem_jax.kernels import load_library, warn_of_missing

CALLS = (
    "depthwise",
    "depthwise_input_gradient",
    "depthwise_kernel_gradient",
    "global_depthwise",
    "global_depthwise_input_gradient",
    "global_depthwise_kernel_gradient",
    "pointwise_kernel_gradient",
    "moments",
    "normalize",
    "batch_norm",
    "normalize_sums",
    "normalize_gradient",
    "normalize_depthwise",
    "batch_norm_depthwise",
    "normalize_depthwise_sums",
    "normalize_depthwise_gradient",
    "join",
    "split",
)

# In the order of their numbers in loops.h.
ACTIVATIONS = ("linear", "relu", "relu6", "prelu", "hard_swish")


@lru_cache(maxsize=1)
def are_there() -> bool:
    """Whether the kernels can be called; registers them with XLA once."""
    library = load_library()
    if library is None:
        return False
    try:
        for name in CALLS:
            handler = jax.ffi.pycapsule(getattr(library, f"ffem_{name}"))
            jax.ffi.register_ffi_target(f"ffem_{name}", handler, platform="cpu")
    except (AttributeError, RuntimeError) as error:  # library of another version, or an interface that jaxlib lacks
        warn_of_missing(error)
        return False
    return True


def _call(name: str, results: Any, *arguments: jax.Array, **settings: Any) -> Any:
    return jax.ffi.ffi_call(f"ffem_{name}", results, vmap_method="broadcast_all")(*arguments, **settings)


def _shaped(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# ------------------------------------------------------------------------------------- depthwise convolution


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve each channel with its own 3x3 kernel, zero-padded by one pixel.

    x [N, H, W, C], kernel [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C].
    """
    return _call("depthwise", _convolved(x.shape, stride), x, kernel, stride=np.int64(stride))


def _convolved(shape: tuple[int, ...], stride: int) -> jax.ShapeDtypeStruct:
    batch, height, width, channels = shape
    return _shaped(batch, -(-height // stride), -(-width // stride), channels)


def _depthwise_forward(x, kernel, stride):
    return depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, residuals, grad):
    x, kernel = residuals
    settings = {"stride": np.int64(stride)}
    return (
        _call("depthwise_input_gradient", _shaped(*x.shape), grad, kernel, **settings),
        _call("depthwise_kernel_gradient", _shaped(*kernel.shape), x, grad, **settings),
    )


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@jax.custom_vjp
def global_depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the sum over the map of x [N, H, W, C] times kernel [H, W, 1, C]: [N, C]."""
    return _call("global_depthwise", _shaped(x.shape[0], x.shape[3]), x, kernel)


def _global_backward(residuals, grad):
    x, kernel = residuals
    return (
        _call("global_depthwise_input_gradient", _shaped(*x.shape), grad, kernel),
        _call("global_depthwise_kernel_gradient", _shaped(*kernel.shape), x, grad),
    )


global_depthwise.defvjp(lambda x, kernel: (global_depthwise(x, kernel), (x, kernel)), _global_backward)


# ------------------------------------------------------------------------------------------ 1x1 convolution


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return x [..., in] @ kernel [in, out] by XLA; only the kernel's gradient is a compiled kernel."""
    return x @ kernel


def _pointwise_backward(residuals, grad):
    x, kernel = residuals
    return grad @ kernel.T, _call("pointwise_kernel_gradient", _shaped(*kernel.shape), x, grad)


pointwise.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _pointwise_backward)


# ------------------------------------------------------------------------------- BatchNorm and activation


def _settings(activation: str, epsilon: float) -> dict[str, Any]:
    return {"activation": np.int64(ACTIVATIONS.index(activation)), "epsilon": np.float32(epsilon)}


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    activation: str,
    epsilon: float,
) -> jax.Array:
    """Return activation((x - mean) / sqrt(variance + epsilon) * scale + bias) for x [..., C] and vectors [C].

    activation: one of ACTIVATIONS. slope: read by PReLU only.
    """
    vectors = mean, variance, scale, bias, slope
    return _call("normalize", _shaped(*x.shape), x, *vectors, **_settings(activation, epsilon))


def _normalize_forward(x, *arguments):
    return normalize(x, *arguments), (x, *arguments[:5])


def _compute_sums(residuals, grad, settings):
    """Return the gradients of bias, scale and slope for this device's share of the batch."""
    vector = _shaped(*residuals[1].shape)
    return _call("normalize_sums", (vector, vector, vector), *residuals, grad, **settings)


def _compute_gradient(residuals, grad, bias, scale, count, settings):
    x = residuals[0]
    settings = {**settings, "count": np.int64(count)}
    return _call("normalize_gradient", _shaped(*x.shape), *residuals, grad, bias, scale, **settings)


def _normalize_backward(activation, epsilon, residuals, grad):
    settings = _settings(activation, epsilon)
    grad_bias, grad_scale, grad_slope = _compute_sums(residuals, grad, settings)
    grad_x = _compute_gradient(residuals, grad, grad_bias, grad_scale, 0, settings)
    return grad_x, *_pull_statistics(residuals, grad_bias, grad_scale, epsilon), grad_scale, grad_bias, grad_slope


def _pull_statistics(residuals, grad_bias, grad_scale, epsilon):
    """Return the gradients of a mean and a variance that are inputs."""
    variance, scale = residuals[2:4]
    factor = lax.rsqrt(variance + epsilon)
    return -scale * factor * grad_bias, -0.5 * scale * factor * factor * grad_scale


normalize.defvjp(_normalize_forward, _normalize_backward)


def batch_norm(
    x: jax.Array,
    running: tuple[jax.Array, jax.Array],
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    activation: str,
    epsilon: float,
    momentum: float,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `normalize` by the mean and variance [C] of x itself, and the updated `running` mean and variance.

    The running values decay by `momentum` and carry no gradient. axis_name: an axis of devices that share the batch
    equally; mean and variance are those of the whole batch.
    """
    running = lax.stop_gradient(running)
    y, *moved = _batch_norm(x, *running, scale, bias, slope, activation, epsilon, momentum, axis_name)
    return y, *lax.stop_gradient(moved)


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8, 9))
def _batch_norm(*arguments):
    return _batch_norm_forward(*arguments)[0]


def _batch_norm_forward(
    x, running_mean, running_variance, scale, bias, slope, activation, epsilon, momentum, axis_name
):
    vector, settings = _shaped(x.shape[-1]), _settings(activation, epsilon)
    residuals = x, *_compute_moments(x, axis_name), scale, bias, slope
    results = _shaped(*x.shape), vector, vector
    settings["momentum"] = np.float32(momentum)
    return tuple(_call("batch_norm", results, *residuals, running_mean, running_variance, **settings)), residuals


def _batch_norm_backward(activation, epsilon, momentum, axis_name, residuals, grads):
    settings, devices = _settings(activation, epsilon), _count_devices(axis_name)
    grad_bias, grad_scale, grad_slope = _compute_sums(residuals, grads[0], settings)
    totals = _add_devices((grad_bias, grad_scale), axis_name)
    count = math.prod(residuals[0].shape[:-1]) * devices
    grad_x = _compute_gradient(residuals, grads[0], totals[0], totals[1], count, settings)
    # The parameters' gradients cover this device's share: the code that splits a batch also sums the gradients.
    return grad_x, None, None, grad_scale, grad_bias, grad_slope


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _count_devices(axis_name: str | None) -> int:
    return lax.axis_size(axis_name) if axis_name else 1


def _compute_moments(x: jax.Array, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance [C] of x [..., C] over all devices."""
    vector = _shaped(x.shape[-1])
    mean, variance = _call("moments", (vector, vector), x)
    if _count_devices(axis_name) > 1:
        own = mean
        mean = lax.pmean(own, axis_name)
        variance = lax.pmean(variance + jnp.square(own - mean), axis_name)
    return mean, variance


def _add_devices(sums: tuple[jax.Array, ...], axis_name: str | None) -> tuple[jax.Array, ...]:
    return lax.psum(sums, axis_name) if _count_devices(axis_name) > 1 else sums


# ----------------------------------------------------- BatchNorm, activation and a depthwise convolution of them


@partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def normalize_depthwise(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    kernel: jax.Array,
    activation: str,
    epsilon: float,
    stride: int,
) -> jax.Array:
    """Return `depthwise` of `normalize` of x.

    The map between, as large as x, is never stored: its rows are recomputed whenever they are needed. x [N, H, W, C],
    kernel [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C]; the rest as in `normalize`.
    """
    arguments, settings = (x, mean, variance, scale, bias, slope, kernel), _fused_settings(activation, epsilon, stride)
    return _call("normalize_depthwise", _convolved(x.shape, stride), *arguments, **settings)


def _fused_settings(activation: str, epsilon: float, stride: int) -> dict[str, Any]:
    return {**_settings(activation, epsilon), "stride": np.int64(stride)}


def _normalize_depthwise_backward(activation, epsilon, stride, residuals, grad):
    settings = _fused_settings(activation, epsilon, stride)
    grad_kernel, grad_bias, grad_scale, grad_slope = _compute_fused_sums(residuals, grad, settings)
    grad_x = _compute_fused_gradient(residuals, grad, grad_bias, grad_scale, 0, settings)
    given = _pull_statistics(residuals, grad_bias, grad_scale, epsilon)
    return grad_x, *given, grad_scale, grad_bias, grad_slope, grad_kernel


def _compute_fused_sums(residuals, grad, settings):
    """Return the gradients of kernel, bias, scale and slope for this device's share of the batch."""
    vector, kernel = _shaped(*residuals[1].shape), _shaped(*residuals[6].shape)
    return _call("normalize_depthwise_sums", (kernel, vector, vector, vector), *residuals, grad, **settings)


def _compute_fused_gradient(residuals, grad, bias, scale, count, settings):
    settings, result = {**settings, "count": np.int64(count)}, _shaped(*residuals[0].shape)
    return _call("normalize_depthwise_gradient", result, *residuals, grad, bias, scale, **settings)


normalize_depthwise.defvjp(
    lambda *arguments: (normalize_depthwise(*arguments), arguments[:7]), _normalize_depthwise_backward
)


def batch_norm_depthwise(
    x: jax.Array,
    running: tuple[jax.Array, jax.Array],
    scale: jax.Array,
    bias: jax.Array,
    slope: jax.Array,
    kernel: jax.Array,
    activation: str,
    epsilon: float,
    momentum: float,
    stride: int,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return `depthwise` of `batch_norm` of x, and the updated `running` mean and variance.

    Like `normalize_depthwise`, it never stores the normalised map.
    """
    running = lax.stop_gradient(running)
    settings = activation, epsilon, momentum, stride, axis_name
    y, *moved = _batch_norm_depthwise(x, *running, scale, bias, slope, kernel, *settings)
    return y, *lax.stop_gradient(moved)


@partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9, 10, 11))
def _batch_norm_depthwise(*arguments):
    return _fused_forward(*arguments)[0]


def _fused_forward(
    x, running_mean, running_variance, scale, bias, slope, kernel, activation, epsilon, momentum, stride, axis_name
):
    vector, settings = _shaped(x.shape[-1]), _fused_settings(activation, epsilon, stride)
    residuals = x, *_compute_moments(x, axis_name), scale, bias, slope, kernel
    results = _convolved(x.shape, stride), vector, vector
    settings["momentum"] = np.float32(momentum)
    running = running_mean, running_variance
    return tuple(_call("batch_norm_depthwise", results, *residuals, *running, **settings)), residuals


def _fused_backward(activation, epsilon, momentum, stride, axis_name, residuals, grads):
    settings = _fused_settings(activation, epsilon, stride)
    grad_kernel, grad_bias, grad_scale, grad_slope = _compute_fused_sums(residuals, grads[0], settings)
    totals = _add_devices((grad_bias, grad_scale), axis_name)
    count = math.prod(residuals[0].shape[:-1]) * _count_devices(axis_name)
    grad_x = _compute_fused_gradient(residuals, grads[0], totals[0], totals[1], count, settings)
    return grad_x, None, None, grad_scale, grad_bias, grad_slope, grad_kernel


_batch_norm_depthwise.defvjp(_fused_forward, _fused_backward)


# ---------------------------------------------------------------------------------------- vectors of arrays


def join(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return the concatenated numbers of `arrays` as one vector; XLA would compile code for each array."""
    return _call("join", _shaped(sum(array.size for array in arrays)), *arrays)


def split(vector: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Return the inverse of `join`: arrays of the given shapes."""
    return list(_call("split", [_shaped(*shape) for shape in shapes], vector))
