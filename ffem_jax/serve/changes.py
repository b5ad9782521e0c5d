"""The steps of a change to the gallery's tables, inside a transaction that has taken its revision."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection, Select, delete, exists, insert, select, update

from ffem_jax.metrics.duplicates import group_same_vectors
from ffem_jax.serve.database import deletions, origins, people, revisions, sources, vectors

STORED = np.dtype("<f4")
# More vectors than one transaction adds: its numbers begin at revision * VECTORS_A_REVISION.
VECTORS_A_REVISION = 2**24
# What a statement may name at once; SQLite takes 32,766.
NAMED_AT_ONCE = 10_000

Item = TypeVar("Item")


@dataclass(frozen=True)
class Candidate:
    """A vector to enrol. name: as `normalize_name` has it; vector: STORED [length], of unit length; image: its file."""

    name: str
    vector: np.ndarray
    image: str | None = None


@dataclass(frozen=True)
class Held:
    """A vector that is enrolled. places: (folder, file in it) of each picture it was made of, ("", "") for a request;
    none where a request alone brought it."""

    vector_id: int
    person_id: int
    name: str
    vector: np.ndarray
    places: tuple[tuple[str, str], ...]

    @property
    def image(self) -> str | None:
        """A file it was made of, None where that is not known."""
        return next((image for _, image in self.places if image), None)

    def find_image(self, source: str) -> str | None:
        """Its file in the folder `source`."""
        return next((image for folder, image in self.places if folder == source), None)

    def list_others(self, source: str) -> tuple[str | None, ...]:
        """The other folders that have it too, None for a request."""
        return tuple(dict.fromkeys(folder or None for folder, _ in self.places if folder != source))


@dataclass(frozen=True)
class Conflict:
    """One vector, or one picture's, that two people have: one of the names is wrong.

    name, image: of the vector that was to be enrolled; other_name, other_image: of the one that is there already, or
    was to be enrolled as well. together: whether it was to be enrolled for several people at once. left_out: whether
    the first is not enrolled for that.
    """

    name: str
    image: str | None
    other_name: str
    other_image: str | None
    together: bool
    left_out: bool


@dataclass(frozen=True)
class Additions:
    """What becomes of candidates.

    new: indices of those to be added, of what a person has twice the first. repeats: index of each further one -> that
    first. known: index -> the row that the person has already. conflicts: what other people have; of these only those
    in `known` are enrolled.
    """

    new: tuple[int, ...]
    repeats: dict[int, int]
    known: dict[int, Held]
    conflicts: tuple[Conflict, ...]


def take_revision(connection: Connection) -> int:
    """The number of this transaction's write, or of its next one. Others wait here until it is over."""
    connection.execute(update(revisions).values(revision=revisions.c.revision + 1))
    return int(connection.execute(select(revisions.c.revision)).scalar_one())


def select_held(model_id: str) -> Select:
    """The rows of `Held` of a model without their places, to be narrowed by `where`."""
    columns = (vectors.c.vector_id, vectors.c.person_id, people.c.name, vectors.c.data)
    return select(*columns).select_from(vectors.join(people)).where(vectors.c.model_id == model_id)


def read_held(connection: Connection, query: Select) -> list[Held]:
    """The rows of a query that `select_held` began, in the order of their enrolment."""
    rows = connection.execute(query.order_by(vectors.c.vector_id)).all()
    places = read_places(connection, [row.vector_id for row in rows])
    return [Held(row[0], row[1], row[2], np.frombuffer(row[3], STORED), places.get(row[0], ())) for row in rows]


