"""Compiles the kernels when the package is built or installed; without a C++ compiler the build continues without them.

XLA passes a few structs to each function. call_interface.h declares them, and a test compares it with JAX's own header:
a build environment with jaxlib would be a 100 MB download. Compiling at first use instead would leave wheels without a
library. One library serves every Python version, since it links only to the system.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The tests treat warnings as errors; here a future compiler may warn about more.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden")
# Vectors of the processor's native width are passed only between inlined functions, so their calling convention does
# not matter. The compiler may evaluate comparisons for both sides of a condition.
LOOP_FLAGS = ("-Wno-psabi", "-fno-trapping-math", "-fno-math-errno")
# The table of loops, the floats per vector, the instruction set's name in FFEM_ENGINE, and the compiler flags for it.
BASELINE = ("kBaseline", 4, "baseline", ())
X86 = (
    ("kAvx2", 8, "avx2", ("-mavx2", "-mfma")),
    ("kAvx512", 16, "avx512", ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mavx2", "-mfma")),
)


class KernelsHook(BuildHookInterface):
    """Puts libffem_kernels.so into the wheel, or beside the sources in an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tag the wheel for this platform and any Python 3, since nothing links to Python."""
        if self.target_name != "wheel":
            return
        library = Path(self.root, "ffem_jax", "kernels", "libffem_kernels.so")
        problem = compile_library(library.parent / "source", library)
        if problem:
            self.app.display_warning(f"ffem_jax is installed without its compiled kernels: {problem}")
            return
        build_data["artifacts"].append("ffem_jax/kernels/libffem_kernels.so")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def compile_library(source: Path, library: Path) -> str:
    """Compile `source` into `library`; return "" on success, or one line that says why it failed."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.glob("*")))).hexdigest()[:16]
    if is_up_to_date(library, digest):
        return ""
    if sys.platform != "linux":
        return f"they are built only on Linux, and this is {sys.platform}"
    compiler = find_compiler()
    if not compiler:
        return "no C++ compiler (c++, g++ or clang++; CXX names another)"
    is_x86 = platform.machine() in ("x86_64", "AMD64") and sys.maxsize > 2**32
    defines = ("-DFFEM_X86",) if is_x86 else ()
    with tempfile.TemporaryDirectory() as folder:
        commands = [[*compiler, *FLAGS, *defines, f'-DFFEM_SOURCES="{digest}"', "-c", str(source / "handlers.cpp")]]
        for table, width, name, switches in (BASELINE, *(X86 if is_x86 else ())):
            macros = f"-DFFEM_LOOPS={table}", f"-DFFEM_WIDTH={width}", f'-DFFEM_INSTRUCTIONS="{name}"'
            commands.append(
                [*compiler, *FLAGS, *LOOP_FLAGS, *defines, *macros, *switches, "-c", str(source / "loops.cpp")]
            )
        objects = [f"{folder}/{number}.o" for number in range(len(commands))]
        commands = [[*command, "-o", out] for command, out in zip(commands, objects, strict=True)]
        # Linked under a temporary name and moved, so that no process opens an incomplete library.
        linked = f"{library}.{os.getpid()}"
        commands.append([*compiler, "-shared", "-Wl,-z,defs", *objects, "-o", linked])
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            problems = [*threads.map(run, commands[:-1])]
        problem = next(filter(None, problems), "") or run(commands[-1])
        if problem:
            return problem
    os.replace(linked, library)
    return ""


def is_up_to_date(library: Path, digest: str) -> bool:
    """Whether `library` loads here, was built from the sources with `digest`, and is newer than this module."""
    if not library.exists() or library.stat().st_mtime < Path(__file__).stat().st_mtime:
        return False
    # In a separate process: this one would keep the library loaded.
    ask = "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).ffem_sources; f.restype = ctypes.c_char_p; print(f())"
    asked = subprocess.run([sys.executable, "-c", ask, str(library)], capture_output=True, text=True)
    return asked.stdout.strip() == repr(digest.encode())


def run(command: list[str]) -> str:
    """Run a compiler; return "" or its first error."""
    result = subprocess.run(command, capture_output=True, text=True)
    if not result.returncode:
        return ""
    lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
    return f"{command[0]} failed: {(lines or ['no message'])[0].strip()}"


def find_compiler() -> list[str]:
    """Return the command of a C++ compiler, or an empty list."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = next((path for name in (named[:1] or ("c++", "g++", "clang++")) if (path := shutil.which(name))), None)
    return [found, *named[1:]] if found else []
