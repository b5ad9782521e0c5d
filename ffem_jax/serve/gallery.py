"""Who is enrolled: people by name, their vectors by model, kept in the database and matched in memory.

One transaction a change, on the disk before the call returns. Vectors of two models never meet: a gallery is opened for
one model, and sees no other's vectors but to hand out and to delete a person's data.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ffem_jax.errors import FfemError
from ffem_jax.metrics.duplicates import find_same_rows
from ffem_jax.metrics.identification import normalize_embeddings
from ffem_jax.serve.changes import (
    STORED,
    Candidate,
    add_vectors,
    adopt_origins,
    find_people,
    note_requests,
    plan_additions,
    read_places,
    remove_vectors,
    take_revision,
)
from ffem_jax.serve.database import (
    ROWS_AT_ONCE,
    deletions,
    models,
    people,
    read_clock,
    revisions,
    vectors,
    wipe_freed_space,
)
from ffem_jax.serve.names import normalize_name
from ffem_jax.serve.people import Person, delete_person, find_person, find_person_by_id, list_people
from ffem_jax.serve.snapshot import Snapshot, SnapshotKeeper
from ffem_jax.serve.thresholds import Threshold

log = logging.getLogger(__name__)


class GalleryError(FfemError):
    """A request that the gallery refuses. The message is one line."""


class ConflictError(GalleryError):
    """A vector of somebody else's. The message is one line and does not say whose."""


@dataclass(frozen=True)
class StoredVector:
    """A vector as it is held: float32 [length], of unit length. places: (folder, file in it) of each picture it was
    made of; ("", "") where a request enrolled it too; none where a request alone did."""

    vector_id: int
    model_id: str
    vector: np.ndarray
    enrolled_at: str
    places: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Enrolment:
    """What an enrolment did. added: vectors that were new; vectors: how many of this model the person has now."""

    person_id: int
    name: str
    added: int
    vectors: int


