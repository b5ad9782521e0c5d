"""The gallery's tables, and the database that holds them: SQLite, or PostgreSQL by URL.

Every write takes the next number of `revisions` first, whose row's lock makes writes of all processes follow one
another: whoever has seen revision R has seen every write up to it. So what a process keeps in memory is brought up to
date with the rows numbered since, and never misses one.

SQLite keeps a rollback journal. A write-ahead log would hold deleted vectors until it is truncated.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from ffem_jax.errors import FfemError

SCHEMA_VERSION = 1
DEFAULT_URL = "sqlite:///gallery.db"
# How long one writer waits for another, or for a file that is being rewritten after a deletion.
LOCK_SECONDS = 60
# A million rows as Python objects would take three times what their numbers do.
ROWS_AT_ONCE = 10_000
# Requests that FastAPI works on at once: none waits for a connection.
THREADS = 40

NAME_LENGTH = 300
# ISO 8601 in UTC, to the second: the same text in every database, and in the answers.
TIME_LENGTH = 25
_Identifier = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

# One row. schema: SCHEMA_VERSION of the program that made the tables.
revisions = Table("revisions", metadata, Column("schema", Integer, primary_key=True), Column("revision", BigInteger))

models = Table(
    "models",
    metadata,
    Column("model_id", String(64), primary_key=True),
    Column("length", Integer, nullable=False),
)

# person_id: 63 random bits, so that it says nothing about the person and is never given to another.
people = Table(
    "people",
    metadata,
    Column("person_id", _Identifier, primary_key=True, autoincrement=False),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("enrolled_at", String(TIME_LENGTH), nullable=False),
)

# data: float32, little-endian, of unit length. vector_id: never given to another, as SQLite's own would be.
vectors = Table(
    "vectors",
    metadata,
    Column("vector_id", _Identifier, primary_key=True),
    Column("person_id", _Identifier, ForeignKey("people.person_id"), nullable=False, index=True),
    Column("model_id", String(64), ForeignKey("models.model_id"), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("enrolled_at", String(TIME_LENGTH), nullable=False),
    Index("vectors_since", "model_id", "revision"),
)

# Which picture of which folder a vector was made of: one row per picture, and "" for both where a request enrolled what
# a folder has too. A vector without a row came by a request. source: the folder's absolute path; image: the file in it.
sources = Table(
    "sources",
    metadata,
    Column("vector_id", _Identifier, ForeignKey("vectors.vector_id", ondelete="CASCADE"), primary_key=True,
           autoincrement=False),
    Column("source", String, primary_key=True),
    Column("image", String, primary_key=True),
)  # fmt: skip

# Earlier versions note here the one folder that brought a vector last; `changes.adopt_origins` moves the rows.
origins = Table(
    "origins",
    metadata,
    Column("vector_id", _Identifier, ForeignKey("vectors.vector_id", ondelete="CASCADE"), primary_key=True,
           autoincrement=False),
    Column("source", String, nullable=False),
    Column("image", String, nullable=False),
)  # fmt: skip

# Whom other processes must forget. No name, no vector. Where a person only lost some vectors, those that are left have
# the same or a later revision, and so are read again.
deletions = Table(
    "deletions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("person_id", _Identifier, nullable=False),
)

# digest: SHA-256 of the secret. scopes: names with commas.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("scopes", String(100), nullable=False),
    Column("label", String(NAME_LENGTH), nullable=False),
    Column("created_at", String(TIME_LENGTH), nullable=False),
    Column("revoked_at", String(TIME_LENGTH)),
)


class DatabaseError(FfemError):
    """A database that cannot be used. The message is one line."""


def open_database(url: str = DEFAULT_URL, *, create: bool = True) -> Engine:
    """Open the database at `url`, and make its tables where they are missing.

    A new SQLite file is readable by its owner alone.

    Args:
        url: sqlite:///FILE or postgresql+psycopg://...
        create: make the SQLite file where there is none.

    Raises:
        DatabaseError: it cannot be opened, another version of the schema made it, or there is none to open.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        if not create and not Path(parsed.database or "").is_file():
            raise DatabaseError(f"there is no gallery {parsed.database}; give --database URL of one")
        _make_private(Path(parsed.database or ""))
    with _explain(parsed):
        engine = _connect(parsed)
        _make_tables(engine)
    return engine


