"""A folder's people into the gallery, and on request the gallery put as the folder is.

A vector belongs to the folder whose import last brought it. A sync takes away what belongs to its folder and is no
longer in it: what came over HTTP, from another folder, or from an import of a version that noted no folder stays, and
is counted, unless all of the model's vectors are to go.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from ffem_jax.metrics.duplicates import group_same_vectors
from ffem_jax.serve.changes import (
    Candidate,
    Conflict,
    Held,
    add_vectors,
    note_origins,
    plan_additions,
    read_held,
    remove_empty_people,
    remove_vectors,
    select_held,
)
from ffem_jax.serve.database import origins, people, read_clock, vectors
from ffem_jax.serve.gallery import Gallery, GalleryError, find_holders
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
class ImportReport:
    """What an import did, or with `dry_run` would do.

    added, removed: vectors, in order of name and file. people_removed: who has no vector left, of any model, and is no
    longer enrolled. kept: how many vectors of this model, and of how many people, stay though no import of this folder
    brought them, by the folder that did (None: by another way). other_models: the same of other models' vectors, which
    no import touches, by model. similar: names that differ by case or width alone.
    wiped: whether the database's files were written anew without what went; None where nothing did.
    """

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    people_removed: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    kept: dict[str | None, tuple[int, int]]
    other_models: dict[str, tuple[int, int]]
    similar: tuple[tuple[str, ...], ...]
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
    dry_run: bool = False,
    force: bool = False,
) -> ImportReport:
    """Enrol the pictures of the folder `source`, and take away what `scope` says; all in one transaction.

    A vector that two people would have is enrolled for neither, or left with whom it is enrolled: see `conflicts`. With
    a scope it may not be two of the folder's own. unread: what of a person's could not be read, by name: they lose
    nothing. dry_run: change nothing. force: let go whoever is not in the folder, whatever is unread, and however many.

    Raises GalleryError, with nothing done, for a sync of a folder that contradicts itself, from which most people are
    gone, or of which something is unread that may be what would go.
    """
    if not candidates:
        raise GalleryError(f"{source} has no vector to import")
    try:
        with gallery.change() as (connection, revision, snapshot):
            probes = np.stack([one.vector for one in candidates])
            removed = _find_others(connection, gallery.model_id, candidates, source, scope)
            if not (force or dry_run):
                _check_whole(removed, candidates, source, unread or {})
            remove_vectors(connection, [(one.person_id, one.vector_id) for one in removed])
            plan = plan_additions(connection, gallery.model_id, candidates, find_holders(snapshot, probes))
            if scope is not Scope.NOTHING:
                _check_consistent(plan.conflicts)
            new = [candidates[index] for index in plan.new]
            _, numbers = add_vectors(connection, revision, gallery.model_id, new, read_clock())
            images = {held.vector_id: candidates[index].image or "" for index, held in reversed(plan.known.items())}
            images |= {number: one.image or "" for number, one in zip(numbers, new, strict=True)}
            note_origins(connection, source, images)
            people_removed = remove_empty_people(connection, {one.person_id for one in removed})
            kept, other_models = _count_others(connection, gallery.model_id, source)
            report = ImportReport(
                added=_list_entries(new),
                removed=_list_entries(removed),
                people_removed=tuple(people_removed),
                conflicts=plan.conflicts,
                kept=kept,
                other_models=other_models,
                similar=_find_similar_names(connection, candidates),
                dry_run=dry_run,
            )
            if dry_run:
                raise _DryRunError(report)
    except _DryRunError as undone:
        return undone.report
    if not removed:
        return report
    return dataclasses.replace(report, wiped=gallery.wipe())


def _find_others(
    connection: Connection, model_id: str, candidates: Sequence[Candidate], source: str, scope: Scope
) -> list[Held]:
    """What is in the scope and not among the candidates of the same person."""
    if scope is Scope.NOTHING:
        return []
    query = select_held(model_id)
    owned = read_held(connection, query.where(origins.c.source == source) if scope is Scope.FOLDER else query)
    if not owned:
        return []
    stacked = [one.vector for one in candidates] + [one.vector for one in owned]
    names = [one.name for one in candidates] + [one.name for one in owned]
    keys = list(zip(names, group_same_vectors(np.stack(stacked)).tolist(), strict=True))
    there = set(keys[: len(candidates)])
    return [one for one, key in zip(owned, keys[len(candidates) :], strict=True) if key not in there]


def _check_whole(
    removed: Sequence[Held], candidates: Sequence[Candidate], source: str, unread: Mapping[str, Sequence[str]]
) -> None:
    doubtful = sorted({one.name for one in removed} & set(unread))
    if doubtful:
        raise GalleryError(
            f"{doubtful[0]} would lose vectors, and {unread[doubtful[0]][0]} could not be read (people in doubt: "
            f"{len(doubtful)}); nothing was changed: mend or remove what cannot be read, or give --force"
        )
    present = {one.name for one in candidates}
    leaving = {one.name for one in removed} - present
    if len(leaving) >= MANY_PEOPLE and len(leaving) > len(present):
        raise GalleryError(
            f"people who would go: {len(leaving)}, and {source} has {len(present)}; is part of it missing? nothing was "
            "changed: --dry-run lists who would go, --force lets them go"
        )


def _check_consistent(conflicts: Sequence[Conflict]) -> None:
    together = [conflict for conflict in conflicts if conflict.together]
    if together:
        one = together[0]
        raise GalleryError(
            f"a sync takes the folder at its word, and the folder has pictures under two people ({len(together)}), "
            f"such as {one.image} and {one.other_image}; remove the wrong ones; nothing was changed"
        )


def _list_entries(rows: Sequence[Candidate] | Sequence[Held]) -> tuple[Entry, ...]:
    return tuple(sorted((Entry(one.name, one.image) for one in rows), key=lambda one: (one.name, one.image or "")))


def _count_others(
    connection: Connection, model_id: str, source: str
) -> tuple[dict[str | None, tuple[int, int]], dict[str, tuple[int, int]]]:
    """How many vectors, of how many people, this folder did not bring: the model's by folder, others by model."""
    counts = (func.count(), func.count(vectors.c.person_id.distinct()))
    folders = select(origins.c.source, *counts).select_from(vectors.outerjoin(origins)).group_by(origins.c.source)
    models = select(vectors.c.model_id, *counts).group_by(vectors.c.model_id)
    own = connection.execute(folders.where(vectors.c.model_id == model_id).order_by(origins.c.source))
    others = connection.execute(models.where(vectors.c.model_id != model_id).order_by(vectors.c.model_id))
    return {row[0]: (row[1], row[2]) for row in own if row[0] != source}, {row[0]: (row[1], row[2]) for row in others}


def _find_similar_names(connection: Connection, candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], ...]:
    """Enrolled names that may be one person's, at least one of them a candidate's."""
    ours = {one.name for one in candidates}
    folded = {fold_name(name) for name in ours}
    groups: dict[str, set[str]] = defaultdict(set)
    for name in (*connection.execute(select(people.c.name)).scalars(), *ours):
        if fold_name(name) in folded:
            groups[fold_name(name)].add(name)
    return tuple(tuple(sorted(group)) for _, group in sorted(groups.items()) if len(group) > 1)
