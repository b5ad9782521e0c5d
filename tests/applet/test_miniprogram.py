"""The mini-program's vectors against Python's on the same exported file; `make test-miniprogram` runs its own tests."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffem_jax.cli import main
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.models import normalize_pixels
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

pytestmark = pytest.mark.slow

MINIPROGRAM = Path(__file__).resolve().parents[2] / "applet" / "miniprogram"

# The guide frame's share of a camera's frame, as source/capture.ts has it.
CAMERA_FRACTION = 0.6
FRAME_WIDTH, FRAME_HEIGHT = 480, 640

TRIAL = TrialSpec(
    arch=ArchSpec(
        name="small",
        stem_channels=8,
        stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 12, 1, 2)),
        head_channels=0,
        embedding_dim=24,
        attention=AttentionSpec(kind="eca"),
    ),
    data=DataSpec(name="synthetic", people=4, images_per_person=8, resolution=48),
    protocol=ProtocolSpec(test_per_person=2),
    recipe=RecipeSpec(epochs=6, batch_size=8),
)


def run(*words: str) -> str:
    """What a command in the mini-program's folder prints; a skip where its packages are not installed."""
    if not (MINIPROGRAM / "node_modules").is_dir():
        pytest.skip("the mini-program's Node packages are not installed: make test-miniprogram installs them")
    executable = shutil.which(words[0])
    assert executable, f"{words[0]} is not on the path"
    result = subprocess.run([executable, *words[1:]], capture_output=True, text=True, cwd=MINIPROGRAM, timeout=570)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small network, trained on drawn faces."""
    for package in ("ffem_jax.export", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason="exporting needs the extra `export`")
    folder = tmp_path_factory.mktemp("trained")
    (record,) = run_trials(TRIAL, RunSpec(progress=False), folder / "trial", folder / "records.jsonl")
    assert record.status == "done", record.error
    return folder / "trial"


def make_frame(seed: int) -> Image.Image:
    """A smooth, coloured frame of a camera's size, no two alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((FRAME_WIDTH, FRAME_HEIGHT), Image.Resampling.BICUBIC)


def compute_vector(session: Any, frame: Image.Image) -> np.ndarray:
    face = np.asarray(normalize_pixels(crop_face(frame, CAMERA_FRACTION, TRIAL.data.resolution)[None]))
    (vectors,) = session.run(["embedding"], {"pixels": np.ascontiguousarray(face.transpose(0, 3, 1, 2))})
    return vectors[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_vector_is_the_one_that_python_computes(trial: Path, dtype: str, tmp_path: Path) -> None:
    onnxruntime = importlib.import_module("onnxruntime")
    out = tmp_path / "export"
    assert main(["export", str(trial), "--format", "onnx", "--dtype", dtype, "--out", str(out)]) == 0
    frames = [make_frame(seed) for seed in range(4)]
    for number, frame in enumerate(frames):
        (out / f"{number}.rgba").write_bytes(frame.convert("RGBA").tobytes())
    run("npm", "run", "--silent", "build")
    sizes = (str(len(frames)), str(FRAME_WIDTH), str(FRAME_HEIGHT))
    vectors = np.array(json.loads(run("node", "tests/embed_frames.cjs", str(out), *sizes)))
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    expected = np.array([compute_vector(session, frame) for frame in frames])
    assert vectors.shape == expected.shape == (len(frames), TRIAL.arch.embedding_dim)
    # Two runtimes of one engine add in another order; an 8-bit activation on the edge may fall to the other side.
    allowed = (1e-3 if dtype == "int8" else 1e-5) * np.abs(expected).max()
    assert np.abs(vectors - expected).max() < allowed
    # Frames, and colours swapped, differ by far more: what is compared is no constant.
    swapped = [Image.fromarray(np.asarray(frame)[..., ::-1].copy()) for frame in frames]
    others = [*expected[1:], compute_vector(session, swapped[0])]
    assert min(np.abs(other - expected[0]).max() for other in others) > 10 * allowed