@dataclass(frozen=True)
class Deletion:
    """What a deletion did. vectors: how many are gone; left: how many the person has now, of all models. wiped: whether
    the files were written anew without them."""

    vectors: int
    wiped: bool
    left: int = 0


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
            take_revision(connection)
            known = connection.execute(select(models.c.length).where(models.c.model_id == model_id)).scalar()
            if known is None:
                connection.execute(insert(models).values(model_id=model_id, length=length))
            elif known != length:
                raise GalleryError(f"the gallery holds vectors of {known} numbers for model {model_id}, not {length}")
            adopt_origins(connection)

    # ------------------------------------------------------------------------------- changes

    def enrol(self, name: str, embeddings: npt.ArrayLike) -> Enrolment:
        """Add embeddings [vector, length] of the person `name`, who is new or known. All of them or none.

        A vector that the person already has, to within SAME_DISTANCE, is not stored twice, so that a request may be
        repeated. Raises ValueError for a name without a letter, a wrong length, an embedding without direction and for
        none at all, and ConflictError for a vector that another person has.
        """
        return self.enrol_all([(name, embeddings)])[0]

    def enrol_all(self, batch: Sequence[tuple[str, npt.ArrayLike]]) -> list[Enrolment]:
        """`enrol` for several people in one transaction."""
        ready = [(normalize_name(name), self.prepare(embeddings)) for name, embeddings in batch]
        candidates = [Candidate(name, row) for name, rows in ready for row in rows]
        if not all(len(rows) for _, rows in ready):
            raise GalleryError("an enrolment takes at least one vector")
        if not candidates:
            return []
        with self.change() as (connection, revision, snapshot):
            probes = np.stack([one.vector for one in candidates])
            plan = plan_additions(connection, self.model_id, candidates, find_holders(snapshot, probes))
            wrong = sum(conflict.left_out for conflict in plan.conflicts)
            if wrong:
                raise ConflictError(
                    f"{wrong} of {len(candidates)} vectors are another person's already; a vector belongs to one person"
                )
            new = [candidates[index] for index in plan.new]
            add_vectors(connection, revision, self.model_id, new, read_clock())
            note_requests(connection, {held.vector_id for held in plan.known.values() if held.places})
            ids = find_people(connection, {name for name, _ in ready})
            count = select(func.count()).where(vectors.c.model_id == self.model_id)
            added = Counter(one.name for one in new)
            done = []
            for name in dict.fromkeys(name for name, _ in ready):
                held = connection.execute(count.where(vectors.c.person_id == ids[name])).scalar_one()
                done.append(Enrolment(ids[name], name, added[name], held))
        each = {one.name: one for one in done}
        return [each[name] for name, _ in ready]

    def delete(self, person_id: int) -> Deletion | None:
        """Delete a person and all their vectors, of every model, from the tables, from memory and from the files.

        None where nobody has that id. Where the files cannot be written anew, for want of space or because another
        process holds them, the person is deleted all the same, and that is logged.
        """
        with self._writing, self.engine.begin() as connection:
            count = delete_person(connection, person_id)
        return None if count is None else Deletion(count, self.wipe())

    def delete_vector(self, person_id: int, vector_id: int) -> Deletion | None:
        """Delete one vector of a person, of whichever model, as `delete` does. The person stays, even without any.

        None where that person has no vector of that id.
        """
        with self._writing, self.engine.begin() as connection:
            take_revision(connection)
            own = vectors.c.person_id == person_id
            if not connection.execute(select(vectors.c.vector_id).where(own, vectors.c.vector_id == vector_id)).first():
                return None
            remove_vectors(connection, [(person_id, vector_id)])
            left = connection.execute(select(func.count()).select_from(vectors).where(own)).scalar_one()
        return Deletion(1, self.wipe(), left)

    @contextlib.contextmanager
    def change(self) -> Iterator[tuple[Connection, int, Snapshot]]:
        """A transaction that writes: its connection, its revision, and the vectors as they are before it.

        No other writes until it is over; it is undone where the block raises.
        """
        # Most is read before others have to wait.
        with self.engine.connect() as connection:
            self.refresh(connection)
        with self._writing, self.engine.begin() as connection:
            revision = take_revision(connection)
            # Before anything else: a reader that waits for a table while it has the lock of the snapshot, held up by
            # VACUUM FULL, which in turn waits for this transaction's use of that table, would never be done.
            snapshot = self._catch_up(connection, revision - 1)
            yield connection, revision, snapshot

    def wipe(self) -> bool:
        """Have what was deleted vanish from the files and from memory; False, and logged, where files would not."""
        wiped = True
        with self._writing:
            try:
                wipe_freed_space(self.engine)
            except SQLAlchemyError as error:
                log.error("wipe_failed", extra={"error": type(error).__name__})
                wiped = False
        with self.engine.connect() as connection:
            self.refresh(connection)
        return wiped

    def prepare(self, embeddings: npt.ArrayLike) -> np.ndarray:
        """Embeddings [vector, length] as they are stored. Raises ValueError as `enrol` does."""
        matrix = normalize_embeddings(embeddings)
        if matrix.shape[1] != self.length:
            raise GalleryError(
                f"a vector has {matrix.shape[1]} numbers; those of model {self.model_id} have {self.length}"
            )
        return matrix.astype(STORED)

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
        return snapshot if snapshot.revision >= revision else self._catch_up(connection, revision)

    def _catch_up(self, connection: Connection, revision: int) -> Snapshot:
        """The snapshot after `revision` or a later one."""
        with self._refreshing:
            while True:
                snapshot = self._keeper.snapshot
                if snapshot.revision >= revision:
                    return snapshot
                deleted, rows, owners = self._read_since(connection, snapshot.revision, revision)
                # Rows numbered up to `revision` are all there, but for those that a deletion after it has taken away
                # or numbered anew while they were read: then they are read again.
                newest = connection.execute(select(func.max(deletions.c.revision))).scalar() or 0
                if newest <= revision:
                    return self._keeper.advance(revision, deleted, rows, owners)
                revision = connection.execute(select(revisions.c.revision)).scalar_one()

    def _read_since(
        self, connection: Connection, since: int, revision: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The people to forget, the vectors [row, length] to add and whose they are [row], of `since` to `revision`."""
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
        return deleted, np.concatenate(blocks), np.concatenate(owners)

    def count(self) -> tuple[int, int]:
        """How many people and vectors of this model are enrolled."""
        with self.engine.connect() as connection:
            snapshot = self.refresh(connection)
        return len(np.unique(snapshot.people)), len(snapshot.people)

    def list_people(self, after: int = -1, limit: int = 100) -> list[Person]:
        """Up to `limit` people in order of id, from beyond `after` on; of all models."""
        return list_people(self.engine, after, limit)

    def find_person(self, name: str) -> Person | None:
        """The person of that name, or None."""
        return find_person(self.engine, name)

    def read_person(self, person_id: int) -> tuple[Person, list[StoredVector]] | None:
        """All that is held about one person, or None where nobody has that id."""
        columns = (vectors.c.vector_id, vectors.c.model_id, vectors.c.data, vectors.c.enrolled_at)
        held = select(*columns).where(vectors.c.person_id == person_id).order_by(vectors.c.vector_id)
        found = find_person_by_id(self.engine, person_id)
        with self.engine.connect() as connection:
            rows = connection.execute(held).all()
            places = read_places(connection, [row.vector_id for row in rows])
        if found is None:
            return None
        return found, [
            StoredVector(row[0], row[1], np.frombuffer(row[2], STORED), row[3], places.get(row[0], ())) for row in rows
        ]


def find_holders(snapshot: Snapshot, probes: np.ndarray) -> set[int]:
    """The ids of the people who have a vector that is the same as one of `probes` [vector, length]."""
    return set(snapshot.people[find_same_rows(snapshot.vectors, probes)].tolist())
