"""Fine-tuning with rounded kernels: it computes what the file will, and it brings the file closer."""

import jax
import numpy as np
import pytest
from made_networks import make_layers, make_pixels, round_weights

from ffem_jax.export import ExportError, finetune, onnx
from ffem_jax.export.layers import OUTPUT_NAME, LayerList, compute_model_id
from ffem_jax.export.quantize import ROUNDINGS
from ffem_jax.export.reference import run_layers


def make_faces(count: int = 64) -> np.ndarray:
    return np.rint((make_pixels(12, count) + 1) * 127.5).astype(np.uint8)


def run_rounded(network: LayerList, dtype: str, pixels: np.ndarray) -> jax.Array:
    """What fine-tuning computes before its first step."""
    weights = finetune.get_weights(network)
    return jax.jit(lambda weights, pixels: finetune.run_rounded(network, weights, dtype, pixels))(weights, pixels)


def compute_error(network: LayerList, dtype: str, expected: np.ndarray) -> float:
    return float(np.mean((run_layers(round_weights(network, dtype), make_pixels(12, 64))[OUTPUT_NAME] - expected) ** 2))


@pytest.mark.parametrize("dtype", ROUNDINGS)
def test_the_forward_pass_is_that_of_the_file(dtype):
    network, pixels = make_layers(spread=100.0), make_pixels(12)
    found = run_rounded(network, dtype, pixels)
    expected = run_layers(round_weights(network, dtype), pixels)[OUTPUT_NAME]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - run_layers(network, pixels)[OUTPUT_NAME]).max() > 1e-3, "nothing was rounded"


def test_and_so_is_that_of_the_file_itself(tmp_path):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"running the file needs the export extra: {package} is missing")
    network, pixels = make_layers(), make_pixels(12)
    onnx.write(network, "int8", tmp_path)
    found = run_rounded(network, "int8", pixels)
    np.testing.assert_allclose(found, onnx.run(tmp_path, pixels)[0], rtol=1e-4, atol=1e-5)


def test_rounding_lets_the_gradient_through():
    kernel = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 2, 4)
    gradient = jax.grad(lambda kernel: (finetune.round_straight_through(kernel, "int8") * 3).sum())(kernel)
    np.testing.assert_array_equal(gradient, np.full(kernel.shape, 3))


def test_it_brings_the_rounded_network_closer_to_the_one_in_float32(monkeypatch):
    # Coarse enough that there is much to gain, and few steps to gain it in.
    monkeypatch.setitem(ROUNDINGS, "int8", lambda kernel: (kernel * 4).round() / 4)
    monkeypatch.setattr(finetune, "LEARNING_RATE", 5e-3)
    network = make_layers()
    expected = run_layers(network, make_pixels(12, 64))[OUTPUT_NAME]
    losses = []
    tuned = finetune.finetune(network, "int8", make_faces(), 12, on_epoch=lambda _, loss: losses.append(loss))
    assert len(losses) == 12
    assert compute_error(tuned, "int8", expected) < 0.5 * compute_error(network, "int8", expected)
    assert compute_model_id(tuned) != compute_model_id(network)
    assert [layer.name for layer in tuned.layers] == [layer.name for layer in network.layers]


@pytest.mark.parametrize(
    ("dtype", "count", "told"),
    [("float16", 64, "has nothing to round; choose one of: int8, uint8"), ("int8", 8, "there are 8")],
)
def test_what_it_cannot_do_is_refused(dtype, count, told):
    with pytest.raises(ExportError, match=told):
        finetune.finetune(make_layers(), dtype, make_faces(count), 1)
