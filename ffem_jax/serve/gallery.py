"""Who is enrolled: people by name, their vectors by model, kept in the database and matched in memory.

One transaction a change, on the disk before the call returns. Vectors of two models never meet: a gallery is opened for
one model, and sees no other's vectors but to hand out and to delete a person's data.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from ffem_jax.metrics.identification import normalize_embeddings
from ffem_jax.serve.database import deletions, models, people, read_clock, revisions, vectors, wipe_freed_space
from ffem_jax.serve.names import normalize_name
from ffem_jax.serve.snapshot import Snapshot, SnapshotKeeper
from ffem_jax.serve.thresholds import Threshold

log = logging.getLogger(__name__)

STORED = np.dtype("<f4")
# A million rows as Python objects would take three times what their numbers do.
ROWS_AT_ONCE = 10_000


class GalleryError(ValueError):
    """A request that the gallery refuses. The message is one line."""


@dataclass(frozen=True)
class Person:
    """Who is enrolled. vectors: how many are held, of all models. enrolled_at: UTC, ISO 8601."""

    person_id: int
    name: str
    vectors: int
    enrolled_at: str


@dataclass(frozen=True)
class StoredVector:
    """A vector as it is held: float32 [length], of unit length."""

    model_id: str
    vector: np.ndarray
    enrolled_at: str


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment did. added: vectors that were new; vectors: how many of this model the person has now."""

    person_id: int
    name: str
    added: int
    vectors: int


@dataclass(frozen=True)
class Deletion:
    """What a deletion did. vectors: how many are gone. wiped: whether the files were written anew without them."""

    vectors: int
    wiped: bool


@dataclass(frozen=True)
class Answer:
    """What is said to one vector: the nearest person where accepted, the distance and the threshold in 0 to 1.

    distance: None where nobody is enrolled.
    """

    person_id: int | None
    name: str | None
    distance: float | None
    threshold: float

    @property
    def accepted(self) -> bool:
        """Whether distance <= threshold (Eq. 7)."""
        return self.person_id is not None


