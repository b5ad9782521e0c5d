"""From a teacher to trials: vectors by each kind of teacher, what enters the key, what a trial records."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record
from made_trials import SMALL

from ffem_jax.analysis.comparability import identify
from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import read_records
from ffem_jax.runs.trial import compute_key, run_trials
from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RunSpec, TeacherSpec, TrialSpec
from ffem_jax.teachers import TeacherError
from ffem_jax.teachers.teach import describe_teacher, load_teaching
from ffem_jax.teachers.vectors import read_vectors, write_vectors

DATA = DataSpec(name="synthetic", resolution=16, people=6, images_per_person=8)
PROTOCOL = ProtocolSpec(test_per_person=2)
ARCH = dataclasses.replace(SMALL, embedding_dim=16)
RECIPE = RecipeSpec(epochs=2, batch_size=8, distill_cosine=1.0, distill_relation=1.0, distill_labels=0.0)


def write_teacher(path: Path, features: int = 16, seed: int = 0, spread: float = 0.2) -> TeacherSpec:
    """Vectors around one centre per person, all near one direction."""
    faces, _ = load_split(DATA, PROTOCOL)
    random = np.random.default_rng(seed)
    centres = random.normal(size=(len(faces.people), features))
    vectors = 5 + centres[faces.labels] + spread * random.normal(size=(len(faces.labels), features))
    write_vectors(path, faces.names, vectors, {"licence": "MIT"})
    return TeacherSpec(name="vectors", path=str(path))


def make_trial(teacher: TeacherSpec, **recipe: object) -> TrialSpec:
    return TrialSpec(ARCH, DATA, PROTOCOL, dataclasses.replace(RECIPE, **recipe), teacher=teacher)


def test_a_file_teaches_and_says_how_good_it_is(tmp_path: Path) -> None:
    trial = make_trial(write_teacher(tmp_path / "t.npz"))
    faces, split = load_split(DATA, PROTOCOL)
    teaching = load_teaching(trial, faces, split)
    assert teaching.targets.shape == (48, 16)
    assert teaching.about["licence"] == "MIT"
    assert teaching.about["measured"]["accuracy_gallery"] > 0.9
    (line,) = describe_teacher(teaching)
    assert "% of the test images find their person among those that train" in line
    assert "it saw other data" in line


def test_a_weak_teacher_is_warned_about(tmp_path: Path) -> None:
    trial = make_trial(write_teacher(tmp_path / "t.npz", spread=30.0))
    lines = describe_teacher(load_teaching(trial, *load_split(DATA, PROTOCOL)))
    assert "right less often than 80 %" in lines[1]


def test_the_key_is_of_what_the_teacher_says_and_not_of_where_it_lies(tmp_path: Path) -> None:
    first = write_teacher(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    moved = dataclasses.replace(first, path=str(tmp_path / "b.npz"))
    key = compute_key(make_trial(first))
    assert compute_key(make_trial(moved)) == key
    write_teacher(tmp_path / "a.npz", seed=1)  # another teacher at the same place, in the same process
    assert compute_key(make_trial(first)) != key
    assert compute_key(make_trial(moved)) == key


def test_vectors_that_miss_images_are_refused_before_anything_trains(tmp_path: Path) -> None:
    faces, _ = load_split(DATA, PROTOCOL)
    write_vectors(tmp_path / "t.npz", faces.names[:-2], np.ones((len(faces.names) - 2, 4)), {})
    with pytest.raises(TeacherError, match="no vector for 2 of 48 images"):
        compute_key(make_trial(TeacherSpec("vectors", str(tmp_path / "t.npz"))))
    with pytest.raises(TeacherError, match=r"nowhere.npz cannot be read"):
        compute_key(make_trial(TeacherSpec("vectors", str(tmp_path / "nowhere.npz"))))


@pytest.mark.parametrize("features", [16, pytest.param(7, marks=pytest.mark.slow)])
def test_a_trial_learns_from_a_teacher_and_records_who_it_was(tmp_path: Path, features: int) -> None:
    trial = make_trial(write_teacher(tmp_path / "t.npz", features), epochs=6, learning_rate=0.05)
    (record,) = run_trials(trial, RunSpec(progress=False), tmp_path / "trial", tmp_path / "records.jsonl")
    assert (record.status, record.error) == ("done", "")
    assert record.loss[-1] < record.loss[0]
    assert record.teacher["measured"]["accuracy_gallery"] > 0.9
    assert record.trial_key == compute_key(trial)
    (again,) = run_trials(trial, RunSpec(progress=False), tmp_path / "trial", tmp_path / "records.jsonl")
    assert (again.trial_key, len(read_records(tmp_path / "records.jsonl"))) == (record.trial_key, 1)

    # The trained network is a teacher in turn, and its vectors are those that ffem embed would write.
    own = dataclasses.replace(trial, teacher=TeacherSpec("ffem", str(tmp_path / "trial")))
    teaching = load_teaching(own, *load_split(DATA, PROTOCOL))
    assert teaching.targets.shape == (48, 16)
    assert len(teaching.about["model_id"]) >= 16
    facts = json.dumps(teaching.about)  # goes into the record as it is
    assert str(tmp_path) not in facts


def test_a_file_written_again_is_the_same_teacher(tmp_path: Path) -> None:
    """Its bytes hold the time of writing: a network of some folds each way is one network all the same."""
    faces, split = load_split(DATA, PROTOCOL)
    first = write_teacher(tmp_path / "a.npz")
    found = read_vectors(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", paths=list(found.names)[::-1], vectors=found.vectors[::-1])
    teachings = [
        load_teaching(make_trial(dataclasses.replace(first, path=str(tmp_path / name))), faces, split)
        for name in ("a.npz", "b.npz")
    ]
    records = [build_record(teacher=dict(one.about), teaching_fingerprint=one.fingerprint) for one in teachings]
    assert teachings[0].about["sha256"] != teachings[1].about["sha256"]
    assert identify(records[0]) == identify(records[1])
    other = load_teaching(make_trial(write_teacher(tmp_path / "c.npz", seed=1)), faces, split)
    assert identify(build_record(teacher=dict(other.about))) != identify(records[0])
