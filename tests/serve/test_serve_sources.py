"""One vector in several folders, or in a folder and a request: a sync of one takes nothing from the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID, OTHER_MODEL_ID, draw_people
from sqlalchemy import Engine, insert, select

from ffem_jax.serve.changes import STORED, Candidate
from ffem_jax.serve.database import DatabaseError, api_keys, open_copy, open_database, origins, people, sources
from ffem_jax.serve.gallery import Gallery, GalleryError
from ffem_jax.serve.imports import Entry, Scope, SharedEntry, import_people
from ffem_jax.serve.keys import add_key
from ffem_jax.serve.thresholds import FixedThreshold

VECTORS = draw_people(6, 4, seed=11)[0].reshape(6, 4, LENGTH)
CLOSE = FixedThreshold(1e-3)


def picture(name: str, image: str, a: int, b: int) -> Candidate:
    """Picture b of VECTORS' person a, as the file `name/image`."""
    return Candidate(name, (VECTORS[a, b] / np.linalg.norm(VECTORS[a, b])).astype(STORED), f"{name}/{image}")


def ask(gallery: Gallery, a: int, b: int) -> str | None:
    return gallery.match(VECTORS[a, b], CLOSE).name


ADA, BOB, EVE = picture("ada", "1.png", 0, 0), picture("bob", "1.png", 1, 0), picture("eve", "1.png", 2, 0)


def read_places(gallery: Gallery, name: str) -> list[tuple[tuple[str, str], ...]]:
    person = gallery.find_person(name)
    assert person is not None
    found = gallery.read_person(person.person_id)
    assert found is not None
    return [one.places for one in found[1]]


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_a_sync_of_one_folder_leaves_what_the_other_has(gallery: Gallery, order: tuple[str, str]) -> None:
    """The right value: one photo in two folders is enrolled until the last of them loses it."""
    for folder in order:
        import_people(gallery, {"first": [ADA, BOB], "second": [ADA, EVE]}[folder], folder)
    assert read_places(gallery, "ada") == [(("first", "ada/1.png"), ("second", "ada/1.png"))]
    report = import_people(gallery, [EVE], "second", Scope.FOLDER)
    assert (report.removed, report.people_removed) == ((), ())
    assert report.shared == (SharedEntry("ada", "ada/1.png", ("first",)),)
    assert report.kept == {"first": (2, 2)}
    assert ask(gallery, 0, 0) == "ada"
    assert import_people(gallery, [EVE], "second", Scope.FOLDER).shared == (), "it is no longer this folder's"
    report = import_people(gallery, [BOB], "first", Scope.FOLDER)
    assert report.removed == (Entry("ada", "ada/1.png"),)
    assert report.people_removed == ("ada",)
    assert ask(gallery, 0, 0) is None


@pytest.mark.parametrize("request_first", [True, False])
def test_a_sync_leaves_what_a_request_enrolled(gallery: Gallery, request_first: bool) -> None:
    steps = [lambda: gallery.enrol("ada", VECTORS[0, :1]), lambda: import_people(gallery, [ADA, BOB], "people")]
    for step in steps if request_first else reversed(steps):
        step()
    report = import_people(gallery, [BOB], "people", Scope.FOLDER)
    assert (report.removed, report.shared) == ((), (SharedEntry("ada", "ada/1.png", (None,)),))
    assert report.kept == {None: (1, 1)}
    assert ask(gallery, 0, 0) == "ada"
    assert import_people(gallery, [BOB], "people", Scope.MODEL).people_removed == ("ada",)


def test_two_files_of_one_picture_are_both_noted_and_the_last_to_go_takes_it(gallery: Gallery) -> None:
    double = picture("ada", "copy.png", 0, 0)
    import_people(gallery, [ADA, double, BOB], "people")
    assert read_places(gallery, "ada") == [(("people", "ada/1.png"), ("people", "ada/copy.png"))]
    assert import_people(gallery, [double, BOB], "people", Scope.FOLDER).removed == ()
    assert read_places(gallery, "ada") == [(("people", "ada/copy.png"),)]
    assert import_people(gallery, [BOB], "people", Scope.FOLDER).removed == (Entry("ada", "ada/copy.png"),)


def test_three_folders_and_another_model(engine: Engine, gallery: Gallery) -> None:
    other = Gallery(engine, OTHER_MODEL_ID, LENGTH)
    for one in (gallery, other):
        for folder in ("a", "b", "c"):
            import_people(one, [ADA, BOB], folder)
    report = import_people(gallery, [BOB], "b", Scope.FOLDER)
    assert report.shared == (SharedEntry("ada", "ada/1.png", ("a", "c")),)
    assert report.other_models == {OTHER_MODEL_ID: (2, 2)}
    assert len(read_places(other, "ada")) == 2, "one of each model"
    assert import_people(other, [BOB], "a", Scope.FOLDER).shared[0].others == ("b", "c")


