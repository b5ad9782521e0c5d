"""Faces that stay on the disk: every image is looked at once, and decoded again each time that it is asked for.

`survey` decodes the whole set once and keeps what is small: labels, names, contents and the fingerprint, which is that
of the same faces in memory. So a trial has one key, whether its faces are streamed or not. `StreamedImages` then stands
where an array of pixels would, and `read_batches` reads ahead of a training, with Grain.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.decode import PictureError, decode_picture, hash_picture
from ffem_jax.data.memory import check_memory
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.errors import FfemError, describe_install
from ffem_jax.specs.data import DataSpec

# Threads that decode, and batches that wait for training. While one thread waits for the disk another decodes; more are
# slower, since two thirds of an image's time are Python's, which runs in one thread at a time (results/scale).
THREADS = 2
BATCHES_AHEAD = 4

# What `run.load` says.
_loading: ContextVar[str] = ContextVar("loading", default="auto")


@contextlib.contextmanager
def choose_loading(mode: str) -> Iterator[None]:
    """While the block runs, data sets are loaded as `run.load` = `mode` says: auto, memory or stream."""
    token = _loading.set(mode)
    try:
        yield
    finally:
        _loading.reset(token)


def get_loading() -> str:
    """How data sets are loaded now: see `choose_loading`."""
    return _loading.get()


class StreamError(FfemError):
    """An image that was whole when the set was looked through, and no longer is. The message is one line."""


class Encoded(Protocol):
    """What of `source.ImageSource` is streamed from."""

    @property
    def names(self) -> Sequence[str]:
        """A name per image."""

    def read(self, index: int) -> bytes:
        """The file of one image."""


class StreamedImages:
    """Stands where an array of images uint8 [image, R, R, 3] would; indexing reads and decodes them.

    An image that can no longer be read, or has other pixels than when the set was looked through, raises StreamError
    with its name. More images at once than fit in memory raise TooLargeError.

    Args:
        source: the encoded images.
        places: int [image], where each stands in `source`.
        content: for each its hash, `decode.hash_picture`.
        spec: how they are cut.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, source: Encoded, places: np.ndarray, content: Sequence[str], spec: DataSpec) -> None:
        self._source, self._places, self._content, self._spec = source, places, content, spec
        self.shape = (len(places), spec.resolution, spec.resolution, 3)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))
        self._reading = threading.Lock()  # no reader of files says that it may be called by several threads

    def __len__(self) -> int:
        return len(self._places)

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
        place = int(self._places[index])
        try:
            with self._reading:
                data = self._source.read(place)
            image = decode_picture(data)
        except (PictureError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StreamError(self._describe(index, f"can no longer be read ({reason})")) from error
        if hash_picture(image) != self._content[index]:
            raise StreamError(self._describe(index, "has other pixels than when the set was looked through"))
        return crop_face(image, self._spec.crop, self._spec.resolution, self._spec.fit)

    def _describe(self, index: int, what: str) -> str:
        name = self._source.names[int(self._places[index])]
        return f"image {index:,} of data={self._spec.name} ({name}) {what}; mend the files and train again"


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


def survey(
    decode: Callable[[Any], Faces], open_images: Callable[[Faces], StreamedImages], total: int, resolution: int
) -> Faces:
    """All of the faces but their pixels: `images` holds the bytes of their fingerprint, for the cache to keep.

    Args:
        decode: decodes the faces into what it is given in place of an array of `total` images.
        open_images: their images, read again where not all of the decoded ones were kept.
    """
    pixels = PixelDigest(total, resolution)
    faces = decode(pixels)
    digest = pixels.digest
    if not len(faces.images) == pixels.written == total:
        digest, images = start_digest(len(faces.labels), resolution), open_images(faces)
        for index in range(len(images)):
            digest.update(images[index].data)
    digest.update(np.ascontiguousarray(faces.labels, dtype=np.int32).data)
    return dataclasses.replace(faces, images=np.frombuffer(digest.digest()[:8], np.uint8).copy())


def open_streamed(surveyed: Faces, images: StreamedImages) -> StreamedFaces:
    """What `survey` gave, with the images that stay on the disk, and a note that says so."""
    fields = {of.name: getattr(surveyed, of.name) for of in dataclasses.fields(surveyed)}
    note = (
        f"streamed: {len(images):,} images ({images.nbytes / 1e9:.1f} GB decoded) stay on the disk and are decoded "
        "whenever training asks for them"
    )
    fields |= {"images": images, "notes": (*surveyed.notes, note), "known": bytes(surveyed.images).hex()}
    return StreamedFaces(**fields)


def find_places(surveyed: Faces, names: Sequence[str]) -> np.ndarray:
    """Where each image of `surveyed` stands among all `names` of the source, int [image].

    Raises:
        DataError: one is not there any more.
    """
    wanted = iter(surveyed.names)
    places, sought = [], next(wanted, None)
    for place, name in enumerate(names):  # the images that were kept are in the source's order
        if name == sought:
            places.append(place)
            sought = next(wanted, None)
    if sought is not None:
        raise DataError(f"image {sought} is no longer in the files; load the faces again when they are at rest")
    return np.asarray(places, np.int64)


class _Rows:
    """Images by position in an order: what Grain reads from."""

    def __init__(self, images: Any, order: np.ndarray) -> None:
        self._images, self._order = images, order
        self.closed = False

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> np.ndarray:
        if self.closed:  # the process waits at its end for threads in the middle of a batch
            raise StreamError("nobody waits for this image any more")
        return np.asarray(self._images[int(self._order[position])])


def read_batches(images: Any, places: np.ndarray) -> Generator[np.ndarray]:
    """`images[batch]` for each batch of `places`, in order; threads read a few batches ahead.

    Whatever goes wrong in a thread is raised here, when its batch is due. `close()` ends the threads.

    Args:
        images: StreamedImages, or an array [image, R, R, 3].
        places: int [batch, ...].

    Returns:
        uint8 [..., R, R, 3] for each batch.

    Raises:
        StreamError: an image cannot be read any more; or Grain is not installed.
    """
    try:
        import grain
    except ImportError:
        raise StreamError(
            f"faces that do not fit in memory are read by Grain, which is missing; {describe_install('stream')}"
        ) from None
    shape = places.shape[1:]
    size = int(np.prod(shape))
    rows = _Rows(images, places.ravel())
    dataset = grain.MapDataset.source(rows).batch(size)
    threads = THREADS if isinstance(images, StreamedImages) else 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(BATCHES_AHEAD, threads))
    batches = iter(dataset.to_iter_dataset(options))
    try:
        for batch in itertools.islice(batches, len(places)):
            yield batch.reshape(*shape, *batch.shape[1:])
    finally:
        rows.closed = True
        batches.close()
