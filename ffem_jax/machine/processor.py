"""Which processor this is: its name, and how it multiplies integers, which decides what an int8 file computes on it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

# What decides how runtimes multiply integers, by the names that Linux gives it.
VNNI = ("amx_int8", "avx512_vnni", "avx_vnni")
OTHER_FLAGS = {"avx512bw": "AVX-512", "avx2": "AVX2", "i8mm": "I8MM", "asimddp": "dot products"}


def find_processor() -> str:
    """The processor's name, which does not name the machine, or else its architecture."""
    return next(iter(_read("model name")), platform.machine())


def describe_processor() -> str:
    """This machine's architecture and how it multiplies integers, where the system says so; no name of a model."""
    flags = next(iter(_read("flags", "Features")), "").split()
    return describe_flags(platform.machine().replace("x86_64", "x86-64"), flags)


def describe_flags(architecture: str, own: Sequence[str]) -> str:
    """An architecture and what of VNNI and OTHER_FLAGS the flags `own` have."""
    vnni = [flag for flag in VNNI if flag in own]
    if vnni:
        return f"{architecture} with VNNI ({', '.join(vnni)})"
    found = [name for flag, name in OTHER_FLAGS.items() if flag in own]
    without = ", without VNNI" if architecture == "x86-64" else ""
    return f"{architecture} with {found[0]}{without}" if found else architecture


def _read(*names: str) -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(names)]
