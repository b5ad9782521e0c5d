"""Faces from arrays, written as a folder of people, so that every reader of folders can use them."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ffem_jax.data import DataError
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.folder import list_pictures
from ffem_jax.specs.data import DataSpec
from ffem_jax.text.names import tidy_name

# The smallest side of an image, DataSpec's smallest resolution; anything smaller is probably a row of an image.
SMALLEST, LARGEST = 16, 512
LONGEST_NAME = 255  # bytes, of a folder
# People with fewer images are left out and named; the same value as in conf/data/folder.yaml.
MIN_IMAGES = 4


def faces_from_arrays(
    images: npt.ArrayLike | Sequence[npt.ArrayLike],
    labels: npt.ArrayLike,
    people: Sequence[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    resolution: int | None = None,
    min_images: int = MIN_IMAGES,
) -> DataSpec:
    """Write faces from memory to a folder of PNG files, one folder per person, and return its data spec.

    Pixels are preserved exactly. Arrays that were written before are not written again.

    Args:
        images: uint8 faces, 0 to 255, already cropped to the face: [N, H, W, 3] in RGB, or grey [N, H, W]; or a
            sequence of such images of several sizes.
        labels: the person of each image, [N]: indices into `people`, or names.
        people: the name of each label. None uses the labels as names.
        folder: the output folder. Its path is recorded, for commands that read the trial's faces again. None uses a
            folder in the user's cache (FFEM_CACHE_DIR), named by the content.
        resolution: side length of the network input in pixels; None uses that of the images if they share one.
        min_images: people with fewer images are left out, with a warning when training begins.

    Returns:
        The data set, for `train_network`; `load_faces` reads it. People are ordered by name, not by label.

    Raises:
        DataError: invalid arrays, names that are not valid folder names, or a folder that is not writable or has other
            contents.
    """
    pictures = _check_images(images)
    names = _name_people(labels, people, len(pictures))
    side = _choose_resolution(pictures) if resolution is None else resolution
    files = {f"{name}/{number:06d}-{_hash(picture)}.png": picture
             for number, (name, picture) in enumerate(zip(names, pictures, strict=True))}  # fmt: skip
    if folder is None:
        content = hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
        place = find_cache_folder(DataSpec()) / "arrays" / content
    else:
        place = Path(os.path.expanduser(folder)).absolute()
    data = DataSpec(name="folder", root=str(place), resolution=side, min_images=min_images)
    try:
        if not _holds(place, set(files)):
            _write(place, files)
    except OSError as error:
        raise DataError(f"{place} cannot be written ({error.strerror}); give another folder=DIR") from error
    _check_written(place, names)
    return data


def _check_images(images: npt.ArrayLike | Sequence[npt.ArrayLike]) -> list[np.ndarray]:
    """Return the images as uint8 arrays [H, W, 3] or [H, W]."""
    try:
        pictures = [np.asarray(image) for image in images]  # type: ignore[union-attr]
    except TypeError:
        raise DataError(f"images is {type(images).__name__}; give uint8 arrays [N, H, W, 3] or [N, H, W]") from None
    if not pictures:
        raise DataError("there is no image; give uint8 arrays [N, H, W, 3] or [N, H, W]")
    for number, picture in enumerate(pictures):
        if picture.dtype != np.uint8:
            raise DataError(
                f"image {number} is {picture.dtype}; images must be uint8 from 0 to 255; convert numbers from 0 to 1 "
                "with (images * 255).round().astype('uint8')"
            )
        if picture.ndim == 3 and picture.shape[2] == 1:
            pictures[number] = picture = picture[:, :, 0]
        if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
            raise DataError(f"image {number} has shape {list(picture.shape)}; it must be [H, W, 3] (RGB) or [H, W]")
        if min(picture.shape[:2]) < SMALLEST:
            raise DataError(
                f"image {number} has {picture.shape[0]} x {picture.shape[1]} pixels; a face needs {SMALLEST} x "
                f"{SMALLEST}, and images have the shape [N, H, W, 3] or [N, H, W]"
            )
    if max(int(picture.max()) for picture in pictures) <= 1:
        raise DataError("no pixel of any image is over 1; pixels go from 0 to 255: multiply before the cast to uint8")
    return pictures


def _name_people(labels: npt.ArrayLike, people: Sequence[str] | None, count: int) -> list[str]:
    """Return the name of each image's person, as used for its folder."""
    given = np.asarray(labels)
    if given.shape != (count,):
        raise DataError(f"labels has the shape {list(given.shape)}, and there are {count} images; give one per image")
    if people is None:
        if given.dtype.kind not in "iuU" and not all(isinstance(one, str) for one in given.tolist()):
            raise DataError(f"labels are {given.dtype}; give whole numbers, or people's names")
        width = max(len(str(label)) for label in given.tolist())
        # Sorted by folder, numbers are in order too.
        called = {label: str(label).zfill(width) if given.dtype.kind in "iu" else label for label in given.tolist()}
    else:
        if given.dtype.kind not in "iu":
            raise DataError(
                f"labels are {given.dtype}; together with `people` they must be indices, whole numbers from 0"
            )
        outside = [label for label in given.tolist() if not 0 <= label < len(people)]
        if outside:
            raise DataError(f"label {outside[0]} is not an index into the {len(people)} people; labels start at 0")
        called = dict(enumerate(map(str, people)))
    folders = {label: tidy_name(name) for label, name in called.items()}
    for label, name in folders.items():
        _check_name(name, called[label])
    owners: dict[str, list[str]] = {}
    for label, name in folders.items():
        owners.setdefault(name, []).append(repr(called[label]))
    for twins in owners.values():
        if len(twins) > 1:
            raise DataError(
                f"{len(twins)} people have the same name: {' and '.join(twins)}; give each a different name"
            )
    return [folders[label] for label in given.tolist()]


