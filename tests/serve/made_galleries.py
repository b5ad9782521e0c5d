"""Drawn vectors for the server's tests: people as directions, pictures as small departures from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 16
MODEL_ID = "0123456789abcdef"
OTHER_MODEL_ID = "fedcba9876543210"


def draw_people(people: int, pictures: int, seed: int = 0, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float64 [picture, LENGTH] and labels [picture]."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(people, LENGTH))
    labels = np.repeat(np.arange(people), pictures)
    return centres[labels] + spread * draw.normal(size=(len(labels), LENGTH)), labels


def write_export(folder: Path, model_id: str = MODEL_ID, length: int = LENGTH) -> Path:
    """An export.json of a network that was never trained."""
    path = folder / "export.json"
    row: dict[str, Any] = {"version": 1, "model_id": model_id, "network": "drawn", "output": {"length": length}}
    path.write_text(json.dumps(row))
    return path
