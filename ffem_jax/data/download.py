"""Downloads a published archive: streamed, with size and SHA-256 checked, and moved into place only when complete.

Hand-written because pooch (1.9) neither resumes nor stops a server that sends too much, and needs tqdm to show
progress.
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
    """An archive: its file name and address, and its expected size and SHA-256 (hexadecimal)."""

    name: str
    url: str
    size_bytes: int
    sha256: str


def download_archive(download: Download, folder: Path) -> Path:
    """Return the archive's path in `folder`, downloading it if missing. Progress goes to standard error, as a bar or a
    line.

    The archive is written as `.part` and renamed once size and checksum agree. If several processes need it, one
    downloads and the others wait.

    Raises:
        DataError: the network, the disk or the check fails; the message says how to fetch the archive manually.
    """
    path = folder / download.name
    advice = f"fetch {download.url} manually and set data.root=DIR to its folder, or to one with the faces"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                part = path.with_name(path.name + ".part")
                _fetch(download, part, advice)
                os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        # The message of an HTTP error gives the status; other urllib errors only wrap their reason.
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
            # One extra chunk shows that the size is wrong; a faulty server may send forever.
            while size <= download.size_bytes and (chunk := response.read(CHUNK_BYTES)):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress.update(task, advance=len(chunk))
        if size != download.size_bytes:
            found = f"{'over ' if size > download.size_bytes else ''}{size:,}"
            raise DataError(f"{download.name} is {found} bytes and not {download.size_bytes:,}; try again, or {advice}")
        if digest.hexdigest() != download.sha256:
            raise DataError(f"{download.name} does not have the published SHA-256 {download.sha256}; {advice}")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
