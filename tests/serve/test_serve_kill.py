"""A process killed in the middle of enrolments and deletions leaves the gallery whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from made_galleries import LENGTH, MODEL_ID
from sqlalchemy import func, select

from ffem_jax.serve.database import models, open_database, people, revisions, vectors
from ffem_jax.serve.gallery import STORED, Gallery
from ffem_jax.serve.thresholds import FixedThreshold

# Enrols two vectors a person, deletes every fifth, and says what it has been told is done.
WRITER = """
import sys
import numpy as np
from ffem_jax.serve.database import open_database
from ffem_jax.serve.gallery import Gallery

url, model_id, length, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
gallery = Gallery(open_database(url), model_id, length)
print("ready", flush=True)
for number in range(first, first + 100_000):
    vectors = np.random.default_rng(number).normal(size=(2, length))
    person_id = gallery.enrol(f"person {number}", vectors).person_id
    print("enrolled", number, flush=True)
    if number % 5 == 0:
        print("deleting", number, flush=True)
        gallery.delete(person_id)
        print("deleted", number, flush=True)
"""


def run_until_killed(url: str, first: int, seconds: float) -> list[list[str]]:
    """The whole lines that the writer has said when it is killed `seconds` after it is ready."""
    command = [sys.executable, "-c", WRITER, url, MODEL_ID, str(LENGTH), str(first)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    try:
        said = [process.stdout.readline()]
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
    rest, error = process.communicate()
    assert said == ["ready\n"], error
    return [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("seconds", [0.4, *(pytest.param(late, marks=pytest.mark.slow) for late in (0.15, 0.7, 3.0))])
def test_a_kill_leaves_the_gallery_whole(database: Path, seconds: float) -> None:
    url, told = f"sqlite:///{database}", []
    for first in (0, 1000):  # the second writer starts on what the first has left
        told += run_until_killed(url, first, seconds + 0.013 * first / 1000)
    engine = open_database(url)
    gallery = Gallery(engine, MODEL_ID, LENGTH)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        newest = connection.execute(select(func.max(vectors.c.revision))).scalar() or 0
        assert newest <= connection.execute(select(revisions.c.revision)).scalar_one()
        assert connection.execute(select(models.c.length)).scalars().all() == [LENGTH]
        blobs = connection.execute(select(vectors.c.data)).scalars().all()
        each = connection.execute(
            select(people.c.name, func.count(vectors.c.vector_id)).outerjoin(vectors).group_by(people.c.person_id)
        ).all()
    assert {len(blob) for blob in blobs} <= {LENGTH * STORED.itemsize}
    assert {count for _, count in each} <= {2}, "half an enrolment was kept"
    there = {int(name.split()[1]) for name, _ in each}
    enrolled = {int(number) for what, number in told if what == "enrolled"}
    deleting = {int(number) for what, number in told if what == "deleting"}
    deleted = {int(number) for what, number in told if what == "deleted"}
    assert enrolled - deleting <= there, "an enrolment that was confirmed is lost"
    assert not deleted & there, "a deletion that was confirmed is undone"
    for number in sorted(there):
        for vector in np.random.default_rng(number).normal(size=(2, LENGTH)):
            assert gallery.match(vector, FixedThreshold(1e-3)).name == f"person {number}"
    assert gallery.enrol("after", [np.ones(LENGTH)]).added == 1
