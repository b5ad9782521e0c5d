"""Faces as arrays: `load_faces(spec)` for every data set, by name."""

from __future__ import annotations

import functools
import hashlib
import importlib
from dataclasses import dataclass, field

import numpy as np

from ffem_jax.errors import FfemError
from ffem_jax.specs.trial import DataSpec


class DataError(FfemError):
    """A data set that cannot be used. The message is one line and says what to do."""


@dataclass(frozen=True)
class Faces:
    """A data set, decoded and cropped.

    images: uint8 [image, row, column, 3], `resolution` pixels a side.
    labels: int32 [image], an index into `people`.
    people: tidied names (`names.tidy_name`), each once, in order of their folders. names: a path or an identifier for
        each image, in order.
    content: a hash of each image's source (the same content, the same hash), so that protocols keep
        duplicates on one side.
    attributes: an array [image] for each known attribute (`eyeglasses_probability`: float, NaN unknown).
    variant: the edition of the data set, empty where there is one only.
    synthetic: drawn, not photographed.
    notes: one line for each thing left out or repaired, to be shown to the user.
    unread: what could not be read this time and may be there: nobody may take it for deleted.
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

    # Kept: hashing the pixels of a large set takes a second, and every seed of a sweep asks for it.
    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over pixels, labels and their order: what a result depends on."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int32).data)
        return digest.hexdigest()[:16]

    @functools.cached_property
    def pictures_fingerprint(self) -> str:
        """16 hexadecimal digits over `content`, labels and their order: equal for one selection of pictures at any
        crop and resolution. Synthetic faces are drawn anew at each resolution and have one a resolution."""
        digest = hashlib.sha256("\n".join(self.content).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int32).data)
        return digest.hexdigest()[:16]


# Module of each data set; each has `load(spec: DataSpec) -> Faces`.
LOADERS = {
    "lfw": "ffem_jax.data.lfw",
    "lfw52": "ffem_jax.data.lfw",
    "lfw_rest": "ffem_jax.data.lfw",
    "folder": "ffem_jax.data.folder",
    "synthetic": "ffem_jax.data.synthetic",
}


def load_faces(spec: DataSpec) -> Faces:
    """Load the data set `spec.name`.

    Raises DataError with a one-line message where there is nothing to load, nobody to tell
    apart (under two people), or the folder does not exist.
    """
    faces: Faces = importlib.import_module(LOADERS[spec.name]).load(spec)
    if len(faces.people) < 2:
        raise DataError(
            f"data={spec.name} has {len(faces.people)} person with at least {spec.min_images} images; two are needed"
        )
    return faces
