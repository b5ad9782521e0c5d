"""Checks how many images fit in free memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffem_jax.data import DataError

# Share of free memory: the rest is for the copy used in training and for the network.
MEMORY_SHARE = 0.8

# For control groups, versions 1 and 2: the files with the limit and the usage, and the reclaimable part of the usage.
V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2 = "memory.max", "memory.current", "inactive_file"


class TooLargeError(DataError):
    """The images do not fit in free memory. The message is one line and says what to do."""


def check_memory(images: int, resolution: int) -> None:
    """Raise TooLargeError if `images` of `resolution` pixels per side do not fit in free memory."""
    free, needed = find_free_memory(), images * resolution * resolution * 3
    if free is not None and needed > MEMORY_SHARE * free:
        raise TooLargeError(
            f"{images:,} images of {resolution} x {resolution} pixels need {needed / 1e9:.1f} GB, but {free / 1e9:.1f} "
            "GB of memory are free; use fewer people (data.people), fewer images per person (data.max_images) or a "
            "smaller data.resolution"
        )


def find_free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process can still allocate, or None if the system does not report it.

    A container or a Slurm job may have less than the machine: a process over its limit is killed without a message.

    Args:
        root: the parent folder of `proc` and `sys`.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    known = [int(found[1]) * 1024] if found else []
    return min([*known, *_list_group_rooms(root)], default=None)


def _list_group_rooms(root: Path) -> Iterator[int]:
    """Yield the bytes left in each limited control group of this process; reclaimable file cache does not count."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, used, dropped = V1 if controllers else V2
        # In a container the path may be the host's; the group is then at the root.
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