class Gallery:
    """The gallery of one model. Every method may be called from any thread, and other processes may write too."""

    def __init__(self, engine: Engine, model_id: str, length: int):
        """Open the gallery of `model_id`, whose vectors have `length` numbers.

        Raises GalleryError where the database holds vectors of that model with another length.
        """
        self.engine, self.model_id, self.length = engine, model_id, length
        # Writers of one process take turns here, which is fair; those of several take turns in the database.
        self._writing, self._refreshing = threading.Lock(), threading.Lock()
        self._keeper = SnapshotKeeper(length)
        with self._writing, engine.begin() as connection:
            _take_revision(connection)
            known = connection.execute(select(models.c.length).where(models.c.model_id == model_id)).scalar()
            if known is None:
                connection.execute(insert(models).values(model_id=model_id, length=length))
            elif known != length:
                raise GalleryError(f"the gallery holds vectors of {known} numbers for model {model_id}, not {length}")

    # ------------------------------------------------------------------------------- changes

    def enrol(self, name: str, embeddings: npt.ArrayLike) -> Enrolment:
        """Add embeddings [vector, length] of the person `name`, who is new or known. All of them or none.

        A vector that the person already has is not stored twice, so that a request may be repeated.
        Raises ValueError for a name without a letter, a wrong length, and an embedding without direction.
        """
        return self.enrol_all([(name, embeddings)])[0]

    def enrol_all(self, batch: Sequence[tuple[str, npt.ArrayLike]]) -> list[Enrolment]:
        """`enrol` for several people in one transaction."""
        ready = [(normalize_name(name), self._prepare(embeddings)) for name, embeddings in batch]
        now = read_clock()
        with self._writing, self.engine.begin() as connection:
            revision = _take_revision(connection)
            done, rows = [], []
            for name, blobs in ready:
                person_id, held = _find_person(connection, name, self.model_id, now)
                new = [blob for blob in dict.fromkeys(blobs) if blob not in held]
                common = {"person_id": person_id, "model_id": self.model_id, "revision": revision, "enrolled_at": now}
                rows += [{**common, "data": blob} for blob in new]
                done.append(Enrolment(person_id, name, len(new), len(held) + len(new)))
            if rows:
                connection.execute(insert(vectors), rows)
        return done

    def delete(self, person_id: int) -> Deletion | None:
        """Delete a person and all their vectors, of every model, from the tables, from memory and from the files.

        None where nobody has that id. Where the files cannot be written anew, for want of space or because another
        process holds them, the person is deleted all the same, and that is logged.
        """
        with self._writing:
            with self.engine.begin() as connection:
                revision = _take_revision(connection)
                count = connection.execute(delete(vectors).where(vectors.c.person_id == person_id)).rowcount
                if not connection.execute(delete(people).where(people.c.person_id == person_id)).rowcount:
                    return None
                connection.execute(insert(deletions).values(revision=revision, person_id=person_id))
            try:
                wipe_freed_space(self.engine)
            except SQLAlchemyError as error:
                log.error("wipe_failed", extra={"error": type(error).__name__})
                wiped = False
            else:
                wiped = True
        with self.engine.connect() as connection:
            self.refresh(connection)
        return Deletion(count, wiped)

    def _prepare(self, embeddings: npt.ArrayLike) -> list[bytes]:
        matrix = normalize_embeddings(embeddings)
        if matrix.shape[1] != self.length:
            raise GalleryError(
                f"a vector has {matrix.shape[1]} numbers; those of model {self.model_id} have {self.length}"
            )
        return [row.tobytes() for row in matrix.astype(STORED)]

    # ------------------------------------------------------------------------------- reading

    def match(self, embedding: npt.ArrayLike, threshold: Threshold) -> Answer:
        """The nearest enrolled person (Eq. 6), accepted at distance <= threshold (Eq. 7), as of now or later.

        embedding: [length]. Raises ValueError for a wrong length and for a vector without direction.
        """
        vector = np.asarray(embedding, np.float64)
        if vector.shape != (self.length,):
            raise GalleryError(
                f"a vector has shape {vector.shape}; those of model {self.model_id} have ({self.length},)"
            )
        with self.engine.connect() as connection:
            while True:
                snapshot = self.refresh(connection)
                sigma = threshold.at(len(snapshot.people))
                found = snapshot.match(vector, sigma)
                if found is None:
                    return Answer(None, None, None, sigma)
                distance = float(found.distance[0])
                if not found.accepted[0]:
                    return Answer(None, None, distance, sigma)
                person_id = int(found.label[0])
                name = connection.execute(select(people.c.name).where(people.c.person_id == person_id)).scalar()
                if name is not None:
                    return Answer(person_id, name, distance, sigma)
                # Deleted since: look again, among those who are left.

    def refresh(self, connection: Connection) -> Snapshot:
        """The vectors of this model as they are now, or at a later moment before this returns."""
        revision = connection.execute(select(revisions.c.revision)).scalar_one()
        snapshot = self._keeper.snapshot
        if snapshot.revision >= revision:
            return snapshot
        with self._refreshing:
            snapshot = self._keeper.snapshot
            if snapshot.revision >= revision:
                return snapshot
            since = snapshot.revision
            # Rows numbered up to `revision` are all there. One deleted after it may be missing, and its deletion is
            # then found the next time, when there is nothing left to forget.
            gone = select(deletions.c.person_id).where(deletions.c.revision > since, deletions.c.revision <= revision)
            new = (
                select(vectors.c.person_id, vectors.c.data)
                .where(vectors.c.model_id == self.model_id)
                .where(vectors.c.revision > since, vectors.c.revision <= revision)
                .order_by(vectors.c.vector_id)
            )
            deleted = np.array(connection.execute(gone).scalars().all(), np.int64)
            owners, blocks = [np.empty(0, np.int64)], [np.empty((0, self.length), STORED)]
            for rows in connection.execute(new.execution_options(yield_per=ROWS_AT_ONCE)).partitions():
                owners.append(np.array([row.person_id for row in rows], np.int64))
                blocks.append(np.frombuffer(b"".join(row.data for row in rows), STORED).reshape(-1, self.length))
            return self._keeper.advance(revision, deleted, np.concatenate(blocks), np.concatenate(owners))

    def count(self) -> tuple[int, int]:
        """How many people and vectors of this model are enrolled."""
        with self.engine.connect() as connection:
            snapshot = self.refresh(connection)
        return len(np.unique(snapshot.people)), len(snapshot.people)

    def list_people(self, after: int = -1, limit: int = 100) -> list[Person]:
        """Up to `limit` people in order of id, from beyond `after` on; of all models."""
        return self._select_people(people.c.person_id > after, limit)

    def find_person(self, name: str) -> Person | None:
        """The person of that name, or None."""
        return next(iter(self._select_people(people.c.name == normalize_name(name), 1)), None)

    def read_person(self, person_id: int) -> tuple[Person, list[StoredVector]] | None:
        """All that is held about one person, or None where nobody has that id."""
        held = select(vectors.c.model_id, vectors.c.data, vectors.c.enrolled_at)
        found = self._select_people(people.c.person_id == person_id, 1)
        with self.engine.connect() as connection:
            rows = connection.execute(held.where(vectors.c.person_id == person_id).order_by(vectors.c.vector_id)).all()
        if not found:
            return None
        return found[0], [StoredVector(row.model_id, np.frombuffer(row.data, STORED), row.enrolled_at) for row in rows]

    def _select_people(self, condition: Any, limit: int) -> list[Person]:
        count = select(func.count()).where(vectors.c.person_id == people.c.person_id).scalar_subquery()
        query = select(people.c.person_id, people.c.name, count, people.c.enrolled_at).where(condition)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(people.c.person_id).limit(limit)).all()
        return [Person(*row) for row in rows]


def _take_revision(connection: Connection) -> int:
    """The number of this transaction's write. Others wait here until it is over."""
    connection.execute(update(revisions).values(revision=revisions.c.revision + 1))
    return connection.execute(select(revisions.c.revision)).scalar_one()


def _find_person(connection: Connection, name: str, model_id: str, now: str) -> tuple[int, set[bytes]]:
    """The id of the person `name`, who is made where there is none, and the vectors that they have of `model_id`."""
    person_id = connection.execute(select(people.c.person_id).where(people.c.name == name)).scalar()
    if person_id is None:
        person_id = secrets.randbits(63)
        connection.execute(insert(people).values(person_id=person_id, name=name, enrolled_at=now))
        return person_id, set()
    held = select(vectors.c.data).where(vectors.c.person_id == person_id, vectors.c.model_id == model_id)
    return person_id, {bytes(blob) for blob in connection.execute(held).scalars()}
