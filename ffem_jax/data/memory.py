"""How many images the memory that is free can hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffem_jax.data import DataError

# Of the machine's free memory: the rest is for the copy that trains and for the network.
MEMORY_SHARE = 0.8

# Of control groups, version 1 and 2: the files with the limit and with what is used, and what of it can be dropped.
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2 = "memory.max", "memory.current", "inactive_file"


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


def find_free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still get, or None where the system does not say.

    A container, or a job of Slurm's, may have less than the machine: what is over its limit is killed without a word.

    Args:
        root: below which `proc` and `sys` lie.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    known = [int(found[1]) * 1024] if found else []
    return min([*known, *_list_group_rooms(root)], default=None)


def _list_group_rooms(root: Path) -> Iterator[int]:
    """Bytes left in each control group with a limit that this process is in; files that can be dropped do not count."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, used, dropped = V1 if controllers else V2
        # In a container the path may be the host's, and the group is then at the top.
        for group in [top, *(top / part for part in _list_prefixes(path))]:
            if (most := _read(group / limit).strip()).isdigit() and (now := _read(group / used).strip()).isdigit():
                files = re.search(rf"^{dropped} (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
                yield max(int(most) - int(now) + (int(files[1]) if files else 0), 0)


def _list_prefixes(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
