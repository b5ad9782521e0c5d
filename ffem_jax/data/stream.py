"""Faces that stay on the disk: every image is looked at once, and decoded again each time that it is asked for.

`survey` decodes the whole set once and keeps what is small: labels, names, contents and the fingerprint, which is that
of the same faces in memory. So a trial has one key, whether its faces are streamed or not. `StreamedImages` then stands
where an array of pixels would, and `read_ahead` reads it ahead of a training.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ffem_jax.data import Faces
from ffem_jax.data.decode import Looked, PictureError, decode_picture, hash_picture, look_at
from ffem_jax.data.memory import check_memory
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.data.read_ahead import StreamError, read_batches
from ffem_jax.specs.data import DataSpec

# Images that are looked at by one process at a time, and the bytes that say in words what each is.
LOOK_BATCH = 64
TOLD_BYTES = 4096

# Whose face an image shows: a number, a name, or None where the set does not say.
Label = int | str | None


class ImageReader(Protocol):
    """Reads images where they lie. It opens the files and looks through none; pickled, it opens them anew."""

    def read(self, address: np.ndarray) -> bytes:
        """The file of one image: JPEG, PNG or another format of Pillow's.

        Args:
            address: int64 [number], as the source gives it.

        Raises:
            PictureError: it is broken, and stays so.
            OSError: it could not be read this time.
        """


class ImageSource(Protocol):
    """Encoded images in the order of their files. Nothing is decoded before it is asked for."""

    @property
    def names(self) -> Sequence[str]:
        """A name per image, each once: where in the set it is."""

    @property
    def labels(self) -> Sequence[Label]:
        """Whose face each image shows."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """The people's names by number, as far as the format has them."""

    @property
    def reader(self) -> ImageReader:
        """Reads an image by its address."""

    @property
    def addresses(self) -> np.ndarray:
        """Where each image lies, int64 [image, number]: the same for as long as the files stay as they are."""

    def __len__(self) -> int:
        """How many images there are."""

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """One line for each thing about the files that the user should know; asked for after the images are read.

        sizes: how many images of each (width, height) were read.
        """


