"""What a plan foretells: images counted without decoding, seconds, disk, differences; against the things themselves."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_people import write_people
from made_records import build_record

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.power import ASSUMED
from ffem_jax.data import DataError, cache, download
from ffem_jax.data.protocols import load_split
from ffem_jax.machine.processor import find_processor
from ffem_jax.records.record import TrialRecord
from ffem_jax.runs import pace, plan
from ffem_jax.runs.counting import AbsentFacesError, count_faces
from ffem_jax.runs.detectable import find_detectable
from ffem_jax.runs.pace import Pace, fit_pace, measure_pace, read_pace
from ffem_jax.runs.plan import Forecast, count_at_a_time, describe_spec, forecast_trials
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec
from ffem_jax.specs.trial import (
    DataSpec,
    PretrainSpec,
    ProtocolSpec,
    RecipeSpec,
    RunSpec,
    TrialSpec,
    to_plain,
)

DRAWN = DataSpec(name="synthetic", people=6, images_per_person=8, resolution=32)


def make_trial(kind: str = "none", seed: int = 0, **fields: Any) -> TrialSpec:
    arch = ArchSpec(width_multiplier=0.25, depth_multiplier=0.33, head_channels=0, attention=AttentionSpec(kind=kind))
    recipe = RecipeSpec(epochs=2, batch_size=8)
    return TrialSpec(**{"arch": arch, "data": DRAWN, "recipe": recipe, "seed": seed, **fields})


def forecast(trials: list[TrialSpec], run: RunSpec | None = None, **options: Any) -> Forecast:
    settings: dict[str, Any] = {"at_a_time": 1, "recorded": [], "find_pace": lambda _: Pace(0.01, 0.0, 5.0, "made up")}
    return forecast_trials(trials, run or RunSpec(), **{**settings, **options})


# ------------------------------------------------------------------------------------- counting


@pytest.mark.parametrize(
    "protocol",
    [
        ProtocolSpec(),
        ProtocolSpec(validation_per_person=1),
        ProtocolSpec(name="kfold", folds=4, fold=3, split_seed=2),
        ProtocolSpec(name="open_set", folds=2, fold=1),
    ],
    ids=["holdout", "validation", "kfold", "open_set"],
)
@pytest.mark.parametrize("where", ["synthetic", "folder"])
def test_counted_is_what_loading_gives(tmp_path: Path, protocol: ProtocolSpec, where: str) -> None:
    data = DRAWN
    if where == "folder":
        root = write_people(tmp_path / "faces", {"ann": 9, "bob": 8, "eve": 6, "joe": 4, "one": 1})
        shutil.copy(root / "ann" / "1.png", root / "ann" / "copy.png")  # stays on one side
        (root / "ann" / "notes.txt").write_text("no picture")
        data = DataSpec(name="folder", root=str(root), resolution=32, min_images=2, max_images=9)
    counted = count_faces(data, protocol)
    faces, split = load_split(data, protocol)
    assert counted.counted
    assert counted.paired
    assert counted.train == len(split.train)
    assert counted.test.tolist() == split.asked.tolist()
    assert counted.people.tolist() == faces.labels[split.asked].tolist()
    assert counted.num_classes == len(np.unique(faces.labels[split.train]))
    if protocol.name == "open_set":
        assert (counted.watched, counted.embedded) == (0, len(split.test))
    else:
        assert counted.watched == (len(split.validation) or len(split.test))
        assert counted.embedded == len(split.test) + len(split.train)


def test_counting_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_people(tmp_path / "faces", {"ann": 4, "bob": 4})
    monkeypatch.setattr(cache, "load_cached", lambda *_: pytest.fail("decoded"))
    count_faces(DataSpec(name="folder", root=str(root)), ProtocolSpec())


def test_faces_that_are_not_here_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FFEM_LFW_ROOT", raising=False)
    monkeypatch.setattr(download, "_fetch", lambda *_: pytest.fail("downloads"))
    for protocol in (ProtocolSpec(), ProtocolSpec(name="view2", folds=10)):
        data = DataSpec(name="lfw", cache_dir=str(tmp_path))
        with pytest.raises(AbsentFacesError, match="data=lfw is not on this machine and a plan downloads nothing"):
            count_faces(data, protocol)
    found = forecast([make_trial(data=DataSpec(name="lfw52", cache_dir=str(tmp_path)))])
    assert (found.hours, found.disk, found.pace) == (None, None, None)
    assert len(found.networks) == 1
    assert "not on this machine" in found.notes[0]


def test_bad_faces_end_a_plan_as_they_would_the_sweep(tmp_path: Path) -> None:
    root = write_people(tmp_path / "faces", {"ann": 2, "bob": 2})
    for data in (
        DataSpec(name="folder"),
        DataSpec(name="folder", root=str(tmp_path / "no")),
        DataSpec(name="folder", root=str(root), min_images=3),
        DataSpec(name="folder", root=str(root)),  # two of two images would test
    ):
        with pytest.raises(DataError) as caught:
            count_faces(data, ProtocolSpec())
        assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------- time


def test_a_pace_is_a_line_where_the_networks_differ() -> None:
    assert fit_pace([(1e6, 0.003), (2e6, 0.005)], 1.0, "").compute_step_seconds(4e6) == pytest.approx(0.009)
    assert fit_pace([(1e6, 0.004)], 1.0, "").compute_step_seconds(2e6) == pytest.approx(0.008)
    # The larger network timed as the faster one: noise, and no line that falls.
    assert fit_pace([(1e6, 0.004), (2e6, 0.003)], 1.0, "").per_mac > 0
    with pytest.raises(ValueError, match="expected"):
        fit_pace([], 1.0, "")


def test_recorded_seconds_count_where_this_machine_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace.os, "cpu_count", lambda: 4)
    here = f"{find_processor()} (1 of 4 cores, cpu)"
    known = {"macs": 10**6, "train_images_per_second": 50.0, "epochs": 3, "compile_seconds": 7.0}
    record = build_record(device=here, **known)
    found = read_pace([record, build_record(device="another processor (1 of 4 cores, cpu)", **known)], cores=1)
    assert found is not None
    assert found.compute_step_seconds(10**6) == pytest.approx(0.02)
    assert found.compile_seconds == 7.0
    assert found.source == "from the seconds of 1 recorded trials of this processor"
    assert read_pace([record], cores=1, precisions={"bfloat16"}) is None
    assert read_pace([record], cores=2) is None
    assert read_pace([build_record(device=here, macs=10**6)], cores=1) is None


@pytest.mark.slow
def test_a_measured_step_is_a_step() -> None:
    found = measure_pace([(make_trial(), 10**6, 6)], cores=0)
    assert 0 < found.compute_step_seconds(10**6) < 10
    assert found.compile_seconds > 0
    assert "timed now" in found.source


def test_seconds_are_those_of_the_images_seen() -> None:
    """6 people, 8 images, 2 of each test: 36 train in 4 steps of 8, 12 are looked at after each of 2 epochs."""
    found = forecast([make_trial(seed=seed) for seed in (0, 1)])
    one = 0.01 * (2 * 4 * 8 + (2 * 12 + 12 + 36) / 3)
    assert found.work.shortest == found.work.longest == pytest.approx(one)
    # One network is compiled once.
    assert found.work.seconds == pytest.approx(2 * one + 5.0)
    assert found.hours == pytest.approx((2 * one + 5.0) / 3600)
    stopped = forecast([make_trial()], RunSpec(stop_epoch=1))
    assert stopped.work.shortest == pytest.approx(0.01 * (4 * 8 + (12 + 12 + 36) / 3))


def test_steps_are_counted_and_few_of_them_are_said() -> None:
    trained = count_faces(DRAWN, ProtocolSpec()).train
    trials = [make_trial(recipe=RecipeSpec(epochs=epochs, batch_size=8)) for epochs in (2, 200)]
    few = forecast(trials)
    assert few.steps == (2 * (trained // 8), 200 * (trained // 8))
    (note,) = few.notes
    assert note.startswith(f"recipe.epochs=2 with recipe.batch_size=8 is {2 * (trained // 8)} steps")
    assert forecast(trials[1:]).notes == ()
    stopped = forecast(trials[1:], RunSpec(stop_epoch=1))
    assert (stopped.steps, len(stopped.notes)) == ((trained // 8,) * 2, 1)


def test_what_is_recorded_is_not_to_be_done_again() -> None:
    trials = [make_trial(seed=seed) for seed in (0, 1)]
    done = TrialRecord("k", to_plain(dataclasses.replace(trials[0])), 0, "done")
    cached = dataclasses.replace(done, spec={**done.spec, "data": {**done.spec["data"], "cache_dir": "/other"}})
    elsewhere = dataclasses.replace(done, spec={**done.spec, "data": {**done.spec["data"], "root": "/other"}})
    assert forecast(trials, recorded=[elsewhere]).done == 0
    for record in (done, cached):
        found = forecast(trials, recorded=[record])
        assert (found.trials, found.done, found.work.left) == (2, 1, 1)
        assert found.hours_left is not None
        assert found.hours is not None
        assert found.hours_left < found.hours
    assert forecast(trials, recorded=[dataclasses.replace(done, status="failed")]).done == 0
    assert forecast(trials, RunSpec(retrain=True), recorded=[done]).done == 0


def test_a_pretraining_is_work_of_its_own_and_shared_by_the_seeds() -> None:
    first = PretrainSpec(name="own", data=DRAWN, recipe=RecipeSpec(epochs=4, batch_size=8))
    trials = [make_trial(kind, seed, pretrain=first) for kind in ("none", "eca") for seed in (0, 1, 2)]
    found = forecast(trials)
    assert (found.work.trainings, found.pretraining.trainings) == (6, 2)
    assert found.work.shortest is not None
    assert found.pretraining.shortest is not None
    assert found.pretraining.shortest > found.work.shortest
    assert found.hours == pytest.approx(((found.work.seconds or 0) + (found.pretraining.seconds or 0)) / 3600)
    recorded = TrialRecord("k", to_plain(trials[0].pretraining), 0, "done")
    assert forecast(trials, recorded=[recorded]).pretraining.left == 1


def test_the_refused_are_named_and_cost_nothing() -> None:
    trials = [make_trial(), make_trial(arch=ArchSpec(width_multiplier=0.5, depth_multiplier=0.33))]
    found = forecast(trials, RunSpec(cap_mb=1.0))
    assert [bool(one.refused) for one in found.networks] == [False, True]
    assert "is over the cap of 1 MB" in found.networks[1].refused
    assert found.trials == found.work.trainings == 1
    assert forecast(trials, RunSpec(cap_mb=1.0, train_over_cap=True)).trials == 2
    nothing = forecast(trials, RunSpec(cap_mb=0.01))
    assert (nothing.trials, nothing.disk, nothing.pace) == (0, None, None)


def test_the_ends_are_timed_and_no_network_between(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def find(ends: Any) -> Pace:
        asked.append([trial.arch.width_multiplier for trial, _, _ in ends])
        return Pace(0.0, 1e-9, 1.0, "")

    widths = [make_trial(arch=ArchSpec(width_multiplier=width, head_channels=0)) for width in (0.5, 0.25, 0.35)]
    forecast(widths, find_pace=find)
    forecast([make_trial(seed=0), make_trial(seed=1)], find_pace=find)
    assert asked == [[0.25, 0.5], [0.25]]


@pytest.mark.parametrize(
    ("launcher", "jobs", "cores", "expected"),
    [("local", 4, 0, 1), ("joblib", 2, 1, 2), ("joblib", 64, 1, 8), ("joblib", 2, 0, 1), ("joblib", 4, 4, 2),
     ("slurm", 64, 4, 64), ("ray", 3, 1, 3)],
)  # fmt: skip
def test_side_by_side_is_what_the_cores_hold(
    launcher: str, jobs: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.os, "cpu_count", lambda: 8)
    assert count_at_a_time(launcher, jobs, cores) == expected


def test_more_jobs_take_less_time_and_no_more_than_there_are_trials() -> None:
    trials = [make_trial(seed=seed) for seed in range(4)]
    one, two, many = (forecast(trials, at_a_time=count) for count in (1, 2, 64))
    assert one.hours == pytest.approx(2 * (two.hours or 0)) == pytest.approx(4 * (many.hours or 0))
    assert many.at_a_time == 4


# ----------------------------------------------------------------------------------------- disk


@pytest.mark.slow
def test_disk_is_what_a_trial_leaves(tmp_path: Path) -> None:
    from ffem_jax.runs.trial import run_trials

    for number, recipe in enumerate(
        (
            RecipeSpec(epochs=1, batch_size=8),
            RecipeSpec(epochs=1, batch_size=8, optimizer="adamw", weight_averaging=0.9),
        )
    ):
        trial, left = make_trial(recipe=recipe), []
        found = forecast([trial])
        # On a busy machine Orbax writes some of a checkpoint's nodes twice and leaves both, so the smallest of three.
        for attempt in range(3):
            folder = tmp_path / f"{number}-{attempt}"
            run_trials(trial, RunSpec(), folder / "trial", folder / "records.jsonl")
            left.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        assert found.disk_total == pytest.approx(min(left), rel=0.25)
        less = forecast([trial], RunSpec(checkpoint=False))
        assert (less.disk_total or 0) < (found.disk_total or 0) / 2


# ---------------------------------------------------------------------------------- differences


def test_the_rows_are_those_of_the_comparison_afterwards() -> None:
    trials = [make_trial(kind, seed) for kind in ("none", "eca", "se") for seed in (0, 1)]
    faces = forecast(trials).faces
    (found,) = [one for one in find_detectable(trials, faces, ASSUMED) if one.factor == "attention.kind"]
    count = faces[DRAWN, ProtocolSpec()]
    records = []
    for trial in trials:
        random = np.random.default_rng([len(trial.arch.attention.kind), trial.seed])
        hits = "".join(random.choice(["0", "1"], len(count.test)))
        records.append(
            TrialRecord(
                f"{trial.arch.attention.kind}{trial.seed}", to_plain(trial), trial.seed, "done", synthetic=True,
                data_fingerprint="a", pictures_fingerprint="a", accuracy=hits.count("1") / len(hits),
                correct=hits.count("1"), tested=len(hits), test_images=count.test.tolist(), hits=hits,
            )
        )  # fmt: skip
    rows = compare_records(records, "attention.kind").rows
    assert [(row.first, row.second, row.context, row.seeds, row.images, row.tests) for row in found.rows] == [
        (row.first, row.second, row.context, row.seeds, row.images, row.tests) for row in rows
    ]


def test_folds_are_one_run_and_more_of_them_test_more() -> None:
    def find(folds: range) -> Any:
        trials = [
            make_trial(kind, protocol=ProtocolSpec(name="kfold", fold=fold))
            for kind in ("none", "eca")
            for fold in folds
        ]
        found = find_detectable(trials, forecast(trials).faces, ASSUMED)
        return next(one for one in found if one.factor == "attention.kind").rows[0]

    whole, part = find(range(5)), find(range(2))
    assert (whole.seeds, whole.images, whole.tests) == (1, 48, 48)
    assert part.images < whole.images
    assert part.difference is None or whole.difference < part.difference


def test_nothing_that_differs_shows_nothing() -> None:
    trials = [make_trial(seed=seed) for seed in (0, 1)]
    assert find_detectable(trials, forecast(trials).faces, ASSUMED) == []


def test_a_spec_is_told_apart_by_its_folders_and_not_by_its_caches() -> None:
    data = DataSpec(name="folder", root="/a", resolution=32)
    texts = [
        describe_spec(to_plain(make_trial(pretrain=PretrainSpec(name="own", data=dataclasses.replace(data, **change)))))
        for change in ({}, {"cache_dir": "/c"}, {"root": "/b"})
    ]
    assert texts[0] == texts[1] != texts[2]
