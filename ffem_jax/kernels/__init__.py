"""The compiled kernels: depthwise convolutions and BatchNorm with activation on a CPU, in C++ (source/).

`calls.py` binds them to JAX. The library is built when the package is installed, if there is a C++ compiler
(hatch_build.py). If it is missing or does not load, `load_library` warns once and models use plain JAX.
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

# Values of FFEM_ENGINE: plain JAX, or an instruction set instead of the processor's best one.
JAX = "jax"
INSTRUCTIONS = ("avx512", "avx2", "baseline")


class EngineError(SpecError):
    """FFEM_ENGINE names an engine that is not available: a mistake in the request, not a failure of a trial."""


def check_engine() -> None:
    """Raise EngineError if FFEM_ENGINE names an engine that is not available."""
    if os.environ.get("FFEM_ENGINE"):
        load_library()


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None to use plain JAX; warns once unless FFEM_ENGINE requests plain JAX."""
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
    """Warn about missing compiled kernels once, here, and not again in workers started within the block."""
    if load_library() is not None or "FFEM_ENGINE" in os.environ:
        yield
        return
    os.environ["FFEM_ENGINE"] = JAX
    try:
        yield
    finally:
        del os.environ["FFEM_ENGINE"]


def warn_of_missing(reason: Exception) -> None:
    """Warn why there are no compiled kernels, and what that costs."""
    warnings.warn(
        f"no compiled kernels ({' '.join(str(reason).split())}): on a CPU, training uses plain JAX at half the speed "
        "and takes five times as long to compile; install a C++ compiler (on Debian and Ubuntu: apt install g++), "
        "then install the package again",
        stacklevel=3,
    )


def _open_library(instructions: str) -> ctypes.CDLL:
    if not LIBRARY.exists():
        raise OSError(f"{LIBRARY.name} is missing")
    library = ctypes.CDLL(str(LIBRARY))
    library.ffem_sources.restype = library.ffem_use_instructions.restype = ctypes.c_char_p
    if (digest := compute_source_digest()) and library.ffem_sources().decode() != digest:
        raise OSError(f"{LIBRARY.name} was built from other sources")
    if library.ffem_use_instructions(instructions.encode()) is None:
        raise EngineError(f"FFEM_ENGINE={instructions}: this processor does not have {instructions}")
    return library


def compute_source_digest() -> str:
    """Return a digest of the C++ sources; "" if they are not beside this module."""
    files = sorted((FOLDER / "source").glob("*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16] if files else ""


def describe_engine() -> str:
    """Return the name of the CPU engine, as printed by `ffem --version`."""
    library = load_library()
    if library is None:
        return "plain JAX"
    return f"compiled kernels ({library.ffem_use_instructions(os.environ.get('FFEM_ENGINE', '').encode()).decode()})"
