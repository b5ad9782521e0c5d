"""The aligned square: where the eyes come to lie, what the picture looks like there, and the same in the page."""

from __future__ import annotations

import cmath
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from ffem_jax.align.geometry import EYES, align_face, find_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "applet"))
from node import run_script

coordinates = st.floats(-5000, 5000, allow_nan=False)
points = st.tuples(coordinates, coordinates)


@given(left=points, right=points, side=st.integers(16, 1024))
def test_the_square_s_eye_places_are_the_photograph_s_eyes(left, right, side):
    if math.dist(left, right) < 1e-3:
        return
    turn, origin = find_similarity((left, right), side)
    for place, eye in zip(EYES, (left, right), strict=True):
        found = turn * complex(*place) * side + origin
        assert (found.real, found.imag) == pytest.approx(eye, abs=1e-6)


def test_two_eyes_in_one_place_are_refused():
    with pytest.raises(ValueError, match="two places"):
        find_similarity(((3.0, 4.0), (3.0, 4.0)), 140)


def test_eyes_that_lie_right_already_change_nothing():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 140, 3), np.uint8))
    eyes = tuple((140 * x, 140 * y) for x, y in EYES)
    difference = np.asarray(align_face(picture, eyes, 140)).astype(int) - np.asarray(picture)
    assert abs(difference).max() <= 1


def draw_eyes(size: tuple[int, int], eyes, radius: float) -> Image.Image:
    """Grey, with a soft red disc on the left eye and a blue one on the right."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    pixels = np.full((size[1], size[0], 3), 90.0)
    for (x, y), colour in zip(eyes, ((255, 0, 0), (0, 0, 255)), strict=True):
        cover = np.clip(radius - np.hypot(columns - x, rows - y) + 0.5, 0, 1)[..., None]
        pixels += cover * (np.array(colour) - pixels)
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def find_disc(face: np.ndarray, colour: int) -> tuple[float, float]:
    """The middle of what is coloured, as fractions of the side."""
    weight = np.clip(face[..., colour].astype(float) - face[..., 2 - colour], 0, None)
    rows, columns = np.mgrid[: len(face), : len(face)] + 0.5
    return (weight * columns).sum() / weight.sum() / len(face), (weight * rows).sum() / weight.sum() / len(face)


@pytest.mark.parametrize("degrees", [-35, 0, 20, 90, 180])
@pytest.mark.parametrize("distance", [12, 47, 400])
def test_the_eyes_come_to_lie_where_training_has_them(degrees, distance):
    middle, half = complex(600, 500), cmath.rect(distance / 2, math.radians(degrees))
    eyes = tuple((z.real, z.imag) for z in (middle - half, middle + half))
    photograph = draw_eyes((1200, 1000), eyes, radius=0.2 * distance)
    face = np.asarray(align_face(photograph, eyes, 140))
    assert face.shape == (140, 140, 3)
    for colour, place in zip((0, 2), EYES, strict=True):
        assert find_disc(face, colour) == pytest.approx(place, abs=0.6 / 140)


def test_a_large_photograph_does_not_alias():
    # Stripes a pixel wide, eight of them to a pixel of the face: sampled one in eight they would be black or white.
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    eyes = tuple((8 * 140 * x + 40, 8 * 140 * y + 40) for x, y in EYES)
    face = np.asarray(align_face(Image.fromarray(stripes), eyes, 140)).astype(int)
    assert abs(face[1:-1, 1:-1] - 127).max() <= 2  # at the rim the filter is cut off


def test_outside_the_photograph_it_is_black():
    face = np.asarray(align_face(Image.new("RGB", (60, 60), (200, 200, 200)), ((1.0, 30.0), (59.0, 30.0)), 140))
    assert face[70, 70].tolist() == [200, 200, 200]
    assert face[0].max() == face[-1].max() == face[:, 0].max() == 0


def test_the_page_aligns_the_same_pixels(tmp_path):
    random = np.random.default_rng(4)
    cases, expected = [], {}
    for number in range(24):
        size = [(320, 240), (97, 130), (900, 700)][number % 3]
        noise = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))
        picture = noise if number % 2 else noise.filter(ImageFilter.GaussianBlur(1.5))
        middle = complex(*(random.uniform(0.2, 0.8, 2) * size))
        half = cmath.rect(random.uniform(0.03, 0.3) * min(size), random.uniform(-math.pi, math.pi))
        eyes = [(z.real, z.imag) for z in (middle - half, middle + half)]
        side = [140, 64, 33][number % 3]
        name = f"picture{number}"
        (tmp_path / f"{name}.rgba").write_bytes(picture.convert("RGBA").tobytes())
        cases.append({"name": name, "width": size[0], "height": size[1], "eyes": eyes, "side": side})
        expected[name] = np.asarray(align_face(picture, tuple(eyes), side)).astype(int)
    script = """
    import { readFileSync, writeFileSync } from "node:fs";
    import { EYES, alignFace } from "SHARED/alignment.js";
    for (const { name, width, height, eyes, side } of inputs.cases) {
      const face = alignFace({ width, height, data: readFileSync(`${name}.rgba`) }, eyes, side);
      writeFileSync(`${name}.face`, face.data);
    }
    console.log(JSON.stringify(EYES));
    """
    assert run_script(script, tmp_path, cases=cases) == [list(eye) for eye in EYES]
    for name, face in expected.items():
        found = np.frombuffer((tmp_path / f"{name}.face").read_bytes(), np.uint8).reshape(*face.shape[:2], 4)
        # Pillow rounds each sample down, and sums that differ in their last bit can fall on either side of a level.
        assert abs(found[..., :3].astype(int) - face).max() <= 1, name
        assert np.mean(found[..., :3] != face) < 0.01, name
