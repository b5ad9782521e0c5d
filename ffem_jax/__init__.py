"""Architecture search for small face-feature networks under a hard size limit.

Importing the package imports no JAX: specs, records, metrics and the frontier are
NumPy only, and each command imports the heavy parts where it uses them.

The Python API is `ffem_jax.api`, whose names the package exports (docs/python.md):
`train_network`, `read_records`, `draw_frontier`, `compare_records`, `load_network`. They are imported on first
use; `__init__.pyi` declares them for editors and type checkers.
"""

import importlib

from ffem_jax import moved

__version__ = "0.1.0"

# The names of ffem_jax.api; a test compares the two. None equals a module name, current or of version 0.1.
__all__ = [
    "Comparison",
    "DataSpec",
    "Faces",
    "FfemError",
    "Network",
    "TrainedTrial",
    "TrainingError",
    "TrialRecord",
    "__version__",
    "compare_records",
    "describe_comparison",
    "draw_frontier",
    "faces_from_arrays",
    "faces_from_folder",
    "load_faces",
    "load_network",
    "read_records",
    "train_network",
]

moved.install()


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module("ffem_jax.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
