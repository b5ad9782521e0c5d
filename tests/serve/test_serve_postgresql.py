"""The same gallery on PostgreSQL, where FFEM_TEST_POSTGRESQL names a database that may be emptied."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID, draw_people
from sqlalchemy import Engine, text

from ffem_jax.serve.changes import STORED, Candidate
from ffem_jax.serve.database import metadata, open_database
from ffem_jax.serve.gallery import Gallery
from ffem_jax.serve.imports import Scope, import_people
from ffem_jax.serve.keys import add_key, check_key, revoke_key
from ffem_jax.serve.thresholds import FixedThreshold

URL = os.environ.get("FFEM_TEST_POSTGRESQL", "")

pytestmark = pytest.mark.skipif(not URL, reason="no PostgreSQL: FFEM_TEST_POSTGRESQL names no database")


@pytest.fixture
def engine() -> Iterator[Engine]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    engine = open_database(URL)
    metadata.drop_all(engine)
    engine.dispose()
    engine = open_database(URL)
    yield engine
    metadata.drop_all(engine)
    engine.dispose()


def test_enrol_match_delete(engine: Engine, gallery: Gallery) -> None:
    vectors, labels = draw_people(10, 3)
    done = gallery.enrol_all([(f"Zoë {label}", vectors[labels == label]) for label in range(10)])
    assert all(one.added == 3 for one in done)
    assert gallery.enrol("Zoë 0", vectors[:3]).added == 0
    for label, vector in zip(labels, vectors, strict=True):
        assert gallery.match(vector, FixedThreshold(0.01)).name == f"Zoë {label}"
    deletion = gallery.delete(done[0].person_id)
    assert (deletion.vectors, deletion.wiped) == (3, True)
    assert gallery.match(vectors[0], FixedThreshold(0.01)).name is None
    assert gallery.count() == (9, 27)
    assert gallery.delete(done[0].person_id) is None


def test_a_deleted_vector_is_gone_from_the_table_s_file(engine: Engine, gallery: Gallery) -> None:
    vectors, _ = draw_people(2, 1)
    ids = [gallery.enrol(f"person {number}", [vectors[number]]).person_id for number in range(2)]
    stored = [(vector / np.linalg.norm(vector)).astype(STORED).tobytes() for vector in vectors]

    def read_file() -> bytes:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CHECKPOINT"))
            return bytes(
                connection.execute(text("SELECT pg_read_binary_file(pg_relation_filepath('vectors'))")).scalar()
            )

    try:
        before = read_file()
    except Exception as error:
        pytest.skip(f"only a superuser may read the server's files: {type(error).__name__}")
    assert all(blob in before for blob in stored)
    gallery.delete(ids[0])
    after = read_file()
    assert stored[0] not in after
    assert stored[1] in after


def test_two_servers_at_the_same_time(engine: Engine, gallery: Gallery) -> None:
    there = Gallery(open_database(URL), MODEL_ID, LENGTH)
    vectors, _ = draw_people(40, 1)

    def write(number: int) -> None:
        own = gallery if number % 2 else there
        person_id = own.enrol(f"person {number}", [vectors[number]]).person_id
        own.enrol("everybody", [-vectors[number]])
        if number % 4 == 0:
            (there if number % 2 else gallery).delete(person_id)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))
    for one in (gallery, there):
        assert one.count() == (31, 70)
        for number in (1, 2, 3, 39):
            assert one.match(vectors[number], FixedThreshold(1e-3)).name == f"person {number}"
            assert one.match(-vectors[number], FixedThreshold(1e-3)).name == "everybody"
    assert gallery.find_person("everybody").vectors == 40


def test_a_sync_and_single_vectors_seen_by_two_servers(engine: Engine, gallery: Gallery) -> None:
    there = Gallery(open_database(URL), MODEL_ID, LENGTH)
    vectors, _ = draw_people(24, 1)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(STORED)

    def list_folder(numbers: range) -> list[Candidate]:
        return [Candidate(f"person {number % 6}", unit[number], f"{number}.png") for number in numbers]

    import_people(gallery, list_folder(range(24)), "people")
    stays = list(range(6, 12))
    missed: list[int] = []
    stop = threading.Event()

    def ask(one: Gallery) -> None:
        while not stop.is_set():
            missed.extend(
                number
                for number in stays
                if one.match(unit[number], FixedThreshold(1e-3)).name != f"person {number % 6}"
            )

    def shrink(person: int) -> None:
        person_id = gallery.find_person(f"person {person}").person_id
        _, held = gallery.read_person(person_id)
        own = gallery if person % 2 else there
        assert own.delete_vector(person_id, held[-1].vector_id).wiped

    with ThreadPoolExecutor(5) as threads:
        asking = [threads.submit(ask, one) for one in (gallery, there)]
        list(threads.map(shrink, range(6)))
        report = import_people(there, list_folder(range(6, 18)), "people", Scope.FOLDER)
        stop.set()
        for done in asking:
            done.result()
    assert missed == []
    assert (len(report.added), len(report.removed)) == (0, 6)
    assert gallery.count() == there.count() == (6, 12)
    assert gallery.match(unit[0], FixedThreshold(1e-3)).name is None


def test_keys(engine: Engine) -> None:
    key, presented = add_key(engine, ["match"], "phone")
    assert check_key(engine, presented) == key
    revoke_key(engine, key.key_id)
    assert check_key(engine, presented) is None
