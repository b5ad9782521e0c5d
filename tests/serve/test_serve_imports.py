"""A folder into the gallery: what comes, what a sync takes away and from whom, and what it refuses to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID, OTHER_MODEL_ID, draw_people
from sqlalchemy import Engine, func, select

from ffem_jax.serve.changes import STORED, Candidate
from ffem_jax.serve.database import open_database, sources
from ffem_jax.serve.gallery import Gallery, GalleryError
from ffem_jax.serve.imports import MANY_PEOPLE, ImportReport, Scope, import_people
from ffem_jax.serve.thresholds import FixedThreshold

CLOSE = FixedThreshold(1e-3)
VECTORS = draw_people(12, 3, seed=4)[0].reshape(12, 3, LENGTH)


def make_folder(people: dict[str, list[tuple[int, int]]]) -> list[Candidate]:
    """Pictures by person: `(a, b)` is picture b of VECTORS' person a, in the file person/ab.png."""
    return [
        Candidate(name, (VECTORS[a, b] / np.linalg.norm(VECTORS[a, b])).astype(STORED), f"{name}/{a}{b}.png")
        for name, pictures in people.items()
        for a, b in pictures
    ]


def list_entries(report: ImportReport) -> tuple[list[str | None], list[str | None]]:
    return [one.image for one in report.added], [one.image for one in report.removed]


def ask(gallery: Gallery, a: int, b: int) -> str | None:
    return gallery.match(VECTORS[a, b], CLOSE).name


# zoe is person 0, bob 1, ada 2; one picture of zoe lies in ada's folder.
WRONG = {"ada": [(2, 0), (2, 1), (0, 0)], "bob": [(1, 0)], "zoe": [(0, 1)]}
RIGHT = {"ada": [(2, 0), (2, 1)], "bob": [(1, 0)], "zoe": [(0, 0), (0, 1)]}


def test_a_sync_leaves_the_gallery_as_the_folder_is(gallery: Gallery, database: Path) -> None:
    import_people(gallery, make_folder(WRONG), "people")
    assert ask(gallery, 0, 0) == "ada"
    there = Gallery(open_database(f"sqlite:///{database}"), MODEL_ID, LENGTH)
    assert ask(there, 0, 0) == "ada"
    report = import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER)
    assert list_entries(report) == (["zoe/00.png"], ["ada/00.png"])
    assert (report.people_removed, report.conflicts, report.kept, report.wiped) == ((), (), {}, True)
    for one in (gallery, there):
        for name, pictures in RIGHT.items():
            assert [ask(one, a, b) for a, b in pictures] == [name] * len(pictures)
        assert one.count() == (3, 5)
    again = import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER)
    assert (list_entries(again), again.wiped) == (([], []), None)


def test_without_a_sync_nothing_goes_and_the_clash_is_named(gallery: Gallery) -> None:
    import_people(gallery, make_folder(WRONG), "people")
    report = import_people(gallery, make_folder(RIGHT), "people")
    assert list_entries(report) == ([], [])
    (conflict,) = report.conflicts
    assert (conflict.name, conflict.image) == ("zoe", "zoe/00.png")
    assert (conflict.other_name, conflict.other_image) == ("ada", "ada/00.png")
    assert (conflict.together, conflict.left_out) == (False, True)
    assert (ask(gallery, 0, 0), gallery.count()) == ("ada", (3, 5))


def test_one_picture_of_two_people_in_a_folder_is_enrolled_for_neither(gallery: Gallery) -> None:
    both = {"ada": [(2, 0), (0, 0), (0, 0)], "zoe": [(0, 0)]}
    report = import_people(gallery, make_folder(both), "people")
    (conflict,) = report.conflicts
    assert {(conflict.name, conflict.image), (conflict.other_name, conflict.other_image)} == {
        ("ada", "ada/00.png"),
        ("zoe", "zoe/00.png"),
    }
    assert conflict.together
    assert list_entries(report)[0] == ["ada/20.png"]
    assert (ask(gallery, 0, 0), [one.name for one in gallery.list_people()]) == (None, ["ada"])
    for scope in (Scope.FOLDER, Scope.MODEL):
        with pytest.raises(GalleryError, match=r"pictures under two people \(1\), such as zoe/00.png and ada/00.png"):
            import_people(gallery, make_folder(both), "people", scope)
    # Who has it already keeps it.
    import_people(gallery, make_folder({"zoe": [(0, 0)]}), "people")
    report = import_people(gallery, make_folder(both), "people")
    assert [(one.name, one.left_out, one.together) for one in report.conflicts] == [("ada", True, True)]
    assert ask(gallery, 0, 0) == "zoe"


