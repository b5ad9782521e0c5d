"""From a picture's pixels to a network's input: the one definition that training, `ffem export`, the page and the
mini-program share.

1. The square: centred, `fraction` of the picture's shorter side, on whole pixels (`find_square`). `data.fit` has other
   ways to a square, for `ffem train` and `ffem embed` alone: the page and the mini-program refuse them.
2. The resize to `resolution` pixels per side: Pillow's bilinear filter, a triangle that widens with the reduction, so
   that nothing aliases; columns first, then rows, each rounded to 8 bits, with weights in 22-bit fixed point. A
   canvas's drawImage is another filter.
3. The values: pixel / 127.5 - 1, float32 (`models.normalize_pixels`); export.json states it as a scale and an offset.

`applet/shared/preprocessing.js` is the same in JavaScript; `tests/applet/test_preprocessing.py` holds both equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ffem_jax.specs.data import FITS, DataSpec

# What step 2 is called in export.json; another filter would be another name.
RESIZE = "pillow_bilinear"

# The borders of data.fit=pad: the middle of the range, which a network sees as about 0.
GREY = (128, 128, 128)


def find_square(width: int, height: int, fraction: float) -> tuple[int, int, int]:
    """(left, top, side) in pixels of the centred square of `fraction` (0 to 1) times the shorter side."""
    side = max(1, round(fraction * min(width, height)))
    return (width - side) // 2, (height - side) // 2, side


def crop_face(image: Image.Image, crop: float, resolution: int, fit: str = "crop") -> np.ndarray:
    """The middle of an RGB image as a square, uint8 [resolution, resolution, 3].

    crop 0.56 of 250 x 250 is pixels 55 to 195; what lies outside has no say. Pillow's bilinear filter widens with
    the reduction, so it does not alias; unlike Lanczos it does not ring, and a browser or a phone can repeat it.

    Args:
        crop: the share that is kept, 0 to 1: of the shorter side; of the longer one under pad, of both under stretch.
        fit: one of `specs.data.FITS`. All three are equal for square images.
    """
    width, height = (find_kept(side, image.size, crop, fit) for side in image.size)
    if (width, height) == image.size == (resolution, resolution):
        return np.array(image)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    kept = image.crop((left, top, left + width, top + height))
    if fit != "pad" or width == height:
        return np.asarray(kept.resize((resolution, resolution), Image.Resampling.BILINEAR))
    # Resized before the borders are laid around it: a long strip would make a square too large for the memory.
    longer = max(width, height)
    size = max(1, round(resolution * width / longer)), max(1, round(resolution * height / longer))
    square = Image.new("RGB", (resolution, resolution), GREY)
    square.paste(
        kept.resize(size, Image.Resampling.BILINEAR), ((resolution - size[0]) // 2, (resolution - size[1]) // 2)
    )
    return np.asarray(square)


def find_kept(side: int, sides: tuple[int, int], crop: float, fit: str) -> int:
    """How many of the `side` pixels of an image with these two `sides` are kept, in the middle."""
    if fit == "stretch":
        return max(1, round(crop * side))
    return min(side, max(1, round(crop * (max(sides) if fit == "pad" else min(sides)))))


# What the note on images that are not square says of each fit.
_FIT_TEXTS = {
    "crop": "the ends of their longer side are cut off",
    "pad": "they are kept whole between grey borders",
    "stretch": "they are squeezed into a square",
}


def describe_fit(oblong: int, images: int, fit: str) -> str:
    """The line on the `oblong` of `images` images that are not square; empty where there is none."""
    if not oblong:
        return ""
    others = " and ".join(f"data.fit={name}" for name in FITS if name != fit)
    return (
        f"{oblong:,} of {images:,} images are not square: {_FIT_TEXTS[fit]} (data.fit={fit}; there are also {others})"
    )


def describe_crop(spec: DataSpec) -> dict[str, Any]:
    """The field `crop` of export.json: how the faces of `spec` were cut from their pictures.

    fraction: of the picture's shorter side (longer under pad, both under stretch), centred; fit: of pictures that are
    not square, `data.fit`; resize: the filter, `RESIZE`; resolution: pixels per side.
    """
    of = {"crop": "shorter_side", "pad": "longer_side", "stretch": "both_sides"}[spec.fit]
    return {"fraction": spec.crop, "of": of, "anchor": "centre", "fit": spec.fit, "resize": RESIZE,
            "resolution": spec.resolution}  # fmt: skip
