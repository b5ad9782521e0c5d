"""A trial whose images stay on disk: the record of the trial in memory, and a failure that names its image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sets import draw_faces, encode, make_contents, write_records
from made_trials import SMALL

from ffem_jax.data import source as source_module
from ffem_jax.records.record import TrialRecord
from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

TRIAL = TrialSpec(
    arch=SMALL,
    protocol=ProtocolSpec(test_per_person=2),
    recipe=RecipeSpec(epochs=2, batch_size=6),
)
# What differs from run to run.
MEASURED = (
    "wall_seconds",
    "compile_seconds",
    "train_images_per_second",
    "data_wait_fraction",
    "started_at",
    "trial_dir",
)


@pytest.fixture(autouse=True)
def _nothing_is_open() -> Iterator[None]:
    yield
    source_module._streamed.clear()


def train(root: Path, load: str, processes: int = 0, **settings: Any) -> TrialRecord:
    data = DataSpec(name="recordio", root=str(root), resolution=16, cache_dir=str(root / "cache"), **settings)
    trial = dataclasses.replace(TRIAL, data=data)
    run = RunSpec(progress=False, load=load, decode_processes=processes)
    name = f"{load}-{processes}"
    return run_trials(trial, run, root / name, root / f"{name}.jsonl")[0]


def write_set(root: Path) -> list[int]:
    pixels, labels = draw_faces(3, 8, 16)
    contents = make_contents([encode(one) for one in pixels], labels.tolist())
    return write_records(root, contents, 3, 16)


@pytest.mark.slow
def test_the_record_is_that_of_the_trial_in_memory(tmp_path: Path) -> None:
    write_set(tmp_path)
    held, streamed = train(tmp_path, "memory"), train(tmp_path, "stream")
    assert (held.status, streamed.status) == ("done", "done"), streamed.error
    assert streamed.trial_key == held.trial_key
    same = dict.fromkeys(MEASURED)
    assert dataclasses.replace(streamed, **same) == dataclasses.replace(held, **same)
    assert held.data_wait_fraction is None
    assert streamed.data_wait_fraction is not None
    elsewhere = train(tmp_path, "stream", processes=2)
    assert dataclasses.replace(elsewhere, **same) == dataclasses.replace(held, **same)
    part = train(tmp_path, "auto", images_per_epoch=12)
    assert part.status == "done"
    assert part.spec["data"]["images_per_epoch"] == 12
    assert part.trial_key != held.trial_key


def test_a_record_that_breaks_meanwhile_fails_the_trial_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = write_set(tmp_path)
    import ffem_jax.runs.trial as trial_module

    whole = trial_module.fit

    def break_first(*args, **kwargs):  # type: ignore[no-untyped-def]
        with open(tmp_path / "train.rec", "r+b") as file:
            for start in starts[1:]:
                file.seek(start)
                file.write(np.random.default_rng(0).bytes(4))
        return whole(*args, **kwargs)

    monkeypatch.setattr(trial_module, "fit", break_first)
    record = train(tmp_path, "stream")
    assert record.status == "failed"
    assert record.error.startswith("StreamError: epoch 1, step 1: image ")
    assert "can no longer be read (no record starts there); restore the files and train again" in record.error