def _check_name(name: str, given: str) -> None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = LONGEST_NAME + 1
    if not name or name.startswith(".") or {"/", "\0"} & set(name) or length > LONGEST_NAME:
        raise DataError(
            f"{given!r} is not valid as a person's name: it names a folder, so it has 1 to {LONGEST_NAME} bytes, no / "
            "and no leading dot"
        )


def _choose_resolution(pictures: Sequence[np.ndarray]) -> int:
    sides = {side for picture in pictures for side in picture.shape[:2]}
    if len(sides) > 1:
        raise DataError(
            f"the images have sides of {min(sides)} to {max(sides)} pixels; give the resolution of the network "
            "input, such as resolution=96"
        )
    (side,) = sides
    if side > LARGEST:
        raise DataError(f"the images have sides of {side} pixels; give resolution=R of at most {LARGEST}")
    return int(side)


def _hash(picture: np.ndarray) -> str:
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()[:12]


def _holds(place: Path, files: set[str]) -> bool:
    """Return whether `place` contains these files; False if it does not exist. Raises DataError for other contents."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    there = {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}
    if there != files:
        raise DataError(
            f"{place} exists and contains files other than these {len(files)} faces; give another folder=DIR"
        )
    return True


def _write(place: Path, files: dict[str, np.ndarray]) -> None:
    """Write the files beside `place` and rename: an incomplete folder would be a different set of faces."""
    place.parent.mkdir(parents=True, exist_ok=True)
    begun = place.parent / f".{place.name[:100]}.{uuid.uuid4().hex[:8]}"
    begun.mkdir()
    try:
        for name, picture in files.items():
            (begun / name).parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(begun / name)
        try:
            begun.rename(place)
        except OSError:
            if not _holds(place, set(files)):  # another process wrote the same
                raise
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _check_written(place: Path, names: Sequence[str]) -> None:
    """Raise DataError unless the folder keeps all people separate; some file systems merge similar names."""
    found = sorted(picture.person for picture in list_pictures(place, str(place)).pictures)
    if found != sorted(names):
        raise DataError(
            f"{place} cannot keep these people separate: its file system treats some of their names as equal; use "
            "other names, or another folder=DIR"
        )