def read_places(connection: Connection, vector_ids: Iterable[int]) -> dict[int, tuple[tuple[str, str], ...]]:
    """The places of vectors, as `Held` has them, by id; those without any are left out."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for ids in _split(vector_ids):
        rows = select(sources.c.vector_id, sources.c.source, sources.c.image).where(sources.c.vector_id.in_(ids))
        for number, source, image in connection.execute(rows.order_by(sources.c.source, sources.c.image)):
            found[number].append((source, image))
    return {number: tuple(places) for number, places in found.items()}


def plan_additions(
    connection: Connection, model_id: str, candidates: Sequence[Candidate], suspects: Collection[int]
) -> Additions:
    """What of `candidates` is new, known, there twice or another person's.

    suspects: ids of all the people who may hold such a vector; what they hold by now is read here.
    """
    held = [
        one
        for ids in _split(sorted(suspects))
        for one in read_held(connection, select_held(model_id).where(vectors.c.person_id.in_(ids)))
    ]
    groups: dict[int, tuple[list[Held], list[int]]] = defaultdict(lambda: ([], []))
    stacked = [one.vector for one in held] + [one.vector for one in candidates]
    keys = group_same_vectors(np.stack(stacked)).tolist()
    for one, key in zip(held, keys, strict=False):
        groups[key][0].append(one)
    for index, key in enumerate(keys[len(held) :]):
        groups[key][1].append(index)
    new: list[int] = []
    repeats: dict[int, int] = {}
    known: dict[int, Held] = {}
    conflicts: list[Conflict] = []
    for there, indices in groups.values():
        by_name = {one.name: one for one in reversed(there)}
        known |= {index: by_name[candidates[index].name] for index in indices if candidates[index].name in by_name}
        firsts: dict[str, int] = {}  # of each person; the others repeat it
        for index in indices:
            firsts.setdefault(candidates[index].name, index)
        if len({*by_name, *firsts}) == 1:
            new += [index for index in firsts.values() if index not in known]
            repeats |= {
                index: first
                for index in indices
                if index not in known and index != (first := firsts[candidates[index].name])
            }
        else:
            conflicts += _describe_conflicts(candidates, [*firsts.values()], there, known)
    return Additions(tuple(sorted(new)), repeats, known, tuple(conflicts))


def _describe_conflicts(
    candidates: Sequence[Candidate], firsts: Sequence[int], there: Sequence[Held], known: Collection[int]
) -> Iterator[Conflict]:
    """What the people of one vector are to be told. firsts: a candidate of each; there: who has it already."""
    images = {candidates[index].name: candidates[index].image for index in firsts}
    others = [(one.name, images.get(one.name, one.image)) for one in there] or list(images.items())[:1]
    told: set[frozenset[str]] = set()
    for index in firsts:
        one = candidates[index]
        name, image = next((other for other in others if other[0] != one.name), ("", None))
        if name and frozenset((one.name, name)) not in told:
            told.add(frozenset((one.name, name)))
            yield Conflict(one.name, one.image, name, image, len(firsts) > 1, index not in known)


def find_people(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The ids of those of `names` who are enrolled."""
    found: dict[str, int] = {}
    for some in _split(names):
        rows = connection.execute(select(people.c.name, people.c.person_id).where(people.c.name.in_(some)))
        found |= {row.name: row.person_id for row in rows}
    return found


def add_vectors(
    connection: Connection, revision: int, model_id: str, candidates: Sequence[Candidate], now: str
) -> tuple[dict[str, int], list[int]]:
    """Insert `candidates` as they are; (ids of their people, who are made where needed, and the vectors' ids)."""
    if len(candidates) >= VECTORS_A_REVISION:
        raise ValueError(f"{len(candidates)} vectors are more than one transaction takes")
    names = dict.fromkeys(one.name for one in candidates)
    ids = find_people(connection, names)
    made = {name: secrets.randbits(63) for name in names if name not in ids}
    if made:
        new = [{"person_id": person_id, "name": name, "enrolled_at": now} for name, person_id in made.items()]
        connection.execute(insert(people), new)
    ids |= made
    numbers = [revision * VECTORS_A_REVISION + index for index in range(len(candidates))]
    common = {"model_id": model_id, "revision": revision, "enrolled_at": now}
    rows = [
        {**common, "vector_id": number, "person_id": ids[one.name], "data": one.vector.tobytes()}
        for number, one in zip(numbers, candidates, strict=True)
    ]
    if rows:
        connection.execute(insert(vectors), rows)
    return ids, numbers


