"""From an image's pixels to a network's input: the definition shared by training, `ffem export`, the page and the
mini-program.

1. The square: centred, `fraction` of the image's shorter side, in whole pixels (`find_square`). `data.fit` has other
   ways to make a square, only for `ffem train` and `ffem embed`: the page and the mini-program reject them.
2. The resize to `resolution` pixels per side: Pillow's bilinear filter, a triangle that widens with the reduction, to
   avoid aliasing; columns first, then rows, each rounded to 8 bits, with weights in 22-bit fixed point. A canvas's
   drawImage uses a different filter.
3. The values: pixel / 127.5 - 1, float32 (`models.normalize_pixels`); export.json gives it as a scale and an offset.

`applet/shared/preprocessing.js` implements the same in JavaScript; `tests/applet/test_preprocessing.py` compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ffem_jax.specs.data import FITS, DataSpec

# Name of step 2 in export.json; another filter would need another name.
RESIZE = "pillow_bilinear"

# Colour of the borders of data.fit=pad: mid-range, about 0 as network input.
GREY = (128, 128, 128)


def find_square(width: int, height: int, fraction: float) -> tuple[int, int, int]:
    """Return (left, top, side) in pixels of the centred square of `fraction` (0 to 1) times the shorter side."""
    side = max(1, round(fraction * min(width, height)))
    return (width - side) // 2, (height - side) // 2, side


def crop_face(image: Image.Image, crop: float, resolution: int, fit: str = "crop") -> np.ndarray:
    """Crop the middle of an RGB image to a square, uint8 [resolution, resolution, 3].

    crop 0.56 of 250 x 250 is pixels 55 to 195; pixels outside have no influence. Pillow's bilinear filter widens with
    the reduction, which avoids aliasing; unlike Lanczos it does not ring, and browsers and phones can reproduce it.

    Args:
        crop: the share to keep, 0 to 1, of the shorter side; of the longer one for pad, of both for stretch.
        fit: one of `specs.data.FITS`. All three are equal for square images.
    """
    width, height = (find_kept(side, image.size, crop, fit) for side in image.size)
    if (width, height) == image.size == (resolution, resolution):
        return np.array(image)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    kept = image.crop((left, top, left + width, top + height))
    if fit != "pad" or width == height:
        return np.asarray(kept.resize((resolution, resolution), Image.Resampling.BILINEAR))
    # Resize before adding borders: padding a long strip first could exhaust memory.
    longer = max(width, height)
    size = max(1, round(resolution * width / longer)), max(1, round(resolution * height / longer))
    square = Image.new("RGB", (resolution, resolution), GREY)
    square.paste(
        kept.resize(size, Image.Resampling.BILINEAR), ((resolution - size[0]) // 2, (resolution - size[1]) // 2)
    )
    return np.asarray(square)


def find_kept(side: int, sides: tuple[int, int], crop: float, fit: str) -> int:
    """Return how many of the `side` pixels of an image with these `sides` to keep, in the middle."""
    if fit == "stretch":
        return max(1, round(crop * side))
    return min(side, max(1, round(crop * (max(sides) if fit == "pad" else min(sides)))))


# Text of the note on non-square images, per fit.
_FIT_TEXTS = {
    "crop": "the ends of their longer side are cut off",
    "pad": "they are kept whole between grey borders",
    "stretch": "they are squeezed into a square",
}


def describe_fit(oblong: int, images: int, fit: str) -> str:
    """Return the note on the `oblong` non-square images out of `images`; empty if there are none."""
    if not oblong:
        return ""
    others = " and ".join(f"data.fit={name}" for name in FITS if name != fit)
    return f"{oblong:,} of {images:,} images are not square: {_FIT_TEXTS[fit]} (data.fit={fit}; or use {others})"


def describe_crop(spec: DataSpec) -> dict[str, Any]:
    """Return the field `crop` of export.json: how the faces of `spec` were cropped.

    fraction: share of the image's shorter side (longer for pad, both for stretch), centred; fit: `data.fit`, for
    non-square images; resize: the filter, `RESIZE`; resolution: pixels per side.
    """
    of = {"crop": "shorter_side", "pad": "longer_side", "stretch": "both_sides"}[spec.fit]
    return {"fraction": spec.crop, "of": of, "anchor": "centre", "fit": spec.fit, "resize": RESIZE,
            "resolution": spec.resolution}  # fmt: skip