class StreamedImages:
    """Stands where an array of images uint8 [image, R, R, 3] would; indexing reads and decodes them.

    An image that can no longer be read, or has other pixels than when the set was looked through, raises StreamError
    with its name. More images at once than fit in memory raise TooLargeError.

    Args:
        reader: of the encoded images.
        addresses: int64 [image, number], where each lies.
        names, content: for each its name and its hash, `decode.hash_picture`.
        spec: how they are cut.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4
    encoded = True

    def __init__(
        self, reader: ImageReader, addresses: np.ndarray, names: Sequence[str], content: Sequence[str], spec: DataSpec
    ) -> None:
        self._reader, self._addresses, self._spec = reader, addresses, spec
        self._names, self._content = names, content
        self.shape = (len(addresses), spec.resolution, spec.resolution, 3)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))
        self._reading = threading.Lock()  # no reader of files says that it may be called by several threads

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has a lock of its own.
        return StreamedImages, (self._reader, self._addresses, self._names, self._content, self._spec)

    def __len__(self) -> int:
        return len(self._addresses)

    def __getitem__(self, key: Any) -> np.ndarray:
        chosen = np.arange(len(self))[key]
        if chosen.ndim == 0:
            return self._read(int(chosen))
        check_memory(chosen.size, self._spec.resolution)
        images = np.empty((*chosen.shape, *self.shape[1:]), np.uint8)
        for where in np.ndindex(chosen.shape):
            images[where] = self._read(int(chosen[where]))
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images that are streamed are no array before they are copied")
        return self[:].astype(dtype or np.uint8, copy=False)

    def _read(self, index: int) -> np.ndarray:
        try:
            with self._reading:
                data = self._reader.read(self._addresses[index])
            image = decode_picture(data)
        except (PictureError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StreamError(self._describe(index, f"can no longer be read ({reason})")) from error
        if hash_picture(image) != self._content[index]:
            raise StreamError(self._describe(index, "has other pixels than when the set was looked through"))
        return crop_face(image, self._spec.crop, self._spec.resolution, self._spec.fit)

    def _describe(self, index: int, what: str) -> str:
        named = f"image {index:,} of data={self._spec.name} ({self._names[index]})"
        return f"{named} {what}; mend the files and train again"


class LookedImages:
    """What the images of a source turn out to be, by index: a row of bytes each, so that other processes can look.

    Args:
        reader, addresses: as of StreamedImages.
        spec: how they are cut.
    """

    encoded = True

    def __init__(self, reader: ImageReader, addresses: np.ndarray, spec: DataSpec) -> None:
        self._reader, self._addresses, self._spec = reader, addresses, spec
        self._pixels = 3 * spec.resolution**2

    def look(self, index: int) -> Looked:
        """One image."""
        return look_at(functools.partial(self._reader.read, self._addresses[index]), self._spec)

    def look_ahead(self, order: Sequence[int]) -> Iterator[tuple[int, Looked]]:
        """(index, image) for each index in `order`; a few hundred are read ahead (`read_ahead.read_batches`)."""
        count, size = len(order), min(LOOK_BATCH, len(order))
        places = np.asarray(order)[np.minimum(np.arange(-(-count // size) * size), count - 1)]
        rows = itertools.chain.from_iterable(read_batches(self, places.reshape(-1, size)))
        for index, row in zip(order, rows, strict=False):  # the last batch is filled up
            yield index, self._unpack(row)

    def __getitem__(self, index: int) -> np.ndarray:
        looked = self.look(index)
        told = [looked.fault, looked.unread, looked.content, looked.square, looked.size, looked.mode]
        row = np.zeros(self._pixels + TOLD_BYTES, np.uint8)
        if looked.pixels is not None:
            row[: self._pixels] = looked.pixels.reshape(-1)
        text = json.dumps(told).encode().ljust(TOLD_BYTES)
        row[self._pixels :] = np.frombuffer(text, np.uint8)
        return row

    def _unpack(self, row: np.ndarray) -> Looked:
        fault, unread, content, square, size, mode = json.loads(row[self._pixels :].tobytes())
        side = self._spec.resolution
        pixels = None if fault or unread else row[: self._pixels].reshape(side, side, 3)
        return Looked(fault, unread, pixels, content, square, tuple(size), mode)


@dataclass(frozen=True)
class StreamedFaces(Faces):
    """Faces whose `images` are StreamedImages. known: their fingerprint, as it is of the same faces in memory."""

    known: str = ""

    def __post_init__(self) -> None:
        images = self.images
        object.__setattr__(self, "images", np.zeros(0, np.uint8))  # which would be read whole otherwise
        super().__post_init__()
        object.__setattr__(self, "images", images)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("faces that are streamed hold open files: load them again where they are needed")

    @functools.cached_property
    def fingerprint(self) -> str:
        """As `Faces.fingerprint`."""
        return self.known


class PixelDigest:
    """Takes the rows that `decode.decode_faces` writes, in order, and keeps a hash of them alone.

    Indexed by rows it gives their numbers, so that it can be told which of them were kept.
    """

    def __init__(self, total: int, resolution: int) -> None:
        self.total, self.written = total, 0
        self.digest = start_digest(total, resolution)

    def __len__(self) -> int:
        return self.total

    def __setitem__(self, row: int, pixels: np.ndarray) -> None:
        self.digest.update(np.ascontiguousarray(pixels).data)
        self.written += 1

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        return np.asarray(rows, np.int64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.arange(self.total)


def start_digest(images: int, resolution: int) -> Any:
    """The SHA-256 of so many images before the first: `Faces.fingerprint` begins with their shape."""
    return hashlib.sha256(repr((images, resolution, resolution, 3)).encode())


# The bytes of a fingerprint.
_PRINT_BYTES = 8


def survey(decode: Callable[[Any, list[int]], Faces], source: ImageSource, total: int, spec: DataSpec) -> Faces:
    """All of the faces but their pixels: `images` holds the bytes of their fingerprint and of their addresses, for the
    cache to keep.

    Args:
        decode: decodes the faces into what it is given in place of an array of `total` images, and lists which of the
            source's images it wrote there.
        source: of these images, of which some are read again where not all of the decoded ones were kept.
        spec: how they are cut.
    """
    pixels, written = PixelDigest(total, spec.resolution), list[int]()
    faces = decode(pixels, written)
    kept_rows = np.asarray(faces.images, np.int64)
    digest, addresses = pixels.digest, source.addresses[np.asarray(written, np.int64)[kept_rows]]
    if not len(faces.images) == pixels.written == total:
        digest = start_digest(len(faces.labels), spec.resolution)
        images = StreamedImages(source.reader, addresses, faces.names, faces.content, spec)
        for index in range(len(images)):
            digest.update(images[index].data)
    digest.update(np.ascontiguousarray(faces.labels, dtype=np.int32).data)
    kept = digest.digest()[:_PRINT_BYTES] + addresses.tobytes()
    return dataclasses.replace(faces, images=np.frombuffer(kept, np.uint8).copy())


def open_streamed(surveyed: Faces, reader: ImageReader, spec: DataSpec) -> StreamedFaces:
    """What `survey` gave, with the images that stay on the disk, and a note that says so."""
    fields = {of.name: getattr(surveyed, of.name) for of in dataclasses.fields(surveyed)}
    fingerprint, kept = np.split(surveyed.images, [_PRINT_BYTES])
    addresses = np.frombuffer(kept.tobytes(), np.int64)
    addresses = addresses.reshape(len(surveyed.labels), -1) if len(addresses) else addresses.reshape(0, 1)
    images = StreamedImages(reader, addresses, surveyed.names, surveyed.content, spec)
    note = (
        f"streamed: {len(images):,} images ({images.nbytes / 1e9:.1f} GB decoded) stay on the disk and are decoded "
        "whenever training asks for them"
    )
    fields |= {"images": images, "notes": (*surveyed.notes, note), "known": bytes(fingerprint).hex()}
    return StreamedFaces(**fields)
