"""The page's preprocessing against training's: the same picture must give the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from node import run_script
from PIL import Image, ImageFilter

from ffem_jax.data.preprocessing import RESIZE, crop_face, describe_crop, find_square
from ffem_jax.models import normalize_pixels
from ffem_jax.specs.trial import DataSpec

CROP_ALL = """
import { readFileSync, writeFileSync } from "node:fs";
import { cropFace, findSquare } from "SHARED/preprocessing.js";
for (const { name, width, height, fraction, resolution } of inputs.cases) {
  const picture = { width, height, data: readFileSync(`${name}.rgba`) };
  writeFileSync(`${name}.face`, cropFace(picture, findSquare(width, height, fraction), resolution).data);
}
console.log("null");
"""

# Larger and smaller than the face, prime, even and odd, wide and tall, one pixel, no change at all.
SIZES = [(250, 250), (96, 96), (97, 101), (40, 30), (31, 64), (3, 5), (1, 1), (300, 7), (640, 480), (1201, 907)]
FRACTIONS = [1.0, 0.56, 0.8, 0.05]
RESOLUTIONS = [16, 48, 64, 96, 112, 140]


def make_picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Coloured noise; size is width, height."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def make_pictures(size: tuple[int, int]) -> dict[str, Image.Image]:
    """Noise and stripes, where a filter that is a little off shows most, and something smooth as photographs are."""
    noise = make_picture(sum(size), size)
    rows, columns = np.mgrid[: size[1], : size[0]]
    stripes = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, 2)
    return {"noise": noise, "stripes": Image.fromarray(stripes), "smooth": noise.filter(ImageFilter.GaussianBlur(2))}


def test_every_pixel_is_the_one_that_training_sees(tmp_path: Path) -> None:
    cases = []
    expected = {}
    for number, size in enumerate(SIZES):
        for kind, picture in make_pictures(size).items():
            for resolution in RESOLUTIONS:
                fraction = FRACTIONS[(number + resolution) % len(FRACTIONS)]
                name = f"{kind}-{size[0]}x{size[1]}-{fraction}-{resolution}"
                (tmp_path / f"{name}.rgba").write_bytes(picture.convert("RGBA").tobytes())
                cases.append(
                    {"name": name, "width": size[0], "height": size[1], "fraction": fraction, "resolution": resolution}
                )
                expected[name] = crop_face(picture, fraction, resolution)
    run_script(CROP_ALL, tmp_path, cases=cases)
    assert len(expected) == len(SIZES) * 3 * len(RESOLUTIONS)
    for name, face in expected.items():
        found = np.frombuffer((tmp_path / f"{name}.face").read_bytes(), np.uint8).reshape(face.shape)
        # Equal, and not within a level: both compute in the same fixed point.
        np.testing.assert_array_equal(found, face, err_msg=name)


def test_the_square_is_the_same_at_every_size(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sizes = [*random.integers(1, 5000, (2000, 2)).tolist(), [5, 5], [2, 2], [250, 250], [25, 30]]
    # 0.5 and 0.1 make halves, which Python rounds to even.
    fractions = [0.05, 0.1, 0.5, 0.56, 0.8, 1.0, 1 / 3]
    cases = [(width, height, fraction) for width, height in sizes for fraction in fractions]
    script = """
    import { findSquare } from "SHARED/preprocessing.js";
    const squares = inputs.cases.map((one) => findSquare(...one));
    console.log(JSON.stringify(squares.map(({ left, top, side }) => [left, top, side])));
    """
    assert run_script(script, tmp_path, cases=cases) == [list(find_square(*case)) for case in cases]


@pytest.mark.parametrize("colours_first", [False, True], ids=["NHWC", "NCHW"])
def test_the_numbers_are_those_that_the_network_was_trained_on(tmp_path: Path, colours_first: bool) -> None:
    face = np.asarray(make_picture(1, (16, 16)))
    trained = np.asarray(normalize_pixels(face[None]))
    shape = [1, 3, 16, 16] if colours_first else [1, 16, 16, 3]
    wanted = trained.transpose(0, 3, 1, 2) if colours_first else trained
    script = """
    import { toInput } from "SHARED/preprocessing.js";
    const face = { side: 16, data: Uint8Array.from(inputs.bytes) };
    console.log(JSON.stringify(Array.from(toInput(face, inputs.input))));
    """
    values = run_script(
        script, tmp_path, bytes=face.ravel().tolist(), input={"shape": shape, "scale": 1 / 127.5, "offset": -1.0}
    )
    np.testing.assert_allclose(np.array(values, np.float32).reshape(shape), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("cropFace({ width: 4, height: 4, data: new Uint8Array(64) }, { left: 1, top: 0, side: 4 }, 2)", "not inside"),
        (
            "cropFace({ width: 4, height: 4, data: new Uint8Array(64) }, { left: 0.5, top: 0, side: 2 }, 2)",
            "not inside",
        ),
        ("toInput({ side: 2, data: new Uint8Array(12) }, { shape: [1, 4, 4, 3], scale: 1, offset: 0 })", "4 x 4"),
        ("toInput({ side: 2, data: new Uint8Array(12) }, { shape: [2, 2, 2], scale: 1, offset: 0 })", "one colour"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, call: str, told: str) -> None:
    script = f"""
    import {{ cropFace, toInput }} from "SHARED/preprocessing.js";
    try {{ {call}; console.log("null"); }} catch (error) {{
      console.log(JSON.stringify(`${{error.name}}: ${{error.message}}`));
    }}
    """
    message = run_script(script, tmp_path)
    assert message.startswith("RangeError")
    assert told in message


def test_export_names_the_resize_that_the_page_has(tmp_path: Path) -> None:
    script = """
    import { RESIZE } from "SHARED/preprocessing.js";
    console.log(JSON.stringify(RESIZE));
    """
    assert run_script(script, tmp_path) == RESIZE == describe_crop(DataSpec())["resize"]
