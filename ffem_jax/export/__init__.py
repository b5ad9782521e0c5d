"""A finished trial as files that phones and browsers run: `FORMATS`, each with a module of its own.

A format's module has DTYPES (what its weights can be stored as), LAYOUT (of its input), write(network, dtype, folder)
-> files, and run(folder, pixels) -> embeddings, computed by a runtime that users have, and that runtime's name.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ffem_jax.export.errors import ExportError, NotRunError

if TYPE_CHECKING:
    import numpy as np

    from ffem_jax.export.layers import LayerList

__all__ = ["DTYPES", "FORMATS", "ExportError", "Format", "NotRunError", "load_format"]

FORMATS = {
    "tfjs": "ffem_jax.export.tfjs",
    "onnx": "ffem_jax.export.onnx",
    "tflite": "ffem_jax.export.tflite",
}
# Of all formats together; `check_dtype` says which a format has.
# int8_activations: the maps have 8 bits too, with ranges that training faces give (calibrate.py).
DTYPES = ("float32", "float16", "uint8", "int8", "int8_activations")


class Format(Protocol):
    """What the module of a format has."""

    DTYPES: tuple[str, ...]
    LAYOUT: str

    def write(self, network: LayerList, dtype: str, folder: Path) -> list[Path]:
        """Write the files of `network` with weights of `dtype` into `folder`; the model's own file first."""

    def run(self, folder: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
        """Embeddings [N, D] of pixels [N, R, R, 3], and the runtime that computed them. Raises NotRunError."""


def load_format(name: str, dtype: str) -> Format:
    """The module of the format `name`. Raises ExportError unless it is one and stores weights as `dtype`."""
    if name not in FORMATS:
        raise ExportError(f"format {name!r} is not known; choose one of: {', '.join(FORMATS)}")
    module = cast(Format, importlib.import_module(FORMATS[name]))
    dtypes = (*module.DTYPES, *getattr(module, "CALIBRATED_DTYPES", ()))
    if dtype not in dtypes:
        raise ExportError(f"{name} cannot store weights as {dtype}; choose one of: {', '.join(dtypes)}")
    return module
