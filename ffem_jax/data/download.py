"""One published archive from the network: streamed, its size and SHA-256 checked, whole or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from ffem_jax.data import DataError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Download:
    """An archive and what it must be: file name, address, size and SHA-256 (hexadecimal)."""

    name: str
    url: str
    size_bytes: int
    sha256: str


def download_archive(download: Download, folder: Path) -> Path:
    """The archive's path in `folder`, fetched unless it is there. Draws a progress bar on standard error.

    It arrives as `.part` and gets its name only once size and checksum agree. Of several processes one fetches
    and the others wait. Raises DataError where the network, the disk or the check fails.
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
        # Of an HTTP error its own text names the status; of any other the reason is all there is to say.
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
            tqdm(total=download.size_bytes, desc=download.name, unit="B", unit_scale=True) as bar,
        ):
            # One chunk more than there should be is enough to know, whatever a wrong server goes on to send.
            while size <= download.size_bytes and (chunk := response.read(CHUNK_BYTES)):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                bar.update(len(chunk))
        if size != download.size_bytes:
            found = f"{'over ' if size > download.size_bytes else ''}{size:,}"
            raise DataError(f"{download.name} is {found} bytes and not {download.size_bytes:,}; try again, or {advice}")
        if digest.hexdigest() != download.sha256:
            raise DataError(f"{download.name} has another SHA-256 than the published {download.sha256}; {advice}")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
