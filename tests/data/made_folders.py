"""Folders of made-up pictures, laid out as the loaders expect them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of coloured noise, another one for each seed; size is width, height."""
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), np.uint8))


def write_people(root: Path, counts: dict[str, int], ending: str = "jpg", seed: int = 0) -> Path:
    """`root/person/person_0001.jpg` and so on, as many as `counts` says, no two the same."""
    for person, count in counts.items():
        (root / person).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            seed += 1
            make_picture(seed, (40, 40)).save(root / person / f"{person}_{number:04d}.{ending}")
    return root


def write_pairs(path: Path, folds: list[list[str]]) -> Path:
    """A pairs.txt of `folds`, each its same pairs (`person a b`) and then as many different (`person a other b`)."""
    rows = [row.replace(" ", "\t") for fold in folds for row in fold]
    path.write_text("\n".join([f"{len(folds)}\t{len(folds[0]) // 2}", *rows]) + "\n", encoding="utf-8")
    return path
