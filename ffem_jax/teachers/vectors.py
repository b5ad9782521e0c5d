"""A file of vectors, by whatever framework: `.npz` with `paths` and `vectors`.

- `paths` [image]: text, `person/file.jpg`, the image's path below the data set's folder, with `/` on every system.
- `vectors` [image, feature]: floats of any precision, of any length.
- `about`, if it is there: JSON as text, an object with whatever is to be known of the teacher (name, source, licence).
- `contents` [image], if it is there: text, a hash of the pixels of each image that the teacher saw, which `ffem teach`
  writes: vectors of images that have changed since are refused.

Images that the data set does not have may stand in it; none that the data set has may be missing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.teachers import TeacherError, TeacherVectors, list_first
from ffem_jax.text.names import find_name, index_names

LAYOUT = "it must be a .npz with `paths` [image] and `vectors` [image, feature]; see docs/teacher.md"


def read_vectors(path: Path) -> TeacherVectors:
    """Read a file of vectors.

    Raises:
        TeacherError: where it is missing, is something else, or says two things of one image.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = tuple(str(name).replace("\\", "/") for name in file["paths"])
            vectors = np.asarray(file["vectors"], np.float32)
            about = json.loads(str(file["about"])) if "about" in file else {}
            contents = tuple(map(str, file["contents"])) if "contents" in file else ()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TeacherError(f"teacher.path={path} cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TeacherError(f"teacher.path={path} is no file of vectors ({error}); {LAYOUT}") from None
    lengths = {len(names), len(vectors), len(contents or names)}
    if vectors.ndim != 2 or len(lengths) > 1 or not isinstance(about, dict):
        raise TeacherError(f"teacher.path={path} has {len(names):,} paths and vectors {vectors.shape}; {LAYOUT}")
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not np.array_equal(vectors[first.setdefault(name, row)], vectors[row], equal_nan=True):
            raise TeacherError(f"teacher.path={path} has two different vectors of {name}; leave one")
    return TeacherVectors(names, vectors, {"name": path.stem, **about, "sha256": digest}, contents)


def write_vectors(
    path: Path, names: Sequence[str], vectors: np.ndarray, about: Mapping[str, Any], contents: Sequence[str] = ()
) -> None:
    """Write a file of vectors.

    Args:
        names: [image]. vectors: [image, feature], written in float32.
        contents: [image], hashes as `Faces.content` has them; none leaves them out.

    Raises:
        OSError: where it cannot be written.
    """
    seen: dict[str, Any] = {"contents": np.array(contents)} if contents else {}
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez_compressed(
            file,
            paths=np.array(names),
            vectors=np.asarray(vectors, np.float32),
            about=np.array(json.dumps(dict(about))),
            **seen,
        )
    part.replace(path)


def join_vectors(found: TeacherVectors, names: Sequence[str], contents: Sequence[str] = ()) -> tuple[np.ndarray, bool]:
    """The vectors of the images `names`, in their order.

    Args:
        names: [image]. contents: [image], hashes as `Faces.content` has them.

    Returns:
        (vectors [image, feature], copies): copies is whether the teacher saw every one of them otherwise, such as at
        another size: then names alone say whose vectors these are.

    Raises:
        TeacherError: saying how many images have none, or are others than the teacher saw, and which first.
    """
    index = index_names(found.names)
    places = [find_name(name, index) for name in names]
    missing = [row for row, place in enumerate(places) if place is None]
    if missing:
        raise TeacherError(
            f"the teacher's file has no vector for {len(missing):,} of {len(names):,} images, "
            f"{list_first(names, missing)}; write it again with ffem teach"
        )
    rows = np.asarray(places, np.int64)
    if not (found.contents and contents):
        return found.vectors[rows], False
    changed = np.flatnonzero(np.asarray(found.contents)[rows] != np.asarray(contents))
    # Copies are all of other pixels. Images that the teacher saw under other names have been exchanged.
    if len(changed) and (len(changed) < len(names) or set(found.contents) & set(contents)):
        raise TeacherError(
            f"{len(changed):,} of {len(names):,} images are others than the teacher saw, "
            f"{list_first(names, changed.tolist())}; write its vectors again with ffem teach"
        )
    return found.vectors[rows], len(changed) > 0
