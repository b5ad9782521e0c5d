"""BatchNorm and activation after a convolution; one call of the compiled kernels if these are used."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ffem_jax.kernels import calls
from ffem_jax.models.convolutions import depthwise_conv, takes_kernels


class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0), one slope per channel, initially 0.25 (He et al., 2015)."""

    def __init__(self, channels: int):
        self.slope = nnx.Param(jnp.full((channels,), 0.25, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        # The slope, and so the sum of its gradient over the map, may have a higher precision than x.
        return jnp.where(x > 0, x, (x * self.slope[...]).astype(x.dtype))


@jax.custom_jvp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), with gradient 0 at both kinks, as in PyTorch."""
    return jnp.clip(x, 0.0, 6.0)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    return relu6(x), jnp.where((x > 0) & (x < 6), tangent, 0)


# Activations without parameters, by their names in the kernels.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu6": relu6,
    "hard_swish": nnx.hard_swish,
    "relu": nnx.relu,
    "linear": nnx.identity,
}


def make_activation(name: str, channels: int) -> Callable[[jax.Array], jax.Array]:
    """Return the activation `name` (arch.ACTIVATIONS, or `linear`), with its own parameters if it has any."""
    return PReLU(channels) if name == "prelu" else ACTIVATIONS[name]


def make_batch_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Return a BatchNorm over all axes but the channels; running statistics have momentum 0.9."""
    # The fast variance, the mean of squares minus the squared mean, loses all digits if the mean is a thousand times
    # the standard deviation.
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, use_fast_variance=False, rngs=rngs)


def normalize(norm: nnx.BatchNorm, activation: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Return activation(norm(x)) for x [..., C]; in training `norm` updates its running statistics."""
    return _normalize_by_kernels(norm, activation, x) if takes_kernels(x) else activation(norm(x))


def normalize_depthwise(
    norm: nnx.BatchNorm, activation: Callable[[jax.Array], jax.Array], x: jax.Array, weight: jax.Array, stride: int
) -> jax.Array:
    """Return `depthwise_conv` of `normalize` of x; with the kernels, one call that never stores the map between.

    x [N, H, W, C], weight [3, 3, 1, C] -> [N, ceil(H / stride), ceil(W / stride), C].
    """
    name = _get_name(activation)
    if name is None or not takes_kernels(x):
        return depthwise_conv(normalize(norm, activation, x), weight, stride)
    running, (scale, bias, slope) = (norm.mean[...], norm.var[...]), _get_vectors(norm, activation)
    if norm.use_running_average:
        return calls.normalize_depthwise(x, *running, scale, bias, slope, weight, name, norm.epsilon, stride)
    y, mean, variance = calls.batch_norm_depthwise(
        x, running, scale, bias, slope, weight, name, norm.epsilon, norm.momentum, stride, norm.axis_name
    )
    _move_statistics(norm, mean, variance)
    return y


def _normalize_by_kernels(norm, activation, x):
    name = _get_name(activation)
    if name is None:
        return activation(_normalize_by_kernels(norm, nnx.identity, x))
    running, (scale, bias, slope) = (norm.mean[...], norm.var[...]), _get_vectors(norm, activation)
    if norm.use_running_average:
        return calls.normalize(x, *running, scale, bias, slope, name, norm.epsilon)
    y, mean, variance = calls.batch_norm(
        x, running, scale, bias, slope, name, norm.epsilon, norm.momentum, norm.axis_name
    )
    _move_statistics(norm, mean, variance)
    return y


def _get_name(activation):
    """Return the kernels' name of `activation`; None if they do not support it."""
    return "prelu" if isinstance(activation, PReLU) else _NAMES.get(activation)


def _get_vectors(norm, activation):
    """Return scale, bias and slope. Only PReLU reads the slope; for the others any vector works."""
    bias = norm.bias[...]
    slope = activation.slope[...] if isinstance(activation, PReLU) else lax.stop_gradient(bias)
    return norm.scale[...], bias, slope


def _move_statistics(norm, mean, variance):
    # Not `norm.mean[...] =`, which asks a traced array for its sharding and is slowed by building a long error message.
    norm.mean.set_value(mean)
    norm.var.set_value(variance)


_NAMES = {activation: name for name, activation in ACTIVATIONS.items()}
