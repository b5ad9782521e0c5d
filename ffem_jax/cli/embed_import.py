"""`ffem embed --import`: reports the changes to the gallery, made or planned."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ffem_jax.cli.terminal import say, show

if TYPE_CHECKING:
    from ffem_jax.embed import EmbeddedFaces
    from ffem_jax.serve.changes import Conflict
    from ffem_jax.serve.imports import Entry, ImportReport

# Number of images or names that a warning lists.
SHOWN = 10
UNKNOWN_FOLDER = "an unknown folder (over HTTP, or by an earlier version)"


def import_embedded(options: argparse.Namespace, embedded: EmbeddedFaces) -> ImportReport:
    """Enrol all faces in the gallery that `--import` names, following `--sync`, `--sync-all` and `--dry-run`."""
    from ffem_jax.embed import find_unread, list_candidates
    from ffem_jax.serve.database import open_copy, open_database
    from ffem_jax.serve.gallery import Gallery
    from ffem_jax.serve.imports import Scope, import_people
    from ffem_jax.text.names import decode_file_name

    candidates = list_candidates(embedded)
    scope = Scope.MODEL if options.sync_all else Scope.FOLDER if options.sync else Scope.NOTHING
    open_gallery = open_copy if options.dry_run else open_database
    gallery = Gallery(open_gallery(options.gallery), embedded.model_id, embedded.vectors.shape[1])
    moved_from = options.moved_from
    try:
        return import_people(
            gallery,
            candidates,
            decode_file_name(str(options.folder.resolve())),
            scope,
            unread=find_unread(options.folder, embedded.faces),
            moved_from=decode_file_name(str(moved_from.expanduser().absolute())) if moved_from else "",
            dry_run=options.dry_run,
            force=options.force,
        )
    finally:
        gallery.engine.dispose()


def warn(report: ImportReport) -> None:
    """Report what needs a manual check, on standard error."""
    if report.conflicts:
        clashes = [_describe(conflict) for conflict in report.conflicts]
        left_out = sum(conflict.left_out for conflict in report.conflicts)
        say(
            f"ffem: warning: one image under two names ({len(clashes)}): {_join(clashes)}; one of the names is "
            f"wrong. {left_out} were not enrolled: remove the wrong image, or the wrong vector from the gallery "
            "(--sync, --sync-all or DELETE /v1/people/ID/vectors/ID), and import again"
        )
    if report.similar:
        names = [" and ".join(group) for group in report.similar]
        say(f"ffem: warning: names that may be one person's are enrolled as several people: {_join(names)}")
    if report.outdated:
        files = [f"{entry.name} ({entry.image})" for entry in report.outdated]
        say(
            f"ffem: warning: files that contain another image since their import ({len(files)}): {_join(files)}; the "
            "earlier images' vectors stay enrolled: --sync deletes them"
        )
    if report.refused:
        say(f"ffem: warning: without --dry-run this is refused: {report.refused}")
    if report.wiped is False:
        say("ffem: warning: the database's files could not be rewritten; they may still contain deleted data")


def print_report(report: ImportReport, is_sync: bool) -> None:
    """Report on standard output what was added and, for a sync, what was deleted and what was kept."""
    would = "would be " if report.dry_run else ""
    show(f"{would}imported: {len(report.added)} new vectors")
    if is_sync or report.dry_run:
        _print_entries(report.added)
    if not is_sync:
        return
    show(f"{would}deleted: {len(report.removed)} vectors that are not in the folder")
    _print_entries(report.removed)
    for shared in report.shared:
        others = " and ".join(UNKNOWN_FOLDER if one is None else one for one in shared.others)
        show(f"  {shared.name}: {shared.image or 'a file'} is not in the folder but kept, since {others} enrolled it")
    if report.shared:
        show(
            "if this folder was moved, give its earlier location with --moved-from DIR; "
            "--sync-all also deletes vectors of other origins"
        )
    for name in report.people_removed:
        show(f"  {name}: has no vector left and {'would no longer be' if report.dry_run else 'is no longer'} enrolled")
    for folder, (vectors, people) in report.kept.items():
        origin = UNKNOWN_FOLDER if folder is None else folder
        show(f"not touched: {vectors} vectors of {people} people, enrolled from {origin}; --sync-all includes them")
    for model_id, (vectors, people) in report.other_models.items():
        show(f"not touched: {vectors} vectors of {people} people, of another model, {model_id}")


def _print_entries(entries: Sequence[Entry]) -> None:
    for entry in entries:
        show(f"  {entry.name}: {entry.image or 'enrolled from an unknown file'}")


def _describe(conflict: Conflict) -> str:
    other = f"{conflict.other_name} ({conflict.other_image or 'enrolled from an unknown file'})"
    return f"{conflict.name} ({conflict.image}) and {other}"


def _join(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
