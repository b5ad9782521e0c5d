"""The gallery's tables, and the database that holds them: SQLite, or PostgreSQL by URL.

Every write takes the next number of `revisions` first, whose row's lock makes writes of all processes follow one
another: whoever has seen revision R has seen every write up to it. So what a process keeps in memory is brought up to
date with the rows numbered since, and never misses one.
"""

from __future__ import annotations

import os
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
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from ffem_jax.errors import FfemError

SCHEMA_VERSION = 1
DEFAULT_URL = "sqlite:///gallery.db"
# How long one writer waits for another, or for a file that is being rewritten after a deletion.
LOCK_SECONDS = 60
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

# Which folder's picture a vector was made of, where `ffem embed --import` enrolled it; the last import of it counts. A
# table of its own, so that galleries and programs from before it go on working. source: the folder's absolute path;
# image: the file in it.
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


def open_database(url: str = DEFAULT_URL) -> Engine:
    """The database at `url` (sqlite:///FILE or postgresql+psycopg://...), with its tables made where they are missing.

    A new SQLite file is readable by its owner alone. Raises DatabaseError where it cannot be opened, and for one that
    another version of the schema made.
    """
    parsed = _parse(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parsed.get_backend_name() == "sqlite":
        _make_private(Path(parsed.database or ""))
        options = {"connect_args": {"timeout": LOCK_SECONDS}}
    try:
        # An error's message would hold the row it is about.
        engine = create_engine(parsed, hide_parameters=True, pool_size=THREADS, **options)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
        _make_tables(engine)
    except ImportError as error:
        raise DatabaseError(
            f"{url_without_password(parsed)} needs a driver: {error}; pip install 'psycopg[binary]'"
        ) from None
    except SQLAlchemyError as error:
        raise DatabaseError(f"{url_without_password(parsed)} cannot be opened: {_first_line(error)}") from None
    return engine


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
    statement = "VACUUM" if engine.dialect.name == "sqlite" else "VACUUM FULL vectors, people, origins"
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
    with engine.connect() as connection:
        found = connection.execute(select(revisions.c.schema)).scalar_one()
    if found != SCHEMA_VERSION:
        raise DatabaseError(
            f"the gallery was made by schema {found}, this program reads {SCHEMA_VERSION}; use another file"
        )


def _first_line(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return next(iter(str(cause).strip().splitlines()), type(cause).__name__)
