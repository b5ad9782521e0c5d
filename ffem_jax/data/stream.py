"""Faces that stay on disk: every image is decoded once in a first scan, and again whenever it is requested.

`survey` decodes the whole set once and keeps the small parts: labels, names, contents and the fingerprint, which equals
that of the same faces in memory. A trial therefore has the same key, streamed or not. `StreamedImages` then replaces
the array of pixels, and `read_ahead` prefetches from it in training.
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

# Images scanned per chunk and process, and the bytes of text that describe each.
LOOK_BATCH = 64
TOLD_BYTES = 4096

# The identity of an image: a number, a name, or None if unknown.
Label = int | str | None


class ImageReader(Protocol):
    """Reads images by address. It opens the files without scanning them; unpickling opens them again."""

    def read(self, address: np.ndarray) -> bytes:
        """Read the file of one image: JPEG, PNG or another format supported by Pillow.

        Args:
            address: int64 [number], from the source.

        Raises:
            PictureError: it is permanently corrupt.
            OSError: it could not be read this time.
        """


class ImageSource(Protocol):
    """Encoded images in the order of their files. Images are decoded on demand."""

    @property
    def names(self) -> Sequence[str]:
        """A unique name per image: its position in the set."""

    @property
    def labels(self) -> Sequence[Label]:
        """The identity of each image."""

    @property
    def label_names(self) -> Mapping[int, str]:
        """The people's names by number, if the format has them."""

    @property
    def reader(self) -> ImageReader:
        """The reader of images by address."""

    @property
    def addresses(self) -> np.ndarray:
        """The address of each image, int64 [image, number]; it does not change while the files do not."""

    def __len__(self) -> int:
        """The number of images."""

    def describe(self, sizes: Mapping[tuple[int, int], int]) -> list[str]:
        """Return one line for each thing about the files that the user should know; call it after reading the images.

        sizes: number of images read per (width, height).
        """


class StreamedImages:
    """Replaces an array of images uint8 [image, R, R, 3]; indexing reads and decodes them.

    An image that has become unreadable, or whose pixels have changed since the first scan, raises StreamError with its
    name. Requesting more images at once than fit in memory raises TooLargeError.

    Args:
        reader: reader of the encoded images.
        addresses: int64 [image, number].
        names, content: name and hash (`decode.hash_picture`) of each image.
        spec: gives the crop.
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
        self._reading = threading.Lock()  # readers are not guaranteed to be thread-safe

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has its own lock.
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
            raise ValueError("streamed images cannot become an array without a copy")
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
            raise StreamError(self._describe(index, "has changed since the first scan of the set"))
        return crop_face(image, self._spec.crop, self._spec.resolution, self._spec.fit)

    def _describe(self, index: int, what: str) -> str:
        named = f"image {index:,} of data={self._spec.name} ({self._names[index]})"
        return f"{named} {what}; restore the files and train again"


class LookedImages:
    """The results of decoding a source's images, by index, each as a row of bytes, so that worker processes can decode.

    Args:
        reader, addresses: see StreamedImages.
        spec: gives the crop.
    """

    encoded = True

    def __init__(self, reader: ImageReader, addresses: np.ndarray, spec: DataSpec) -> None:
        self._reader, self._addresses, self._spec = reader, addresses, spec
        self._pixels = 3 * spec.resolution**2

    def look(self, index: int) -> Looked:
        """One image."""
        return look_at(functools.partial(self._reader.read, self._addresses[index]), self._spec)

    def look_ahead(self, order: Sequence[int]) -> Iterator[tuple[int, Looked]]:
        """Yield (index, image) for each index in `order`; a few hundred are prefetched (`read_ahead.read_batches`)."""
        count, size = len(order), min(LOOK_BATCH, len(order))
        places = np.asarray(order)[np.minimum(np.arange(-(-count // size) * size), count - 1)]
        rows = itertools.chain.from_iterable(read_batches(self, places.reshape(-1, size)))
        for index, row in zip(order, rows, strict=False):  # the last batch is padded
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
    """Faces whose `images` are StreamedImages. known: their fingerprint, equal to that of the same faces in memory."""

    known: str = ""

    def __post_init__(self) -> None:
        images = self.images
        object.__setattr__(self, "images", np.zeros(0, np.uint8))  # otherwise all images would be read
        super().__post_init__()
        object.__setattr__(self, "images", images)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("streamed faces hold open files and cannot be pickled; load them again instead")

    @functools.cached_property
    def fingerprint(self) -> str:
        """As `Faces.fingerprint`."""
        return self.known


class PixelDigest:
    """Receives the rows that `decode.decode_faces` writes, in order, and keeps only their hash.

    Indexing it returns row numbers, which show the rows that were kept.
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
    """Return the initial SHA-256 for `count` images: `Faces.fingerprint` starts with their shape."""
    return hashlib.sha256(repr((images, resolution, resolution, 3)).encode())


# Bytes of a fingerprint.
_PRINT_BYTES = 8


def survey(decode: Callable[[Any, list[int]], Faces], source: ImageSource, total: int, spec: DataSpec) -> Faces:
    """Return faces without pixels: `images` holds the bytes of their fingerprint and addresses, for the cache.

    Args:
        decode: decodes the faces into the given replacement of an array of `total` images, and lists the source indices
            that it wrote.
        source: the images; some are read again if not all decoded ones were kept.
        spec: gives the crop.
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
    """Return the faces of `survey` with streamed images, and a note that says so."""
    fields = {of.name: getattr(surveyed, of.name) for of in dataclasses.fields(surveyed)}
    fingerprint, kept = np.split(surveyed.images, [_PRINT_BYTES])
    addresses = np.frombuffer(kept.tobytes(), np.int64)
    addresses = addresses.reshape(len(surveyed.labels), -1) if len(addresses) else addresses.reshape(0, 1)
    images = StreamedImages(reader, addresses, surveyed.names, surveyed.content, spec)
    note = (
        f"streamed: {len(images):,} images ({images.nbytes / 1e9:.1f} GB decoded) stay on disk and are decoded "
        "on demand"
    )
    fields |= {"images": images, "notes": (*surveyed.notes, note), "known": bytes(fingerprint).hex()}
    return StreamedFaces(**fields)
