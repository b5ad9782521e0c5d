"""The faces of something that was trained or recorded, loaded again: the same, or an error that says what changed.

A folder is edited, a path means another folder elsewhere: faces under the same name need not be the same faces. What
reads a trial's faces again asks here, and never computes an accuracy or a threshold of others.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ffem_jax.data import DataError, Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.specs.trial import DataSpec, ProtocolSpec


class FacesChangedError(DataError):
    """Faces that are not those asked for. The message is one line and says what changed."""


@dataclass(frozen=True)
class KnownFaces:
    """What is known of faces that were seen before: `identify_faces` of them, and how many; empty where not known."""

    fingerprint: str = ""
    images: int = 0
    people: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `KnownFaces(**row)` reads it back."""
        return dataclasses.asdict(self)


UNKNOWN_FACES = KnownFaces()


def identify_faces(faces: Faces, split: Split) -> str:
    """What a trial's key hashes of its faces: their pixels, labels and order, and who trains where that follows from
    neither these nor the protocol."""
    return faces.fingerprint + split.digest


def describe_faces(faces: Faces, split: Split) -> KnownFaces:
    """What is to be kept of faces, to know them again."""
    return KnownFaces(identify_faces(faces, split), len(faces.images), len(faces.people))


def load_known_split(
    data: DataSpec, protocol: ProtocolSpec, known: KnownFaces, whose: str, data_root: str = ""
) -> tuple[Faces, Split]:
    """The faces of `data` and their split, found to be the `known` ones.

    whose: what they were for ("trained the network"), for the message. data_root: where they lie now, where that is
    not where `data` says. Raises FacesChangedError where they are others and DataError where there are none.
    """
    data = dataclasses.replace(data, root=data_root) if data_root else data
    faces, split = load_split(data, protocol)
    if identify_faces(faces, split) != known.fingerprint:
        raise FacesChangedError(describe_change(data, faces, known, whose))
    return faces, split


def describe_change(data: DataSpec, faces: Faces, known: KnownFaces, whose: str) -> str:
    """In one line, how the faces at hand differ from the `known` ones."""
    now = f"{len(faces.images):,} images of {len(faces.people):,} people"
    if not known.images:
        change = f"there are {now} now, and how many there were is not recorded"
    elif (known.images, known.people) == (len(faces.images), len(faces.people)):
        change = f"there are {now} as before, but other pictures, other labels or another order"
    else:
        change = f"there are {now} now, and there were {known.images:,} of {known.people:,}"
    place = f"data={data.name}" + (f" in {data.root}" if data.root else "")
    return f"the faces of {place} are not those that {whose}: {change}; name the folder as it was with --data-root DIR"
