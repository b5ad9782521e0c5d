"""Who is enrolled: all of it or none, once, by one name, in one model's gallery, whichever process asks."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID, OTHER_MODEL_ID, draw_people
from sqlalchemy import Engine, func, select

from ffem_jax.metrics.calibration import compute_calibration
from ffem_jax.serve import database
from ffem_jax.serve import gallery as gallery_module
from ffem_jax.serve.database import DatabaseError, open_database
from ffem_jax.serve.gallery import ConflictError, Gallery, GalleryError
from ffem_jax.serve.names import MAX_NAME, NameRefusedError, normalize_name
from ffem_jax.serve.thresholds import CalibratedThreshold, FixedThreshold
from ffem_jax.text.names import fold_name

ALL = FixedThreshold(1.0)


def enrol_people(gallery: Gallery, people: int, pictures: int = 2, seed: int = 0) -> np.ndarray:
    vectors, labels = draw_people(people, pictures, seed)
    gallery.enrol_all([(f"person {label}", vectors[labels == label]) for label in range(people)])
    return vectors


def test_the_nearest_person_answers_and_a_stranger_is_refused(gallery: Gallery) -> None:
    vectors = enrol_people(gallery, 20)
    for row, vector in enumerate(vectors):
        answer = gallery.match(vector * 3.0, FixedThreshold(0.1))
        assert (answer.name, answer.accepted) == (f"person {row // 2}", True)
        assert answer.distance < 1e-6
    stranger = gallery.match(np.random.default_rng(9).normal(size=LENGTH), FixedThreshold(0.1))
    assert (stranger.name, stranger.person_id, stranger.accepted) == (None, None, False)
    assert 0.1 < stranger.distance < 1


def test_nobody_is_enrolled(gallery: Gallery) -> None:
    answer = gallery.match(np.ones(LENGTH), ALL)
    assert (answer.accepted, answer.distance, gallery.count()) == (False, None, (0, 0))


def test_the_same_vector_is_stored_once(gallery: Gallery) -> None:
    vector = np.arange(1.0, LENGTH + 1)
    first, again = gallery.enrol("Ada", [vector, vector]), gallery.enrol(" Ada ", [vector * 2])
    assert (first.added, first.vectors, again.added, again.vectors) == (1, 1, 0, 1)
    assert first.person_id == again.person_id
    # To within rounding: another run or another machine gives the last digits anew.
    assert gallery.enrol("Ada", [vector * (1 + 1e-7 * np.sin(vector))]).added == 0
    assert gallery.enrol("Ada", [vector * (1 + 1e-3 * np.sin(vector))]).added == 1


def test_a_vector_is_one_person_s(gallery: Gallery) -> None:
    vector, other = np.arange(1.0, LENGTH + 1), np.ones(LENGTH)
    person_id = gallery.enrol("Ada", [vector]).person_id
    for batch in ([("Bob", [other, vector * 3])], [("Bob", [other]), ("Eve", [other])]):
        with pytest.raises(ConflictError, match="of 2 vectors are another person's") as caught:
            gallery.enrol_all(batch)
        assert "Ada" not in str(caught.value)
    assert [person.name for person in gallery.list_people()] == ["Ada"], "all of a batch or nothing"
    assert gallery.enrol("Ada", [vector]).added == 0
    gallery.delete(person_id)
    assert gallery.enrol("Bob", [vector]).added == 1


def test_an_enrolment_of_nothing_is_refused(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="at least one vector"):
        gallery.enrol("Ada", np.empty((0, LENGTH)))
    assert (gallery.enrol_all([]), gallery.list_people()) == ([], [])


def test_all_of_a_batch_or_nothing(gallery: Gallery) -> None:
    good = np.ones((1, LENGTH))
    for bad in (np.zeros((1, LENGTH)), np.full((1, LENGTH), np.nan), np.ones((1, LENGTH + 1))):
        with pytest.raises(ValueError):
            gallery.enrol_all([("Ada", good), ("Bob", bad)])
    with pytest.raises(NameRefusedError):
        gallery.enrol_all([("Ada", good), ("\x00", good)])
    assert gallery.list_people() == []


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("  Ada   Lovelace ", "Ada Lovelace"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("\u738b\u5c0f\u660e", "\u738b\u5c0f\u660e"),
        ("'; DROP TABLE people; --", "'; DROP TABLE people; --"),
        ('Robert"); DELETE FROM vectors; --', 'Robert"); DELETE FROM vectors; --'),
        ("%s %(name)s :name ? {0}", "%s %(name)s :name ? {0}"),
        ("\U0001f600", "\U0001f600"),
        ("\u0646\u06cc\u200c\u0645\u0627", "\u0646\u06cc\u200c\u0645\u0627"),
    ],
)  # fmt: skip
def test_a_name_is_kept_as_it_is_written(gallery: Gallery, name: str, stored: str) -> None:
    person = gallery.enrol(name, [np.ones(LENGTH)])
    assert person.name == stored
    assert gallery.find_person(name).name == stored
    assert gallery.match(np.ones(LENGTH), ALL).name == stored
    assert [one.name for one in gallery.list_people()] == [stored]


def test_names_that_a_reader_takes_for_one_fold_to_one() -> None:
    for first, second in (
        ("jos\u00e9", "JOS\u00c9"),
        ("\uff21da", "ada"),
        ("Stra\u00dfe", "STRASSE"),
        ("jose\u0301", "Jos\u00e9"),
    ):
        assert fold_name(first) == fold_name(second)
        assert normalize_name(first) != normalize_name(second), "they stay two people"
    assert fold_name("jose") != fold_name("jos\u00e9")


@pytest.mark.parametrize(
    "name", ["", " ", "\u00a0\u3000", "a\x00b", "a\nb", "\ud800", "\u202eada", "\u200b", "a" * (MAX_NAME + 1), "a\x7f"]
)
def test_a_name_that_hides_something_is_refused(gallery: Gallery, name: str) -> None:
    with pytest.raises(NameRefusedError):
        gallery.enrol(name, [np.ones(LENGTH)])
    assert gallery.list_people() == []


def test_every_name_within_the_limit_fits_the_column() -> None:
    # U+1D160 is three characters in NFC: the longest that one character can become.
    assert len(normalize_name("\U0001d160" * MAX_NAME)) <= database.NAME_LENGTH


def test_vectors_of_two_models_never_meet(engine: Engine, gallery: Gallery) -> None:
    other = Gallery(engine, OTHER_MODEL_ID, LENGTH)
    one = np.ones(LENGTH)
    person = gallery.enrol("Ada", [one])
    assert other.match(one, ALL).distance is None
    assert other.enrol("Ada", [-one]).person_id == person.person_id
    assert other.match(one, ALL).distance == pytest.approx(1)
    assert gallery.match(one, ALL).distance == pytest.approx(0, abs=1e-6)
    assert gallery.count() == other.count() == (1, 1)
    found, held = gallery.read_person(person.person_id)
    assert (found.vectors, [vector.model_id for vector in held]) == (2, [MODEL_ID, OTHER_MODEL_ID])
    assert gallery.delete(person.person_id).vectors == 2
    assert other.match(one, ALL).distance is None


def test_a_model_has_vectors_of_one_length(engine: Engine, gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match=f"vectors of {LENGTH} numbers"):
        Gallery(engine, MODEL_ID, LENGTH + 1)


def test_what_another_process_writes_is_seen_at_once(database: Path, gallery: Gallery) -> None:
    there = Gallery(open_database(f"sqlite:///{database}"), MODEL_ID, LENGTH)
    ones = np.ones(LENGTH)
    for round_ in range(5):
        person = there.enrol(f"person {round_}", [ones + round_])
        assert gallery.match(ones, ALL).name == f"person {round_}"
        assert there.match(ones, ALL).name == f"person {round_}"
        gallery.delete(person.person_id)
        assert there.match(ones, ALL).distance is None


def test_a_deleted_vector_is_forgotten_everywhere_and_the_others_are_not(database: Path, gallery: Gallery) -> None:
    """Other processes, galleries of other models, and the person's other vectors."""
    there = Gallery(open_database(f"sqlite:///{database}"), MODEL_ID, LENGTH)
    other = Gallery(there.engine, OTHER_MODEL_ID, LENGTH)
    vectors, _ = draw_people(6, 1)
    person_id = gallery.enrol("Ada", vectors[:3]).person_id
    other.enrol("Ada", vectors[:1])
    gallery.enrol("Bob", vectors[3:])
    for one in (gallery, there, other):
        assert one.match(vectors[0], ALL).distance == pytest.approx(0, abs=1e-6)
    _, held = gallery.read_person(person_id)
    done = gallery.delete_vector(person_id, held[0].vector_id)
    assert (done.vectors, done.left, done.wiped) == (1, 3, True)
    for one in (gallery, there):
        assert one.match(vectors[0], FixedThreshold(1e-3)).name is None
        for row, vector in enumerate(vectors[1:], 1):
            assert one.match(vector, FixedThreshold(1e-3)).name == ("Ada" if row < 3 else "Bob")
        assert one.count() == (2, 5), "what the person keeps is there once"
    assert other.match(vectors[0], FixedThreshold(1e-3)).name == "Ada"
    assert other.count() == (1, 1)
    assert gallery.delete_vector(person_id, held[0].vector_id) is None
    assert gallery.delete_vector(person_id + 1, held[1].vector_id) is None


