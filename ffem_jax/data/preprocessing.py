"""From a picture's pixels to a network's input: the one definition that training, `ffem export`, the page and the
mini-program share.

1. The square: centred, `fraction` of the picture's shorter side, on whole pixels (`find_square`).
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

from ffem_jax.specs.trial import DataSpec

# What step 2 is called in export.json; another filter would be another name.
RESIZE = "pillow_bilinear"


def find_square(width: int, height: int, fraction: float) -> tuple[int, int, int]:
    """(left, top, side) in pixels of the centred square of `fraction` (0 to 1) times the shorter side."""
    side = max(1, round(fraction * min(width, height)))
    return (width - side) // 2, (height - side) // 2, side


def crop_face(image: Image.Image, crop: float, resolution: int) -> np.ndarray:
    """The centred square of `crop` times the shorter side, as uint8 [resolution, resolution, 3].

    crop 0.56 of 250 x 250 is pixels 55 to 195; what lies outside has no say. Pillow's bilinear filter widens with
    the reduction, so it does not alias; unlike Lanczos it does not ring, and a browser or a phone can repeat it.
    """
    left, top, side = find_square(image.width, image.height, crop)
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((resolution, resolution), Image.Resampling.BILINEAR))


def describe_crop(spec: DataSpec) -> dict[str, Any]:
    """The field `crop` of export.json: how the faces of `spec` were cut from their pictures.

    fraction: of the picture's shorter side, centred; resize: the filter, `RESIZE`; resolution: pixels per side.
    """
    return {"fraction": spec.crop, "of": "shorter_side", "anchor": "centre", "resize": RESIZE,
            "resolution": spec.resolution}  # fmt: skip
