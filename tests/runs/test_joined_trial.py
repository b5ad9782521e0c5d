"""One trial by several processes, each with devices of its own: the training of one, whole records, an end for all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_trials import TRIAL

from ffem_jax.data.protocols import load_split
from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.teachers.vectors import write_vectors

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("joined_trial.py")
PLAIN = {"recipe": {"batch_size": 16, "epochs": 3}}
# A margin, an average, a pretraining and two seeds.
EVERYTHING = {
    "recipe": {
        "batch_size": 16, "epochs": 2, "loss": "arcface", "margin_warmup": 0.0, "weight_averaging": 0.9,
        "optimizer": "adamw", "learning_rate": 0.003,
    },
    "run": {"seeds": [0, 3]},
    "pretrained": True,
}  # fmt: skip
TAUGHT = {
    "recipe": {"batch_size": 16, "epochs": 2, "distill_cosine": 1.0, "distill_relation": 1.0, "distill_centres": 1.0}
}


@dataclass
class Ended:
    """What a process left: its exit status, the records that it printed, and what it said."""

    status: int
    records: list[TrialRecord]
    said: str


def train(folder: Path, settings: dict[str, Any], devices: int = 1, *own: dict[str, Any]) -> list[Ended]:
    """Run the trial in as many processes as `own` has, each with those settings besides, or else in one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    joined = {"processes": len(own), "coordinator": coordinator, "heartbeat_seconds": 30} if own else {}
    processes = []
    for number, more in enumerate(own or [{}]):
        run = {**settings.get("run", {}), **joined, **({"process": number} if own else {}), **more.get("run", {})}
        words = json.dumps({**settings, **more, "run": run})
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
        command = [sys.executable, str(PROGRAM), str(folder), words]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    return [_end(process) for process in processes]


def _end(process: subprocess.Popen) -> Ended:
    try:
        out, error = process.communicate(timeout=300)
    finally:
        process.kill()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return Ended(process.returncode, [TrialRecord.from_json(line) for line in lines], error)


def assert_alike(found: list[TrialRecord], wanted: list[TrialRecord]) -> None:
    """The same trials, with the same losses and results within rounding."""
    assert [record.trial_key for record in found] == [record.trial_key for record in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert (one.status, other.status) == ("done", "done"), (one.error, other.error)
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-4)
        assert one.accuracy == other.accuracy


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """What one process with one device makes of PLAIN."""
    (ended,) = train(tmp_path_factory.mktemp("alone"), PLAIN)
    assert ended.status == 0, ended.said
    return ended.records


def write_teacher(path: Path) -> Path:
    faces, _ = load_split(TRIAL.data, TRIAL.protocol)
    random = np.random.default_rng(0)
    centres = random.normal(size=(len(faces.people), 5))
    vectors = centres[faces.labels] + 0.2 * random.normal(size=(len(faces.labels), 5))
    write_vectors(path, faces.names, vectors, {"licence": "MIT"})
    return path


def test_two_processes_with_two_devices_train_as_one_with_four_and_with_one(
    tmp_path: Path, alone: list[TrialRecord]
) -> None:
    first, second = train(tmp_path / "joined", PLAIN, 2, {}, {})
    assert (first.status, second.status) == (0, 0), first.said + second.said
    (four,) = train(tmp_path / "four", PLAIN, 4)
    assert_alike(first.records, alone)
    assert_alike(four.records, alone)
    assert first.records == second.records == read_records(tmp_path / "joined" / "records.jsonl")
    assert first.records[0].device.endswith("by 2 processes")
    assert "(4 of" in four.records[0].device
    assert len(list((tmp_path / "joined" / "trial").glob("weights-*.safetensors"))) == 1


