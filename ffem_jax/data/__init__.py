"""Faces as arrays: `load_faces(spec)` for every data set, by name."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ffem_jax.errors import FfemError
from ffem_jax.specs.data import DATA_SETS, DataSpec
from ffem_jax.specs.registry import resolve


class DataError(FfemError):
    """An unusable data set. The message is one line and says what to do."""


@dataclass(frozen=True)
class Faces:
    """A data set, decoded and cropped. Its arrays are read-only, so that its fingerprint stays valid.

    images: uint8 [image, row, column, 3], `resolution` pixels per side.
    labels: int32 [image], an index into `people`; each person has at least one image.
    people: normalised names (`names.tidy_name`), unique, in order of their folders.
    names: a path or an identifier per image, unique, in order.
    content: a hash per image of its source (the same content, the same hash), so that protocols keep duplicates on one
        side.
    attributes: an array [image] per known attribute (`eyeglasses_probability`: float, NaN unknown).
    variant: the edition of the data set; empty if there is only one.
    synthetic: whether the faces are synthetic.
    notes: one line per thing left out or repaired, to be shown to the user.
    unread: names of files that could not be read this time; they must not count as deleted.
    """

    images: np.ndarray
    labels: np.ndarray
    people: tuple[str, ...]
    names: tuple[str, ...]
    content: tuple[str, ...]
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    variant: str = ""
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _freeze(self.images))
        object.__setattr__(self, "labels", _freeze(self.labels))
        frozen = {name: _freeze(values) for name, values in self.attributes.items()}
        object.__setattr__(self, "attributes", frozen)

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuild copies and unpickled faces: their arrays would be writable while the fingerprint is kept.
        return Faces, tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of pixels, labels and their order, which a result depends on; 16 hexadecimal digits."""
        digest = _hash_pixels(self.images)
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int32).data)
        return digest.hexdigest()[:16]

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        """Hash of `content`, labels and their order; 16 hexadecimal digits. It is equal for one selection of images at
        any crop and resolution; synthetic faces, which are drawn separately at each resolution, have one per
        resolution."""
        digest = hashlib.sha256("\n".join(self.content).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int32).data)
        return digest.hexdigest()[:16]


def _freeze(array: np.ndarray) -> np.ndarray:
    """Return `array` as read-only; a view is copied, since its base may be written to."""
    array = np.asarray(array)
    frozen = array if array.flags.owndata else array.copy()
    frozen.flags.writeable = False
    return frozen


# Cached by identity of the read-only array: hashing the pixels of a large set takes a second, and every trial of a
# sweep needs it, for Faces objects that share the pixels.
_pixel_digests: dict[int, tuple[weakref.ref[np.ndarray], Any]] = {}


def _hash_pixels(images: np.ndarray) -> Any:
    """SHA-256 of shape and pixels, to be updated further."""
    place = id(images)
    known = _pixel_digests.get(place)
    if known is None or known[0]() is not images:
        digest = hashlib.sha256(repr(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
        known = weakref.ref(images, lambda _: _pixel_digests.pop(place, None)), digest
        _pixel_digests[place] = known
    return known[1].copy()


def load_faces(spec: DataSpec) -> Faces:
    """Load the data set `spec.name`.

    Raises:
        DataError: the folder does not exist, there is nothing to load or fewer than two people, or the data set
            violates the contract of `Faces`.
    """
    faces = resolve(DATA_SETS[spec.name].load)(spec)
    fault = find_fault(faces, spec)
    if fault:
        raise DataError(f"data={spec.name} cannot be used: {fault}")
    if spec.unlabelled and spec.unlabelled not in faces.people:
        close = difflib.get_close_matches(spec.unlabelled, faces.people, n=1)
        raise DataError(
            f"data.unlabelled={spec.unlabelled} is not one of the {len(faces.people):,} folders of data={spec.name}"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    if len(faces.people) < spec.least_people:
        raise DataError(
            f"data={spec.name} has {len(faces.people)} person with at least {spec.min_images} images; two are needed"
        )
    return faces


def find_fault(faces: Any, spec: DataSpec) -> str:
    """Describe in one line how `faces` violates the contract of `Faces`; empty if it does not."""
    if not isinstance(faces, Faces):
        return f"it returns {type(faces).__name__} and not ffem_jax.data.Faces"
    count, wanted = len(faces.images), (len(faces.images), spec.resolution, spec.resolution, 3)
    if (faces.images.dtype, faces.images.shape) != (np.uint8, wanted):
        return f"its images are {faces.images.dtype}{list(faces.images.shape)} and not uint8{list(wanted)}"
    if faces.labels.shape != (count,) or not np.issubdtype(faces.labels.dtype, np.integer):
        return f"its labels are {faces.labels.dtype}{list(faces.labels.shape)} and not int32[{count}]"
    if not np.array_equal(np.unique(faces.labels), np.arange(len(faces.people))):
        return f"its labels are not 0 to {len(faces.people) - 1}, with an image of each of its people"
    lengths = {"names": len(faces.names), "content": len(faces.content)}
    lengths |= {f"attributes[{name!r}]": len(values) for name, values in faces.attributes.items()}
    for name, length in lengths.items():
        if length != count:
            return f"there are {length} {name} of {count} images"
    for called, values in (("people", faces.people), ("names", faces.names)):
        if len(set(values)) != len(values):
            twice = next(name for name, times in Counter(values).items() if times > 1)
            return f"its {called} are not unique, such as {twice}"
    return ""
