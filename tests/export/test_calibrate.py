"""Maps of 8 bits: whose faces their ranges are measured on, and what the file computes."""

import types

import numpy as np
import pytest
from made_networks import compute_cosines, make_layers, make_pixels

from ffem_jax.data import DataError
from ffem_jax.export import ExportError, calibrate, onnx
from ffem_jax.export.calibrate import choose_images, load_training_faces, shorten_names, write_calibrated
from ffem_jax.export.layers import OUTPUT_NAME
from ffem_jax.export.reference import run_layers

RUNTIME = "calibrating needs the export extra: {} is missing"


def make_faces(resolution: int = 12, count: int = 40) -> np.ndarray:
    return np.rint((make_pixels(resolution, count) + 1) * 127.5).astype(np.uint8)


def test_no_tested_image_calibrates(monkeypatch):
    """Each image says by its brightness which it is."""
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 8, 8, 3))
    order = np.random.default_rng(0).permutation(100)
    split = types.SimpleNamespace(train=order[:70], validation=order[70:80], test=order[80:])
    monkeypatch.setattr(calibrate, "load_split", lambda data, protocol: (types.SimpleNamespace(images=images), split))
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

    monkeypatch.setattr(calibrate, "load_split", refuse)
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
