"""Photographs whose faces are coloured discs, and a detector that finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ffem_jax.align.detector import DetectedFace


def draw_photograph(path: Path, *faces: tuple[float, float, float]) -> None:
    """Faces (x, y, distance of the eyes): a red disc and a blue one, level, on grey."""
    image = Image.new("RGB", (240, 180), (90, 90, 90))
    draw = ImageDraw.Draw(image)
    for x, y, distance in faces:
        for middle, colour in ((x - distance / 2, (255, 0, 0)), (x + distance / 2, (0, 0, 255))):
            draw.ellipse((middle - 4, y - 4, middle + 3, y + 3), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


class FindDiscs:
    """A detector: pairs red and blue discs from left to right. Counts how many pictures it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, image: Image.Image) -> list[DetectedFace]:
        self.asked += 1
        pixels = np.asarray(image).astype(int)
        eyes = [self.find(pixels[..., colour] - pixels[..., 2 - colour] > 120) for colour in (0, 2)]
        return [DetectedFace(eyes=pair, score=0.9) for pair in zip(*eyes, strict=True)]

    def find(self, mask: np.ndarray) -> list[tuple[float, float]]:
        columns = np.flatnonzero(mask.any(axis=0))
        groups = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if columns.size else []
        return [(group.mean() + 0.5, np.flatnonzero(mask[:, group].any(axis=1)).mean() + 0.5) for group in groups]


def write_photographs(root: Path) -> Path:
    """Two people's photographs: a face on most, none, two, and a file that breaks off."""
    for person in ("ann", "bob"):
        for number in range(3):
            draw_photograph(root / person / f"{number}.png", (100 + 20 * number, 80, 40 + 4 * number))
    draw_photograph(root / "ann" / "none.png")
    draw_photograph(root / "bob" / "two.JPG", (60, 90, 30), (170, 60, 50))
    (root / "bob" / "broken.png").write_bytes((root / "bob" / "0.png").read_bytes()[:100])
    (root / "bob" / "notes.txt").write_text("not a picture")
    return root
