"""Decoded faces on disk: read back in a fraction of a second, made again where anything changed or broke."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import platformdirs
from filelock import FileLock

from ffem_jax.data import Faces
from ffem_jax.spec import DataSpec

# Raised whenever the same source would decode to other arrays.
CACHE_VERSION = 1

# What of Faces goes to JSON; the arrays are kept as they are.
TEXTS = ("people", "names", "content", "variant", "synthetic", "notes")


def find_cache_folder(spec: DataSpec) -> Path:
    """`spec.cache_dir`, else the environment's FFEM_CACHE_DIR, else the user's cache folder; it need not exist."""
    named = spec.cache_dir or os.environ.get("FFEM_CACHE_DIR", "")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("ffem_jax"))


def make_cache_folder(spec: DataSpec) -> Path:
    """The cache folder, made and found writable. Raises OSError where it is not."""
    folder = find_cache_folder(spec)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


def load_cached(spec: DataSpec, source: Any, decode: Callable[[], Faces]) -> Faces:
    """The faces that `decode()` gives, from the cache where it has them.

    source: whatever tells one state of the source from another (paths, sizes, times), as JSON takes it.
    A damaged cache file is made again. Where the cache folder cannot be written the faces are decoded all the
    same and a note says so. Of several processes that ask for the same faces one decodes and the others wait.
    """
    path = find_cache_folder(spec) / f"{spec.name}-{_hash_key(spec, source)}.npz"
    faces = _read_faces(path)
    if faces is not None:
        return faces
    with contextlib.ExitStack() as stack:
        try:
            make_cache_folder(spec)
            stack.enter_context(FileLock(f"{path}.lock"))
        except OSError as error:
            return _add_note(decode(), _describe_unwritable(path.parent, error))
        faces = _read_faces(path)  # another process may have made it while this one waited
        if faces is None:
            faces = decode()
            try:
                _write_faces(path, faces)
            except OSError as error:
                return _add_note(faces, _describe_unwritable(path.parent, error))
        return faces


def stat_files(paths: list[Path]) -> list[tuple[str, int, int]]:
    """(path, bytes, modification time in ns) of the files that exist: two equal lists, the same contents."""
    rows = []
    for path in paths:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        rows.append((str(path), status.st_size, status.st_mtime_ns))
    return rows


def hash_text(value: Any) -> str:
    """16 hexadecimal digits over anything that JSON takes."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _hash_key(spec: DataSpec, source: Any) -> str:
    decides = [
        CACHE_VERSION,
        PIL.__version__,  # its decoders and its resampling make the pixels
        [spec.name, spec.resolution, spec.people, spec.min_images, spec.max_images, spec.crop],
        source,
    ]
    return hash_text(decides)


def _describe_unwritable(folder: Path, error: OSError) -> str:
    return (
        f"cache folder {folder} cannot be written ({error.strerror or error}): faces are decoded anew each time; "
        "set data.cache_dir or FFEM_CACHE_DIR"
    )


def _add_note(faces: Faces, note: str) -> Faces:
    return dataclasses.replace(faces, notes=(*faces.notes, note))


def _write_faces(path: Path, faces: Faces) -> None:
    """Write to a temporary file beside `path` and rename, so that no reader ever sees half a file."""
    texts = {name: getattr(faces, name) for name in TEXTS} | {"attributes": list(faces.attributes)}
    arrays: dict[str, Any] = {"images": faces.images, "labels": faces.labels, "texts": np.array(json.dumps(texts))}
    arrays |= {f"attribute_{index}": array for index, array in enumerate(faces.attributes.values())}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read_faces(path: Path) -> Faces | None:
    """The faces that `_write_faces` wrote, or None where there is no file or it is damaged (zip has checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            texts = json.loads(str(file["texts"]))
            attributes = {name: file[f"attribute_{index}"] for index, name in enumerate(texts["attributes"])}
            return Faces(
                images=file["images"],
                labels=file["labels"],
                people=tuple(texts["people"]),
                names=tuple(texts["names"]),
                content=tuple(texts["content"]),
                attributes=attributes,
                variant=texts["variant"],
                synthetic=texts["synthetic"],
                notes=tuple(texts["notes"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