def test_a_sync_takes_only_what_its_folder_brought(engine: Engine, gallery: Gallery) -> None:
    other_model = Gallery(engine, OTHER_MODEL_ID, LENGTH)
    gallery.enrol("eve", VECTORS[5])  # over HTTP
    gallery.enrol("ada", VECTORS[2, 2:])
    other_model.enrol("bob", VECTORS[1, :1])
    import_people(gallery, make_folder({"ida": [(6, 0)]}), "elsewhere")
    import_people(gallery, make_folder({**WRONG, "joe": [(7, 0)]}), "people")
    report = import_people(gallery, make_folder({"zoe": RIGHT["zoe"]}), "people", Scope.FOLDER)
    assert list_entries(report)[1] == ["ada/00.png", "ada/20.png", "ada/21.png", "bob/10.png", "joe/70.png"]
    assert report.people_removed == ("joe",), "bob has a vector of another model, ada one of her own"
    assert report.kept == {None: (4, 2), "elsewhere": (1, 1)}
    assert report.other_models == {OTHER_MODEL_ID: (1, 1)}
    assert [ask(gallery, *one) for one in [(2, 2), (2, 0), (5, 0), (6, 0), (1, 0)]] == ["ada", None, "eve", "ida", None]
    assert other_model.match(VECTORS[1, 0], CLOSE).name == "bob"
    report = import_people(gallery, make_folder({"zoe": RIGHT["zoe"]}), "people", Scope.MODEL)
    assert [one.name for one in report.removed] == ["ada", "eve", "eve", "eve", "ida"]
    assert [one.image for one in report.removed] == [None] * 4 + ["ida/60.png"]
    assert report.people_removed == ("ada", "eve", "ida")
    assert other_model.match(VECTORS[1, 0], CLOSE).name == "bob"
    assert [one.name for one in sorted(gallery.list_people(), key=lambda one: one.name)] == ["bob", "zoe"]


def test_a_folder_that_moved_takes_over_what_it_holds(gallery: Gallery) -> None:
    import_people(gallery, make_folder(WRONG), "people")
    report = import_people(gallery, make_folder(RIGHT), "moved", Scope.FOLDER)
    assert (list_entries(report), report.kept) == (([], []), {"people": (1, 1)})
    assert [(one.name, one.other_name, one.left_out) for one in report.conflicts] == [("zoe", "ada", True)]
    # Unless it is told, the folder may have a double: what both had stays with the other.
    report = import_people(gallery, make_folder({"bob": RIGHT["bob"]}), "moved", Scope.FOLDER, dry_run=True)
    assert (list_entries(report)[1], len(report.shared)) == ([], 3)
    report = import_people(
        gallery, make_folder({"bob": RIGHT["bob"]}), "moved", Scope.FOLDER, moved_from="people", dry_run=True
    )
    assert list_entries(report)[1] == ["ada/00.png", "ada/20.png", "ada/21.png", "zoe/01.png"]
    report = import_people(gallery, make_folder({"bob": RIGHT["bob"]}), "moved", Scope.FOLDER, moved_from="people")
    assert list_entries(report)[1] == ["ada/00.png", "ada/20.png", "ada/21.png", "zoe/01.png"]
    assert (report.kept, report.shared) == ({}, ())


def test_rounding_makes_no_other_picture(gallery: Gallery) -> None:
    import_people(gallery, make_folder(RIGHT), "people")
    nearly = [Candidate(one.name, (one.vector * (1 + 1e-7)).astype(STORED), one.image) for one in make_folder(RIGHT)]
    assert any(
        one.vector.tobytes() != two.vector.tobytes() for one, two in zip(nearly, make_folder(RIGHT), strict=True)
    )
    report = import_people(gallery, nearly, "people", Scope.FOLDER)
    assert list_entries(report) == ([], [])


def test_a_dry_run_says_the_same_and_changes_nothing(gallery: Gallery) -> None:
    import_people(gallery, make_folder(WRONG), "people")
    with gallery.engine.connect() as connection:
        before = list(connection.connection.driver_connection.iterdump())
    planned = import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER, dry_run=True)
    with gallery.engine.connect() as connection:
        assert list(connection.connection.driver_connection.iterdump()) == before
    assert planned.dry_run
    done = import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER)
    assert (done.added, done.removed) == (planned.added, planned.removed)
    assert ask(gallery, 0, 0) == "zoe"


