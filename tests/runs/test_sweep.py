"""What a sweep expands to, what it refuses before anything starts, and what comes back when things go wrong."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import stand_in

from ffem_jax.config.compose import ConfigError, open_composer
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.runs import progress, sweep
from ffem_jax.runs.sweep import SweepPlan
from ffem_jax.specs.architecture import SpecError, resolve_network
from ffem_jax.specs.trial import TrialSpec, trial_key


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trial = ModuleType("ffem_jax.runs.trial")
    trial.__dict__["run_trials"] = stand_in.run_trials
    monkeypatch.setitem(sys.modules, "ffem_jax.runs.trial", trial)


def plan(name: str, *overrides: str) -> SweepPlan:
    with open_composer() as composer:
        return sweep.plan_sweep(composer, name, overrides)


@functools.cache
def shipped(name: str) -> SweepPlan:
    """A shipped sweep as it stands; its folders are those of the first test that asked."""
    return plan(name)


@pytest.mark.parametrize(
    ("name", "combinations", "trials", "networks"),
    [
        ("placement", 24, 18, 9),
        ("depth", 10, 10, 5),
        ("kernel", 16, 16, 8),
        ("resolution", 12, 12, 1),
        ("quickstart", 6, 6, 6),
        pytest.param("paper", 50, 50, 5, marks=pytest.mark.slow),
    ],
)
def test_every_sweep_expands_to_its_trials(name: str, combinations: int, trials: int, networks: int) -> None:
    planned = shipped(name)
    assert (planned.combinations, len(planned.trials)) == (combinations, trials)
    assert len({trial_key(trial) for trial in planned.trials}) == trials
    assert len({job.folder for job in planned.jobs}) == trials
    assert len({resolve_network(trial.arch) for trial in planned.trials}) == networks
    labels = progress.label_trials(planned.trials)
    assert len(set(labels.values())) == len(labels)


def test_placement_is_every_kind_in_every_place_each_network_once_before_any_twice() -> None:
    trials = shipped("placement").trials
    assert [trial.seed for trial in trials] == [0] * 9 + [1] * 9
    found = {(a.kind, a.indices(14)) for a in (trial.arch.attention for trial in trials)}
    places = [(0,), (13,), (0, 13), tuple(range(14))]
    assert found == {("none", ()), *((kind, place) for kind in ("eca", "se") for place in places)}


def test_kernel_has_the_sizes_its_head_says() -> None:
    def sizes(trial: Any) -> tuple[int, ...]:
        return tuple(b.attention[3] for b in resolve_network(trial.arch).blocks if b.attention)

    # On 32 and 960 channels; the last on 16 and 320. By hand from t = int(|(log2 C + b) / gamma|), odd upwards.
    expected = [(3, 5), (5, 7), (7, 11), (1, 3), (3, 3), (5, 5), (9, 9), (1, 3)]
    assert [sizes(trial) for trial in shipped("kernel").trials if trial.seed == 0] == expected


def test_depth_has_the_bottlenecks_its_head_says() -> None:
    counts = [trial.arch.block_count for trial in shipped("depth").trials if trial.seed == 0]
    repeats = (1, 2, 2, 3, 2, 3, 1)
    assert counts == [sum(max(1, math.ceil(n * m)) for n in repeats) for m in (0.33, 0.5, 1.0, 1.5, 2.0)]
    assert (min(counts), max(counts)) == (7, 28)


@pytest.mark.slow
def test_paper_has_all_networks_on_a_fold_before_the_next() -> None:
    trials = shipped("paper").trials
    places = [(trial.seed, trial.protocol.fold) for trial in trials]
    assert places == [(seed, fold) for seed in (0, 1) for fold in range(5) for _ in range(5)]
    names = ["ffem", "ffem_am", "ffem_se", "mobilenetv2", "shufflenetv2"]
    assert [trial.arch.name for trial in trials] == names * 10
    assert {(t.data.name, t.data.resolution, t.protocol.name, t.protocol.split_seed) for t in trials} == {
        ("lfw52", 64, "kfold", 0)
    }


@pytest.mark.slow
def test_the_recipe_of_paper_is_chosen_on_the_command_line() -> None:
    both = [plan("paper", f"recipe={name}", "seed=0", "protocol.fold=0") for name in ("paper", "modern")]
    assert [{trial.recipe.name for trial in one.trials} for one in both] == [{"paper"}, {"modern"}]
    assert both[0].records_path == both[1].records_path
    assert not {job.folder for job in both[0].jobs} & {job.folder for job in both[1].jobs}


def test_quickstart_is_small_and_synthetic() -> None:
    trials = shipped("quickstart").trials
    assert {trial.data.name for trial in trials} == {"synthetic"}
    images = [t.data.people * (t.data.images_per_person - t.protocol.test_per_person) * t.recipe.epochs for t in trials]
    assert sum(images) / 600 + 10 * len(trials) < 4 * 60, "at 600 images a second and 10 s to compile each"


def test_the_user_s_values_replace_the_sweep_s(tmp_path: Path) -> None:
    planned = plan(
        "placement", "seed=3", "arch.attention.kind=se,eca", "arch.attention.placement=all", "data=synthetic"
    )
    assert {trial.seed for trial in planned.trials} == {3}
    assert {trial.arch.attention.kind for trial in planned.trials} == {"eca", "se"}
    assert (planned.combinations, len(planned.trials)) == (2, 2)
    assert planned.sweep_dir == tmp_path / "outputs" / "placement-synthetic"
    assert planned.records_path == planned.sweep_dir / "records.jsonl"


def test_the_same_command_means_the_same_folders() -> None:
    first, again = (plan("depth", "seed=0", "arch.depth_multiplier=0.5,1.0") for _ in range(2))
    assert first.sweep_dir.is_absolute()
    assert [job.overrides for job in first.jobs] == [job.overrides for job in again.jobs]


def test_side_by_side_every_network_comes_once_before_any_twice() -> None:
    words = ("depth", "data=synthetic", "arch.depth_multiplier=0.5,1.0", "seed=0,1,2")
    alone, beside = plan(*words), plan(*words, "launcher=joblib")
    assert [trial.seed for trial in alone.trials] == [0, 1, 2, 0, 1, 2]
    assert [(t.arch.depth_multiplier, t.seed) for t in beside.trials] == [
        (depth, seed) for seed in (0, 1, 2) for depth in (0.5, 1.0)
    ]
    assert set(beside.trials) == set(alone.trials)


def test_seeds_of_one_program_are_trials_of_one_job() -> None:
    planned = plan("", "run.seeds=[0,1]", "arch=ffem,ffem_am", "seed=0,5")
    assert [[trial.seed for trial in job.trials] for job in planned.jobs] == [[0, 1], [0, 1]]
    assert "seed0_1" in planned.jobs[0].folder


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("resolution", ["recipe.epochs=1,0"], "recipe.epochs=0"),
        ("placement", ["arch.atention.kind=eca"], "did you mean arch.attention.kind?"),
        ("depth", ["arch.attention.kind=eca,sse"], "choose one of: none, eca, se"),
        ("depth", ["arch=ffem,ffemm"], "did you mean ffem?"),
        ("", ["run.records='a','b'", "seed=0,1"], "one file"),
        ("typo", [], "there is no sweep 'typo'"),
    ],
)
def test_one_bad_value_refuses_the_sweep(name: str, overrides: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, SpecError)) as caught:
        plan(name, *overrides)
    assert told in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_file_with_a_mistake_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("hydra: {sweeper: {params: {arch.widht_multiplier: '1,2'}}}")
    with pytest.raises(ConfigError, match=r"did you mean arch.width_multiplier"):
        plan("mine")


def test_what_goes_wrong_in_a_job_comes_back_as_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "check_data", lambda trials: ([], {}))
    with open_composer() as composer:
        bad_data = sweep.run_one(composer, ["data.min_images=1000"])
        mistake = sweep.run_one(composer, ["recipe.epochs=1000"])
    assert (bad_data.error, bad_data.bad_input) == ("nobody has 1000 images; lower data.min_images", True)
    assert mistake.error.startswith("RuntimeError: a mistake in the package (see ")
    assert not mistake.bad_input


def test_a_launcher_that_dies_leaves_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.plugins import Plugins

    class Dying:
        def launch(self, jobs: Any, initial_job_idx: int) -> None:
            append_record(planned.records_path, stand_in.make_record(planned.trials[1], Path("x")))
            raise RuntimeError("a worker was killed")

    said: list[str] = []
    with open_composer() as composer:
        planned = sweep.plan_sweep(composer, "depth", ["seed=0"])
        planned = dataclasses.replace(planned, keys=frozenset(map(trial_key, planned.trials)))
        monkeypatch.setattr(Plugins, "instantiate_launcher", lambda self, **_: Dying())
        results = sweep.launch_sweep(composer, planned, said.append)
    assert [record.trial_key for record in sweep.collect_records(results)] == [trial_key(planned.trials[1])]
    assert "the same command goes on" in results[0].error
    assert [line.partition(":")[0] for line in said] == ["[1/5] depth 0.5 seed 0"]


def test_the_time_left_follows_the_newer_half() -> None:
    """Five trials of an hour, which hold a pretraining each, and then trials of a minute."""
    now = [0.0]
    pace = progress.Pace(clock=lambda: now[0])
    told = []
    for finished in range(1, 21):
        now[0] += 3600 if finished <= 5 else 60
        told.append(pace.describe_rest(finished, 20))
    assert told[0] == "; about 1140 min left"
    assert told[9:12] == ["; about 10 min left", "; about 9 min left", "; about 8 min left"]
    assert told[-2:] == ["; about 1 min left", ""]


PRETRAINING, TRIAL = 600.0, 60.0  # seconds


def simulate(trials: Sequence[TrialSpec], jobs: int, folder: Path) -> list[tuple[float, Path, TrialRecord]]:
    """What is recorded, when and where: each trial by the first of `jobs` workers that is free, after its pretraining,
    which the first that asks for it trains and others wait for."""
    events, free, pretrained = [], [0.0] * jobs, dict[str, float]()

    def add(end: float, path: Path, trial: TrialSpec, started: float) -> None:
        record = stand_in.make_record(trial, folder / trial_key(trial))
        record.epochs, record.data, record.wall_seconds = 1, trial.data.name, end - started
        record.started_at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=started)).isoformat()
        events.append((end, path, record))

    for trial in trials:
        started = min(free)
        if first := trial.pretraining:
            if trial_key(first) not in pretrained:
                pretrained[trial_key(first)] = started + PRETRAINING
                add(started + PRETRAINING, folder / "pretraining" / "pretraining.jsonl", first, started)
            end = max(started, pretrained[trial_key(first)]) + TRIAL
        free[free.index(started)] = end
        add(end, folder / "records.jsonl", trial, started)
    return sorted(events, key=lambda event: event[0])


@pytest.mark.parametrize(("networks", "jobs"), [("0.33,0.5,1.0,1.5,2.0", 1), ("0.33,0.5,1.0,1.5,2.0", 2), ("0.33", 3)])
def test_the_time_left_counts_pretrainings_as_work_of_their_own(tmp_path: Path, networks: str, jobs: int) -> None:
    """Networks, each pretrained once for ten minutes, with eight trials of a minute each."""
    planned = plan("depth", "seed=0", "data=lfw52", "pretrain=lfw_rest", f"arch.depth_multiplier={networks}").trials
    # As Hydra composes them for seed=0,1,2,...,7, which takes ten seconds.
    trials = [
        dataclasses.replace(trial, seed=seed, protocol=dataclasses.replace(trial.protocol, split_seed=seed))
        for seed in range(8)
        for trial in planned
    ]
    keys = {trial_key(trial): trial_key(trial.pretraining) for trial in trials if trial.pretraining}
    said, path = list[str](), tmp_path / "records.jsonl"
    follower = progress.RecordFollower(path, trials, keys, said.append, 3600, jobs, pretraining_keys=keys)
    (tmp_path / "pretraining").mkdir()
    events = simulate(trials, jobs, tmp_path)
    wrong = []
    for end, place, record in events:
        append_record(place, record)
        follower.read()
        left = (events[-1][0] - end) / 60
        told = re.search(r"about (\d+) min left", said[-1])
        if place == path and not (told and int(told[1]) == pytest.approx(left, rel=0.35, abs=2)) and (told or left > 2):
            wrong.append((said[-1], left))
    follower.stop()
    assert wrong == []
    count = len(set(keys.values()))
    assert said[0].startswith(f"[0/{len(keys)}] pretraining 1 of {count} on lfw_rest: ")
    assert said[0].endswith("seed 0: accuracy 0.750 (0.650 to 0.850), 8.80 MB")
    assert len(said) == len(keys) + count


def test_what_is_pretrained_already_is_no_work_left(tmp_path: Path) -> None:
    trials = plan("depth", "seed=0,1", "data=lfw52", "pretrain=lfw_rest", "arch.depth_multiplier=1.0").trials
    keys = {trial_key(trial): trial_key(trial.pretraining) for trial in trials if trial.pretraining}
    (tmp_path / "pretraining").mkdir()
    first = trials[0].pretraining
    assert first
    append_record(tmp_path / "pretraining" / "pretraining.jsonl", stand_in.make_record(first, tmp_path))
    said: list[str] = []
    follower = progress.RecordFollower(
        tmp_path / "records.jsonl", trials, keys, said.append, every_seconds=3600, pretraining_keys=keys
    )
    trained = dataclasses.replace(stand_in.make_record(trials[0], tmp_path), epochs=1, wall_seconds=600.0)
    append_record(tmp_path / "records.jsonl", trained)
    follower.stop()
    assert [line.rpartition("; ")[2] for line in said] == ["about 10 min left"]


def test_a_plan_knows_the_pretraining_of_each_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    from ffem_jax.data import protocols

    def load(data: Any, protocol: Any) -> tuple[Any, Any]:
        return SimpleNamespace(notes=(), fingerprint=data.name), SimpleNamespace(notes=(), digest="")

    monkeypatch.setattr(protocols, "load_split", load)
    planned = plan("depth", "seed=0,1", "data=lfw52", "pretrain=none,lfw_rest", "arch.depth_multiplier=1.0")
    prepared, _ = sweep.prepare_sweep(planned)
    with_one = [trial for trial in planned.trials if trial.pretraining]
    assert (len(prepared.keys), len(with_one)) == (4, 2)
    assert prepared.pretraining_keys == {
        trial_key(trial, "lfw52", "lfw_rest"): trial_key(trial.pretraining, "lfw_rest")
        for trial in with_one
        if trial.pretraining
    }


def test_the_follower_reports_whole_lines_and_only_new_ones(tmp_path: Path) -> None:
    trials, path, said = shipped("placement").trials, tmp_path / "records.jsonl", list[str]()
    records = [stand_in.make_record(trial, tmp_path) for trial in trials]
    append_record(path, records[0])
    keys = set(map(trial_key, trials))
    follower = progress.RecordFollower(path, trials, keys, said.append, every_seconds=60)
    # Of faces that were others, or of another sweep: none of this one's.
    append_record(path, dataclasses.replace(records[2], trial_key="f" * 16))
    line = records[1].to_json() + "\n"
    with open(path, "a") as file:
        file.write(line[:40])
        file.flush()
        follower.read()
        assert said == []
        file.write(line[40:] + "not a record\n")
    append_record(path, records[6])
    follower.stop()
    assert said == [
        "[2/18] ECA first seed 0: accuracy 0.750 (0.650 to 0.850), 8.80 MB; best so far 0.750",
        "[3/18] SE last seed 0: failed, FloatingPointError: loss is NaN at step 7; best so far 0.750",
    ]


def test_a_worker_of_joblib_s_may_keep_what_it_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from joblib.externals.loky import process_executor

    monkeypatch.setattr(process_executor, "_MAX_MEMORY_LEAK_SIZE", process_executor._MAX_MEMORY_LEAK_SIZE)
    sweep.keep_worker()
    assert process_executor._MAX_MEMORY_LEAK_SIZE == 3_000_000_000