def adopt_origins(connection: Connection) -> None:
    """Move what a process of an earlier version noted in `origins` to `sources`."""
    row = (origins.c.vector_id, origins.c.source, origins.c.image)
    known = exists().where(
        sources.c.vector_id == origins.c.vector_id,
        sources.c.source == origins.c.source,
        sources.c.image == origins.c.image,
    )
    columns = ["vector_id", "source", "image"]
    connection.execute(insert(sources).from_select(columns, select(*row).where(~known)))
    connection.execute(delete(origins))


def note_images(connection: Connection, source: str, images: Mapping[int, Collection[str]]) -> None:
    """Note which files of the folder `source` each vector is made of, by id; those of other folders stay noted."""
    for ids in _split(images):
        connection.execute(delete(sources).where(sources.c.source == source, sources.c.vector_id.in_(ids)))
    rows = [
        {"vector_id": number, "source": source, "image": image}
        for number, names in images.items()
        for image in dict.fromkeys(names)
    ]
    if rows:
        connection.execute(insert(sources), rows)


def note_requests(connection: Connection, vector_ids: Collection[int]) -> None:
    """Note that a request enrolled the vectors too, so that no folder's sync takes them away."""
    note_images(connection, "", dict.fromkeys(vector_ids, ("",)))


def forget_folder(connection: Connection, source: str, vector_ids: Collection[int]) -> None:
    """Note that the folder `source` has the vectors no longer."""
    note_images(connection, source, dict.fromkeys(vector_ids, ()))


def rename_folder(connection: Connection, before: str, now: str) -> None:
    """Note that the folder `now` was called `before`."""
    other = sources.alias()
    twice = exists().where(
        other.c.vector_id == sources.c.vector_id, other.c.source == now, other.c.image == sources.c.image
    )
    connection.execute(delete(sources).where(sources.c.source == before, twice))
    connection.execute(update(sources).where(sources.c.source == before).values(source=now))


def remove_vectors(connection: Connection, gone: Collection[tuple[int, int]]) -> None:
    """Delete the vectors (person_id, vector_id) `gone`, and have every process forget them.

    What is in memory is forgotten by person: the vectors that a person keeps, of every model, get the revision of the
    deletion, with which they are read again. Every earlier version of the program does so too.
    """
    for ids in _split((vector_id for _, vector_id in gone)):
        connection.execute(delete(vectors).where(vectors.c.vector_id.in_(ids)))
    for person_id in dict.fromkeys(person_id for person_id, _ in gone):
        revision = take_revision(connection)
        connection.execute(insert(deletions).values(revision=revision, person_id=person_id))
        connection.execute(update(vectors).where(vectors.c.person_id == person_id).values(revision=revision))


def remove_empty_people(connection: Connection, person_ids: Collection[int]) -> list[str]:
    """Delete those of `person_ids` who have no vector left, of any model; their names."""
    left: list[tuple[int, str]] = []
    for ids in _split(person_ids):
        empty = people.c.person_id.in_(ids) & ~select(vectors).where(vectors.c.person_id == people.c.person_id).exists()
        rows = connection.execute(select(people.c.person_id, people.c.name).where(empty).order_by(people.c.name))
        left += [(row.person_id, row.name) for row in rows]
    for some in _split((person_id for person_id, _ in left)):
        connection.execute(delete(people).where(people.c.person_id.in_(some)))
    return [name for _, name in left]


def _split(items: Iterable[Item]) -> Iterator[list[Item]]:
    """`items` in lists that one statement may name."""
    rest = list(items)
    for start in range(0, len(rest), NAMED_AT_ONCE):
        yield rest[start : start + NAMED_AT_ONCE]
