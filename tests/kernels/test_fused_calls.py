"""BatchNorm, an activation and a depthwise convolution in one call, against their definition and two calls."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from made_calls import (
    BENDS,
    EPSILON,
    HERE,
    batch_norm_depthwise_plainly,
    batch_norm_plainly,
    channel_counts,
    compare,
    differentiate,
    draw,
    few,
    make_pull,
    normalize_depthwise_plainly,
    normalize_plainly,
    sizes,
    use_instructions,
    widen,
)

from ffem_jax.kernels import calls

pytestmark = pytest.mark.usefixtures("best_instructions")


def is_off_the_bends(z, activation):
    """Whether rounding puts no value on the other side of a bend, where its gradient is another."""
    return all(np.abs(z - bend).min() > 1e-5 for bend in BENDS[activation])


def draw_batch_norm_depthwise(shape):
    channels = shape[-1]
    x, *others = draw(shape, (channels,), (channels,), (channels,), (3, 3, 1, channels))
    return 2 * x + 1, *others


def check_batch_norm_depthwise(shape, activation, stride, tolerance):
    channels, arguments = shape[-1], draw_batch_norm_depthwise(shape)
    running = (jnp.zeros(channels), jnp.ones(channels))

    def compute(x, scale, bias, slope, kernel):
        return calls.batch_norm_depthwise(x, running, scale, bias, slope, kernel, activation, EPSILON, 0.75, stride)

    (y, mean, variance), grads = differentiate(compute, arguments)
    wanted, wanted_grads = batch_norm_depthwise_plainly(*widen(arguments), activation, stride, make_pull())
    compare((y, mean, variance), (wanted[0], 0.25 * wanted[1], 0.75 + 0.25 * wanted[2]), tolerance)
    # Of one position nothing is left of the gradient of x but what rounding leaves.
    first = 0 if np.prod(shape[:-1]) > 1 else 1
    compare(grads[first:], wanted_grads[first:], tolerance)


@few
@given(
    st.sampled_from(HERE),
    st.integers(1, 3),
    sizes,
    sizes,
    channel_counts,
    st.sampled_from(calls.ACTIVATIONS),
    st.sampled_from([1, 2]),
)
@example("baseline", 1, 1, 1, 5, "prelu", 1)
@example("baseline", 2, 1, 1, 5, "prelu", 2)
@example("baseline", 1, 1, 9, 17, "hard_swish", 2)
def test_batch_norm_and_depthwise(instructions, batch, height, width, channels, activation, stride):
    use_instructions(instructions)
    shape = batch, height, width, channels
    (z, *_), _ = batch_norm_plainly(*widen(draw_batch_norm_depthwise(shape)[:4]), "linear", np.zeros)
    assume(is_off_the_bends(z, activation))
    check_batch_norm_depthwise(shape, activation, stride, 3e-4)


@few
@given(
    st.sampled_from(HERE),
    st.sampled_from([(1, 1, 1), (2, 5, 4), (2, 19, 23)]),
    channel_counts,
    st.sampled_from(calls.ACTIVATIONS),
    st.sampled_from([1, 2]),
)
def test_normalize_and_depthwise(instructions, leading, channels, activation, stride):
    use_instructions(instructions)
    x, mean, variance, *others, kernel = draw((*leading, channels), *[(channels,)] * 5, (3, 3, 1, channels))
    arguments = 3 * x, mean, np.abs(variance), *others, kernel

    def compute(*arguments):
        return calls.normalize_depthwise(*arguments, activation, EPSILON, stride)

    *vectors, kernel = widen(arguments)
    assume(is_off_the_bends(normalize_plainly(*vectors, "linear", np.zeros)[0], activation))
    wanted = normalize_depthwise_plainly(
        *vectors, kernel=kernel, activation=activation, stride=stride, pull=make_pull()
    )
    compare(differentiate(compute, arguments), wanted, tolerance=3e-4)


# In several parts, and of rows that are each longer than a part.
@pytest.mark.parametrize("shape", [(2, 37, 41, 70), (2, 5, 60, 300)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("instructions", HERE)
def test_batch_norm_and_depthwise_on_maps_that_are_taken_in_parts(instructions, stride, shape):
    use_instructions(instructions)
    check_batch_norm_depthwise(shape, "prelu", stride, 3e-4)


@pytest.mark.parametrize("activation", calls.ACTIVATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_batch_norm_and_depthwise_in_one_call_are_what_they_are_in_two(activation, stride):
    """To the last bits: the same loops on the same rows."""
    arguments = draw((2, 19, 23, 70), (70,), (70,), (70,), (3, 3, 1, 70))
    running = jnp.zeros(70), jnp.ones(70)

    def compute(x, scale, bias, slope, kernel):
        vectors = running, scale, bias, slope
        return calls.batch_norm_depthwise(x, *vectors, kernel, activation, EPSILON, 0.75, stride)

    def compute_in_two(x, scale, bias, slope, kernel):
        y, *moved = calls.batch_norm(x, running, scale, bias, slope, activation, EPSILON, 0.75)
        return calls.depthwise(y, kernel, stride), *moved

    found, wanted = differentiate(compute, arguments), differentiate(compute_in_two, arguments)
    compare(found, jax.tree.map(np.asarray, wanted), tolerance=2e-6)
