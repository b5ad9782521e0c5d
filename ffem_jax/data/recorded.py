"""Reloads the faces of a trained or recorded trial: the same faces, or an error that says what changed.

A folder may be edited, and a path may mean another folder elsewhere. Everything that reads a trial's faces again loads
them here, so that no accuracy or threshold is computed on different faces.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ffem_jax.data import DataError, Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.specs.trial import DataSpec, ProtocolSpec


class FacesChangedError(DataError):
    """The faces differ from the requested ones. The message is one line and says what changed."""


@dataclass(frozen=True)
class KnownFaces:
    """The identity of earlier faces: their `identify_faces` and their number; empty if unknown."""

    fingerprint: str = ""
    images: int = 0
    people: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON; `KnownFaces(**row)` restores it."""
        return dataclasses.asdict(self)


UNKNOWN_FACES = KnownFaces()


def identify_faces(faces: Faces, split: Split) -> str:
    """Return the part of a trial's key that identifies its faces: pixels, labels and order, and the training people if
    they do not follow from these and the protocol."""
    return faces.fingerprint + split.digest


def describe_faces(faces: Faces, split: Split) -> KnownFaces:
    """Return the identity of faces, to recognise them later."""
    return KnownFaces(identify_faces(faces, split), len(faces.images), len(faces.people))


def load_known_split(
    data: DataSpec, protocol: ProtocolSpec, known: KnownFaces, whose: str, data_root: str = ""
) -> tuple[Faces, Split]:
    """Load the faces of `data` and their split, and check that they are the `known` ones.

    whose: their use ("trained the network"), for the message. data_root: their current location, if it differs from
    that in `data`. Raises FacesChangedError if they differ and DataError if there are none.
    """
    data = dataclasses.replace(data, root=data_root) if data_root else data
    faces, split = load_split(data, protocol)
    if identify_faces(faces, split) != known.fingerprint:
        raise FacesChangedError(describe_change(data, faces, known, whose))
    return faces, split


def describe_change(data: DataSpec, faces: Faces, known: KnownFaces, whose: str) -> str:
    """Describe in one line how the current faces differ from the `known` ones."""
    now = f"{len(faces.images):,} images of {len(faces.people):,} people"
    if not known.images:
        change = f"there are {now} now, and their earlier number is not recorded"
    elif (known.images, known.people) == (len(faces.images), len(faces.people)):
        change = f"there are {now} as before, but images, labels or their order have changed"
    else:
        change = f"there are {now} now, but there were {known.images:,} of {known.people:,}"
    place = f"data={data.name}" + (f" in {data.root}" if data.root else "")
    return f"the faces of {place} are not those that {whose}: {change}; give the original folder with --data-root DIR"
