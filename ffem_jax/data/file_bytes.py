"""Reads a file on a disk that may disappear: by position, without memory mapping."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ffem_jax.data import DataError

# Bytes searched at a time.
BLOCK_BYTES = 1 << 22


class FileBytes:
    """The bytes of a file by position, read on demand.

    If the disk disappears it raises OSError, and if the file shrinks it returns fewer bytes; a memory map would kill
    the process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the source that holds it)
        self._size = os.fstat(self._file.fileno()).st_size

    def __reduce__(self) -> tuple[Any, ...]:
        return FileBytes, (self._path,)  # another process opens it again

    def __len__(self) -> int:
        """The file's size when it was opened."""
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        return os.pread(self._file.fileno(), max(stop - start, 0), start)

    def find(self, sought: bytes, start: int) -> int:
        """Return the next position of `sought` from `start` on, or -1."""
        while start < self._size:
            block = self[start : start + BLOCK_BYTES]
            if (place := block.find(sought)) >= 0:
                return start + place
            # Blocks overlap, to find matches across their border.
            start += max(len(block) - len(sought) + 1, 1) if block else self._size
        return -1


def open_bytes(path: Path) -> FileBytes:
    """Open the bytes of `path`. Raises DataError if it is unreadable or empty."""
    try:
        data = FileBytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None
    if not len(data):
        raise DataError(f"{path} is empty; copy it again")
    return data
