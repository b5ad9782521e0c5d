"""Where the eyes lie in a face as training cuts it, and the turn and scale that bring a photograph's eyes there.

The square is the middle 140 of the 250 pixels of a deep-funneled LFW frame (`data.crop=0.56`), so a face aligned here
is read with `data=folder data.crop=1`. Points are (x, y) in pixels from the upper left corner of the picture, the
middle of its first pixel at (0.5, 0.5). `applet/shared/alignment.js` is the same for the page; a test holds both equal.
"""

from __future__ import annotations

import math

from PIL import Image

Point = tuple[float, float]
Eyes = tuple[Point, Point]

# The eyes' centres as fractions of the square's side, the picture's left one first: the medians over LFW's
# deep-funneled frames, made level (results/alignment).
EYES: Eyes = ((0.350, 0.408), (0.663, 0.408))

# The same places as fractions of LFW's whole frame, of which the square is pixels 55 to 195 of 250.
FRAME_EYES: Eyes = (
    ((55 + 140 * EYES[0][0]) / 250, (55 + 140 * EYES[0][1]) / 250),
    ((55 + 140 * EYES[1][0]) / 250, (55 + 140 * EYES[1][1]) / 250),
)


def find_similarity(eyes: Eyes, side: int, places: Eyes = EYES) -> tuple[complex, complex]:
    """The turn, scale and shift that lay the square of a face over a photograph.

    Args:
        eyes: in the photograph, in pixels, the image's left one first.
        side: of the square, in pixels.
        places: where the eyes are to lie in the square, as fractions of its side.

    Returns:
        (turn, origin): the point z of the square, as x + iy in its pixels, is `turn * z + origin` in the photograph.
        abs(turn) is the number of the photograph's pixels along one of the square's.

    Raises:
        ValueError: both eyes are in one place.
    """
    left, right = (complex(*eye) for eye in eyes)
    if left == right:
        raise ValueError(f"both eyes lie at {eyes[0]}; alignment takes two places")
    left_there, right_there = (side * complex(*eye) for eye in places)
    turn = (right - left) / (right_there - left_there)
    return turn, left - turn * left_there


def align_face(image: Image.Image, eyes: Eyes, side: int, places: Eyes = EYES) -> Image.Image:
    """The square of a face, with its eyes at `places`; outside the image it is black.

    The photograph is sampled bilinearly, at least once for each of its pixels, and that is reduced by the resize of
    `data.preprocessing`: a large photograph does not alias.

    Args:
        image: RGB.
        eyes: in the image, in pixels, its left one first.
        side: of the square, in pixels.
        places: where the eyes are to lie in the square, as fractions of its side.

    Raises:
        ValueError: as `find_similarity` does.
    """
    turn, origin = find_similarity(eyes, side, places)
    samples = max(1, math.ceil(abs(turn)))  # along each pixel of the square
    step = turn / samples
    affine = (step.real, -step.imag, origin.real, step.imag, step.real, origin.imag)
    sampled = image.transform(
        (samples * side, samples * side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    return sampled.resize((side, side), Image.Resampling.BILINEAR)
