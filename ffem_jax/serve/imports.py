"""A folder's people into the gallery, and on request the gallery put as the folder is.

The gallery notes every folder that a vector is in. A sync takes away what is no longer in its folder and in no other
either; what another folder has too, or a request enrolled, stays and is named. What came in none of this folder's
imports stays and is counted, unless all of the model's vectors are to go.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Connection, Select, func, literal_column, select

from ffem_jax.metrics.duplicates import group_same_vectors
from ffem_jax.serve.changes import (
    Additions,
    Candidate,
    Conflict,
    Held,
    add_vectors,
    adopt_origins,
    forget_folder,
    note_images,
    note_requests,
    plan_additions,
    read_held,
    remove_empty_people,
    remove_vectors,
    rename_folder,
    select_held,
)
from ffem_jax.serve.database import people, read_clock, sources, vectors
from ffem_jax.serve.gallery import Gallery, GalleryError, find_holders
from ffem_jax.serve.snapshot import Snapshot
from ffem_jax.text.names import fold_name

# A sync that would take away more people than the folder holds, and at least so many, wants to be forced: so much is
# missing on the disk rather than meant.
MANY_PEOPLE = 10


class Scope(enum.Enum):
    """What an import may take away: nothing, what belongs to its folder, or any vector of the model."""

    NOTHING, FOLDER, MODEL = range(3)


@dataclass(frozen=True)
class Entry:
    """A vector that came or went. image: its file, None where that is not known."""

    name: str
    image: str | None


@dataclass(frozen=True)
class SharedEntry:
    """A vector that is no longer in the folder and stays. others: the folders that have it too, None for a request."""

    name: str
    image: str | None
    others: tuple[str | None, ...]


Row = TypeVar("Row", Entry, SharedEntry)


@dataclass(frozen=True)
class ImportReport:
    """What an import did, or with `dry_run` would do.

    added, removed: vectors, in order of name and file. people_removed: who has no vector left, of any model, and is no
    longer enrolled. kept: how many vectors of this model, and of how many people, stay though no import of this folder
    brought them, by the folder that did (None: by another way). other_models: the same of other models' vectors, which
    no import touches, by model. similar: names that differ by case or width alone.
    shared: what is not in the folder any more and stays, for another folder or a request has it too. outdated: vectors
    that an import without a sync leaves, of files that hold another picture by now. refused: why the import would be
    refused, of a dry run; empty where it would not.
    wiped: whether the database's files were written anew without what went; None where nothing did.
    """

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    people_removed: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    kept: dict[str | None, tuple[int, int]]
    other_models: dict[str, tuple[int, int]]
    similar: tuple[tuple[str, ...], ...]
    shared: tuple[SharedEntry, ...] = ()
    outdated: tuple[Entry, ...] = ()
    refused: str = ""
    wiped: bool | None = None
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        row = dataclasses.asdict(self)
        kept = [{"folder": folder, "vectors": count, "people": who} for folder, (count, who) in self.kept.items()]
        models = [{"model_id": one, "vectors": count, "people": who} for one, (count, who) in self.other_models.items()]
        return {**row, "kept": kept, "other_models": models}


class _DryRunError(Exception):
    """Undoes the transaction."""

    def __init__(self, report: ImportReport):
        super().__init__()
        self.report = report


def import_people(
    gallery: Gallery,
    candidates: Sequence[Candidate],
    source: str,
    scope: Scope = Scope.NOTHING,
    *,
    unread: Mapping[str, Sequence[str]] | None = None,
    moved_from: str = "",
    dry_run: bool = False,
    force: bool = False,
) -> ImportReport:
    """Enrol the pictures of the folder `source`, and take away what `scope` says; all in one transaction.

    A vector that two people would have is enrolled for neither, or left with whom it is enrolled: see `conflicts`. With
    a scope it may not be two of the folder's own.

    Args:
        gallery: of the candidates' model.
        candidates: every picture of the folder.
        source: the folder's absolute path.
        scope: what may be taken away.
        unread: what of a person's could not be read, by name: they lose nothing.
        moved_from: the path that the folder had before; what its imports brought is this folder's.
        dry_run: change nothing.
        force: let go whoever is not in the folder, whatever is unread, and however many.

    Raises:
        GalleryError: with nothing done, for a folder without pictures, and for a sync of a folder that contradicts
            itself, from which most people are gone, or of which something is unread that may be what would go. A dry
            run reports the last three as `refused` instead.
    """
    if not candidates:
        raise GalleryError(f"{source} has no vector to import")
    try:
        with gallery.change() as (connection, revision, snapshot):
            adopt_origins(connection)
            if moved_from:
                rename_folder(connection, moved_from, source)
            report = _change_all(connection, revision, gallery.model_id, snapshot, candidates, source, scope)
            refused = "" if force else _find_missing(report.removed, candidates, source, unread or {})
            if scope is not Scope.NOTHING:
                refused = refused or _find_contradiction(report.conflicts)
            if dry_run:
                raise _DryRunError(dataclasses.replace(report, refused=refused, dry_run=True))
            if refused:
                raise GalleryError(refused)
    except _DryRunError as undone:
        return undone.report
    if not report.removed:
        return report
    return dataclasses.replace(report, wiped=gallery.wipe())


def _change_all(
    connection: Connection,
    revision: int,
    model_id: str,
    snapshot: Snapshot,
    candidates: Sequence[Candidate],
    source: str,
    scope: Scope,
) -> ImportReport:
    """Take away, enrol and note where from; what that was."""
    probes = np.stack([one.vector for one in candidates])
    absent = _find_absent(connection, model_id, candidates, source, scope)
    shared = [one for one in absent if scope is Scope.FOLDER and one.list_others(source)]
    removed = [one for one in absent if one not in shared]
    forget_folder(connection, source, [one.vector_id for one in shared])
    remove_vectors(connection, [(one.person_id, one.vector_id) for one in removed])
    plan = plan_additions(connection, model_id, candidates, find_holders(snapshot, probes))
    new = [candidates[index] for index in plan.new]
    _, numbers = add_vectors(connection, revision, model_id, new, read_clock())
    current = _note_places(connection, source, candidates, plan, dict(zip(plan.new, numbers, strict=True)))
    outdated = [] if scope is not Scope.NOTHING else _find_outdated(connection, model_id, candidates, current, source)
    people_removed = remove_empty_people(connection, {one.person_id for one in removed})
    kept, other_models = _count_others(connection, model_id, source)
    return ImportReport(
        added=_sort(Entry(one.name, one.image) for one in new),
        removed=_sort(Entry(one.name, one.find_image(source) or one.image) for one in removed),
        people_removed=tuple(people_removed),
        conflicts=plan.conflicts,
        kept=kept,
        other_models=other_models,
        similar=_find_similar_names(connection, candidates),
        shared=_sort(SharedEntry(one.name, one.find_image(source), one.list_others(source)) for one in shared),
        outdated=_sort(outdated),
    )


def _note_places(
    connection: Connection,
    source: str,
    candidates: Sequence[Candidate],
    plan: Additions,
    numbers: Mapping[int, int],
) -> Collection[int]:
    """Note every file of a vector that is enrolled, and return the vectors' ids.

    numbers: index of a new candidate -> its vector's id.
    """
    # Without a place a vector is a request's, and would be this folder's alone from here on.
    note_requests(connection, {held.vector_id for held in plan.known.values() if not held.places})
    images: dict[int, list[str]] = defaultdict(list)
    for index, one in enumerate(candidates):
        first = plan.repeats.get(index, index)
        number = plan.known[index].vector_id if index in plan.known else numbers.get(first)
        if number is not None:
            images[number].append(one.image or "")
    note_images(connection, source, images)
    return images.keys()


def _find_outdated(
    connection: Connection, model_id: str, candidates: Sequence[Candidate], current: Collection[int], source: str
) -> list[Entry]:
    """What is enrolled of a file of this folder that gives another vector by now. current: ids of vectors that still
    are of a file of it."""
    there = {one.image for one in candidates if one.image}
    found = []
    for held in read_held(connection, _select_folder(model_id, source)):
        old = [image for folder, image in held.places if folder == source and image in there]
        if held.vector_id not in current:
            found += [Entry(held.name, image) for image in old]
    return found


def _select_folder(model_id: str, source: str) -> Select:
    return select_held(model_id).where(vectors.c.vector_id.in_(_select_ids(source)))


def _select_ids(source: str) -> Select:
    return select(sources.c.vector_id).where(sources.c.source == source)


def _find_absent(
    connection: Connection, model_id: str, candidates: Sequence[Candidate], source: str, scope: Scope
) -> list[Held]:
    """What is in the scope and not among the candidates of the same person."""
    if scope is Scope.NOTHING:
        return []
    query = _select_folder(model_id, source) if scope is Scope.FOLDER else select_held(model_id)
    owned = read_held(connection, query)
    if not owned:
        return []
    stacked = [one.vector for one in candidates] + [one.vector for one in owned]
    names = [one.name for one in candidates] + [one.name for one in owned]
    keys = list(zip(names, group_same_vectors(np.stack(stacked)).tolist(), strict=True))
    there = set(keys[: len(candidates)])
    return [one for one, key in zip(owned, keys[len(candidates) :], strict=True) if key not in there]


def _find_missing(
    removed: Sequence[Entry], candidates: Sequence[Candidate], source: str, unread: Mapping[str, Sequence[str]]
) -> str:
    """Why what would go may be on the disk all the same; empty where nothing speaks for it."""
    doubtful = sorted({one.name for one in removed} & set(unread))
    if doubtful:
        return (
            f"{doubtful[0]} would lose vectors, and {unread[doubtful[0]][0]} could not be read (people in doubt: "
            f"{len(doubtful)}); nothing was changed: mend or remove what cannot be read, or give --force"
        )
    present = {one.name for one in candidates}
    leaving = {one.name for one in removed} - present
    if len(leaving) >= MANY_PEOPLE and len(leaving) > len(present):
        return (
            f"people who would go: {len(leaving)}, and {source} has {len(present)}; is part of it missing? nothing was "
            "changed: --dry-run lists who would go, --force lets them go"
        )
    return ""


def _find_contradiction(conflicts: Sequence[Conflict]) -> str:
    """Which picture lies under two people in the folder; empty where none does."""
    together = [conflict for conflict in conflicts if conflict.together]
    if not together:
        return ""
    one = together[0]
    return (
        f"a sync takes the folder at its word, and the folder has pictures under two people ({len(together)}), "
        f"such as {one.image} and {one.other_image}; remove the wrong ones; nothing was changed"
    )


def _sort(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda one: (one.name, one.image or "")))


def _count_others(
    connection: Connection, model_id: str, source: str
) -> tuple[dict[str | None, tuple[int, int]], dict[str, tuple[int, int]]]:
    """How many vectors, of how many people, this folder does not have: the model's by folder, others by model."""
    counts = (func.count(vectors.c.vector_id.distinct()), func.count(vectors.c.person_id.distinct()))
    folder = func.nullif(sources.c.source, literal_column("''"))
    folders = select(folder, *counts).select_from(vectors.outerjoin(sources)).group_by(folder).order_by(folder)
    others = folders.where(vectors.c.model_id == model_id, vectors.c.vector_id.not_in(_select_ids(source)))
    models = select(vectors.c.model_id, *counts).group_by(vectors.c.model_id).order_by(vectors.c.model_id)
    rows = connection.execute(models.where(vectors.c.model_id != model_id))
    return {row[0]: (row[1], row[2]) for row in connection.execute(others)}, {row[0]: (row[1], row[2]) for row in rows}


def _find_similar_names(connection: Connection, candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], ...]:
    """Enrolled names that may be one person's, at least one of them a candidate's."""
    ours = {one.name for one in candidates}
    folded = {fold_name(name) for name in ours}
    groups: dict[str, set[str]] = defaultdict(set)
    for name in (*connection.execute(select(people.c.name)).scalars(), *ours):
        if fold_name(name) in folded:
            groups[fold_name(name)].add(name)
    return tuple(tuple(sorted(group)) for _, group in sorted(groups.items()) if len(group) > 1)
