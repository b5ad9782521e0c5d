"""Folders of people whose pictures are coloured noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_people(root: Path, counts: dict[str, int], seed: int = 0, size: tuple[int, int] = (30, 40)) -> Path:
    """`root/person/1.png` and so on, pictures of coloured noise, no two the same. size: height, width in pixels."""
    draw = np.random.default_rng(seed)
    for person, count in counts.items():
        (root / person).mkdir(parents=True)
        for number in range(1, count + 1):
            noise = draw.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(noise).save(root / person / f"{number}.png")
    return root
