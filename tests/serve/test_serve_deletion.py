"""Deletion is real: neither the vector's bytes nor the name are left in any file of the database."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_galleries import LENGTH, draw_people
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from ffem_jax.serve import gallery as gallery_module
from ffem_jax.serve.gallery import STORED, Gallery
from ffem_jax.serve.thresholds import FixedThreshold


def read_files(database: Path) -> bytes:
    """Everything that lies beside the database, its journal included."""
    return b"".join(path.read_bytes() for path in sorted(database.parent.iterdir()))


def write_stored(vector: np.ndarray) -> bytes:
    return (vector / np.linalg.norm(vector)).astype(STORED).tobytes()


def test_no_byte_of_a_deleted_person_is_left(database: Path, gallery: Gallery) -> None:
    vectors, labels = draw_people(60, 8)
    people = {}
    # One by one, so that rows are moved between pages as they fill.
    for label, vector in zip(labels, vectors, strict=True):
        people[label] = gallery.enrol(f"Somebody Number {label:03}", [vector]).person_id
    before = read_files(database)
    assert all(write_stored(vector) in before for vector in vectors)
    leaving = [label for label in people if label % 3]
    for label in leaving:
        assert gallery.delete(people[label]).wiped
    after = read_files(database)
    for label, vector in zip(labels, vectors, strict=True):
        # A part is enough to tell that something is left.
        assert (write_stored(vector)[:24] in after) == (label not in leaving)
    for label in people:
        assert (f"Somebody Number {label:03}".encode() in after) == (label not in leaving)
    assert len(after) < len(before)


def test_no_byte_of_a_deleted_vector_is_left(database: Path, gallery: Gallery) -> None:
    vectors, labels = draw_people(20, 8)
    for label, vector in zip(labels, vectors, strict=True):
        gallery.enrol(f"person {label}", [vector])
    gallery.match(vectors[0], FixedThreshold(0.1))
    leaving = []
    for label in range(0, 20, 2):
        person = gallery.find_person(f"person {label}")
        _, held = gallery.read_person(person.person_id)
        leaving.append(write_stored(vectors[labels == label][3]))
        assert held[3].vector.tobytes() == leaving[-1]
        assert gallery.delete_vector(person.person_id, held[3].vector_id).wiped
    files, memory = read_files(database), gallery._keeper._vectors.tobytes()
    for vector in map(write_stored, vectors):
        assert (vector[:24] in files) == (vector in memory) == (vector not in leaving)


def test_nothing_is_left_in_memory_either(gallery: Gallery) -> None:
    vectors, _ = draw_people(2, 1)
    ids = [gallery.enrol(f"person {number}", [vectors[number]]).person_id for number in range(2)]
    with gallery.engine.connect() as connection:
        gallery.refresh(connection)
    gallery.delete(ids[0])
    storage = gallery._keeper._vectors
    assert write_stored(vectors[0]) not in storage.tobytes()
    assert write_stored(vectors[1]) in storage.tobytes()


def test_a_deletion_whose_files_cannot_be_written_anew_says_so(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Engine) -> None:
        raise OperationalError("VACUUM", {}, Exception("disk is full"))

    monkeypatch.setattr(gallery_module, "wipe_freed_space", fail)
    person_id = gallery.enrol("Ada", [np.ones(LENGTH)]).person_id
    done = gallery.delete(person_id)
    assert (done.vectors, done.wiped) == (1, False)
    assert gallery.list_people() == []
    assert [record.message for record in caplog.records] == ["wipe_failed"]
