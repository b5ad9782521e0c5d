"""`ffem sweep NAME --plan`, `--cfg`, `ffem train --plan`: what is printed, and that nothing is trained or written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_records import build_record

from ffem_jax.cli import main, sweep_plan
from ffem_jax.config.compose import find_sweeps, open_composer
from ffem_jax.records.record import append_record
from ffem_jax.reports.sweep_plan import describe_differences, describe_plan
from ffem_jax.runs import pace
from ffem_jax.runs.sweep import plan_sweep
from ffem_jax.specs.trial import to_plain


@pytest.fixture(autouse=True)
def _made_up_pace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A step of one network takes a second per hundred million MACs: compiling here would take minutes."""
    monkeypatch.setattr(pace, "_time_steps", lambda trial, classes: (0.01 + trial.arch.width_multiplier / 100, 4.0))
    monkeypatch.chdir(tmp_path)


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_plan_of_a_sweep(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plan = run_json(capsys, "sweep", "quickstart", "--plan", "seed=0,1")
    assert (plan["trials"], plan["trials_done"], plan["networks"], plan["combinations"]) == (12, 0, 6, 12)
    assert plan["refused"] == []
    assert plan["bytes"][0] < plan["bytes"][1] < 10e6
    (faces,) = plan["faces"]
    assert (faces["train_images"], faces["test_images"], faces["people"]) == (400, 80, 16)
    assert plan["disk_total_bytes"] >= 12 * plan["disk_bytes"][0] > 0
    assert plan["hours"] == plan["hours_left"] > 0
    assert "timed now" in plan["timing"]
    factors = {one["factor"]: one for one in plan["differences"]}
    assert set(factors) == {"arch.width_multiplier", "attention.kind"}
    kind = factors["attention.kind"]
    # Three widths, and one row over all of them.
    assert [row["context"] for row in kind["rows"]][-1] == "all 3"
    assert all(row["seeds"] == 2 and row["images"] == 80 for row in kind["rows"])
    assert 0 < kind["smallest"] <= kind["largest"] < 1
    assert kind["rows"][-1]["difference"] < kind["rows"][0]["difference"]
    assert "assumed" in plan["assumption"]
    assert list(tmp_path.iterdir()) == []


def test_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["sweep", "quickstart", "--plan", "run.cap_mb=1", "launcher=joblib", "launcher.jobs=2"]) == 0
    out = capsys.readouterr().out
    assert "differences of" in out or "no difference" in out
    assert "over the cap: " in out
    assert "is over the cap of 1 MB" in out
    for word in ("trials", "networks", "size", "faces", "disk", "time in all", "timing", "attention.kind"):
        assert word in out


@pytest.mark.slow
def test_records_at_hand_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Trials that are done are not to be done again, and their answers say what chance is."""
    with open_composer() as composer:
        trials = plan_sweep(composer, "quickstart", ["seed=0,1"]).trials
    folder = tmp_path / "outputs" / "quickstart-synthetic"
    for number, trial in enumerate(trials[:4]):
        hits = ("1" * (10 + number) + "0" * 10) * 4
        record = build_record(
            correct=hits[:80].count("1"), tested=80, seed=trial.seed, hits=hits[:80], test_images=list(range(80)),
            data_fingerprint="a", pictures_fingerprint="a", data={"name": "synthetic"},
        )  # fmt: skip
        record.spec, record.trial_key, record.data = to_plain(trial), str(number), "synthetic"
        append_record(folder / "records.jsonl", record)
    plan = run_json(capsys, "sweep", "quickstart", "--plan", "seed=0,1")
    assert plan["trials_done"] == 4
    assert 0 < plan["hours_left"] < plan["hours"]
    assert "measured in records" in plan["assumption"]
    # The same records under another name, named.
    moved = tmp_path / "moved.jsonl"
    (folder / "records.jsonl").rename(moved)
    named = run_json(capsys, "sweep", "quickstart", "--plan", "arch.width_multiplier=0.25", "--records", str(moved))
    assert named["assumption"] == plan["assumption"]


@pytest.mark.slow
def test_a_plan_of_a_search_names_no_level(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_plan, "SAMPLES", 3)
    plan = run_json(capsys, "sweep", "search", "--plan", "data=synthetic", "hydra.sweeper.n_trials=9")
    assert (plan["kind"], plan["trials"], plan["networks"]) == ("search", 9, 9)
    assert plan["space"] > 1000
    assert plan["differences"] == []
    assert plan["hours"] > 0
    assert list(tmp_path.iterdir()) == []
    assert describe_differences(plan)[0].startswith("A search does not compare levels")
    assert [row[0] for row in describe_plan(plan)][:2] == ["trials", "space"]


def test_a_plan_of_one_training_and_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json(capsys, "train", "--plan", "data=synthetic")["trials"] == 1
    assert run_json(capsys, "train", "-m", "--plan", "data=synthetic", "seed=0,1")["trials"] == 2
    assert main(["train", "--plan", "data=synthetic", "seed=0,1"]) == 2
    assert "add -m to train them all" in capsys.readouterr().err


@pytest.mark.slow
def test_where_the_images_are_not_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FFEM_LFW_ROOT", raising=False)
    assert main(["sweep", "depth", "--plan", f"data.cache_dir={tmp_path}"]) == 0
    printed = capsys.readouterr()
    assert "its images could not be counted" in printed.out
    assert "data=lfw52 is not on this machine and a plan downloads nothing" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "quickstart", "--plan", "--cfg"], "--cfg prints a config and --plan a plan; give only one of them"),
        (["sweep", "quickstart", "--records", "x.jsonl"], "--records needs --plan"),
        (["sweep", "quickstart", "--plan", "--records", "x.jsonl"], "x.jsonl does not exist"),
        (["sweep", "quickstart", "--plan", "data=folder"], "data=folder needs data.root=DIR"),
        (["sweep", "quickstart", "--plan", "arch.width_multiplier=9"], "arch.width_multiplier=9"),
        (["sweep", "quickstart", "--pln"], "there is no option --pln; did you mean --plan?"),
        (["sweep", "--plan"], "which sweep?"),
        (["sweep", "quickstrt", "--plan"], "did you mean quickstart?"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# ----------------------------------------------------------------------------------------- --cfg


def test_the_config_of_a_sweep_wherever_the_option_stands(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for words in (["quickstart", "--cfg", "data=lfw52"], ["--cfg", "quickstart", "data=lfw52"],
                  ["quickstart", "data=lfw52", "--cfg"]):  # fmt: skip
        assert main(["sweep", *words]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    assert "name: lfw52" in texts[0]
    assert "arch.width_multiplier: 0.25,0.5,1.0" in texts[0]


def test_an_override_of_a_swept_key_is_shown_as_it_will_be(capsys: pytest.CaptureFixture[str]) -> None:
    config = run_json(capsys, "sweep", "quickstart", "--cfg", "arch.width_multiplier=0.5", "seed=3,4")
    assert config["arch"]["width_multiplier"] == 0.5
    assert config["hydra"]["sweeper"]["params"] == {"arch.attention.kind": "none,eca", "seed": "3,4"}


@pytest.mark.parametrize("name", sorted(find_sweeps()))
def test_every_sweep_has_a_config(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_json(capsys, "sweep", name, "--cfg")
    assert config["hydra"]["sweeper"]["params"]
    assert config["recipe"]["epochs"] > 0