def test_what_is_unread_is_not_taken_for_deleted(gallery: Gallery) -> None:
    import_people(gallery, make_folder(WRONG), "people")
    unread = {"bob": ["bob/10.png"], "eve": ["eve"]}
    less = make_folder({name: pictures for name, pictures in RIGHT.items() if name != "bob"})
    with pytest.raises(GalleryError, match=r"bob would lose vectors, and bob/10.png could not be read"):
        import_people(gallery, less, "people", Scope.FOLDER, unread=unread)
    assert (ask(gallery, 1, 0), ask(gallery, 0, 0)) == ("bob", "ada"), "all or nothing"
    # What is wrong with somebody who loses nothing is no reason.
    assert import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER, unread=unread).wiped
    report = import_people(gallery, less, "people", Scope.FOLDER, unread=unread, force=True)
    assert report.people_removed == ("bob",)


def test_half_a_folder_wipes_nobody(gallery: Gallery) -> None:
    names = [f"person {number:02}" for number in range(12)]
    whole = make_folder({name: [(number, 0)] for number, name in enumerate(names)})
    import_people(gallery, whole, "people")
    part = whole[:1]
    assert len(whole) - len(part) >= MANY_PEOPLE
    for scope in (Scope.FOLDER, Scope.MODEL):
        with pytest.raises(GalleryError, match="people who would go: 11, and people has 1; is part of it missing"):
            import_people(gallery, part, "people", scope)
    assert gallery.count() == (12, 12)
    planned = import_people(gallery, part, "people", Scope.FOLDER, dry_run=True)
    assert (len(planned.removed), gallery.count()) == (11, (12, 12))
    assert planned.refused.startswith("people who would go: 11, and people has 1")
    assert import_people(gallery, part, "people", Scope.FOLDER, dry_run=True, force=True).refused == ""
    assert len(import_people(gallery, part, "people", Scope.FOLDER, force=True).people_removed) == 11
    with pytest.raises(GalleryError, match="no vector to import"):
        import_people(gallery, [], "people", Scope.MODEL, force=True)


def test_names_that_differ_by_case_stay_apart_and_are_told(gallery: Gallery) -> None:
    gallery.enrol("Zoe", VECTORS[0, 2:])
    report = import_people(gallery, make_folder({"zoe": [(0, 0)], "bob": [(1, 0)]}), "people")
    assert report.similar == (("Zoe", "zoe"),)
    assert gallery.count() == (3, 3)


def test_no_origin_outlives_its_vector(gallery: Gallery, database: Path) -> None:
    import_people(gallery, make_folder(WRONG), "people of Somewhere")
    for person in gallery.list_people():
        _, held = gallery.read_person(person.person_id)
        places = [place for one in held for place in one.places]
        assert len(places) == len(held)
        assert {(folder, image.split("/")[0]) for folder, image in places} == {("people of Somewhere", person.name)}
        if person.name == "zoe":
            gallery.delete_vector(person.person_id, held[0].vector_id)
        gallery.delete(person.person_id)
    with gallery.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(sources)).scalar() == 0
    assert b"Somewhere" not in database.read_bytes()


# ------------------------------------------------------------------- galleries of earlier versions

