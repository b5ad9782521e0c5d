"""The mini-program's own tests, and its vectors against Python's on the same ONNX file."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffem_jax.data.preprocessing import RESIZE, crop_face
from ffem_jax.models import normalize_pixels

MINIPROGRAM = Path(__file__).resolve().parents[2] / "applet" / "miniprogram"
CAMERA_FRACTION = 0.6  # of FRACTIONS in source/capture.ts

pytestmark = pytest.mark.slow


def run(*words: str) -> str:
    """What a command in the mini-program's folder prints; a skip where its packages are not installed."""
    if not (MINIPROGRAM / "node_modules").is_dir():
        pytest.skip("the mini-program's Node packages are not installed: make test-miniprogram installs and tests")
    executable = shutil.which(words[0])
    assert executable, f"{words[0]} is not on the path"
    result = subprocess.run([executable, *words[1:]], capture_output=True, text=True, cwd=MINIPROGRAM, timeout=570)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_types_package_and_pages() -> None:
    run("npm", "test")


def write_export(folder: Path, resolution: int, length: int) -> Path:
    """A folder as `ffem export --format onnx` writes it, of a small network with random weights."""
    onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
    import hashlib

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    random = np.random.default_rng(0)
    weights = {
        "kernel": random.normal(0, 0.3, (8, 3, 3, 3)),
        "bias": random.normal(0, 0.3, 8),
        "dense": random.normal(0, 0.3, (length, 8 * 16, 1, 1)),
    }
    pool = resolution // 2 // 4
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel", "bias"], ["maps"], strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("AveragePool", ["positive"], ["parts"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["parts"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["embedding"], transB=1),
    ]
    initializers = [numpy_helper.from_array(weights[name].astype(np.float32), name) for name in ("kernel", "bias")]
    initializers.append(numpy_helper.from_array(weights["dense"][:, :, 0, 0].astype(np.float32), "matrix"))
    shape = [1, 3, resolution, resolution]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [1, length])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    description = {
        "version": 1,
        "model_id": "0" * 16,
        "network": "small",
        "format": "onnx",
        "dtype": "float32",
        "files": [{"name": "model.onnx", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}],
        "input": {"name": "pixels", "shape": shape, "dtype": "float32", "scale": 1 / 127.5, "offset": -1.0},
        "crop": {"fraction": 1.0, "resize": RESIZE, "resolution": resolution},
        "output": {"name": "embedding", "length": length},
    }
    (folder / "export.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def make_frame(seed: int) -> Image.Image:
    """A smooth, coloured frame of a camera's size, no two alike."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (8, 6, 3), np.uint8))
    return coarse.resize((480, 640), Image.Resampling.BICUBIC)


def compute_python_vector(session: Any, frame: Image.Image, resolution: int) -> np.ndarray:
    face = np.asarray(normalize_pixels(crop_face(frame, CAMERA_FRACTION, resolution)[None]))
    (vector,) = session.run(["embedding"], {"pixels": np.ascontiguousarray(face.transpose(0, 3, 1, 2))})
    return vector[0]


def test_the_vector_is_the_one_that_python_computes(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    resolution = 96
    folder = write_export(tmp_path, resolution, length=24)
    frames = [make_frame(seed) for seed in range(4)]
    for number, frame in enumerate(frames):
        (folder / f"{number}.rgba").write_bytes(frame.convert("RGBA").tobytes())
    run("npm", "run", "build")
    printed = run("node", "tests/embed_frames.cjs", str(folder), str(len(frames)), "480", "640")
    vectors = np.array(json.loads(printed))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    expected = np.array([compute_python_vector(session, frame, resolution) for frame in frames])
    # Frames differ by far more than what is allowed, so a swapped colour or axis would be seen.
    apart = min(np.abs(expected[a] - expected[b]).max() for a in range(4) for b in range(a))
    assert apart > 0.05
    assert np.abs(vectors - expected).max() < 1e-5
    swapped = compute_python_vector(session, Image.fromarray(np.asarray(frames[0])[..., ::-1].copy()), resolution)
    assert np.abs(swapped - expected[0]).max() > 0.05
