"""The forms of each convolution agree, forward and backward, and with a plain sum in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffem_jax.models.convolutions import (
    depthwise_conv,
    full_conv,
    global_depthwise_conv,
    list_forms,
    max_pool,
    pointwise_conv,
    use_convolution_form,
)

SHAPES = [(8, 8, 4), (7, 9, 3), (1, 1, 5), (2, 3, 2)]


def draw(height, width, channels, kernel_shape):
    random = np.random.default_rng(height * 100 + width * 10 + channels)
    x = random.normal(size=(2, height, width, channels)).astype(np.float32)
    return x, random.normal(size=kernel_shape).astype(np.float32)


def convolve_plainly(x, weight, stride):
    """The definition, in float64: weight [3, 3, in, out], or [3, 3, 1, channels] a channel each."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    batch, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((batch, -(-height // stride), -(-width // stride), weight.shape[-1]))
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            window = padded[:, row * stride : row * stride + 3, column * stride : column * stride + 3]
            if weight.shape[2] == 1:
                out[:, row, column] = (window * weight[None, :, :, 0]).sum((1, 2))
            else:
                out[:, row, column] = np.einsum("nijc,ijck->nk", window, weight)
    return out


CASES = [
    (conv, shape, stride, kernel)
    for conv, kernel in ((depthwise_conv, lambda c: (3, 3, 1, c)), (full_conv, lambda c: (3, 3, c, 6)))
    for shape in SHAPES
    for stride in (1, 2)
]


@pytest.mark.parametrize("form", list_forms())
@pytest.mark.parametrize(("conv", "shape", "stride", "kernel"), CASES)
def test_forward_is_the_definition(conv, shape, stride, kernel, form):
    x, weight = draw(*shape, kernel(shape[-1]))
    with use_convolution_form(form):
        out = jax.jit(lambda x, w: conv(x, w, stride))(x, weight)
    wanted = convolve_plainly(x, weight, stride)
    assert out.shape == wanted.shape
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("conv", "shape", "stride", "kernel"), CASES)
def test_gradients_of_all_forms_agree(conv, shape, stride, kernel):
    x, weight = draw(*shape, kernel(shape[-1]))

    def compute(form):
        def loss(x, w):
            with use_convolution_form(form):
                out = conv(x, w, stride)
            return jnp.sum(jnp.sin(out))

        return jax.jit(jax.grad(loss, (0, 1)))(x, weight)

    wanted = compute("xla")
    for form in list_forms()[1:]:
        for found, xla in zip(compute(form), wanted, strict=True):
            assert found.shape == xla.shape
            np.testing.assert_allclose(found, xla, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", list_forms())
def test_max_pool_and_its_gradient_are_the_definition(shape, form):
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32) - 5  # zeros around would be the largest
    height, width, channels = shape
    wanted = np.empty((2, -(-height // 2), -(-width // 2), channels), np.float32)
    gradient = np.zeros_like(x)
    for n, row, column, channel in np.ndindex(wanted.shape):
        top, left = max(0, 2 * row - 1), max(0, 2 * column - 1)
        window = x[n, top : 2 * row + 2, left : 2 * column + 2, channel]
        i, j = np.unravel_index(window.argmax(), window.shape)
        wanted[n, row, column, channel] = window[i, j]
        gradient[n, top + i, left + j, channel] += np.cos(window[i, j])
    with use_convolution_form(form):
        out, found = jax.jit(lambda x: (max_pool(x), jax.grad(lambda x: jnp.sum(jnp.sin(max_pool(x))))(x)))(x)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_allclose(found, gradient, rtol=1e-5, atol=1e-6)


def check_gradients(function, *shapes):
    """Reverse mode, all there is of a gradient of one's own, against finite differences in float64."""
    random = np.random.default_rng(0)
    with jax.enable_x64(True), use_convolution_form("shifted"):
        arguments = [jnp.asarray(random.normal(size=shape)) for shape in shapes]
        assert arguments[0].dtype == jnp.float64
        check_grads(jax.jit(function), arguments, order=1, modes=["rev"])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (1, 1, 1, 2), (3, 4, 2, 1)])
def test_depthwise_gradient_is_that_of_finite_differences(shape, stride):
    check_gradients(lambda x, weight: depthwise_conv(x, weight, stride), shape, (3, 3, 1, shape[-1]))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 7), (7, 3)])
def test_pointwise_gradient_is_that_of_finite_differences(inputs, outputs):
    check_gradients(pointwise_conv, (2, 4, 3, inputs), (inputs, outputs))


@pytest.mark.parametrize("form", list_forms())
def test_global_depthwise_is_a_weighted_sum_over_the_map(form):
    x, weight = draw(4, 3, 5, (4, 3, 1, 5))
    with use_convolution_form(form):
        np.testing.assert_allclose(
            global_depthwise_conv(x, weight), np.einsum("nijc,ijc->nc", x, weight[:, :, 0]), rtol=1e-4, atol=1e-5
        )


def test_unknown_form_names_the_choices():
    with pytest.raises(ValueError, match="xla, .*shifted"), use_convolution_form("fast"):
        pass
