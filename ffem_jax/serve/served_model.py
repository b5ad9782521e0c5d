"""Which model a server is for, read from the export.json that `ffem export` writes beside a model's files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ffem_jax.errors import FfemError

# A vector of more numbers than any network here gives; it bounds a request's size.
MAX_LENGTH = 4096


class ServedModelError(FfemError):
    """An export.json that tells no model. The message is one line."""


@dataclass(frozen=True)
class ServedModel:
    """model_id: the trained weights' name, shared by all formats; length: of its vectors; network: a label."""

    model_id: str
    length: int
    network: str = ""


def load_served_model(path: Path) -> ServedModel:
    """The model of the export.json at `path`, or in the folder `path`.

    Raises ServedModelError where it is none, and OSError where it cannot be read.
    """
    path = path / "export.json" if path.is_dir() else path
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        model_id, length, network = row["model_id"], row["output"]["length"], row.get("network", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ServedModelError(f"{path} is no export.json of ffem export: {type(error).__name__} {error}") from None
    if not (isinstance(model_id, str) and re.fullmatch(r"[0-9a-f]{16}", model_id)):
        raise ServedModelError(f"{path}: model_id={model_id!r} is not 16 hexadecimal digits")
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_LENGTH:
        raise ServedModelError(f"{path}: output.length={length!r} is no whole number from 1 to {MAX_LENGTH}")
    return ServedModel(model_id, length, str(network))
