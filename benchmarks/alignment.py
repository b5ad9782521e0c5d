"""How well `ffem align` finds and aligns faces: LFW's deep-funneled frames, and copies turned, scaled and shifted.

    FFEM_LFW_ROOT=DIR python -m benchmarks.alignment [--frames 2000] [--copies 300]

From the repository root, with `pip install -e ".[detect]"`. It writes results/alignment/README.md, which holds figures
and no picture. A copy's true eyes are those found in its untouched frame, moved as the copy was.
"""

from __future__ import annotations

import cmath
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import harness, report
from ffem_jax.align.detector import DETECTOR, DetectedFace, Detector, load_detector
from ffem_jax.align.geometry import EYES, Eyes, Point, align_face, find_similarity

SEED = 0
FRAME, SQUARE_LEFT, SIDE = 250, 55, 140
MAX_TURN = math.radians(30)
SCALES = (0.5, 4.0)
CANVAS = (1600, 1200)


@dataclass(frozen=True)
class Copy:
    """A frame laid into a larger grey picture. turn: of the frame's pixels, as a complex number; origin: where its
    corner lies."""

    turn: complex
    origin: complex

    def move(self, point: Point) -> Point:
        """A place of the frame, in the copy."""
        there = self.turn * complex(*point) + self.origin
        return there.real, there.imag

    def draw(self, frame: Image.Image) -> Image.Image:
        """The copy itself."""
        back, start = 1 / self.turn, -self.origin / self.turn
        affine = (back.real, -back.imag, start.real, back.imag, back.real, start.imag)
        return frame.transform(
            CANVAS, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
        )


def draw_copy(random: np.random.Generator) -> Copy:
    """A turn of up to 30 degrees, a scale of half to four times, and a place at which the whole face is in the copy."""
    turn = cmath.rect(math.exp(random.uniform(*np.log(SCALES))), random.uniform(-MAX_TURN, MAX_TURN))
    reach = abs(turn) * FRAME * 0.4
    middle = complex(*(random.uniform(reach, side - reach) for side in CANVAS))
    return Copy(turn, middle - turn * complex(FRAME / 2, FRAME / 2))


def choose_central(faces: Sequence[DetectedFace], middle: Point) -> DetectedFace | None:
    """The face nearest to a point: the one that LFW names is in the middle of its frame."""
    return min(faces, key=lambda face: abs(face.middle - complex(*middle))) if faces else None


def measure_square_error(found: Eyes, true: Eyes) -> np.ndarray:
    """How far the true eyes lie from `EYES` in the square that is aligned by the found ones, in the square's pixels."""
    turn, origin = find_similarity(found, SIDE)
    there = (np.array([complex(*eye) for eye in true]) - origin) / turn
    return np.abs(there - SIDE * np.array([complex(*eye) for eye in EYES]))


def measure_frames(paths: Sequence[Path], detect: Detector) -> dict[str, np.ndarray]:
    """Of untouched frames: faces found, the central face's eyes [frame, eye] in the square before and after."""
    counts, before, after = [], [], []
    for path in tqdm(paths, desc="frames", disable=None):
        frame = Image.open(path).convert("RGB")
        faces = detect(frame)
        counts.append(len(faces))
        face = choose_central(faces, (FRAME / 2, FRAME / 2))
        if face is None:
            continue
        before.append([complex(*eye) - complex(SQUARE_LEFT, SQUARE_LEFT) for eye in face.eyes])
        again = choose_central(detect(align_face(frame, face.eyes, SIDE)), (SIDE / 2, EYES[0][1] * SIDE))
        after.append([complex(*eye) for eye in again.eyes] if again else [np.nan, np.nan])
    return {"counts": np.array(counts), "before": np.array(before), "after": np.array(after)}


def measure_copies(paths: Sequence[Path], detect: Detector) -> dict[str, np.ndarray]:
    """Of copies: whether the face was found [copy], and the errors in the square [found copy, eye]."""
    random = np.random.default_rng(SEED)
    found, errors = [], []
    for path in tqdm(paths, desc="copies", disable=None):
        frame = Image.open(path).convert("RGB")
        untouched = choose_central(detect(frame), (FRAME / 2, FRAME / 2))
        if untouched is None:
            continue
        copy = draw_copy(random)
        left, right = (copy.move(eye) for eye in untouched.eyes)
        middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2)
        face = choose_central(detect(copy.draw(frame)), middle)
        near = face is not None and abs(face.middle - complex(*middle)) < math.dist(left, right) / 2
        found.append(near)
        if face is not None and near:
            errors.append(measure_square_error(face.eyes, (left, right)))
    return {"found": np.array(found), "errors": np.array(errors)}


def describe(distances: np.ndarray) -> str:
    """Median and 95th percentile, in pixels of the square."""
    known = distances[np.isfinite(distances)]
    return f"{np.median(known):.2f} | {np.percentile(known, 95):.2f}"


def write_page(frames: dict[str, np.ndarray], copies: dict[str, np.ndarray], path: Path) -> str:
    """Write the page to `path`, and return it."""
    counts, before, after = frames["counts"], frames["before"], frames["after"]
    places = SIDE * np.array([complex(*eye) for eye in EYES])
    return report.fill_page(
        path,
        "alignment",
        seed=SEED,
        detector=DETECTOR,
        frames=len(counts),
        copies=len(copies["found"]),
        with_face=np.mean(counts > 0),
        with_several=np.mean(counts > 1),
        copies_found=np.mean(copies["found"]),
        medians=(np.median(before.real, axis=0) + 1j * np.median(before.imag, axis=0)) / SIDE,
        eyes=EYES,
        untouched=describe(np.abs(before - places)),
        again=describe(np.abs(after - places)),
        moved=describe(copies["errors"]),
        lost=1 - np.mean(np.isfinite(after).all(axis=1)),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and write the page."""
    parser = harness.make_parser(__doc__, "alignment", kept=False)
    harness.add_numbers(parser, frames=(2000, "untouched frames"), copies=(300, "turned, scaled and shifted ones"))
    options = parser.parse_args(words)
    harness.check_positive(options, "frames", "copies")
    root = Path(os.environ.get("FFEM_LFW_ROOT", "../shared/data/lfw")) / "lfw-deepfunneled"
    paths = sorted(root.rglob("*.jpg"))
    if not paths:
        parser.error(f"no images in {root}; set FFEM_LFW_ROOT")
    order = np.random.default_rng(SEED).permutation(len(paths))
    detect = load_detector()
    frames = measure_frames([paths[index] for index in order[: options.frames]], detect)
    # Others than those that EYES was read from.
    rest = order[options.frames : options.frames + options.copies]
    print(write_page(frames, measure_copies([paths[index] for index in rest], detect), options.out / "README.md"))


if __name__ == "__main__":
    main()
