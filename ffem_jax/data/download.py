"""Downloads one published archive: streamed, its size and SHA-256 checked, whole or not there at all.

Written by hand rather than with pooch, which (1.9) neither resumes nor stops a server that sends more than it should,
and which needs tqdm for its progress.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ffem_jax.data import DataError
from ffem_jax.text.progress import make_progress

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Download:
    """An archive: its file name and address, and the size and SHA-256 (hexadecimal) that it must have."""

    name: str
    url: str
    size_bytes: int
    sha256: str


def download_archive(download: Download, folder: Path) -> Path:
    """The archive's path in `folder`, fetched unless it is there. Standard error gets a progress bar, or one line.

    The archive is written as `.part`, and gets its name only once size and checksum agree. Of several processes, one
    fetches and the others wait.

    Raises:
        DataError: where the network, the disk or the check fails; it says how to fetch the archive by hand.
    """
    path = folder / download.name
    advice = f"fetch {download.url} by hand and set data.root=DIR to its folder, or to one that holds the faces"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                part = path.with_name(path.name + ".part")
                _fetch(download, part, advice)
                os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        # The text of an HTTP error names the status; that of another urllib error only wraps its reason.
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise DataError(f"{download.name} could not be downloaded to {folder} ({reason}); {advice}") from None
    return path


def _fetch(download: Download, part: Path, advice: str) -> None:
    request = urllib.request.Request(download.url, headers={"User-Agent": "ffem-jax"})
    digest = hashlib.sha256()
    size = 0
    try:
        with (
            urllib.request.urlopen(request, timeout=TIMEOUT_S) as response,
            open(part, "wb") as file,
            make_progress("{task.description}", "bar", "bytes", "speed", keep=True) as progress,
        ):
            task = progress.add_task(download.name, total=download.size_bytes)
            # One chunk too many shows that the size is wrong; a wrong server may go on sending for ever.
            while size <= download.size_bytes and (chunk := response.read(CHUNK_BYTES)):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress.update(task, advance=len(chunk))
        if size != download.size_bytes:
            found = f"{'over ' if size > download.size_bytes else ''}{size:,}"
            raise DataError(f"{download.name} is {found} bytes and not {download.size_bytes:,}; try again, or {advice}")
        if digest.hexdigest() != download.sha256:
            raise DataError(f"{download.name} has another SHA-256 than the published {download.sha256}; {advice}")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
