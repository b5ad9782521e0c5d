"""Definitions of the compiled kernels in float64, and what their tests draw and compare; no kernels, no tests."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from ffem_jax.kernels import INSTRUCTIONS, calls, load_library

if not calls.are_there():
    pytest.skip("no compiled kernels", allow_module_level=True)


def use_instructions(name: str) -> str | None:
    found = load_library().ffem_use_instructions(name.encode())
    return found and found.decode()


BEST = use_instructions("")
HERE = [name for name in INSTRUCTIONS if use_instructions(name)]
use_instructions("")


def list_taps(x, stride):
    """Row and column of each of the nine weights, and where of padded x what it multiplies comes from."""
    rows, columns = (stride * (-(-size // stride) - 1) + 1 for size in x.shape[1:3])
    places = itertools.product(range(3), range(3))
    return [(i, j, np.s_[:, i : i + rows : stride, j : j + columns : stride]) for i, j in places]


def depthwise_plainly(x, kernel, stride, pull):
    """The result, and the gradients of its sum weighted by pull(shape)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = list_taps(x, stride)
    out = sum(padded[place] * kernel[i, j, 0] for i, j, place in taps)
    grad, grad_padded, grad_kernel = pull(out.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j, place in taps:
        grad_padded[place] += grad * kernel[i, j, 0]
        grad_kernel[i, j, 0] = (padded[place] * grad).sum((0, 1, 2))
    return out, (grad_padded[:, 1:-1, 1:-1], grad_kernel)


SLOPES = {
    "linear": lambda z, slope: np.ones_like(z),
    "relu": lambda z, slope: (z > 0) * 1.0,
    "relu6": lambda z, slope: ((z > 0) & (z < 6)) * 1.0,
    "prelu": lambda z, slope: np.where(z > 0, 1.0, slope),
    "hard_swish": lambda z, slope: np.clip(z + 3, 0, 6) / 6 + z * (abs(z) < 3) / 6,
}
VALUES = {
    "linear": lambda z, slope: z,
    "relu": lambda z, slope: np.maximum(z, 0),
    "relu6": lambda z, slope: np.clip(z, 0, 6),
    "prelu": lambda z, slope: np.where(z > 0, z, slope * z),
    "hard_swish": lambda z, slope: z * np.clip(z + 3, 0, 6) / 6,
}
BENDS = {"linear": (), "relu": (0,), "relu6": (0, 6), "prelu": (0,), "hard_swish": (-3, 3)}
EPSILON = 1e-3


def normalize_plainly(x, mean, variance, scale, bias, slope, activation, pull, epsilon=EPSILON):
    """The result, and gradients of x, mean, variance, scale, bias, slope, mean and variance taken for constants."""
    x = x.reshape(-1, x.shape[-1])
    factor = 1 / np.sqrt(variance + epsilon)
    normal = (x - mean) * factor
    z = normal * scale + bias
    grad = pull(z.shape)
    before = grad * SLOPES[activation](z, slope)
    grads = (
        before * scale * factor,
        -(before * scale * factor).sum(0),
        -0.5 * (before * normal).sum(0) * scale * factor**2,
        (before * normal).sum(0),
        before.sum(0),
        (grad * np.minimum(z, 0)).sum(0) if activation == "prelu" else np.zeros_like(bias),
    )
    return VALUES[activation](z, slope), grads, normal, before


def batch_norm_plainly(x, scale, bias, slope, activation, pull, epsilon=EPSILON):
    flat = x.reshape(-1, x.shape[-1])
    mean, variance = flat.mean(0), flat.var(0)
    y, grads, normal, before = normalize_plainly(x, mean, variance, scale, bias, slope, activation, pull, epsilon)
    centred = before - before.mean(0) - normal * (before * normal).mean(0)
    return (y, mean, variance), (centred * scale / np.sqrt(variance + epsilon), *grads[3:])


def normalize_depthwise_plainly(x, *vectors, kernel, activation, stride, pull):
    between, *_ = normalize_plainly(x, *vectors, activation, np.zeros)
    y, (grad, grad_kernel) = depthwise_plainly(between.reshape(x.shape), kernel, stride, pull)
    _, grads, *_ = normalize_plainly(x, *vectors, activation, lambda shape: grad.reshape(shape))
    return y, (*grads, grad_kernel)


def batch_norm_depthwise_plainly(x, scale, bias, slope, kernel, activation, stride, pull):
    vectors = scale, bias, slope, activation
    (between, mean, variance), _ = batch_norm_plainly(x, *vectors, np.zeros)
    y, (grad, grad_kernel) = depthwise_plainly(between.reshape(x.shape), kernel, stride, pull)
    _, grads = batch_norm_plainly(x, *vectors, lambda shape: grad.reshape(shape))
    return (y, mean, variance), (*grads, grad_kernel)


def draw(*shapes):
    random = np.random.default_rng(sum(map(sum, shapes)))
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def make_pull():
    return lambda shape: np.random.default_rng(3).normal(size=shape).astype(np.float32).astype(np.float64)


def compare(found, wanted, tolerance=3e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == jnp.float32
        # Of sums of many terms it is their size that counts, not what is left of it.
        np.testing.assert_allclose(
            np.asarray(a).reshape(b.shape), b, rtol=tolerance, atol=tolerance * (1 + np.abs(b).max(initial=0))
        )


def differentiate(function, arguments):
    """The result of `function`, and the gradients of the pull on its first part, as one program."""

    def compute(*arguments):
        result, vjp = jax.vjp(function, *arguments)
        first, *others = jax.tree.leaves(result)
        pull = jnp.asarray(make_pull()(first.shape), jnp.float32)
        zeros = [jnp.zeros_like(other) for other in others]
        return result, vjp(jax.tree.unflatten(jax.tree.structure(result), [pull, *zeros]))

    return jax.jit(compute)(*arguments)


def widen(arrays):
    return [array.astype(np.float64) for array in arrays]


# --------------------------------------------------------------------------------------------- properties

sizes = st.integers(1, 9)
# Most are no multiple of a vector's width, and leave every remainder.
channel_counts = st.one_of(st.integers(1, 40), st.sampled_from([48, 63, 65, 100]))
few = settings(max_examples=15)
