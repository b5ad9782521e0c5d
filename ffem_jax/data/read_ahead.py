"""Images read ahead of those who ask for them, with Grain: by threads of this process, or by other processes."""

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


class _Rows:
    """Images by position in an order: what Grain reads from.

    Other processes are given the path of a file that holds them, and not a million names and addresses through a pipe:
    a process that dies while it starts would leave this one writing into it for ever.
    """

    def __init__(self, images: Any, order: np.ndarray) -> None:
        self._images, self._order = images, order
        self.closed = False
        self._path = ""

    def write(self, path: Path) -> None:
        """Keep what other processes read with in a file."""
        import cloudpickle  # Grain's: it takes somebody's own classes too

        path.write_bytes(cloudpickle.dumps((self._images, self._order)))
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_rows, (self._path,)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> np.ndarray:
        if self.closed:  # the process waits at its end for threads in the middle of a batch
            raise StreamError("nobody waits for this image any more")
        return np.asarray(self._images[int(self._order[position])])


def _open_rows(path: str) -> _Rows:
    return _Rows(*pickle.loads(Path(path).read_bytes()))


def read_batches(images: Any, places: np.ndarray) -> Generator[np.ndarray]:
    """`images[batch]` for each batch of `places`, in order, read a few batches ahead.

    Threads of this process read. Images that are decoded as they are asked for, which `encoded` of them says, are read
    by other processes where `choose_loading` gives some. Whatever goes wrong there is raised here, when its batch is
    due. `close()` ends them.

    Args:
        images: an array [image, R, R, 3], or what gives one of its rows for an index.
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
                    f"a process that decodes has failed ({type(error).__name__}: {reason}); run.decode_processes=0 "
                    "decodes in the trial's own process"
                ) from error
            raise


def _hand_over(read: Any, processes: int) -> Any:
    """Grain's dataset `read`, read by other processes."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # Grain asks for options of its command line, and this is another command
    if multiprocessing.get_start_method() == "loky":  # in a worker of joblib's, whose children do not know that name
        multiprocessing.set_start_method("spawn", force=True)
    each = grain.multiprocessing.MultiprocessingOptions(processes, max(1, BATCHES_AHEAD // processes))
    return read.mp_prefetch(each, worker_init_fn=_begin_process)


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
