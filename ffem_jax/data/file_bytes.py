"""The bytes of a file on a disk that may go away: read by position, and never mapped to memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ffem_jax.data import DataError

# As many bytes of a file are searched at a time.
BLOCK_BYTES = 1 << 22


class FileBytes:
    """The bytes of a file by position, read when they are asked for.

    Where the disk goes away it raises OSError and where the file shrinks it gives fewer bytes; memory that is mapped to
    a file would end the process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the source that holds it)
        self._size = os.fstat(self._file.fileno()).st_size

    def __reduce__(self) -> tuple[Any, ...]:
        return FileBytes, (self._path,)  # another process opens it anew

    def __len__(self) -> int:
        """The file's size when it was opened."""
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        return os.pread(self._file.fileno(), max(stop - start, 0), start)

    def find(self, sought: bytes, start: int) -> int:
        """Where `sought` stands next from `start` on, or -1."""
        while start < self._size:
            block = self[start : start + BLOCK_BYTES]
            if (place := block.find(sought)) >= 0:
                return start + place
            # Blocks overlap, for what lies across their border.
            start += max(len(block) - len(sought) + 1, 1) if block else self._size
        return -1


def open_bytes(path: Path) -> FileBytes:
    """The bytes of `path`. Raises DataError where it cannot be opened or is empty."""
    try:
        data = FileBytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from None
    if not len(data):
        raise DataError(f"{path} is empty; copy it here again")
    return data
