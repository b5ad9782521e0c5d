"""Vectors that a network can learn from: of a file, of an ONNX network, of one of ours.

A teacher's vectors are joined to the images by name, centred and normalised: `Teaching`. Without the mean removed
nothing is learnt where all vectors lie near one direction, as those of dlib's network do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ffem_jax.errors import FfemError

# Images that a message names.
NAMED = 3


class TeacherError(FfemError):
    """A teacher that cannot teach these images. The message is one line and says what to do."""


@dataclass(frozen=True)
class TeacherVectors:
    """What a teacher says.

    vectors: float32 [image, feature]; names: `person/file`, [image]; about: who it is. contents: a hash of each image
    that it saw, as `Faces.content` has it, [image]; empty where the file does not tell.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    about: Mapping[str, Any]
    contents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Teaching:
    """What the images of a data set are taught.

    targets: float32 [image, feature], of unit length, in the order of the faces. mean: float32 [feature], removed
    before. fingerprint: 16 hexadecimal digits over the targets: what a result depends on. about: who the teacher is.
    """

    targets: np.ndarray
    mean: np.ndarray
    fingerprint: str
    about: Mapping[str, Any]


def check_directions(vectors: np.ndarray, names: Sequence[str]) -> None:
    """Raise TeacherError, naming the first images, where a vector [image, feature] is zero or not finite."""
    bad = np.flatnonzero(~(np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1, initial=0) > 0)))
    if bad.size:
        raise TeacherError(
            f"the teacher gives no direction for {bad.size:,} of {len(names):,} images, {list_first(names, bad)}: "
            "their vectors are all zeros or not finite; remove these images, or check the teacher's scale and offset"
        )


def list_first(names: Sequence[str], rows: Sequence[int] | np.ndarray) -> str:
    """The first of `rows`, by name."""
    named = ", ".join(names[row] for row in rows[:NAMED])
    return f"{named} and others" if len(rows) > NAMED else named


def make_teaching(vectors: np.ndarray, names: Sequence[str], train: np.ndarray, about: Mapping[str, Any]) -> Teaching:
    """Centre vectors by the images that train, and normalise them.

    Args:
        vectors: float [image, feature], in the order of the faces.
        names: of the images, for messages.
        train: indices of the images that train: the others have no say in the mean.
        about: who the teacher is, kept in the record.

    Raises:
        TeacherError: where a vector has no direction, or all that train are equal.
    """
    check_directions(vectors, names)
    mean = vectors[train].mean(axis=0, dtype=np.float64)
    centred = vectors.astype(np.float64) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    if not (lengths[train] > 1e-6 * np.linalg.norm(mean)).any():
        raise TeacherError("the teacher gives all images that train the same vector; there is nothing to learn from it")
    targets = (centred / np.maximum(lengths, 1e-12)).astype(np.float32)
    digest = hashlib.sha256(repr(targets.shape).encode())
    digest.update(np.ascontiguousarray(targets).data)
    return Teaching(targets, mean.astype(np.float32), digest.hexdigest()[:16], dict(about))
