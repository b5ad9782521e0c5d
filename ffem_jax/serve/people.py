"""The people of a gallery, whatever the model: listed, found by name or id, deleted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ffem_jax.errors import FfemError
from ffem_jax.serve.changes import take_revision
from ffem_jax.serve.database import deletions, people, vectors, wipe_freed_space
from ffem_jax.serve.names import NameRefusedError, normalize_name
from ffem_jax.text.names import fold_name

PEOPLE_AT_ONCE = 1000


class UnknownPersonError(FfemError):
    """A name or an id that nobody has. The message is one line."""


@dataclass(frozen=True)
class Person:
    """Who is enrolled. vectors: how many are held, of all models. enrolled_at: UTC, ISO 8601."""

    person_id: int
    name: str
    vectors: int
    enrolled_at: str


def write_id(number: int) -> str:
    """An id of a person or a vector as it goes over the wire: 16 hexadecimal digits, since JavaScript has no whole
    numbers so large."""
    return f"{number:016x}"


def read_id(text: str) -> int:
    """The id that `write_id` wrote; one of nobody and nothing for any above 63 bits."""
    number = int(text, 16)
    return number if number < 2**63 else -1


def list_people(engine: Engine, after: int = -1, limit: int = 100) -> list[Person]:
    """Up to `limit` people in order of id, from beyond the id `after` on."""
    return _select_people(engine, people.c.person_id > after, limit)


def read_all_people(engine: Engine) -> Iterator[Person]:
    """Everybody, in order of id, read in pages."""
    after = -1
    while page := list_people(engine, after, PEOPLE_AT_ONCE):
        yield from page
        after = page[-1].person_id


def find_person(engine: Engine, name: str) -> Person | None:
    """The person of that name, or None. Raises NameRefusedError for a name that nobody can have."""
    return next(iter(_select_people(engine, people.c.name == normalize_name(name), 1)), None)


def find_person_by_id(engine: Engine, person_id: int) -> Person | None:
    """The person of that id, or None."""
    return next(iter(_select_people(engine, people.c.person_id == person_id, 1)), None)


def choose_person(engine: Engine, called: str) -> Person:
    """The person of that name, else of that id as `write_id` writes it.

    Raises:
        UnknownPersonError: there is none; it names the nearest one.
    """
    try:
        found = find_person(engine, called)
    except NameRefusedError:
        found = None
    if found is None and re.fullmatch(r"[0-9a-f]{16}", called):
        found = find_person_by_id(engine, read_id(called))
    if found is None:
        names = [person.name for person in read_all_people(engine)]
        close = [name for name in names if fold_name(name) == fold_name(called)]
        close = close or difflib.get_close_matches(called, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "ffem serve people list shows who is"
        raise UnknownPersonError(f"nobody is enrolled as {called!r}; {hint}")
    return found


def delete_person(connection: Connection, person_id: int) -> int | None:
    """Delete a person and all their vectors, of every model; how many vectors that were, None where nobody has that id.

    In a transaction of its own; the bytes leave the files with `database.wipe_freed_space`.
    """
    revision = take_revision(connection)
    count = connection.execute(delete(vectors).where(vectors.c.person_id == person_id)).rowcount
    if not connection.execute(delete(people).where(people.c.person_id == person_id)).rowcount:
        return None
    connection.execute(insert(deletions).values(revision=revision, person_id=person_id))
    return int(count)


def erase_person(engine: Engine, person_id: int) -> bool:
    """Delete a person as `delete_person` does, and their bytes from the files; whether the files could be written anew.

    Raises UnknownPersonError where another process has deleted the person meanwhile.
    """
    with engine.begin() as connection:
        if delete_person(connection, person_id) is None:
            raise UnknownPersonError("somebody else has just deleted this person")
    try:
        wipe_freed_space(engine)
    except SQLAlchemyError:
        return False
    return True


def _select_people(engine: Engine, condition: Any, limit: int) -> list[Person]:
    count = select(func.count()).where(vectors.c.person_id == people.c.person_id).scalar_subquery()
    query = select(people.c.person_id, people.c.name, count, people.c.enrolled_at).where(condition)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(people.c.person_id).limit(limit)).all()
    return [Person(*row) for row in rows]
