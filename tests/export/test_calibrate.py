"""Maps of 8 bits: whose faces their ranges are measured on, and what the file computes, on any processor."""

import types

import numpy as np
import pytest
from made_networks import compute_cosines, make_layers, make_network, make_pixels, shrink

from benchmarks import emulated
from ffem_jax.config.presets import PRESETS
from ffem_jax.data import DataError
from ffem_jax.export import ExportError, calibrate, onnx
from ffem_jax.export.calibrate import choose_images, load_training_faces, shorten_names, write_calibrated
from ffem_jax.export.layers import OUTPUT_NAME, Depthwise
from ffem_jax.export.quantize import quantize_for_pairs
from ffem_jax.export.reference import run_layers

# Each kind of convolution that a network has: of channels (ECA), of one pixel (SE), of halves (ShuffleNet), depthwise.
NETWORKS = {
    "made": (make_layers, 12),
    "eca": (lambda: make_network(shrink(PRESETS["ffem_am"], "eca"), 32), 32),
    "se": (lambda: make_network(shrink(PRESETS["mobilenetv2"], "se"), 32), 32),
    "shuffle": (lambda: make_network(shrink(PRESETS["shufflenetv2"]), 32), 32),
}
RUNTIME = "calibrating needs the export extra: {} is missing"


def make_faces(resolution: int = 12, count: int = 40) -> np.ndarray:
    return np.rint((make_pixels(resolution, count) + 1) * 127.5).astype(np.uint8)


def normalize(faces: np.ndarray) -> np.ndarray:
    return faces.astype(np.float32) / np.float32(127.5) - 1


def test_no_tested_image_calibrates(monkeypatch):
    """Each image says by its brightness which it is."""
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 8, 8, 3))
    order = np.random.default_rng(0).permutation(100)
    split = types.SimpleNamespace(train=order[:70], validation=order[70:80], test=order[80:])
    faces = types.SimpleNamespace(images=images)
    monkeypatch.setattr(calibrate, "load_trained_faces", lambda finished, data_root: (faces, split))
    finished = types.SimpleNamespace(trial=types.SimpleNamespace(data=None, protocol=None))
    chosen = choose_images(load_training_faces(finished), 32)
    seen = chosen[:, 0, 0, 0].tolist()
    assert len(set(seen)) == 32
    assert set(seen) <= set(split.train.tolist())
    # From the first people to the last.
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (min(split.train), max(split.train))


def test_without_the_faces_it_is_refused(monkeypatch):
    def refuse(*_):
        raise DataError("no such folder")

    monkeypatch.setattr(calibrate, "load_trained_faces", refuse)
    finished = types.SimpleNamespace(trial=types.SimpleNamespace(data=None, protocol=None))
    with pytest.raises(ExportError, match="the faces that the trial trained on: no such folder"):
        load_training_faces(finished)


def test_of_few_images_all_are_taken():
    assert choose_images(np.arange(5), 64).tolist() == [0, 1, 2, 3, 4]


def test_short_names_change_nothing_else():
    network, pixels = make_layers(), make_pixels(12)
    short = shorten_names(network)
    assert [layer.name for layer in short.layers] == ["n0", "n1", "n2", "n3", "n4", "n5", OUTPUT_NAME]
    np.testing.assert_array_equal(run_layers(short, pixels)[OUTPUT_NAME], run_layers(network, pixels)[OUTPUT_NAME])


@pytest.fixture
def runtime():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=RUNTIME.format(package))


def test_the_file_computes_nearly_what_the_network_does(runtime, tmp_path):
    network, pixels = make_layers(), make_pixels(12)
    (path,) = write_calibrated(network, make_faces(), tmp_path)
    assert path.name == onnx.MODEL_FILE
    found, _ = onnx.run(tmp_path, pixels)
    expected = run_layers(network, pixels)[OUTPUT_NAME]
    assert compute_cosines(found, expected).min() > 0.99
    assert np.abs(found - expected).max() > 1e-6, "nothing was rounded"