def test_a_file_with_another_picture_is_named_and_a_sync_replaces_it(gallery: Gallery) -> None:
    import_people(gallery, [ADA, BOB], "people")
    anew = picture("ada", "1.png", 0, 1)
    report = import_people(gallery, [anew, BOB], "people")
    assert (report.added, report.removed) == ((Entry("ada", "ada/1.png"),), ())
    assert report.outdated == (Entry("ada", "ada/1.png"),)
    assert (ask(gallery, 0, 0), ask(gallery, 0, 1)) == ("ada", "ada"), "an import takes nothing away"
    assert import_people(gallery, [anew, BOB], "people").outdated == report.outdated, "and goes on saying so"
    report = import_people(gallery, [anew, BOB], "people", Scope.FOLDER)
    assert (report.removed, report.outdated) == ((Entry("ada", "ada/1.png"),), ())
    assert (ask(gallery, 0, 0), ask(gallery, 0, 1)) == (None, "ada")
    assert import_people(gallery, [anew, BOB], "people").outdated == ()


def test_files_that_swapped_their_pictures_are_not_outdated(gallery: Gallery) -> None:
    import_people(gallery, [picture("ada", "1.png", 0, 0), picture("ada", "2.png", 0, 1)], "people")
    report = import_people(gallery, [picture("ada", "2.png", 0, 0), picture("ada", "1.png", 0, 1)], "people")
    assert (report.added, report.outdated) == ((), ())
    assert sorted(read_places(gallery, "ada")) == [(("people", "ada/1.png"),), (("people", "ada/2.png"),)]


def test_a_picture_that_is_gone_or_another_folders_is_not_outdated(gallery: Gallery) -> None:
    import_people(gallery, [ADA, BOB], "people")
    assert import_people(gallery, [BOB], "people").outdated == ()
    assert import_people(gallery, [picture("ada", "1.png", 0, 1)], "elsewhere").outdated == ()


def test_what_an_earlier_version_noted_counts(engine: Engine, gallery: Gallery) -> None:
    """It notes one folder per vector, in a table of its own, and may go on doing so beside this version."""
    import_people(gallery, [ADA, BOB], "people")
    with engine.begin() as connection:
        ids = connection.execute(select(sources.c.vector_id)).scalars().all()
        connection.execute(insert(origins), [{"vector_id": i, "source": "old", "image": "x/1.png"} for i in ids])
    report = import_people(gallery, [BOB], "people", Scope.FOLDER)
    assert report.shared == (SharedEntry("ada", "ada/1.png", ("old",)),)
    with engine.connect() as connection:
        assert connection.execute(select(origins)).first() is None


# ------------------------------------------------------------------------------------- dry runs


def test_a_copy_holds_the_gallery_and_no_keys(engine: Engine, gallery: Gallery, database: Path) -> None:
    import_people(gallery, [ADA, BOB], "people")
    add_key(engine, ["match"])
    before = database.read_bytes()
    copy = open_copy(f"sqlite:///{database}")
    there = Gallery(copy, MODEL_ID, LENGTH)
    assert ask(there, 0, 0) == "ada"
    assert read_places(there, "ada") == [(("people", "ada/1.png"),)]
    with copy.connect() as connection:
        assert connection.execute(select(api_keys)).first() is None
    import_people(there, [BOB], "people", Scope.FOLDER)
    assert (ask(there, 0, 0), ask(gallery, 0, 0)) == (None, "ada")
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_a_copy_of_no_gallery_makes_no_file(tmp_path: Path) -> None:
    copy = open_copy(f"sqlite:///{tmp_path}/deeper/gallery.db")
    assert import_people(Gallery(copy, MODEL_ID, LENGTH), [ADA], "people", dry_run=True).added
    assert list(tmp_path.iterdir()) == []


def test_a_copy_is_refused_where_the_gallery_would_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database, and longer than the head of one would be" * 10)
    (tmp_path / "folder").mkdir()
    for place in ("file", "folder", "file/gallery.db"):
        url = f"sqlite:///{tmp_path}/{place}"
        with pytest.raises(DatabaseError) as real:
            open_database(url)
        with pytest.raises(DatabaseError) as tried:
            open_copy(url)
        assert str(tried.value) == str(real.value)
    engine = open_database(f"sqlite:///{tmp_path}/other.db")
    Gallery(engine, MODEL_ID, LENGTH + 1)
    with pytest.raises(GalleryError, match="holds vectors of 17 numbers"):
        Gallery(open_copy(f"sqlite:///{tmp_path}/other.db"), MODEL_ID, LENGTH)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE revisions SET schema = 9")
    with pytest.raises(DatabaseError, match="made by schema 9"):
        open_copy(f"sqlite:///{tmp_path}/other.db")


def test_a_dry_run_predicts_every_refusal(gallery: Gallery) -> None:
    import_people(gallery, [ADA, BOB], "people")
    both = [ADA, BOB, picture("eve", "1.png", 0, 0)]
    unread = {"bob": ["bob/1.png"]}
    for candidates, told in ((both, "pictures under two people"), ([ADA], "bob would lose vectors")):
        planned = import_people(gallery, candidates, "people", Scope.FOLDER, unread=unread, dry_run=True)
        assert told in planned.refused
        with pytest.raises(GalleryError) as refused:
            import_people(gallery, candidates, "people", Scope.FOLDER, unread=unread)
        assert str(refused.value) == planned.refused
    with gallery.engine.connect() as connection:
        assert len(connection.execute(select(people)).all()) == 2
