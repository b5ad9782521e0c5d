"""How many images the memory that is free can hold."""

from __future__ import annotations

import re
from pathlib import Path

from ffem_jax.data import DataError

# Of the machine's free memory: the rest is for the copy that trains and for the network.
MEMORY_SHARE = 0.8


class TooLargeError(DataError):
    """Images that do not fit in the free memory. The message is one line and says what to do."""


def check_memory(images: int, resolution: int) -> None:
    """Raise TooLargeError where so many images of `resolution` pixels per side do not fit into the free memory."""
    free, needed = find_free_memory(), images * resolution * resolution * 3
    if free is not None and needed > MEMORY_SHARE * free:
        raise TooLargeError(
            f"{images:,} images of {resolution} x {resolution} pixels take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} "
            "GB of memory are free; take fewer people (data.people), fewer images of each (data.max_images) or a "
            "smaller data.resolution"
        )


def find_free_memory() -> int | None:
    """Bytes that this machine can still give out, or None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
