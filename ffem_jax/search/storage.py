"""The storage of a shared study (a journal file or PostgreSQL) and the lock under which workers change it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from ffem_jax.config.compose import ConfigError
from ffem_jax.errors import describe_install


class StudyLock(Protocol):
    """A lock that one process at a time holds. It is released when that process dies."""

    def hold(self) -> AbstractContextManager[None]:
        """Wait for the lock and hold it for the block."""


class FileStudyLock:
    """A file lock, which the operating system releases. It works across machines if a shared folder supports locks."""

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the lock and hold it for the block."""
        with self.lock:
            yield


class DatabaseStudyLock:
    """A PostgreSQL advisory lock, which belongs to a connection and ends with it."""

    def __init__(self, storage: RDBStorage, study: str) -> None:
        self.engine = storage.engine
        self.number = zlib.crc32(f"ffem search {study}".encode())

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the lock and hold it for the block."""
        from sqlalchemy import text

        with self.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": self.number})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": self.number})
                connection.commit()


class _SystemLock:
    """An operating system lock with Optuna's interface.

    Optuna's own locks are files: one that a killed process leaves behind blocks all workers for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self.lock = FileLock(path)

    def acquire(self) -> bool:
        self.lock.acquire()
        return True

    def release(self) -> None:
        self.lock.release()


class SafeJournal(JournalFileBackend):
    """Optuna's journal, but a partial line left by a killed writer is cut off before the next line is written."""

    def __init__(self, path: Path) -> None:
        lock = _SystemLock(path.with_name(path.name + ".lock"))
        super().__init__(str(path), lock_obj=lock)  # type: ignore[arg-type]  # Optuna does not export the base class
        self.path, self.file_lock = path, lock.lock

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Append after the last complete line."""
        with self.file_lock:  # reentrant: it is acquired again inside
            with open(self.path, "rb+") as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read(1) != b"\n":
                        file.seek(0)
                        file.truncate(file.read().rfind(b"\n") + 1)
            super().append_logs(list(logs))


def open_storage(url: str, study: str, folder: Path) -> tuple[BaseStorage, StudyLock]:
    """Return the storage of a study, and the lock under which it is changed.

    Args:
        url: of a PostgreSQL database; empty for a journal file in `folder`.
        study: the study's name, from which the database lock's number is derived.

    Raises:
        ConfigError: if the database cannot be reached, or its driver is missing.
    """
    if not url:
        folder.mkdir(parents=True, exist_ok=True)
        return JournalStorage(SafeJournal(folder / "study.journal")), FileStudyLock(folder / "turn.lock")
    from sqlalchemy.exc import SQLAlchemyError

    try:
        # A connection that the server has closed is replaced before it is used.
        storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True}, skip_compatibility_check=False)
    except ImportError as error:
        raise ConfigError(f"hydra.sweeper.storage needs psycopg; {describe_install('postgres')}") from error
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise ConfigError(f"hydra.sweeper.storage cannot be opened: {reason}") from error
    return storage, DatabaseStudyLock(storage, study)
