"""The compiled kernels against their definitions in float64, values and gradients, for every instruction set here."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ffem_jax.kernels import INSTRUCTIONS, calls, load_library
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.models.normalization import make_activation, make_batch_norm, normalize

if not calls.are_there():
    pytest.skip("no compiled kernels", allow_module_level=True)


def use_instructions(name: str) -> str | None:
    found = load_library().ffem_use_instructions(name.encode())
    return found and found.decode()


BEST = use_instructions("")
HERE = [name for name in INSTRUCTIONS if use_instructions(name)]
use_instructions("")


@pytest.fixture(autouse=True)
def _best_instructions():
    """What a test has chosen holds for it alone."""
    yield
    use_instructions("")


def test_the_best_instructions_are_in_use_and_the_baseline_is_everywhere():
    assert HERE[0] == BEST
    assert HERE[-1] == "baseline"


# -------------------------------------------------------------------------------- definitions, in float64


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


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


STRIDE, THREE = {"stride": np.int64(1)}, {"stride": np.int64(3)}
INTEGERS = shaped(1, 4, 4, 8, dtype=jnp.int32)
NORM = {"activation": np.int64(1), "epsilon": np.float32(1e-5)}
FIFTH = {**NORM, "activation": np.int64(5)}
FUSED = {**NORM, **STRIDE, "momentum": np.float32(0.9), "count": np.int64(16)}
MAP, TAPS, VECTORS = (1, 4, 4, 8), (3, 3, 1, 8), [(8,)] * 5
REFUSED = {
    "kernel of other channels": (
        "depthwise",
        shaped(1, 4, 4, 8),
        [(1, 4, 4, 8), (3, 3, 1, 7)],
        STRIDE,
        r"ffem kernel depthwise takes a kernel \[3, 3, 1, channels\]; it got float32\[1,4,4,8\], float32\[3,3,1,7\] -> "
        r"float32\[1,4,4,8\]",
    ),
    "result of another size": ("depthwise", shaped(1, 3, 4, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "makes"),
    "stride": ("depthwise", shaped(1, 2, 2, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], THREE, "stride of 1 or 2"),
    "no stride": ("depthwise", shaped(1, 4, 4, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], {}, "attribute stride"),
    "too few axes": ("depthwise", shaped(1, 4, 4, 8), [(8,), (3, 3, 1, 8)], STRIDE, "at least 4 axes"),
    "other type": ("depthwise", INTEGERS, [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "float32 alone"),
    "one argument": ("depthwise", shaped(1, 4, 4, 8), [(1, 4, 4, 8)], STRIDE, "takes 2 arguments"),
    "two results": ("depthwise", [shaped(1, 4, 4, 8)] * 2, [(1, 4, 4, 8), (3, 3, 1, 8)], STRIDE, "gives 1 results"),
    "pointwise": (
        "pointwise_kernel_gradient",
        shaped(8, 7),
        [(2, 4, 8), (2, 5, 7)],
        {},
        "pointwise_kernel_gradient takes x",
    ),
    "pooling": ("global_depthwise", shaped(1, 8), [(1, 4, 4, 8), (3, 3, 1, 8)], {}, "global_depthwise takes a kernel"),
    "vectors": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 4, (7,)], NORM, "normalize takes arrays"),
    "seeds": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 4, (2, 8)], NORM, "same leading axes"),
    "activation": ("normalize", shaped(1, 4, 4, 8), [(1, 4, 4, 8), *[(8,)] * 5], FIFTH, "from 0 to 4"),
    "nothing": ("moments", [shaped(8)] * 2, [(0, 8)], {}, "at least one position"),
    "fused kernel": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, (3, 3, 1, 7), (8,), (8,)],
        FUSED,
        r"batch_norm_depthwise takes a kernel \[3, 3, 1, channels\]; it got float32\[1,4,4,8\]",
    ),
    "fused running": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (7,)],
        FUSED,
        "batch_norm_depthwise takes arrays",
    ),
    "fused without momentum": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (8,)],
        {**NORM, **STRIDE},
        "attribute momentum",
    ),
    "fused activation": (
        "batch_norm_depthwise",
        [shaped(*MAP), shaped(8), shaped(8)],
        [MAP, *VECTORS, TAPS, (8,), (8,)],
        {**FUSED, **FIFTH},
        "from 0 to 4",
    ),
    "fused gradient": (
        "normalize_depthwise_sums",
        [shaped(*TAPS), *[shaped(8)] * 3],
        [MAP, *VECTORS, TAPS, (1, 4, 3, 8)],
        FUSED,
        "normalize_depthwise_sums makes",
    ),
    "fused gradient of a kernel": (
        "normalize_depthwise_sums",
        [shaped(3, 3, 8, 1), *[shaped(8)] * 3],
        [MAP, *VECTORS, TAPS, MAP],
        FUSED,
        "of the kernel's shape",
    ),
    "fused gradient of x": (
        "normalize_depthwise_gradient",
        shaped(1, 4, 3, 8),
        [MAP, *VECTORS, TAPS, MAP, (8,), (8,)],
        FUSED,
        "normalize_depthwise_gradient takes arrays",
    ),
    "fused sums of other channels": (
        "normalize_depthwise_gradient",
        shaped(*MAP),
        [MAP, *VECTORS, TAPS, MAP, (8,), (7,)],
        FUSED,
        "normalize_depthwise_gradient takes arrays",
    ),
    "too long a vector": ("join", shaped(9), [(8,)], {}, "join takes a vector as long as its parts"),
    "too short a vector": ("split", [shaped(4), shaped(5)], [(8,)], {}, "split takes a vector as long as its parts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_name_and_shapes(name):
    call, results, shapes, attributes, message = REFUSED[name]
    arguments = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(calls._call(call, results, *arguments, **attributes))
