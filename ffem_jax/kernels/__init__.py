"""The compiled part: depthwise convolutions and BatchNorm with its activation on a CPU, in C++ (source/).

`calls.py` binds them to JAX. The library is made when the package is installed, where there is a C++ compiler
(hatch_build.py); where it is not there or does not load, `load_library` says so once and models take plain JAX.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from ffem_jax.specs.fields import SpecError

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libffem_kernels.so"

# What FFEM_ENGINE may say: plain JAX, or an instruction set instead of the best one that this processor has.
JAX = "jax"
INSTRUCTIONS = ("avx512", "avx2", "baseline")


class EngineError(SpecError):
    """FFEM_ENGINE asks for what there is not: a mistake in the request, and no trial fails of it."""


def check_engine() -> None:
    """Raise EngineError where FFEM_ENGINE asks for what there is not."""
    if os.environ.get("FFEM_ENGINE"):
        load_library()


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where plain JAX is to be taken: said once in a warning unless FFEM_ENGINE asks."""
    wanted = os.environ.get("FFEM_ENGINE", "")
    if wanted not in ("", JAX, *INSTRUCTIONS):
        raise EngineError(f"FFEM_ENGINE={wanted} is not known; choose one of: {', '.join((JAX, *INSTRUCTIONS))}")
    if wanted == JAX:
        return None
    try:
        return _open_library(wanted)
    except (OSError, AttributeError) as error:
        warn_of_missing(error)
        return None


@contextlib.contextmanager
def settle_engine() -> Iterator[None]:
    """Where there are no compiled kernels, say so here, once, for the workers too that are started in the block."""
    if load_library() is not None or "FFEM_ENGINE" in os.environ:
        yield
        return
    os.environ["FFEM_ENGINE"] = JAX
    try:
        yield
    finally:
        del os.environ["FFEM_ENGINE"]


def warn_of_missing(reason: Exception) -> None:
    """Say why there are no compiled kernels, and what that costs."""
    warnings.warn(
        f"no compiled kernels ({' '.join(str(reason).split())}): on a CPU training runs by plain JAX, at half "
        "the speed, and compiles five times as long; with a C++ compiler (on Debian and Ubuntu: apt install g++) "
        "install the package again",
        stacklevel=3,
    )


def _open_library(instructions: str) -> ctypes.CDLL:
    if not LIBRARY.exists():
        raise OSError(f"{LIBRARY.name} is not there")
    library = ctypes.CDLL(str(LIBRARY))
    library.ffem_sources.restype = library.ffem_use_instructions.restype = ctypes.c_char_p
    if (digest := compute_source_digest()) and library.ffem_sources().decode() != digest:
        raise OSError(f"{LIBRARY.name} was made of other sources")
    if library.ffem_use_instructions(instructions.encode()) is None:
        raise EngineError(f"FFEM_ENGINE={instructions}: this processor does not have {instructions}")
    return library


def compute_source_digest() -> str:
    """What tells one version of the C++ sources from another; "" where they are not beside this module."""
    files = sorted((FOLDER / "source").glob("*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16] if files else ""


def describe_engine() -> str:
    """What computes on a CPU, as `ffem --version` says it."""
    library = load_library()
    if library is None:
        return "plain JAX"
    return f"compiled kernels ({library.ffem_use_instructions(os.environ.get('FFEM_ENGINE', '').encode()).decode()})"