# As version 1.0 made them.
OLD_TABLES = """
CREATE TABLE revisions (schema INTEGER NOT NULL, revision BIGINT, PRIMARY KEY (schema));
CREATE TABLE models (model_id VARCHAR(64) NOT NULL, length INTEGER NOT NULL, PRIMARY KEY (model_id));
CREATE TABLE people (person_id INTEGER NOT NULL, name VARCHAR(300) NOT NULL, enrolled_at VARCHAR(25) NOT NULL,
    PRIMARY KEY (person_id), UNIQUE (name));
CREATE TABLE deletions (revision BIGINT NOT NULL, person_id INTEGER NOT NULL, PRIMARY KEY (revision));
CREATE TABLE api_keys (key_id VARCHAR(16) NOT NULL, digest BLOB NOT NULL, scopes VARCHAR(100) NOT NULL,
    label VARCHAR(300) NOT NULL, created_at VARCHAR(25) NOT NULL, revoked_at VARCHAR(25), PRIMARY KEY (key_id));
CREATE TABLE vectors (vector_id INTEGER NOT NULL, person_id INTEGER NOT NULL, model_id VARCHAR(64) NOT NULL,
    revision BIGINT NOT NULL, data BLOB NOT NULL, enrolled_at VARCHAR(25) NOT NULL, PRIMARY KEY (vector_id),
    FOREIGN KEY(person_id) REFERENCES people (person_id), FOREIGN KEY(model_id) REFERENCES models (model_id));
CREATE INDEX ix_vectors_person_id ON vectors (person_id);
CREATE INDEX vectors_since ON vectors (model_id, revision);
INSERT INTO revisions VALUES (1, 3);
"""
WHEN = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def old_gallery(tmp_path: Path) -> Path:
    """WRONG as an earlier version enrolled it, with numbers by SQLite and no origins."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD_TABLES)
        connection.execute("INSERT INTO models VALUES (?, ?)", (MODEL_ID, LENGTH))
        for number, name in enumerate(WRONG, 7):
            connection.execute("INSERT INTO people VALUES (?, ?, ?)", (number, name, WHEN))
        for one in make_folder(WRONG):
            connection.execute(
                "INSERT INTO vectors (person_id, model_id, revision, data, enrolled_at) VALUES (?, ?, 3, ?, ?)",
                (7 + list(WRONG).index(one.name), MODEL_ID, one.vector.tobytes(), WHEN),
            )
    connection.close()
    return path


def test_a_gallery_of_an_earlier_version_goes_on(old_gallery: Path) -> None:
    gallery = Gallery(open_database(f"sqlite:///{old_gallery}"), MODEL_ID, LENGTH)
    assert (gallery.count(), ask(gallery, 0, 0), ask(gallery, 1, 0)) == ((3, 5), "ada", "bob")
    assert gallery.enrol("eve", VECTORS[5]).added == 3
    report = import_people(gallery, make_folder(RIGHT), "people", Scope.FOLDER)
    # Who brought ada's wrong vector is not known: it stays, is counted, and named as a clash.
    assert (list_entries(report), report.kept) == (([], []), {None: (4, 2)})
    assert [(one.name, one.other_name) for one in report.conflicts] == [("zoe", "ada")]
    report = import_people(gallery, make_folder({**RIGHT, "eve": [(5, 0), (5, 1), (5, 2)]}), "people", Scope.MODEL)
    assert list_entries(report) == (["zoe/00.png"], [None])
    assert (ask(gallery, 0, 0), ask(gallery, 5, 2), gallery.count()) == ("zoe", "eve", (4, 8))


def test_a_process_of_an_earlier_version_forgets_what_is_deleted_here(old_gallery: Path) -> None:
    """What it reads to bring its memory up to date, by its own statements."""
    with sqlite3.connect(old_gallery, isolation_level=None) as old:
        memory = old.execute("SELECT person_id, data FROM vectors WHERE revision <= 3").fetchall()
        gallery = Gallery(open_database(f"sqlite:///{old_gallery}"), MODEL_ID, LENGTH)
        import_people(gallery, make_folder(RIGHT), "people", Scope.MODEL)
        (now,) = old.execute("SELECT revision FROM revisions").fetchone()
        gone = {
            row[0] for row in old.execute("SELECT person_id FROM deletions WHERE revision > 3 AND revision <= ?", [now])
        }
        memory = [row for row in memory if row[0] not in gone]
        memory += old.execute(
            "SELECT person_id, data FROM vectors WHERE model_id = ? AND revision > 3 AND revision <= ?", [MODEL_ID, now]
        ).fetchall()
        names = dict(old.execute("SELECT person_id, name FROM people").fetchall())
        expected = sorted((one.name, one.vector.tobytes()) for one in make_folder(RIGHT))
        assert sorted((names[person_id], data) for person_id, data in memory) == expected
        # And what it enrols and deletes, by its own statements.
        old.execute("PRAGMA foreign_keys=ON")
        old.execute("UPDATE revisions SET revision = revision + 1")
        old.execute(
            "INSERT INTO vectors (person_id, model_id, revision, data, enrolled_at) VALUES (8, ?, ?, ?, ?)",
            (MODEL_ID, now + 1, make_folder({"bob": [(1, 1)]})[0].vector.tobytes(), WHEN),
        )
        assert ask(gallery, 1, 1) == "bob"
        old.execute("UPDATE revisions SET revision = revision + 1")
        old.execute("DELETE FROM vectors WHERE person_id = 8")
        old.execute("DELETE FROM people WHERE person_id = 8")
        old.execute("INSERT INTO deletions VALUES (?, 8)", [now + 2])
        assert ask(gallery, 1, 0) is None
        folders = "SELECT count(DISTINCT vector_id) FROM sources WHERE source = 'people'"
        assert old.execute(folders).fetchone() == (4,)
    old.close()
