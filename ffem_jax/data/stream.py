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
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ffem_jax.data import Faces
from ffem_jax.data.decode import PictureError, decode_picture, hash_picture
from ffem_jax.data.memory import check_memory
from ffem_jax.data.preprocessing import crop_face
from ffem_jax.errors import FfemError, describe_install
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.own_code import load_plugins

# Threads that decode, and batches that wait for training. While one thread waits for the disk another decodes; more are
# slower, since two thirds of an image's time are Python's, which runs in one thread at a time (results/scale).
THREADS = 2
BATCHES_AHEAD = 4


class Loading(NamedTuple):
    """How data sets are loaded.

    Args:
        mode: what `run.load` says: auto, memory or stream.
        processes: what `run.decode_processes` says; 0 decodes in threads of this process.
    """

    mode: str = "auto"
    processes: int = 0


_DEFAULT = Loading()
_loading: ContextVar[Loading] = ContextVar("loading", default=_DEFAULT)


@contextlib.contextmanager
def choose_loading(mode: str, processes: int = 0) -> Iterator[None]:
    """While the block runs, data sets are loaded as `Loading` says."""
    token = _loading.set(Loading(mode, processes))
    try:
        yield
    finally:
        _loading.reset(token)


def get_loading() -> Loading:
    """How data sets are loaded now."""
    return _loading.get()


class StreamError(FfemError):
    """An image that was whole when the set was looked through, and no longer is. The message is one line."""


class Reader(Protocol):
    """As `source.ImageReader`."""

    def read(self, address: np.ndarray) -> bytes:
        """The file of one image."""


class Source(Protocol):
    """What of `source.ImageSource` is looked through."""

    @property
    def names(self) -> Sequence[str]:
        """A name per image."""

    @property
    def reader(self) -> Reader:
        """Reads an image by its address."""

    @property
    def addresses(self) -> np.ndarray:
        """Where each image lies, int64 [image, number]."""


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

    def __init__(
        self, reader: Reader, addresses: np.ndarray, names: Sequence[str], content: Sequence[str], spec: DataSpec
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


def survey(decode: Callable[[Any], Faces], source: Source, total: int, spec: DataSpec) -> Faces:
    """All of the faces but their pixels: `images` holds the bytes of their fingerprint and of their addresses, for the
    cache to keep.

    Args:
        decode: decodes the faces into what it is given in place of an array of `total` images.
        source: of these images, of which some are read again where not all of the decoded ones were kept.
        spec: how they are cut.
    """
    pixels = PixelDigest(total, spec.resolution)
    faces = decode(pixels)
    digest, addresses = pixels.digest, source.addresses[_find_places(faces, source.names)]
    if not len(faces.images) == pixels.written == total:
        digest = start_digest(len(faces.labels), spec.resolution)
        images = StreamedImages(source.reader, addresses, faces.names, faces.content, spec)
        for index in range(len(images)):
            digest.update(images[index].data)
    digest.update(np.ascontiguousarray(faces.labels, dtype=np.int32).data)
    kept = digest.digest()[:_PRINT_BYTES] + addresses.tobytes()
    return dataclasses.replace(faces, images=np.frombuffer(kept, np.uint8).copy())


def open_streamed(surveyed: Faces, reader: Reader, spec: DataSpec) -> StreamedFaces:
    """What `survey` gave, with the images that stay on the disk, and a note that says so."""
    fields = {of.name: getattr(surveyed, of.name) for of in dataclasses.fields(surveyed)}
    fingerprint, kept = np.split(surveyed.images, [_PRINT_BYTES])
    addresses = np.frombuffer(kept.tobytes(), np.int64).reshape(len(surveyed.labels), -1)
    images = StreamedImages(reader, addresses, surveyed.names, surveyed.content, spec)
    note = (
        f"streamed: {len(images):,} images ({images.nbytes / 1e9:.1f} GB decoded) stay on the disk and are decoded "
        "whenever training asks for them"
    )
    fields |= {"images": images, "notes": (*surveyed.notes, note), "known": bytes(fingerprint).hex()}
    return StreamedFaces(**fields)


def _find_places(faces: Faces, names: Sequence[str]) -> np.ndarray:
    """Where each image of `faces` stands among all `names` of the source, int [image]; both are in one order."""
    wanted = iter(faces.names)
    places, sought = [], next(wanted, None)
    for place, name in enumerate(names):
        if name == sought:
            places.append(place)
            sought = next(wanted, None)
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
    """`images[batch]` for each batch of `places`, in order, read a few batches ahead.

    Threads of this process read; streamed images are read by other processes, where `choose_loading` gives some.
    Whatever goes wrong there is raised here, when its batch is due. `close()` ends them.

    Args:
        images: StreamedImages, or an array [image, R, R, 3].
        places: int [batch, ...].

    Returns:
        uint8 [..., R, R, 3] for each batch.

    Raises:
        StreamError: an image cannot be read any more, a process that reads has ended, or Grain is not installed.
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
    streamed = isinstance(images, StreamedImages)
    processes = min(_loading.get().processes if streamed else 0, len(places))
    threads = 0 if processes else THREADS if streamed else 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(BATCHES_AHEAD, threads) if threads else 0)
    read = dataset.to_iter_dataset(options)
    if processes:
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain asks for options of its command line, and this is another command
        each = grain.multiprocessing.MultiprocessingOptions(processes, max(1, BATCHES_AHEAD // processes))
        read = read.mp_prefetch(each, worker_init_fn=_begin_process)
    batches = iter(read)
    try:
        for batch in itertools.islice(batches, len(places)):
            yield batch.reshape(*shape, *batch.shape[1:])
    except Exception as error:
        if processes and not isinstance(error, FfemError):
            reason = (str(error).splitlines() or [""])[0]
            raise StreamError(
                f"a process that decodes has failed ({type(error).__name__}: {reason}); run.decode_processes=0 decodes "
                "in the trial's own process"
            ) from error
        raise
    finally:
        rows.closed = True
        batches.close()


def _begin_process(number: int, count: int) -> None:
    """The start of a process that decodes: it ends with the one that it reads for, which alone hears Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    load_plugins()  # the images may be read by somebody's own code


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