def test_a_vector_that_is_numbered_anew_while_it_is_read_is_not_missed(
    database: Path, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, _ = draw_people(3, 1)
    person_id = gallery.enrol("Ada", vectors).person_id
    _, held = gallery.read_person(person_id)
    there = Gallery(open_database(f"sqlite:///{database}"), MODEL_ID, LENGTH)
    plain, calls = there._read_since, []

    def read_late(*words: object) -> object:
        calls.append(words)
        if len(calls) == 1:  # after the revision was read, and before the vectors
            gallery.delete_vector(person_id, held[0].vector_id)
        return plain(*words)

    monkeypatch.setattr(there, "_read_since", read_late)
    assert there.match(vectors[1], FixedThreshold(1e-3)).name == "Ada"
    assert there.match(vectors[0], FixedThreshold(1e-3)).name is None
    assert (there.count(), len(calls)) == ((1, 2), 2)


def test_pages_of_people_are_all_of_them_once(gallery: Gallery) -> None:
    enrol_people(gallery, 11, 1)
    pages, after = [], -1
    while page := gallery.list_people(after, 4):
        pages += page
        after = page[-1].person_id
    assert sorted(person.name for person in pages) == sorted(f"person {number}" for number in range(11))


def test_an_export_is_all_that_is_held(gallery: Gallery) -> None:
    vector = np.arange(1.0, LENGTH + 1)
    person_id = gallery.enrol("Ada", [vector]).person_id
    person, (held,) = gallery.read_person(person_id)
    assert (person.name, person.vectors) == ("Ada", 1)
    np.testing.assert_allclose(held.vector, vector / np.linalg.norm(vector), rtol=1e-6)
    assert gallery.read_person(person_id + 1) is None


def test_the_threshold_tightens_as_the_gallery_grows(gallery: Gallery) -> None:
    calibration = compute_calibration(*draw_people(60, 4, seed=5, spread=1.0), MODEL_ID)
    threshold = CalibratedThreshold(calibration, 0.05)
    enrol_people(gallery, 1, 1)
    few = gallery.match(np.ones(LENGTH), threshold).threshold
    enrol_people(gallery, 20, 1)
    many = gallery.match(np.ones(LENGTH), threshold).threshold
    assert few == calibration.choose_threshold(0.05)
    assert many == calibration.choose_threshold(0.05 / gallery.count()[1]) < few


# ---------------------------------------------------------------------------- at the same time


def test_threads_that_enrol_match_and_delete_leave_nothing_out(gallery: Gallery) -> None:
    vectors, _ = draw_people(24, 1, seed=3)
    stop, wrong = threading.Event(), []

    def ask() -> None:
        """Whoever was enrolled before the question and is not being deleted must be found."""
        draw = np.random.default_rng()
        while not stop.is_set():
            if known := sorted(enrolled):
                number = int(draw.choice(known))
                answer = gallery.match(vectors[number], FixedThreshold(1e-3))
                if answer.name != f"person {number}" and number not in leaving:
                    wrong.append((number, answer))

    enrolled: set[int] = set()
    leaving: set[int] = set()

    def enrol(numbers: range) -> None:
        for number in numbers:
            person_id = gallery.enrol(f"person {number}", [vectors[number]]).person_id
            enrolled.add(number)
            if number % 3 == 0:
                leaving.add(number)
                enrolled.discard(number)
                gallery.delete(person_id)
                answer = gallery.match(vectors[number], FixedThreshold(1e-3))
                if answer.accepted:
                    wrong.append((number, answer))

    with ThreadPoolExecutor(6) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        for done in [threads.submit(enrol, range(start, 24, 4)) for start in range(4)]:
            done.result()
        stop.set()
        for done in asking:
            done.result()
    assert wrong == []
    assert sorted(person.name for person in gallery.list_people()) == sorted(
        f"person {number}" for number in range(24) if number % 3
    )
    with gallery.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(database.vectors)).scalar() == 16


