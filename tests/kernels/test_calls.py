"""The compiled kernels against their definitions in float64, values and gradients, for every instruction set here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from made_calls import (
    BEST,
    EPSILON,
    HERE,
    batch_norm_plainly,
    channel_counts,
    compare,
    depthwise_plainly,
    differentiate,
    draw,
    few,
    make_pull,
    normalize_plainly,
    sizes,
    use_instructions,
    widen,
)

from ffem_jax.kernels import calls
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.models.normalization import make_activation, make_batch_norm, normalize

pytestmark = pytest.mark.usefixtures("best_instructions")


def test_the_best_instructions_are_in_use_and_the_baseline_is_everywhere():
    assert HERE[0] == BEST
    assert HERE[-1] == "baseline"


@few
@given(st.sampled_from(HERE), st.integers(1, 3), sizes, sizes, channel_counts, st.sampled_from([1, 2]))
def test_depthwise(instructions, batch, height, width, channels, stride):
    use_instructions(instructions)
    arguments = draw((batch, height, width, channels), (3, 3, 1, channels))
    found = differentiate(lambda x, kernel: calls.depthwise(x, kernel, stride), arguments)
    compare(found, depthwise_plainly(*widen(arguments), stride, make_pull()))


@pytest.mark.parametrize("instructions", HERE)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_on_maps_that_are_taken_in_parts(instructions, stride):
    use_instructions(instructions)
    arguments = draw((2, 37, 41, 70), (3, 3, 1, 70))
    found = differentiate(lambda x, kernel: calls.depthwise(x, kernel, stride), arguments)
    compare(found, depthwise_plainly(*widen(arguments), stride, make_pull()), tolerance=1e-4)


@few
@given(st.sampled_from(HERE), st.integers(1, 4), sizes, sizes, channel_counts)
def test_global_depthwise(instructions, batch, height, width, channels):
    use_instructions(instructions)
    arguments = draw((batch, height, width, channels), (height, width, 1, channels))
    x, kernel = widen(arguments)
    grad = make_pull()((batch, channels))
    wanted = (
        (x * kernel[None, :, :, 0]).sum((1, 2)),
        (grad[:, None, None] * kernel[None, :, :, 0], (x * grad[:, None, None]).sum(0)[:, :, None]),
    )
    compare(differentiate(calls.global_depthwise, arguments), wanted)


@few
@given(st.sampled_from(HERE), st.sampled_from([(1,), (3, 5), (1, 1, 1), (700, 3)]), channel_counts, channel_counts)
def test_pointwise(instructions, leading, inputs, outputs):
    use_instructions(instructions)
    arguments = draw((*leading, inputs), (inputs, outputs))
    x, kernel = widen(arguments)
    grad = make_pull()((*leading, outputs))
    wanted = x @ kernel, (grad @ kernel.T, x.reshape(-1, inputs).T @ grad.reshape(-1, outputs))
    compare(differentiate(calls.pointwise, arguments), wanted, tolerance=1e-4)


@few
@given(
    st.sampled_from(HERE),
    st.sampled_from([(2,), (1, 1, 1), (3, 5), (2, 3, 4), (700, 3)]),
    channel_counts,
    st.sampled_from(calls.ACTIVATIONS),
)
def test_batch_norm(instructions, leading, channels, activation):
    use_instructions(instructions)
    x, scale, bias, slope = draw((*leading, channels), (channels,), (channels,), (channels,))
    x = 2 * x + 1
    running = (jnp.zeros(channels), jnp.ones(channels))

    def compute(x, scale, bias, slope):
        return calls.batch_norm(x, running, scale, bias, slope, activation, EPSILON, 0.75)

    (y, mean, variance), grads = differentiate(compute, (x, scale, bias, slope))
    wide = widen((x, scale, bias, slope))
    (wanted_y, wanted_mean, wanted_variance), wanted_grads = batch_norm_plainly(*wide, activation, make_pull())
    compare((y, mean, variance), (wanted_y, 0.25 * wanted_mean, 0.75 + 0.25 * wanted_variance))
    if np.prod(leading) > 1:  # of one position nothing is left but what rounding leaves
        compare(grads, wanted_grads, tolerance=2e-4)


@few
@given(
    st.sampled_from(HERE), st.sampled_from([(1,), (3, 5), (700, 3)]), channel_counts, st.sampled_from(calls.ACTIVATIONS)
)
def test_normalize(instructions, leading, channels, activation):
    use_instructions(instructions)
    x, mean, variance, scale, bias, slope = draw((*leading, channels), *[(channels,)] * 5)
    arguments = 3 * x, mean, np.abs(variance), scale, bias, slope

    def compute(*arguments):
        return calls.normalize(*arguments, activation, EPSILON)

    found = differentiate(compute, arguments)
    compare(found, normalize_plainly(*widen(arguments), activation, make_pull())[:2], tolerance=2e-4)


def test_the_variance_of_large_numbers_close_together_is_not_lost():
    x = np.float32(1e4) + draw((4, 30, 30, 5))[0]
    _, mean, variance = calls.batch_norm(
        x, (jnp.zeros(5), jnp.zeros(5)), jnp.ones(5), jnp.zeros(5), jnp.zeros(5), "linear", 1e-5, 0.0
    )
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("instructions", HERE)
def test_the_moments_are_exact_to_an_ulp_or_two_where_the_first_pixel_is_far_from_the_mean(instructions):
    use_instructions(instructions)
    x = draw((16, 24, 24, 19))[0]
    x[0, 0, 0] = 8.0
    zeros = jnp.zeros(19)
    _, mean, variance = calls.batch_norm(x, (zeros, zeros), jnp.ones(19), zeros, zeros, "linear", 1e-5, 0.0)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=0, atol=1e-7)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=5e-7)


@settings(max_examples=8)
@given(
    st.sampled_from([*HERE, "plain JAX"]),
    st.sampled_from([(64,), (8, 3, 5), (700, 3)]),
    channel_counts,
    st.sampled_from(calls.ACTIVATIONS),
    st.sampled_from([1.0, -1.0]),
)
def test_a_mean_far_larger_than_the_deviation_costs_no_more_than_the_rounding_of_the_mean(
    engine, leading, channels, activation, sign
):
    """Mean 1e4 times the deviation, float64 as the judge. The mean as a float32 is off by up to 5e-4 deviations."""
    x, scale, bias = draw((*leading, channels), (channels,), (channels,))
    x = (np.float32(sign * 1e4) + x).astype(np.float32)
    slope = np.full(channels, 0.25, np.float32)

    def compute(x, scale, bias, slope):
        norm, act = make_batch_norm(channels, nnx.Rngs(0)), make_activation(activation, channels)
        norm.scale[...], norm.bias[...] = scale, bias
        if activation == "prelu":
            act.slope[...] = slope
        return normalize(norm, act, x), norm.mean[...], norm.var[...]

    if engine in HERE:
        use_instructions(engine)
    with use_convolution_form("kernels" if engine in HERE else "shifted"):
        found, grads = differentiate(compute, (x, scale, bias, slope))
    wide = widen((x, scale, bias, slope))
    (y, mean, variance), wanted = batch_norm_plainly(*wide, activation, make_pull(), epsilon=1e-5)
    compare(found, (y, 0.1 * mean, 0.9 + 0.1 * variance), tolerance=1e-3)
    # The few values that are off by enough to lie on the other side of an activation's bend are off by much.
    for a, b in zip(grads, wanted, strict=True):
        assert np.linalg.norm(np.asarray(a).reshape(b.shape) - b) <= 0.03 * np.linalg.norm(b) + 1e-4


@pytest.mark.parametrize("activation", calls.ACTIVATIONS)
def test_nan_stays_nan(activation):
    """A training that has diverged is known by its loss: no activation may hide it."""
    x = np.full((2, 3, 3, 20), np.nan, np.float32)
    one = np.ones(20, np.float32)
    assert np.isnan(calls.normalize(x, one, one, one, one, one, activation, 1e-5)).all()
    kernel = np.ones((3, 3, 1, 20), np.float32)
    assert np.isnan(calls.depthwise(x, kernel, 1)).all()
    fused, *_ = calls.batch_norm_depthwise(x, (one, one), one, one, one, kernel, activation, 1e-5, 0.9, 1)
    assert np.isnan(fused).all()


# ------------------------------------------------------------------------- seeds, devices, vectors, errors


def test_seeds_side_by_side_are_the_seeds_one_by_one():
    seeds = 3
    x, kernel, scale, bias, slope = draw((seeds, 2, 5, 6, 19), (seeds, 3, 3, 1, 19), *[(seeds, 19)] * 3)

    def compute(x, kernel, scale, bias, slope):
        y = calls.depthwise(x, kernel, 2)
        running = jnp.zeros(19), jnp.ones(19)
        z, mean, variance = calls.batch_norm(y, running, scale, bias, slope, "prelu", 1e-5, 0.9)
        return jnp.sum(jnp.sin(z)), (z, mean, variance)

    def each(*arguments):
        (loss, aux), grads = jax.value_and_grad(compute, range(5), has_aux=True)(*arguments)
        vector = calls.join([*grads, loss])
        return aux, vector, calls.split(vector, [grad.shape for grad in (*grads, loss)])

    def compute_fused(x, scale, bias, slope, kernel):
        running = jnp.zeros(19), jnp.ones(19)
        y, *moved = calls.batch_norm_depthwise(x, running, scale, bias, slope, kernel, "prelu", 1e-5, 0.9, 2)
        return jnp.sum(jnp.sin(y)), (y, moved)

    def each_fused(*arguments):
        return jax.value_and_grad(compute_fused, range(5), has_aux=True)(*arguments)

    together = jax.jit(jax.vmap(each))(x, kernel, scale, bias, slope)
    for seed in range(seeds):
        alone = each(x[seed], kernel[seed], scale[seed], bias[seed], slope[seed])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[seed], b, rtol=1e-5, atol=1e-6)
    fused = jax.jit(jax.vmap(each_fused))(x, scale, bias, slope, kernel)
    for seed in range(seeds):
        alone = each_fused(x[seed], scale[seed], bias[seed], slope[seed], kernel[seed])
        for a, b in zip(jax.tree.leaves(fused), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[seed], b, rtol=1e-5, atol=1e-6)
    # What all seeds share is given to each of them.
    shared = jax.vmap(lambda kernel: calls.depthwise(x[0], kernel, 1))(kernel)
    np.testing.assert_array_equal(shared[1], calls.depthwise(x[0], kernel[1], 1))


@pytest.mark.parametrize("fused", [False, True])
def test_devices_that_share_a_batch_normalise_it_as_one_does(fused):
    x, scale, bias, slope, kernel = draw((8, 3, 3, 21), (21,), (21,), (21,), (3, 3, 1, 21))
    pull = draw((8, 3, 3, 21))[0]
    running = jnp.zeros(21), jnp.ones(21)

    def compute(x, pull, axis=None):
        def run(x, scale, bias, slope, kernel):
            vectors = running, scale, bias, slope
            if fused:
                y, *moved = calls.batch_norm_depthwise(x, *vectors, kernel, "prelu", 1e-5, 0.9, 1, axis)
            else:
                y, *moved = calls.batch_norm(x, *vectors, "prelu", 1e-5, 0.9, axis)
            return jnp.sum(y * pull), moved

        return jax.value_and_grad(run, range(5), has_aux=True)(x, scale, bias, slope, kernel)

    (_, moved), grads = compute(x, pull)
    shares = [array.reshape(4, 2, *array.shape[1:]) for array in (x, pull)]
    split = jax.vmap(lambda x, pull: compute(x, pull, "batch"), axis_name="batch")
    (_, moved_split), grads_split = split(*shares)
    for a, b in zip(moved_split, moved, strict=True):
        np.testing.assert_allclose(a[3], b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(grads_split[0].reshape(x.shape), grads[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(grads_split[1:], grads[1:], strict=True):
        np.testing.assert_allclose(a.sum(0), b, rtol=1e-4, atol=1e-4)


def test_joined_arrays_are_cut_as_they_were():
    arrays = draw((3, 2), (), (5,), (1, 2, 3), (0, 4))
    vector = calls.join(arrays)
    np.testing.assert_array_equal(vector, np.concatenate([array.ravel() for array in arrays]))
    for a, b in zip(calls.split(vector, [array.shape for array in arrays]), arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_is_computed_every_time():
    x, kernel, scale, bias = draw((8, 24, 24, 50), (3, 3, 1, 50), (50,), (50,))

    @jax.jit
    def compute(x, kernel):
        def loss(x, kernel):
            running = jnp.zeros(50), jnp.ones(50)
            y, *_ = calls.batch_norm(calls.depthwise(x, kernel, 1), running, scale, bias, bias, "relu6", 1e-5, 0.9)
            return jnp.sum(y * y)

        return jax.value_and_grad(loss, (0, 1))(x, kernel)

    first = jax.tree.leaves(compute(x, kernel))
    for _ in range(3):
        for a, b in zip(first, jax.tree.leaves(compute(x, kernel)), strict=True):
            np.testing.assert_array_equal(a, b)
