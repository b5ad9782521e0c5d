"""Architecture search for small face-feature networks under a hard size limit.

Importing the package imports no JAX: specs, records, metrics and the frontier are
NumPy only, and each command imports the heavy parts where it uses them.

From Python it is used by the names of `ffem_jax.api`, which are names of the package too (docs/python.md):
`train_network`, `read_records`, `draw_frontier`, `compare_records`, `load_network`. They are imported at their first
use; `__init__.pyi` has them for editors and type checkers.
"""

import importlib

from ffem_jax import moved

__version__ = "0.1.0"

# As ffem_jax.api has them; a test holds the two equal. None is the name of a module, of today or of version 0.1.
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