def test_a_person_deleted_between_finding_and_naming_is_not_named(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = np.ones(LENGTH), np.arange(1.0, LENGTH + 1)
    person_id = gallery.enrol("Ada", [first]).person_id
    gallery.enrol("Bob", [second])
    plain = gallery_module.Snapshot.match

    def match_and_delete(snapshot: object, *words: object) -> object:
        found = plain(snapshot, *words)
        gallery.delete(person_id)
        return found

    monkeypatch.setattr(gallery_module.Snapshot, "match", match_and_delete)
    assert gallery.match(first, ALL).name == "Bob"


# --------------------------------------------------------------------------------- the database


def test_only_its_owner_reads_the_file(database: Path, engine: Engine) -> None:
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite://", "lost with the process"),
        ("sqlite:///:memory:", "lost with the process"),
        ("mysql://there/gallery", "mysql is not known"),
        ("gallery.db", "no database's URL"),
        ("sqlite:////proc/none/gallery.db", "cannot be written"),
        ("postgresql://127.0.0.1:1/none", "psycopg|cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(url: str, told: str) -> None:
    with pytest.raises(DatabaseError, match=told) as caught:
        open_database(url)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(DatabaseError, match="not a database"):
        open_database(f"sqlite:///{path}")
    assert path.read_text().startswith("not a database")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(DatabaseError) as caught:
        open_database("postgresql://ada:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_a_newer_schema_is_refused(engine: Engine, database: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE revisions SET schema = 99")
    with pytest.raises(DatabaseError, match="schema 99"):
        open_database(f"sqlite:///{database}")
