"""Several processes that train one trial together, on one host or on several: they meet, agree, and end together.

All of them run the same lines. Records and checkpoints are read and written by the first one, which tells the others
what it found; numbers on devices are summed by XLA's collectives. What is told goes through the key-value store of
JAX's coordination service, which stands in process 0 and ends all others when one of them falls silent.

A process that fails says why, and ends: whoever waits for it, in a collective or here, then ends as well. With one
process, as nearly always, everything here answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from ffem_jax.errors import FfemError
from ffem_jax.specs.fields import SpecError

# How long processes wait for one another at the start, in times of their heartbeat's timeout.
START_PATIENCE = 3
# Seconds after which one says that it waits.
_SILENT_SECONDS = 10
# Between two looks at whether somebody failed, while one waits.
_LOOK_MILLISECONDS = 1000
# How long process 0, having failed, waits for the others to say what they have to say.
_LEAVE_SECONDS = 5
_FAILED, _LEFT = "ffem/failed/", "ffem/left/"


class HostError(FfemError):
    """The processes of a trial cannot begin or go on. The message is one line and says why."""


class _Group:
    """The processes that train together, as one of them sees it."""

    def __init__(self, client: Any, number: int, count: int) -> None:
        self.client, self.number, self.count = client, number, count
        self.turn = 0
        self.exit_status: int | None = None  # set where this process failed

    def tell(self, value: Any) -> Any:
        """What process 0 gives for `value`."""
        key = self._take_turn()
        if self.number == 0:
            self.client.key_value_set(key, json.dumps(value))
            return value
        return json.loads(self._wait_for(key))

    def gather(self, value: Any) -> list[Any]:
        key = self._take_turn()
        self.client.key_value_set(f"{key}/{self.number}", json.dumps(value))
        return [json.loads(self._wait_for(f"{key}/{number}")) for number in range(self.count)]

    def _take_turn(self) -> str:
        if self.exit_status is not None:
            raise HostError("an earlier trial of these processes failed; start the same command again in each")
        self.turn += 1
        return f"ffem/{self.turn}"

    def _wait_for(self, key: str) -> str:
        while True:
            try:
                return self.client.blocking_key_value_get(key, _LOOK_MILLISECONDS)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise HostError(f"process 0 cannot be reached any more ({_first_line(error)})") from error
            if failures := self.read_failures():
                raise HostError(failures)

    def read_failures(self) -> str:
        """What the other processes said when they failed, in one line; empty where none did."""
        try:
            found = dict(self.client.key_value_dir_get(_FAILED))
        except Exception:
            return ""
        others = {int(key.rpartition("/")[2]): reason for key, reason in found.items()}
        return "; ".join(f"process {n}: {reason}" for n, reason in sorted(others.items()) if n != self.number)

    def fail(self, reason: str, status: int = 1) -> None:
        """Say why this process cannot go on, and have it end without waiting for the others, which may wait for it."""
        if self.exit_status is None:
            self.exit_status = status
            with contextlib.suppress(Exception):
                self.client.key_value_set(f"{_FAILED}{self.number}", reason)

    def leave(self) -> None:
        """At the end of this process: where it failed, skip the meeting of all processes that JAX ends with."""
        if self.exit_status is None:
            return
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        with contextlib.suppress(Exception):
            self._take_leave()
        os._exit(self.exit_status)

    def _take_leave(self) -> None:
        """Let process 0, without which the others cannot speak, go last, unless they are too long about it."""
        if self.number:
            self.client.key_value_set(f"{_LEFT}{self.number}", "")
            return
        until = time.monotonic() + _LEAVE_SECONDS
        while time.monotonic() < until and len(self.client.key_value_dir_get(_LEFT)) < self.count - 1:
            time.sleep(0.1)


_group: _Group | None = None


def join(processes: int = 1, process: int = -1, coordinator: str = "", heartbeat_seconds: int = 100) -> None:
    """Meet the other processes of a trial, before JAX begins to compute; a second call only compares their number.

    Where this process has called `jax.distributed.initialize` by itself, nothing more is needed.

    Args:
        processes: how many there are; 1 is this process alone, 0 asks the scheduler (Slurm, Open MPI).
        process: which of them this is, from 0; -1 asks the scheduler.
        coordinator: HOST:PORT of process 0; empty takes JAX_COORDINATOR_ADDRESS or asks the scheduler.
        heartbeat_seconds: of silence after which a process counts as dead and all others end.

    Raises:
        HostError: they cannot meet.
        SpecError: there are more or fewer of them than `processes`.
    """
    global _group
    if _group is None and processes == 1 and "jax" not in sys.modules:
        return
    import jax
    from jax._src import distributed  # the key-value store has no public name

    if _group is None and not jax.distributed.is_initialized():
        if processes == 1:
            return
        _initialize(processes, process, coordinator, heartbeat_seconds)
    if _group is None:
        state = distributed.global_state
        _group = _Group(state.client, state.process_id, state.num_processes)
        atexit.register(_group.leave)  # before JAX's own, which was registered first
    if processes not in (0, 1, _group.count):
        raise SpecError(f"run.processes={processes} is not the {_group.count} that meet here; start as many")


def _initialize(processes: int, process: int, coordinator: str, heartbeat_seconds: int) -> None:
    import jax

    # JAX would catch SIGTERM, by which schedulers end a process.
    jax.config.update("jax_enable_preemption_service", False)
    address = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    where = address or "the address that the scheduler gives"
    met, patience = threading.Event(), START_PATIENCE * heartbeat_seconds
    threading.Thread(target=_watch_start, args=(met, f"{processes or 'the'} processes at {where}", patience)).start()
    try:
        jax.distributed.initialize(
            address or None,
            processes or None,
            None if process < 0 else process,
            # Longer than ours: JAX ends the process with a page of addresses in compiled code.
            initialization_timeout=round(2 * patience),
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        raise HostError(
            f"run.processes={processes} cannot be met ({_first_line(error)}): without Slurm or Open MPI give "
            "run.processes, run.coordinator=HOST:PORT of process 0, and run.process from 0 in each"
        ) from error
    except RuntimeError as error:
        if "before any JAX calls" in str(error):
            raise HostError(
                f"run.processes={processes}: JAX has computed in this process already; processes meet before that"
            ) from error
        raise HostError(
            f"run.processes={processes} cannot meet at {where} ({_first_line(error)}); give another run.coordinator"
        ) from error
    finally:
        met.set()


def _watch_start(met: threading.Event, whom: str, patience: float) -> None:
    """Say that this process waits for the others, and end it when it has waited long enough."""
    if met.wait(min(_SILENT_SECONDS, patience)):
        return
    _say(f"ffem: waiting for {whom}, at most {patience:g} seconds")
    if not met.wait(patience - min(_SILENT_SECONDS, patience)):
        _say(f"ffem: {whom} did not meet within {patience:g} seconds; start the same command in each")
        os._exit(1)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def count() -> int:
    """How many processes train together."""
    return _group.count if _group else 1


def is_first() -> bool:
    """Whether this is the process that reads checkpoints and writes: process 0, or the only one."""
    return _group is None or _group.number == 0


def has_failed() -> bool:
    """Whether a trial of this process failed, so that it ends without a word from the others."""
    return _group is not None and _group.exit_status is not None


def tell(value: Any) -> Any:
    """What the first process gives for `value`, in all of them; it must be ready for JSON.

    Raises:
        HostError: the first process failed, or cannot be reached.
    """
    return _group.tell(value) if _group else value


def gather(value: Any) -> list[Any]:
    """What each process gives for `value`, in order, in all of them. Raises as `tell` does, of any process."""
    return _group.gather(value) if _group else [value]


def share(tree: Any) -> Any:
    """The arrays of the first process in all of them, which give arrays of the same shapes."""
    if count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(tree)


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """While the block runs, an exception in it ends the other processes too, and theirs this one."""
    try:
        yield
    except BaseException as error:
        if _group:
            _group.fail(describe_error(error), _choose_exit_status(error))
        raise


def explain_failure(error: BaseException) -> str:
    """Why a trial failed, in one line: what other processes said of it, or `error`, this one's own.

    This process is then one that failed, and says so to the others.
    """
    reason = describe_error(error)
    if _group is None:
        return reason
    _group.fail(reason)
    if failures := _group.read_failures():
        return failures
    # A collective whose other end is gone.
    lost = "another process seems to have ended, and the same command goes on from the last epoch; "
    return f"{lost}{reason}" if type(error).__name__ == "JaxRuntimeError" else reason


def _choose_exit_status(error: BaseException) -> int:
    """As the commands have it: 130 interrupted, 2 for a value that no spec may have, else 1."""
    if not isinstance(error, Exception):
        return 130
    return 2 if isinstance(error, SpecError) else 1


def describe_error(error: BaseException) -> str:
    """An exception in one line: its type and the first line of what it says."""
    line = _first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
