"""User-provided faces: `DIR/person/*.jpg|jpeg|png|pgm|webp`, any size, grey or colour."""

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
LAYOUT = "it must contain one folder per person, DIR/person/*.jpg (or jpeg, png, pgm, webp)"


def load(spec: DataSpec) -> Faces:
    """Load the faces below `spec.root`, with the columns of `attributes.csv` beside the people if it exists.

    Raises DataError if the folder is missing, contains no folder of a person, or leaves fewer than two people.
    """
    faces = load_people(spec, streamed=True)
    if len(faces.people) < spec.least_people:
        reason = f" ({'; '.join(faces.notes)})" if faces.notes else ""
        raise DataError(
            f"data.root={find_root(spec)} has {len(faces.people)} of the required {spec.least_people} people with "
            f"data.min_images={spec.min_images} readable images{reason}; {LAYOUT}"
        )
    return faces


def load_people(spec: DataSpec, *, streamed: bool = False) -> Faces:
    """Like `load`, but with any number of people, including none with readable images: nothing is to be distinguished.

    streamed: whether images that do not fit in memory may stay on disk (`source.load_or_stream`).
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
    """Reads the images of a listing; see `stream.ImageReader`. An address is the index in the listing."""

    def __init__(self, listing: Listing) -> None:
        self._paths = [picture.path for picture in listing.pictures]

    def read(self, address: np.ndarray) -> bytes:
        """Read one image's file. Raises OSError if it cannot be read this time."""
        return self._paths[int(address[0])].read_bytes()


class FolderSource:
    """The images of a listing; see `stream.ImageSource`."""

    label_names: Mapping[int, str] = {}

    def __init__(self, listing: Listing) -> None:
        self.reader = FolderReader(listing)
        self.names = listing.names
        self.labels: list[Label] = [picture.person for picture in listing.pictures]
        self.addresses = np.arange(len(self.names)).reshape(-1, 1)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Return no notes: the listing has reported them."""
        return []


def select_all(source: ImageSource, spec: DataSpec) -> Selection:
    """Select all people: as for a folder in memory, people are selected later, by their readable images."""
    people: dict[Label, str] = {person: str(person) for person in source.labels}
    return Selection(people=people, chosen=list(people.values()), total=len(source), enough=0, notes=[])


def find_root(spec: DataSpec, wanted: str = LAYOUT) -> Path:
    """Return the folder `data.root`; wanted: its required contents, for the message. Raises DataError if missing."""
    if not spec.root:
        raise DataError(f"data={spec.name} needs data.root=DIR; {wanted}")
    # os.path keeps `~x` if there is no such user: it is then a literal name.
    root = Path(os.path.expanduser(spec.root)).absolute()
    if not root.is_dir():
        raise DataError(f"data.root={root} is {'not a folder' if root.exists() else 'missing'}; {wanted}")
    return root


def list_pictures(root: Path, called: str) -> Listing:
    """List every image in the people's folders in `root`, with notes on everything else.

    called: the name of `root` in messages. Raises DataError if it is unreadable or contains no image.
    """
    try:
        listing = list_people(root, ENDINGS, KINDS)
    except OSError as error:
        raise DataError(f"{called} cannot be read ({error.strerror}); check its permissions") from None
    reason = f" ({'; '.join(listing.notes)})" if listing.notes else ""
    if not listing.folders:
        there = f"has {listing.loose} images but no folders" if listing.loose else f"is empty{reason}"
        raise DataError(f"{called} {there}; {LAYOUT}")
    if not listing.pictures:
        raise DataError(f"{called} has no image in its {listing.folders} folders{reason}; {LAYOUT}")
    return listing
