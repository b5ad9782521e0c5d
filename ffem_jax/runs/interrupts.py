"""Ctrl-C while trials run: an answer at once, an orderly stop, and an end at the second.

The first one raises KeyboardInterrupt, but Python gets to do so only when the step or the compilation under way is
done. A thread answers meanwhile: it reads signals from a pipe that the interpreter's own handler writes to, even while
the main thread is in compiled code. At the second one this thread ends the process. Nothing is lost by that: locks are
held by the operating system, a record is a line appended whole, and a checkpoint is of the last epoch or newer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

STOPPING = "ffem: stopping after the step or the compilation under way; press Ctrl-C again to end now"
ENDED = "ffem: ended; the same command goes on from what is recorded"
INTERRUPTED = 130
SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides

# Where an exception is printed and forgotten: finalizers, and what JAX does after a collection of garbage.
UNHEARD = ("__del__", "_xla_gc_callback")
AGAIN_SECONDS = 0.05

_interrupted = threading.Event()
_repeats: list[None] = []  # one for each signal of our own on its way through the pipe
_parent_is_watched = threading.Event()


@contextlib.contextmanager
def answer_interrupts() -> Iterator[None]:
    """While the block runs, answer Ctrl-C at once and end the process at the second.

    A worker of a process pool says nothing, and leaves the first to its parent, which stops it; it ends with its
    parent. Nothing changes in a thread, where SIGINT is ignored or somebody else handles it, or within such a block.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    is_worker = multiprocessing.parent_process() is not None
    if is_worker:
        end_with_parent()
    _interrupted.clear()
    read, write = os.pipe()
    os.set_blocking(write, False)
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(read, is_worker), daemon=True)
    watcher.start()
    signal.signal(signal.SIGINT, _leave_to_parent if is_worker else _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(previous)
        os.close(write)
        watcher.join()
        os.close(read)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt where a library took the one of Ctrl-C for an error of its own, and went on."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however it did."""
    if not _parent_is_watched.is_set():
        _parent_is_watched.set()
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(INTERRUPTED)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if _interrupted.is_set():
        return
    if _is_unheard(frame):
        threading.Timer(AGAIN_SECONDS, _repeat).start()
        return
    _interrupted.set()
    raise KeyboardInterrupt


def _is_unheard(frame: FrameType | None) -> bool:
    """Whether Python would print what is raised in `frame`, and go on as if nothing had been."""
    while frame is not None:
        if frame.f_code.co_name in UNHEARD:
            return True
        frame = frame.f_back
    return False


def _repeat() -> None:
    """Have the main thread call `_interrupt` again, which is nobody's second Ctrl-C."""
    _repeats.append(None)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # which also wakes it where it waits


def _leave_to_parent(_number: int, _frame: FrameType | None) -> None:
    pass


def _watch(read: int, is_worker: bool) -> None:
    """Answer each SIGINT whose number comes through the pipe, until it is closed."""
    count = 0
    while numbers := os.read(read, 64):
        for _ in range(numbers.count(signal.SIGINT)):
            if _repeats:
                _repeats.pop()
                continue
            count += 1
            if not is_worker:
                _say(STOPPING if count == 1 else ENDED, end=count > 1)
            if count > 1:
                os._exit(INTERRUPTED)


def _say(line: str, *, end: bool) -> None:
    """Write past all buffers, whose locks the main thread may hold, and over a progress bar."""
    if os.isatty(2):
        line = f"\r\x1b[K{line}{SHOW_CURSOR if end else ''}"
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
