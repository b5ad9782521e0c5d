"""Huge pages for the arrays of a training on a CPU.

XLA allocates all of a program's intermediate arrays at once, hundreds of megabytes per call, and touches every page
again in each call. With pages of 2 MB instead of 4 kB a training step takes a fifth less time. If Linux grants huge
pages only on request (`madvise`), glibc requests them if GLIBC_TUNABLES sets it, which is read once, at process start.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

TUNABLES, ASKS = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Restart this process's program once with huge pages, if that makes a difference; else do nothing.

    Call it first in a command's entry point: the restart keeps only the command line and the environment. Child
    processes inherit the setting. If the user sets glibc.malloc.hugetlb to any value, that value stays.
    """
    tunables = os.environ.get(TUNABLES, "")
    if ASKS in tunables or not _must_ask():
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{ASKS}=1")))
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _must_ask() -> bool:
    """Whether this is glibc 2.35 or newer on a Linux that grants huge pages on request."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        is_new = name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
        return is_new and "[madvise]" in SETTING.read_text(encoding="ascii")
    return False
