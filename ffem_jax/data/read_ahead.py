"""Prefetches images with Grain, in threads of this process or in worker processes."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ffem_jax.errors import FfemError, describe_install
from ffem_jax.specs.own_code import load_plugins

# Number of decoding threads, and of prefetched batches. While one thread waits for the disk another decodes; more are
# slower, since two thirds of an image's time are spent in Python, which holds the GIL (results/scale).
THREADS = 2
BATCHES_AHEAD = 4


class Loading(NamedTuple):
    """How data sets are loaded.

    Args:
        mode: the value of `run.load`: auto, memory or stream.
        processes: the value of `run.decode_processes`; 0 decodes in threads of this process.
    """

    mode: str = "auto"
    processes: int = 0


_DEFAULT = Loading()
_loading: ContextVar[Loading] = ContextVar("loading", default=_DEFAULT)


@contextlib.contextmanager
def choose_loading(mode: str, processes: int = 0) -> Iterator[None]:
    """Load data sets according to `Loading` inside the block."""
    token = _loading.set(Loading(mode, processes))
    try:
        yield
    finally:
        _loading.reset(token)


def get_loading() -> Loading:
    """Return the current way of loading data sets."""
    return _loading.get()


class StreamError(FfemError):
    """An image that was intact in the first scan can no longer be read. The message is one line."""


class _Rows:
    """Images by position in an order, Grain's data source.

    Worker processes get the path of a file instead of a million names and addresses through a pipe: if one died while
    starting, this process would block on the pipe forever.
    """

    def __init__(self, images: Any, order: np.ndarray) -> None:
        self._images, self._order = images, order
        self.closed = False
        self._path = ""

    def write(self, path: Path) -> None:
        """Write the state for worker processes to a file."""
        import cloudpickle  # a dependency of Grain; it also pickles user classes

        path.write_bytes(cloudpickle.dumps((self._images, self._order)))
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_rows, (self._path,)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> np.ndarray:
        if self.closed:  # at exit the process waits for threads in the middle of a batch
            raise StreamError("this image is no longer needed")
        return np.asarray(self._images[int(self._order[position])])


def _open_rows(path: str) -> _Rows:
    return _Rows(*pickle.loads(Path(path).read_bytes()))


def read_batches(images: Any, places: np.ndarray) -> Generator[np.ndarray]:
    """Yield `images[batch]` for each batch of `places`, in order, prefetching a few batches.

    Threads of this process read. Images that are decoded on demand (their attribute `encoded`) are read by worker
    processes if `choose_loading` sets some. An error there is raised here when its batch is due. `close()` ends the
    workers.

    Args:
        images: an array [image, R, R, 3], or an object that returns one of its rows for an index.
        places: int [batch, ...].

    Returns:
        uint8 [..., R, R, 3] for each batch.

    Raises:
        StreamError: an image can no longer be read, a worker process has died, or Grain is not installed.
    """
    try:
        import grain
    except ImportError:
        raise StreamError(
            f"faces that do not fit in memory are read with Grain, which is not installed; {describe_install('stream')}"
        ) from None
    shape = places.shape[1:]
    size = int(np.prod(shape))
    rows = _Rows(images, places.ravel())
    dataset = grain.MapDataset.source(rows).batch(size)
    encoded = getattr(images, "encoded", False)
    processes = min(_loading.get().processes if encoded else 0, len(places))
    threads = 0 if processes else THREADS if encoded else 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(BATCHES_AHEAD, threads) if threads else 0)
    read = dataset.to_iter_dataset(options)
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, rows, "closed", True)
        try:
            if processes:
                rows.write(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ffem-order-"))) / "rows")
                read = _hand_over(read, processes)
            batches = iter(read)
            stack.callback(batches.close)
            for batch in itertools.islice(batches, len(places)):
                yield batch.reshape(*shape, *batch.shape[1:])
        except Exception as error:
            if processes and not isinstance(error, FfemError):
                reason = (str(error).splitlines() or [""])[0]
                raise StreamError(
                    f"a decoding process has failed ({type(error).__name__}: {reason}); run.decode_processes=0 "
                    "decodes in the trial's own process"
                ) from error
            raise


def _hand_over(read: Any, processes: int) -> Any:
    """Return Grain's dataset `read`, read by worker processes."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain requires parsed flags, but this is not its command line
    if multiprocessing.get_start_method() == "loky":  # in a joblib worker, whose children do not know this start method
        multiprocessing.set_start_method("spawn", force=True)
    each = grain.multiprocessing.MultiprocessingOptions(processes, max(1, BATCHES_AHEAD // processes))
    return read.mp_prefetch(each, worker_init_fn=_begin_process)


def _begin_process(number: int, count: int) -> None:
    """Initialise a decoding process: it ends with its parent, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    load_plugins()  # user code may read the images


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