def open_copy(url: str) -> Engine:
    """A copy in memory of the gallery at `url`, without its API keys: to try out what would come of a change.

    Nothing is made or written at `url`, where there may be no gallery yet.

    Raises:
        DatabaseError: as `open_database` would, of a file that it could not write too.
    """
    parsed = _parse(url)
    copy = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(copy, "connect", _set_up_sqlite)
    _make_tables(copy)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        _check_writable(path)
        if not path.exists():
            return copy
    with _explain(parsed):
        engine = _connect(parsed)
        try:
            _copy_tables(engine, copy)
        finally:
            engine.dispose()
    return copy


def _copy_tables(engine: Engine, copy: Engine) -> None:
    there = set(inspect(engine).get_table_names())
    if revisions.name in there:
        _check_schema(engine)
    with engine.connect() as reading, copy.begin() as writing:
        for table in metadata.sorted_tables:
            if table.name not in there or table is api_keys:
                continue
            writing.execute(delete(table))
            found = reading.execute(select(table).execution_options(yield_per=ROWS_AT_ONCE))
            for rows in found.mappings().partitions():
                writing.execute(insert(table), [dict(row) for row in rows])


def _connect(parsed: URL) -> Engine:
    sqlite = parsed.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": LOCK_SECONDS}} if sqlite else {"pool_pre_ping": True}
    # An error's message would hold the row it is about.
    engine = create_engine(parsed, hide_parameters=True, pool_size=THREADS, **options)
    if sqlite:
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


@contextlib.contextmanager
def _explain(parsed: URL) -> Iterator[None]:
    """Turn what SQLAlchemy raises into a DatabaseError."""
    try:
        yield
    except ImportError as error:
        raise DatabaseError(
            f"{url_without_password(parsed)} needs a driver: {error}; pip install 'psycopg[binary]'"
        ) from None
    except SQLAlchemyError as error:
        raise DatabaseError(f"{url_without_password(parsed)} cannot be opened: {_first_line(error)}") from None


def read_clock() -> str:
    """Now, as the tables have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def url_without_password(url: URL) -> str:
    """The URL as it may be shown."""
    return url.render_as_string(hide_password=True)


def wipe_freed_space(engine: Engine) -> None:
    """Write the tables anew without what was deleted, so that the bytes are gone from the files too.

    SQLite overwrites what it deletes (secure_delete), but moves rows between pages and leaves their old places as they
    were. PostgreSQL keeps deleted rows until it needs their space. Takes as long as copying the database.
    """
    statement = "VACUUM" if engine.dialect.name == "sqlite" else "VACUUM FULL vectors, people, sources, origins"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))


def _parse(url: str) -> URL:
    choices = "give sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseError(f"--database: this is no database's URL; {choices}") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseError(f"--database: {backend} is not known here; {choices}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise DatabaseError("--database: a gallery in memory is lost with the process; give sqlite:///FILE")
    # Without a driver's name SQLAlchemy would take psycopg2.
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseError(f"{path} cannot be written: {error.strerror}") from None


def _check_writable(path: Path) -> None:
    """Raise DatabaseError where `_make_private` or a later write would; makes nothing."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    reason = 0
    if path.is_dir():
        reason = errno.EISDIR
    elif there != path and not there.is_dir():
        reason = errno.EEXIST if there == path.absolute().parent else errno.ENOTDIR
    elif not os.access(there, os.W_OK):
        reason = errno.EACCES
    if reason:
        raise DatabaseError(f"{path} cannot be written: {os.strerror(reason)}")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("foreign_keys=ON", "secure_delete=ON", "journal_mode=DELETE", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _make_tables(engine: Engine) -> None:
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            if connection.execute(select(revisions.c.schema)).first() is None:
                connection.execute(insert(revisions).values(schema=SCHEMA_VERSION, revision=0))
    except (IntegrityError, OperationalError):
        # Another process made them at the same moment, or nobody could.
        if not inspect(engine).has_table(revisions.name):
            raise
    _check_schema(engine)


def _check_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(select(revisions.c.schema)).scalar()
    if found not in (None, SCHEMA_VERSION):
        raise DatabaseError(
            f"the gallery was made by schema {found}, this program reads {SCHEMA_VERSION}; use another file"
        )


def _first_line(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
