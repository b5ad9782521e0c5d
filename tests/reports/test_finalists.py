"""The best of some records as configs and a sweep: who is chosen; what is trained again is what was recorded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from made_records import build_record

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.cli import main
from ffem_jax.config.compose import open_composer
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.records.view import read_arch
from ffem_jax.reports.finalists import choose_finalists
from ffem_jax.runs.sweep import SweepPlan, plan_sweep
from ffem_jax.specs.architecture import SpecError, StageSpec, resolve_network
from ffem_jax.specs.data import DataSpec

# Parameters -> images right of 104: three on the frontier, one behind them, one over the cap, one that failed.
STAGES = (StageSpec(1, 16, 1, 1), StageSpec(4, 40, 2, 2))
RECIPE = {"name": "modern", "epochs": 8, "batch_size": 32, "learning_rate": 0.1, "clip_norm": 2.0}
NETWORKS = {100_000: 40, 200_000: 60, 150_000: 50, 250_000: 45, 3_000_000: 90}


def build_searched(params: int, correct: int | None = 50, **fields: object) -> TrialRecord:
    attention = {"kind": "se", "placement": (0, -1)} if params == 200_000 else {"kind": "none"}
    arch = {"name": "searched", "stages": STAGES, "head_channels": 0, "embedding_dim": params // 1000}
    settings = {"data": {"resolution": 48, "min_images": 3}, "recipe": RECIPE, "arch": arch, "attention": attention}
    return build_record(params=params, correct=correct, **{**settings, **fields})  # type: ignore[arg-type]


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for params, correct in NETWORKS.items():
        append_record(Path("search/records.jsonl"), build_searched(params, correct))
    append_record(Path("search/records.jsonl"), build_searched(120_000, None, status="failed", error="NaN"))
    return tmp_path


def plan(*overrides: str) -> SweepPlan:
    folder = Path("search/frontier/finalists")
    with open_composer(folder) as composer:
        return plan_sweep(composer, "finalists", overrides, folder)


def test_the_frontier_comes_first_and_what_is_behind_it_next() -> None:
    networks = summarize_records([build_searched(params, correct) for params, correct in NETWORKS.items()])

    def choose(count: int, **question: object) -> list[int | None]:
        return [one.params for one in choose_finalists(networks, FrontierQuestion(**question), count)]  # type: ignore[arg-type]

    assert choose(2) == [100_000, 200_000]
    assert choose(3) == [100_000, 150_000, 200_000]
    assert choose(9) == [100_000, 150_000, 200_000, 250_000]
    assert choose(9, cap_mb=0.7) == [100_000, 150_000]


@pytest.mark.slow
def test_what_is_trained_again_is_what_was_recorded(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", "search", "--finalists", "2", "--beside", "ffem,ffem_am"]) == 0
    assert "to retrain the best: ffem sweep finalists --config-dir search/frontier/finalists" in (
        capsys.readouterr().err
    )
    planned = plan()
    counts = Counter(trial.arch.name for trial in planned.trials)
    assert counts == {"final_1": 15, "final_2": 15, "ffem": 15, "ffem_am": 15}
    for name, params in (("final_1", 100_000), ("final_2", 200_000)):
        trial = next(trial for trial in planned.trials if trial.arch.name == name)
        spec = build_searched(params).spec
        assert resolve_network(trial.arch) == resolve_network(read_arch(spec["arch"]))
        assert (trial.data.resolution, trial.data.min_images, trial.data.name) == (48, 3, "lfw52")
        assert (trial.recipe.epochs, trial.recipe.clip_norm, trial.recipe.learning_rate) == (8, 2.0, 0.1)
        assert trial.protocol.name == "kfold"
    # The user's word comes last, as in any sweep.
    assert len(plan("seed=0", "protocol.fold=0", "arch=final_1").trials) == 1


def test_fewer_finalists_leave_none_of_more_behind(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (3, 1):
        assert main(["frontier", "search", "--finalists", str(count), "--json", "--out", "search/frontier"]) == 0
        assert json.loads(capsys.readouterr().out)["networks"]
    written = sorted(path.name for path in Path("search/frontier/finalists/arch").iterdir())
    assert written == ["final_1.yaml"]
    text = Path("search/frontier/finalists/arch/final_1.yaml").read_text(encoding="utf-8")
    assert text.startswith("# 57.7 % [48.1, 66.7] of 104 images when it was chosen; 0.80 MB as float32.\n")
    assert yaml.safe_load(text)["embedding_dim"] == 200


def test_a_sweep_of_pretrained_finalists_says_what_its_intervals_will_lack(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    pretrain = {"name": "lfw_rest", "data": DataSpec(name="lfw_rest", resolution=48)}
    for params in (100_000, 200_000):
        append_record(path, build_searched(params, pretrain=pretrain))
    out = tmp_path / "out"
    assert main(["frontier", str(path), "--finalists", "2", "--out", str(out)]) == 0
    text = (out / "finalists" / "sweeps" / "finalists.yaml").read_text(encoding="utf-8")
    assert "# The sweep pretrains each network once: the intervals exclude variance between pretraining runs." in text
    assert "pretrain.seed=0,1,2" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--finalists", "0"], "--finalists 0 must be at least 1"),
        (["--beside", "ffem"], "give both"),
        (["--finalists", "3", "--cap-mb", "0.1"], "no trained network fits the cap; raise --cap-mb"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    searched: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["frontier", "search", *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_networks_of_two_recipes_are_not_one_sweep(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = build_searched(90_000, 70, recipe={**RECIPE, "epochs": 30})
    append_record(Path("search/records.jsonl"), longer)
    assert main(["frontier", "search", "--finalists", "4"]) == 2
    assert "the best networks differ in recipe.epochs; give records of one setting" in capsys.readouterr().err


def test_a_finalist_that_is_not_there_is_named(searched: Path) -> None:
    assert main(["frontier", "search", "--finalists", "1"]) == 0
    with pytest.raises((SpecError, ValueError), match="arch=final_7 is not known"):
        plan("arch=final_7")