def test_ranges_are_those_of_the_calibration_faces(runtime, tmp_path):
    """Calibrated on dark faces alone, light ones run out of the ranges."""
    network, pixels = make_layers(), make_pixels(12)
    expected = run_layers(network, pixels)[OUTPUT_NAME]
    errors = []
    for faces in (make_faces(), make_faces() // 16):
        write_calibrated(network, faces, tmp_path)
        errors.append(np.abs(onnx.run(tmp_path, pixels)[0] - expected).mean())
    assert errors[1] > 2 * errors[0]


@pytest.fixture(params=NETWORKS)
def network_and_faces(request, runtime):
    make, resolution = NETWORKS[request.param]
    return make(), make_faces(resolution)


def test_no_sum_of_two_products_leaves_16_bits(network_and_faces, tmp_path):
    """On the calibration faces, in the order in which ONNX Runtime adds them: x86-64 without VNNI would cut it off."""
    from pair_sums import iterate_saturated

    network, faces = network_and_faces
    (path,) = write_calibrated(network, faces, tmp_path)
    found = [(product.name, share) for product, share in iterate_saturated(path, normalize(faces[:4]))]
    assert found
    assert [name for name, share in found if share] == []


def test_nor_on_any_maps_in_any_order(network_and_faces, tmp_path):
    """The worst maps are 255 where weights have one sign and 0 elsewhere; the worst order puts the largest together."""
    from pair_sums import multiply, multiply_in_pairs, read_products

    network, faces = network_and_faces
    (path,) = write_calibrated(network, faces, tmp_path)
    for product in read_products(path):
        if product.depthwise:
            continue
        weights = product.fold_kernel()
        for each in (weights, np.sort(weights), np.sort(weights)[:, ::-1]):
            for maps in (255 * (each > 0), 255 * (each < 0)):
                np.testing.assert_array_equal(multiply_in_pairs(maps, each), multiply(maps, each), product.name)


def test_in_full_range_the_same_check_finds_sums_that_do(network_and_faces, tmp_path):
    from pair_sums import iterate_saturated

    network, faces = network_and_faces
    (path,) = write_calibrated(network, faces, tmp_path, full_range=True)
    assert max(share for _, share in iterate_saturated(path, normalize(faces[:4]))) > 0.05


def test_every_integer_kernel_is_checked(network_and_faces, tmp_path):
    """Of an operation that is no convolution the checks above would know nothing."""
    import onnx as onnx_package
    from pair_sums import read_products

    network, faces = network_and_faces
    (path,) = write_calibrated(network, faces, tmp_path)
    stored = [tensor for tensor in onnx_package.load(path).graph.initializer if len(tensor.dims) > 1]
    integers = [tensor for tensor in stored if tensor.data_type == onnx_package.TensorProto.INT8]
    products = read_products(path)
    assert len(products) == len(integers) == sum(hasattr(layer, "kernel") for layer in network.layers)
    # Depthwise kernels, whose products nobody adds in 16 bits, keep their 8 bits.
    assert all(np.abs(product.kernel.astype(int)).max() == 127 for product in products if product.depthwise)
    assert sum(product.depthwise for product in products) == sum(isinstance(x, Depthwise) for x in network.layers)


def test_the_file_holds_the_integers_of_quantize_for_pairs(runtime, tmp_path):
    from pair_sums import read_products

    network = make_layers()
    (path,) = write_calibrated(network, make_faces(), tmp_path)
    for product, layer in zip(read_products(path), (network.layers[index] for index in (0, 1, 2, 5)), strict=True):
        if not product.depthwise:
            expected = quantize_for_pairs(layer.kernel).values.transpose(3, 2, 0, 1)
            np.testing.assert_array_equal(product.kernel, expected)


@pytest.mark.slow
@pytest.mark.parametrize("processor", emulated.PROCESSORS)
def test_an_emulated_processor_computes_what_this_one_does(runtime, processor, tmp_path):
    if not emulated.is_possible():
        pytest.skip("QEMU is not installed, or this is no x86-64: apt-get install qemu-user")
    network, pixels = make_layers(), make_pixels(12)
    expected = run_layers(network, pixels)[OUTPUT_NAME]
    write_calibrated(network, make_faces(), tmp_path)
    found, _ = emulated.run(tmp_path, pixels, processor)
    assert compute_cosines(found, expected).min() > 0.999
    write_calibrated(network, make_faces(), tmp_path, full_range=True)
    found, _ = emulated.run(tmp_path, pixels, processor)
    # Without AVX2 ONNX Runtime widens to 16 bits before it multiplies.
    assert (compute_cosines(found, expected).min() > 0.999) == (processor != "Haswell")
