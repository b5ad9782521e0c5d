"""Anyone's faces: `DIR/person/*.jpg|jpeg|png|pgm|webp`, any size, grey or colour."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.attributes import add_attributes
from ffem_jax.data.cache import load_cached, stat_files
from ffem_jax.data.decode import Picture, decode_faces, look_at
from ffem_jax.data.listing import TABLE_NAME, Listing, list_people
from ffem_jax.data.source import Selection, load_or_stream
from ffem_jax.data.stream import ImageSource, Label
from ffem_jax.specs.trial import DataSpec

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".pgm", ".webp"})
KINDS = "jpg, jpeg, png, pgm or webp"
LAYOUT = "it must hold one folder per person, DIR/person/*.jpg (or jpeg, png, pgm, webp)"


def load(spec: DataSpec) -> Faces:
    """The faces below `spec.root`, with the columns of `attributes.csv` beside the people where there is one.

    Raises DataError for a folder that is missing, holds no person's folder, or leaves fewer than two people.
    """
    faces = load_people(spec, streamed=True)
    if len(faces.people) < spec.least_people:
        reason = f" ({'; '.join(faces.notes)})" if faces.notes else ""
        raise DataError(
            f"data.root={find_root(spec)} has {len(faces.people)} of the at least {spec.least_people} people with "
            f"data.min_images={spec.min_images} readable images{reason}; {LAYOUT}"
        )
    return faces


def load_people(spec: DataSpec, *, streamed: bool = False) -> Faces:
    """As `load`, but one person, or nobody whose pictures can be read, is no error: there is nobody to tell apart.

    streamed: whether pictures that do not fit in memory may stay on the disk (`source.load_or_stream`).
    """
    root = find_root(spec)
    listing = list_pictures(root, f"data.root={root}")
    pictures = [Picture(one.person, one.name, partial(look_at, one.path.read_bytes, spec)) for one in listing.pictures]

    def read_state() -> list[Any]:
        return [str(root), stat_files(one.path for one in listing.pictures)]

    def decode() -> Faces:
        return decode_faces(pictures, len(pictures), spec)

    if streamed:
        faces = load_or_stream(
            spec, read_state, decode, lambda: FolderSource(listing), lambda: FolderReader(listing), select_all
        )
    else:
        faces = load_cached(spec, read_state, decode)
    faces = dataclasses.replace(faces, notes=(*listing.notes, *faces.notes), unread=(*listing.unread, *faces.unread))
    return add_attributes(faces, root / TABLE_NAME, listing.names)


class FolderReader:
    """Reads the pictures of a listing; see `stream.ImageReader`. An address is the place in the listing."""

    def __init__(self, listing: Listing) -> None:
        self._paths = [picture.path for picture in listing.pictures]

    def read(self, address: np.ndarray) -> bytes:
        """One picture's file. Raises OSError where it could not be read this time."""
        return self._paths[int(address[0])].read_bytes()


class FolderSource:
    """The pictures of a listing; see `stream.ImageSource`."""

    label_names: Mapping[int, str] = {}

    def __init__(self, listing: Listing) -> None:
        self.reader = FolderReader(listing)
        self.names = listing.names
        self.labels: list[Label] = [picture.person for picture in listing.pictures]
        self.addresses = np.arange(len(self.names)).reshape(-1, 1)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Nothing: the listing has said it."""
        return []


def select_all(source: ImageSource, spec: DataSpec) -> Selection:
    """Everybody: as for a folder in memory, people are chosen by the pictures of theirs that can be read."""
    people: dict[Label, str] = {person: str(person) for person in source.labels}
    return Selection(people=people, chosen=list(people.values()), total=len(source), enough=0, notes=[])


def find_root(spec: DataSpec, wanted: str = LAYOUT) -> Path:
    """The folder `data.root`; wanted: what it must hold, as the end of a message. Raises DataError without one."""
    if not spec.root:
        raise DataError(f"data={spec.name} needs data.root=DIR; {wanted}")
    # os.path leaves `~x` as it is where there is no such user: it is then the folder's name.
    root = Path(os.path.expanduser(spec.root)).absolute()
    if not root.is_dir():
        raise DataError(f"data.root={root} is {'no folder' if root.exists() else 'not there'}; {wanted}")
    return root


def list_pictures(root: Path, called: str) -> Listing:
    """Every picture in a person's folder in `root`, and notes on everything else.

    called: what a message calls `root`. Raises DataError where it cannot be read or there is no picture in it.
    """
    try:
        listing = list_people(root, ENDINGS, KINDS)
    except OSError as error:
        raise DataError(f"{called} cannot be read ({error.strerror}); check its permissions") from None
    reason = f" ({'; '.join(listing.notes)})" if listing.notes else ""
    if not listing.folders:
        there = f"has {listing.loose} pictures but no folders" if listing.loose else f"is empty{reason}"
        raise DataError(f"{called} {there}; {LAYOUT}")
    if not listing.pictures:
        raise DataError(f"{called} has no picture in its {listing.folders} folders{reason}; {LAYOUT}")
    return listing
