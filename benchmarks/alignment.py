"""How well `ffem align` finds and aligns faces: on LFW's deep-funneled frames and on transformed copies.

    FFEM_LFW_ROOT=DIR python -m benchmarks.alignment [--frames 2000] [--copies 300]

From the repository root, with `pip install -e ".[detect]"`. It writes results/alignment/README.md, which holds
numbers and no image. A copy's true eyes are those found in its untouched frame, transformed as the copy was.
"""

from __future__ import annotations

import cmath
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import harness, report
from ffem_jax.align.detector import DETECTOR, DetectedFace, Detector, load_detector
from ffem_jax.align.geometry import EYES, Eyes, align_face, find_similarity

SEED = 0
FRAME, SQUARE_LEFT, SIDE = 250, 55, 140
MIDDLE = complex(FRAME / 2, FRAME / 2)
MAX_TURN = math.radians(30)
SCALES = (0.5, 4.0)
CANVAS = (1600, 1200)


def to_points(eyes: Eyes) -> np.ndarray:
    """Return the eyes as x + iy, [2]."""
    return np.array([complex(*eye) for eye in eyes])


PLACES = SIDE * to_points(EYES)


def draw_copy(frame: Image.Image, random: np.random.Generator) -> tuple[Image.Image, complex, complex]:
    """Draw the frame into a larger grey image: rotated by up to 30 degrees, scaled by 0.5 to 4, the face fully inside.

    Returns:
        The image, and (turn, origin): the frame's point z is at `turn * z + origin` in the image.
    """
    turn = cmath.rect(math.exp(random.uniform(*np.log(SCALES))), random.uniform(-MAX_TURN, MAX_TURN))
    margin = abs(turn) * FRAME * 0.4
    origin = complex(*(random.uniform(margin, side - margin) for side in CANVAS)) - turn * MIDDLE
    back, start = 1 / turn, -origin / turn
    affine = (back.real, -back.imag, start.real, back.imag, back.real, start.imag)
    copy = frame.transform(CANVAS, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    return copy, turn, origin


def choose_central(faces: Sequence[DetectedFace], middle: complex) -> DetectedFace | None:
    """Return the face nearest to a point: the person LFW names is in the middle of the frame."""
    return min(faces, key=lambda face: abs(face.middle - middle), default=None)


def measure(paths: Sequence[Path], frames: int, detect: Detector) -> dict[str, np.ndarray]:
    """Measure the first `frames` images, and copies of the others.

    Returns:
        counts: faces in each frame. before, after: the eyes in the training square, as LFW has it and after alignment,
        [frame with a face, eye]; NaN if no face is found in the aligned square. found: whether a copy's face was found.
        errors: pixels from EYES to the true eyes in the square aligned by the found ones, [found copy, eye].
    """
    random = np.random.default_rng(SEED)
    measured: dict[str, list[Any]] = {name: [] for name in ("counts", "before", "after", "found", "errors")}
    for number, path in enumerate(tqdm(paths, disable=None)):
        frame = Image.open(path).convert("RGB")
        faces = detect(frame)
        face = choose_central(faces, MIDDLE)
        if number < frames:
            measured["counts"].append(len(faces))
        if face is None:
            continue
        if number < frames:
            measured["before"].append(to_points(face.eyes) - complex(SQUARE_LEFT, SQUARE_LEFT))
            again = choose_central(detect(align_face(frame, face.eyes, SIDE)), complex(SIDE / 2, PLACES[0].imag))
            measured["after"].append(to_points(again.eyes) if again else [np.nan, np.nan])
            continue
        copy, turn, origin = draw_copy(frame, random)
        eyes = turn * to_points(face.eyes) + origin
        again = choose_central(detect(copy), eyes.mean())
        near = again is not None and abs(again.middle - eyes.mean()) < abs(eyes[1] - eyes[0]) / 2
        measured["found"].append(near)
        if again is not None and near:
            turn, origin = find_similarity(again.eyes, SIDE)
            measured["errors"].append(np.abs((eyes - origin) / turn - PLACES))
    return {name: np.array(values) for name, values in measured.items()}


def describe(distances: np.ndarray) -> str:
    """Format the median and 95th percentile, in pixels of the square."""
    return f"{np.nanmedian(distances):.2f} | {np.nanpercentile(distances, 95):.2f}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = harness.make_parser(__doc__, "alignment", kept=False)
    harness.add_numbers(parser, frames=(2000, "untouched frames"), copies=(300, "rotated, scaled and shifted frames"))
    options = parser.parse_args(words)
    harness.check_positive(options, "frames", "copies")
    root = Path(os.environ.get("FFEM_LFW_ROOT", "../shared/data/lfw")) / "lfw-deepfunneled"
    paths = sorted(root.rglob("*.jpg"))
    if not paths:
        parser.error(f"no images in {root}; set FFEM_LFW_ROOT")
    order = np.random.default_rng(SEED).permutation(len(paths))[: options.frames + options.copies]
    # The copies come from other frames than those that EYES was derived from.
    found = measure([paths[index] for index in order], options.frames, load_detector())
    counts, before, after = found["counts"], found["before"], found["after"]
    page = report.fill_page(
        options.out / "README.md",
        "alignment",
        seed=SEED,
        detector=DETECTOR,
        frames=len(counts),
        copies=len(found["found"]),
        with_face=np.mean(counts > 0),
        with_several=np.mean(counts > 1),
        copies_found=np.mean(found["found"]),
        medians=(np.median(before.real, axis=0) + 1j * np.median(before.imag, axis=0)) / SIDE,
        eyes=EYES,
        untouched=describe(np.abs(before - PLACES)),
        again=describe(np.abs(after - PLACES)),
        moved=describe(found["errors"]),
        lost=np.mean(np.isnan(after).any(axis=1)),
    )
    print(page)


if __name__ == "__main__":
    main()
