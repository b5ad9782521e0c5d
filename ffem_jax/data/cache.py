"""A disk cache of decoded faces: read back in a fraction of a second, rebuilt if anything changed or is corrupt.

A file is identified by path, size, modification time, inode and change time. The last two cannot be set: an image that
replaces another has a different inode, and an overwritten one a different change time, whatever its modification time.
The price is that a copied folder, or a network share that renumbers its files, is decoded once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import platformdirs
from filelock import FileLock
from PIL import features

from ffem_jax.data import Faces
from ffem_jax.specs.trial import DataSpec

# Increment whenever the same source would decode to other arrays.
CACHE_VERSION = 2

# Decoders may lack a format, and their versions are independent of Pillow's.
CODECS = ("jpg", "libjpeg_turbo", "webp", "zlib")

# The coarsest clock tick of file systems; two writes within one tick get the same time.
TICK_S = 0.02

CHANGED = "files changed while they were read; load them again when nothing writes to them"

# Faces kept in memory by this process, by their cache file's path, which encodes the state of their source: those of a
# trial and of its pretraining.
RECENT = 2
_recent: OrderedDict[Path, Faces] = OrderedDict()

# The fields of Faces stored as JSON; arrays are stored unchanged.
TEXTS = ("people", "names", "content", "variant", "synthetic", "notes")


def find_cache_folder(spec: DataSpec) -> Path:
    """Return `spec.cache_dir`, else FFEM_CACHE_DIR, else the user's cache folder; it need not exist."""
    named = spec.cache_dir or os.environ.get("FFEM_CACHE_DIR", "")
    return Path(os.path.expanduser(named)) if named else Path(platformdirs.user_cache_dir("ffem_jax"))


def make_cache_folder(spec: DataSpec) -> Path:
    """Create the cache folder and check that it is writable.

    Raises:
        OSError: it is not writable.
    """
    folder = find_cache_folder(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def load_cached(spec: DataSpec, read_source: Callable[[], Any], decode: Callable[[], Faces]) -> Faces:
    """Return the faces of `decode()`, from the cache if possible; their attributes are not cached.

    A corrupt cache file is rebuilt. If the cache folder is not writable, the faces are decoded anyway and a note says
    so; if a file could not be read, or changed meanwhile, nothing is cached. If several processes request the same
    faces, one decodes and the others wait. A process keeps the last few sets in memory while their source is unchanged:
    the trials of a sweep share them.

    Args:
        spec: data set, selection and resolution.
        read_source: returns a JSON-compatible value that identifies the state of the source (`stat_files`).
        decode: reads the source itself.
    """
    source = read_source()
    path = find_cache_folder(spec) / f"{spec.name}-{_hash_key(spec, source)}.npz"
    if path not in _recent:
        faces = _read_faces(path) or _make_faces(spec, path, source, read_source, decode)
        if faces.unread or CHANGED in faces.notes:
            return faces
        _recent[path] = faces
        while len(_recent) > RECENT:
            _recent.popitem(last=False)
    _recent.move_to_end(path)
    return _recent[path]


def _make_faces(
    spec: DataSpec, path: Path, source: Any, read_source: Callable[[], Any], decode: Callable[[], Faces]
) -> Faces:
    """Decode the contents of the cache file `path`, and write it."""
    with contextlib.ExitStack() as stack:
        try:
            make_cache_folder(spec)
            stack.enter_context(FileLock(f"{path}.lock"))
        except OSError as error:
            return _add_note(decode(), _describe_unwritable(path.parent, error))
        faces = _read_faces(path)  # another process may have made it while this one waited
        if faces is None:
            faces = decode()
            if read_source() != source:
                return _add_note(faces, CHANGED)
            if faces.unread:
                return faces
            try:
                _write_faces(path, faces)
            except OSError as error:
                return _add_note(faces, _describe_unwritable(path.parent, error))
        return faces


def stat_files(paths: Iterable[Path]) -> list[tuple[str, int, int, int, int]]:
    """Describe the state of files: equal lists mean equal contents.

    Waits for one clock tick if a file has just been written, so that any later write gets a later time.

    Returns:
        (path, bytes, modification time, change time, inode) of each file, times in ns. All numbers are 0 for an
        inaccessible file.
    """
    rows = []
    newest = 0
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            rows.append((str(path), 0, 0, 0, 0))
            continue
        rows.append((str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
        newest = max(newest, status.st_ctime_ns)
    if abs(time.time_ns() - newest) < TICK_S * 1e9:
        time.sleep(TICK_S)
    return rows


def hash_text(value: Any) -> str:
    """Hash any JSON value to 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _hash_key(spec: DataSpec, source: Any) -> str:
    decides = [
        CACHE_VERSION,
        PIL.__version__,  # its decoders and its resampling make the pixels
        [features.version(codec) for codec in CODECS],
        [spec.name, spec.resolution, spec.people, spec.min_images, spec.max_images, spec.crop, spec.fit],
        source,
        *([spec.unlabelled] if spec.unlabelled else []),  # keeps earlier caches valid
    ]
    return hash_text(decides)


def _describe_unwritable(folder: Path, error: OSError) -> str:
    return (
        f"cache folder {folder} cannot be written ({error.strerror or error}): faces are decoded again each time; "
        "set data.cache_dir or FFEM_CACHE_DIR"
    )


def _add_note(faces: Faces, note: str) -> Faces:
    return dataclasses.replace(faces, notes=(*faces.notes, note))


def _write_faces(path: Path, faces: Faces) -> None:
    """Write to a temporary file beside `path` and rename, so that no reader sees an incomplete file."""
    texts = json.dumps({name: getattr(faces, name) for name in TEXTS})
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, images=faces.images, labels=faces.labels, texts=np.array(texts))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_faces(path: Path) -> Faces | None:
    """Read the faces written by `_write_faces`; None if the file is missing or corrupt (zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            texts = json.loads(str(file["texts"]))
            return Faces(
                images=file["images"],
                labels=file["labels"],
                people=tuple(texts["people"]),
                names=tuple(texts["names"]),
                content=tuple(texts["content"]),
                variant=texts["variant"],
                synthetic=texts["synthetic"],
                notes=tuple(texts["notes"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
