"""Integers for weights: by hand, by their bounds, and where one scale for all channels would not hold."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_networks import compute_cosines, make_layers, make_pixels

from ffem_jax.export import tfjs
from ffem_jax.export.layers import OUTPUT_NAME, Depthwise, LayerList
from ffem_jax.export.quantize import (
    PAIR_LIMIT,
    ROUNDINGS,
    UNBALANCED,
    compute_imbalance,
    is_unbalanced,
    quantize_for_one_scale,
    quantize_for_pairs,
    quantize_per_channel,
    quantize_per_tensor,
)
from ffem_jax.export.reference import run_layers

SEEDS = st.integers(0, 2**32 - 1)


def draw_kernel(seed: int, spread: float = 30.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.uniform(0, np.log(spread), 5))
    return (generator.normal(size=(3, 3, 4, 5)) * sizes).astype(np.float32)


def test_per_channel_by_hand():
    kernel = np.array([[1.27, 0.0, 0.0], [-0.5, 25.4, 0.0], [0.014, -12.7, 0.0]], np.float32)
    quantized = quantize_per_channel(kernel)
    assert quantized.values.tolist() == [[127, 0, 0], [-50, 127, 0], [1, -64, 0]]
    np.testing.assert_allclose(quantized.scale, [0.01, 0.2, 1])
    np.testing.assert_allclose(quantized.restore()[2], [0.01, -12.8, 0], rtol=1e-6)


def test_per_tensor_by_hand():
    """From -0.55 to 2 in steps of 0.01: 0 is the integer 55."""
    quantized = quantize_per_tensor(np.array([-0.55, 0, 0.004, 0.006, 2], np.float32))
    assert quantized.values.tolist() == [0, 55, 55, 56, 255]
    assert quantized.scale == pytest.approx(0.01)
    np.testing.assert_allclose(quantized.restore(), [-0.55, 0, 0, 0.01, 2], atol=1e-6)


def test_for_pairs_by_hand():
    """The two largest of one sign are 127 together, and a weight that has no other of its sign is 127 alone."""
    kernel = np.array([[1.0, 2.0, 0.0], [0.27, -2.54, 0.0], [-0.5, 0.0, 0.0]], np.float32)
    quantized = quantize_for_pairs(kernel)
    assert quantized.values.tolist() == [[100, 100, 0], [27, -127, 0], [-50, 0, 0]]
    np.testing.assert_allclose(quantized.scale, [0.01, 0.02, 1])
    assert quantize_for_pairs(np.array([[[[-3.0]]]], np.float32)).values.ravel().tolist() == [-127]


@given(SEEDS, st.sampled_from([1, 2, 5, 36, 300]), st.sampled_from([1.0, 0.0, -1.0]))
def test_no_two_weights_of_a_channel_leave_16_bits(seed, count, leaning):
    """Whichever two they are, on maps from 0 to 255; and no step is more than twice that of `quantize_per_channel`."""
    generator = np.random.default_rng(seed)
    kernel = (generator.normal(leaning, 1, (count, 4)) * generator.choice([0, 1e-4, 1, 30], (count, 4))).astype("f4")
    each, pairs = quantize_per_channel(kernel), quantize_for_pairs(kernel)
    ordered = np.sort(pairs.values.astype(int), axis=0)
    for most in (ordered[-2:].clip(0).sum(axis=0), -ordered[:2].clip(None, 0).sum(axis=0)):
        assert most.max() <= PAIR_LIMIT
        assert 255 * most.max() <= 2**15 - 1
    assert (np.abs(pairs.restore() - kernel) <= 0.501 * pairs.scale).all()
    assert (pairs.scale <= 2.001 * each.scale).all()
    assert (pairs.scale >= 0.999 * each.scale).all()


@given(SEEDS)
@settings(max_examples=25)
def test_no_weight_is_moved_by_more_than_half_a_step(seed):
    kernel = draw_kernel(seed)
    each, whole = quantize_per_channel(kernel), quantize_per_tensor(kernel)
    assert each.values.dtype == np.int8
    assert each.values.min() >= -127
    assert whole.values.dtype == np.uint8
    steps = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    assert (np.abs(each.restore() - kernel) <= 0.501 * steps).all()
    # The zero point is a whole number too, so that the range may end half a step early.
    assert np.abs(whole.restore() - kernel).max() <= 1.001 * (kernel.max() - kernel.min()) / 255
    assert whole.restore()[kernel == 0].tolist() == [0] * int((kernel == 0).sum())


def test_the_kernels_of_one_sign_and_of_nothing():
    for kernel in (np.full((2, 2), 3.0, np.float32), np.full((2, 2), -3.0, np.float32), np.zeros((2, 2), np.float32)):
        for quantize in (quantize_per_channel, quantize_per_tensor, quantize_for_one_scale):
            np.testing.assert_allclose(quantize(kernel).restore(), kernel, rtol=1e-6)


def test_balanced_kernels_have_one_scale_and_unbalanced_ones_a_scale_a_channel():
    balanced, unbalanced = draw_kernel(0, spread=1.0), draw_kernel(0, spread=1e4)
    assert not is_unbalanced(balanced)
    assert len(quantize_for_one_scale(balanced).scale) == 1
    quantized = quantize_for_one_scale(unbalanced)
    assert quantized.scale.shape == (5,)
    assert quantized.values.dtype == np.uint8
    assert quantized.values.min() >= 1
    np.testing.assert_array_equal(quantized.restore(), quantize_per_channel(unbalanced).restore())


def test_imbalance_by_hand():
    """Two channels, one `spread` times smaller: its error is that much larger, squared, and is half of the mean."""
    large = np.random.default_rng(0).uniform(-1, 1, 4000)
    for spread in (4, 64):
        kernel = np.stack([large, np.random.default_rng(1).permutation(large) / spread], axis=-1).astype(np.float32)
        assert compute_imbalance(kernel) == pytest.approx((1 + spread**2) / 2, rel=0.1)
        assert is_unbalanced(kernel) == (spread**2 / 2 > UNBALANCED)


@pytest.mark.parametrize("dtype", ROUNDINGS)
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_jax_rounds_as_numpy_does(dtype, spread):
    kernel = draw_kernel(1, spread)
    quantize = {"int8": quantize_per_channel, "uint8": quantize_for_one_scale}[dtype]
    np.testing.assert_array_equal(ROUNDINGS[dtype](kernel), quantize(kernel).restore())
    # A compiler may divide by multiplying: a weight on the edge of two integers then falls to the other side.
    found = np.asarray(jax.jit(ROUNDINGS[dtype])(kernel))
    np.testing.assert_allclose(found, quantize(kernel).restore(), rtol=2e-7, atol=1e-7)


def replace_kernels(network: LayerList, change) -> LayerList:
    layers = [
        dataclasses.replace(layer, kernel=change(layer.kernel)) if hasattr(layer, "kernel") else layer
        for layer in network.layers
    ]
    return LayerList(network.resolution, tuple(layers))


def test_a_scale_a_channel_is_closer_on_a_network_of_unequal_channels():
    """Small channels are lost under one scale. The bias is left out, which no dtype rounds."""
    stem, depthwise = make_layers(spread=300.0).layers[:2]
    depthwise = dataclasses.replace(depthwise, bias=np.zeros(8, np.float32), activation="linear")
    network, pixels = LayerList(12, (stem, depthwise)), make_pixels(12)
    expected = run_layers(network, pixels)["depthwise"]

    def compute_worst(change) -> float:
        error = np.abs(run_layers(replace_kernels(network, change), pixels)["depthwise"] - expected)
        return float((error.mean(axis=(0, 1, 2)) / np.abs(expected).mean(axis=(0, 1, 2))).max())

    assert compute_worst(lambda kernel: quantize_per_tensor(kernel).restore()) > 0.5
    assert compute_worst(ROUNDINGS["int8"]) < 0.03
    assert compute_worst(ROUNDINGS["uint8"]) < 0.03


def test_scaling_channels_to_one_range_leaves_the_kernel_as_it_is():
    """In float32, before anything is rounded: what the graph multiplies by is what the channels were divided by."""
    network, pixels = make_layers(spread=3000.0), make_pixels(12)

    def scale_and_back(kernel):
        scale = quantize_per_channel(kernel).scale
        return (kernel / scale) * scale

    expected, found = (
        run_layers(each, pixels)[OUTPUT_NAME] for each in (network, replace_kernels(network, scale_and_back))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_tfjs_file_holds_the_channels_scales_of_unbalanced_kernels_alone(tmp_path):
    for spread, expected in ((1.0, 0), (3000.0, 1)):
        tfjs.write(make_layers(spread=spread), "uint8", tmp_path)
        model = json.loads((tmp_path / "model.json").read_text())
        products = [node for node in model["modelTopology"]["node"] if node["op"] == "Mul"]
        assert len(products) == expected
        assert all(node["input"] == ["n1kq", "n1kc"] for node in products)


def test_and_computes_with_them(needs_tfjs, tmp_path):
    network, pixels = make_layers(spread=3000.0), make_pixels(12)
    tfjs.write(network, "uint8", tmp_path)
    found, _ = tfjs.run(tmp_path, pixels)
    rounded = run_layers(replace_kernels(network, ROUNDINGS["uint8"]), pixels)[OUTPUT_NAME]
    np.testing.assert_allclose(found, rounded, atol=1e-4)
    assert compute_cosines(found, run_layers(network, pixels)[OUTPUT_NAME]).min() > 0.999
    assert isinstance(network.layers[1], Depthwise)
