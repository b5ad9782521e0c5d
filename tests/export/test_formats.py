"""Every preset with every attention in every format and dtype: written, run, and held against the network."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
from made_networks import (
    APART,
    CLOSE,
    FAST,
    VARIATIONS,
    compute_cosines,
    embed,
    make_network,
    make_pixels,
    round_weights,
    shrink,
)

from ffem_jax.config.presets import PRESETS
from ffem_jax.export import DTYPES, FORMATS, ExportError, layers, load_format
from ffem_jax.export.layers import OUTPUT_NAME
from ffem_jax.export.reference import run_layers
from ffem_jax.models import graph
from ffem_jax.specs.architecture import ArchSpec
from ffem_jax.specs.attention import ATTENTIONS

PACKAGES = {"onnx": ("onnx", "onnxruntime"), "tflite": ("ai_edge_litert",), "tfjs": ()}


@pytest.fixture(params=FORMATS)
def written_format(request):
    """A format's name, where its packages are here."""
    for package in PACKAGES.get(request.param, ()):
        pytest.importorskip(package, reason=f"{request.param} needs the export extra: {package} is missing")
    if request.param == "tfjs":
        request.getfixturevalue("needs_tfjs")
    return request.param


def check(name: str, arch: ArchSpec, resolution: int, folder, dtypes=None) -> None:
    network, pixels = make_network(arch, resolution), make_pixels(resolution)
    _, swapped = np.split(embed(arch, resolution), 2)
    module = importlib.import_module(FORMATS[name])
    for dtype in dtypes or module.DTYPES:
        paths = module.write(network, dtype, folder)
        assert all(path.stat().st_size for path in paths)
        found, runtime = module.run(folder, pixels)
        assert runtime
        # Whether the integers are good ones is asked in test_quantize.py; here they are computed with as they stand.
        expected = run_layers(round_weights(network, dtype), pixels)[OUTPUT_NAME]
        np.testing.assert_allclose(found, expected, atol=CLOSE * np.abs(expected).max(), err_msg=dtype)
        assert compute_cosines(found, swapped).max() < APART


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        pytest.param(preset, kind, marks=[] if (preset, kind) in FAST else pytest.mark.slow)
        for preset in PRESETS
        for kind in ATTENTIONS.names
    ],
)
def test_a_file_computes_what_the_network_does(written_format, preset, kind, tmp_path):
    check(written_format, shrink(PRESETS[preset], kind), 32, tmp_path)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_and_so_for_what_no_preset_has(written_format, variation, tmp_path):
    changes, resolution = VARIATIONS[variation]
    check(written_format, shrink(ArchSpec(), **changes), resolution, tmp_path, ("float32",))


@pytest.mark.parametrize(
    ("name", "dtype", "told"),
    [
        ("coreml", "float32", "'coreml' is not known; choose one of: tfjs, onnx, tflite"),
        ("tfjs", "int8", "tfjs cannot store weights as int8; choose one of: float32, float16, uint8"),
        ("onnx", "uint8", "onnx cannot store weights as uint8; choose one of: float32, float16, int8"),
        ("tflite", "bfloat16", "tflite cannot store weights as bfloat16"),
    ],
)
def test_what_a_format_does_not_have_is_refused_by_name(name, dtype, told):
    with pytest.raises(ExportError, match=told):
        load_format(name, dtype)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_what_the_registry_promises(name):
    module = importlib.import_module(FORMATS[name])
    assert set(module.DTYPES) <= set(DTYPES)
    assert module.LAYOUT in ("NHWC", "NCHW")
    assert load_format(name, module.DTYPES[0]) is module


def test_a_file_is_run_without_jax():
    """What runs an exported file needs its runtime alone: JAX does not start on every processor."""
    script = "import sys, ffem_jax.export.onnx, ffem_jax.export.tflite; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
    assert (layers.AXES, layers.Shape) == (graph.AXES, graph.Shape)  # there twice for it