def test_each_process_reads_its_share_of_a_stream_alone(tmp_path: Path, alone: list[TrialRecord]) -> None:
    streamed = {**PLAIN, "run": {"load": "stream"}}
    first, second = train(tmp_path, streamed, 2, {}, {})
    assert (first.status, second.status) == (0, 0), first.said + second.said
    assert_alike(first.records, alone)
    read = [[json.loads(line) for line in one.said.splitlines() if line.startswith("[[")] for one in (first, second)]
    (mine,), (others,) = read  # all epochs as one
    assert len(mine) == len(others) == 3
    for own, other in zip(mine, others, strict=True):
        assert len(set(own)) == len(set(other)) == 8
        assert not set(own) & set(other)


def test_margins_averages_seeds_and_a_pretraining_are_those_of_one_process(tmp_path: Path) -> None:
    first, second = train(tmp_path / "joined", {**EVERYTHING, "run": {"seeds": [0, 3], "load": "stream"}}, 2, {}, {})
    assert (first.status, second.status) == (0, 0), first.said + second.said
    (four,) = train(tmp_path / "four", EVERYTHING, 4)
    (one,) = train(tmp_path / "one", EVERYTHING)
    assert len(one.records) == 2
    assert_alike(first.records, one.records)
    assert_alike(four.records, one.records)
    assert len(read_records(tmp_path / "joined" / "pretraining" / "pretraining.jsonl")) == 1


def test_a_teacher_says_the_same_to_all_processes(tmp_path: Path) -> None:
    settings = {**TAUGHT, "teacher": str(write_teacher(tmp_path / "teacher.npz"))}
    (one,) = train(tmp_path / "one", settings)
    for load in ("memory", "stream"):
        first, _ = train(tmp_path / load, {**settings, "run": {"load": load}}, 2, {}, {})
        assert_alike(first.records, one.records)


def test_a_killed_process_fails_the_trial_and_the_same_command_goes_on(
    tmp_path: Path, alone: list[TrialRecord]
) -> None:
    first, second = train(tmp_path, PLAIN, 2, {}, {"die_after": 1})
    assert second.status == -9
    assert first.status == 1, first.said
    (failed,) = read_records(tmp_path / "records.jsonl")
    assert failed.status == "failed"
    assert "another process seems to have ended, and the same command goes on" in failed.error
    # Of the first epoch there is a checkpoint, and so two more follow, whatever the number of processes.
    (whole,) = train(tmp_path, PLAIN, 4, {"fail_after": 0})
    assert_alike(whole.records, alone)
    assert [record.status for record in read_records(tmp_path / "records.jsonl")] == ["failed", "done"]


def test_where_the_first_process_is_killed_nothing_is_recorded_and_the_same_command_goes_on(
    tmp_path: Path, alone: list[TrialRecord]
) -> None:
    first, second = train(tmp_path, PLAIN, 2, {"die_after": 2}, {})
    assert first.status == -9
    assert second.status not in (0, None)
    assert not (tmp_path / "records.jsonl").exists()
    first, second = train(tmp_path, PLAIN, 2, {"fail_after": 0}, {"fail_after": 0})
    assert (first.status, second.status) == (0, 0), first.said + second.said
    assert_alike(first.records, alone)


def test_what_fails_in_one_process_is_recorded_by_the_first(tmp_path: Path) -> None:
    first, second = train(tmp_path, PLAIN, 2, {}, {"fail_after": 1})
    assert (first.status, second.status) == (1, 1)
    (failed,) = read_records(tmp_path / "records.jsonl")
    assert (failed.status, failed.error) == ("failed", "process 1: OSError: the disk vanished")


def test_processes_that_were_given_different_trials_end_in_one_line(tmp_path: Path) -> None:
    for own, odd in (({"seed": 7}, "trials"), ({"run": {"stop_epoch": 1}}, r"run.stop_epoch")):
        ended = train(tmp_path, PLAIN, 1, {}, own)
        assert [one.status for one in ended] == [1, 1], ended[0].said + ended[1].said
        for one in ended:
            assert "HostError: process 1 was started with other" in one.said
            assert odd in one.said
    assert not (tmp_path / "records.jsonl").exists()
