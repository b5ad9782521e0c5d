"""What a user types and gets back: exit status, one line for a mistake, and nothing but results on standard output."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import stand_in

from ffem_jax import __version__
from ffem_jax.cli import COMMANDS, main
from ffem_jax.kernels import describe_engine
from ffem_jax.records.record import append_record, latest_records, read_records
from ffem_jax.reports import frontier
from ffem_jax.specs.trial import TrialSpec


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own, no training, and logging put back as Hydra found it."""
    from ffem_jax.data import protocols

    monkeypatch.chdir(tmp_path)
    # Set to what they are, so that monkeypatch puts them back.
    monkeypatch.setitem(sys.modules, "ffem_jax.runs.trial", ModuleType("ffem_jax.runs.trial"))
    monkeypatch.setattr(protocols, "load_split", protocols.load_split)
    monkeypatch.setattr(frontier, "write_frontier", frontier.write_frontier)
    stand_in.install()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def ffem(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# ------------------------------------------------------------------------------------ itself


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ffem(capsys, "--help")
    assert (status, err) == (0, "")
    assert all(f"  {name} " in out for name in COMMANDS)
    assert ffem(capsys, "--version")[1] == f"ffem {__version__}, on a CPU by {describe_engine()}\n"
    assert ffem(capsys)[0] == 2


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_and_json(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert "--json" in out
    others = (
        "align",
        "answer",
        "compare",
        "completion",
        "effects",
        "embed",
        "export",
        "frontier",
        "groups",
        "latency",
        "list",
        "paper",
        "report",
        "predict",
        "serve",
        "settings",
        "show",
        "teach",
        "verify",
    )
    if command not in others:
        assert "arch=ffem|ffem_am|ffem_se|mobilefacenet|mobilenetv2" in out


def test_help_takes_no_time_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, ffem_jax.cli\n"
        "ffem_jax.cli.main(['--help'])\n"
        "sys.exit(str([name for name in ('jax', 'hydra', 'omegaconf', 'rich', 'numpy') if name in sys.modules]))"
    )
    repository = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "did you mean train?"),
        (["learn"], "choose one of: train, sweep, frontier, "),
        (["train", "--fast"], "--fast"),
        (["train", "arch.atention.kind=eca"], "did you mean arch.attention.kind?"),
        (["train", "arch=ffemm"], "choose one of: ffem, ffem_am, ffem_se, mobilefacenet, mobilenetv2"),
        (["train", "arch.attention.kind=ecaa"], "choose one of: none, eca, se"),
        (["train", "seed=abc"], "seed: Value 'abc'"),
        (["train", "seed=0,1"], "add -m"),
        (["train", "seed"], "key=value"),
        (["train", "hydra.run.dir=file/below"], "choose another with hydra.run.dir=DIR"),
        (["train", "run.records=file/records.jsonl"], "run.records=FILE"),
        (
            ["train", "hydra.run.dir=out/${"],
            "Hydra reads ${ as an interpolation; choose another with hydra.run.dir=DIR",
        ),
        (["train", "hydra.run.dir=${nowhere}"], "hydra.run.dir: Interpolation key 'nowhere' not found"),
        (["cost", "data.root=a,b"], """to give it as one text, quote it: "data.root='a,b'\""""),
        (["train", "data.min_images=1000"], "lower data.min_images"),
        (["train", "--config-dir", "nowhere"], "is not a folder"),
        (["train", "hydra/sweeper=optuna"], "basic"),
        (["cost", "arch=ffemm"], "did you mean ffem?"),
        (["sweep"], "which sweep?"),
        (["sweep", "data=lfw"], "which sweep?"),
        (["sweep", "placment"], "did you mean placement?"),
        (["sweep", "depth", "seed=0", "hydra.sweep.dir=file/below"], "hydra.sweep.dir=DIR"),
        (["sweep", "depth", "recipe.epochs=0"], "recipe.epochs=0"),
        (["sweep", "search", "hydra.sweeper.sampler=nsga3"], "choose one of: random, nsga2, tpe, gp, grid"),
        (["sweep", "search", "hydra.sweeper.sampler=grid"], "is for at most 100000 points"),
        (["frontier", "nowhere"], "nowhere does not exist"),
        (["frontier", "empty"], "contains no records.jsonl"),
        (["frontier", "file", "--against", "size"], "choose from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_status_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], told: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    status, out, err = ffem(capsys, *words)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if "a library prints" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("ffem: error: ")
    assert told in lines[0]


def test_hydra_full_error_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"did you mean ffem\?"):
        main(["train", "arch=ffemm"])


# ------------------------------------------------------------------------------------- train


def test_train_prints_the_record_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = ffem(capsys, "train", "--json", "seed=3", "hydra.verbose=true")
    record = json.loads(out)
    assert (status, record["seed"], record["status"], record["accuracy"]) == (0, 3, "done", 0.75)
    assert "a library prints" in err
    folder = tmp_path / "outputs" / "train" / f"ffem_am-eca-first_last-seed3-{record['trial_key']}"
    assert (folder / "records.jsonl").exists()


def test_train_in_a_folder_of_the_user_s(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = "a folder, with 'odd' = signs"
    quoted = "'" + name.replace("'", "\\'") + "'"
    status, out, _ = ffem(capsys, "train", f"hydra.run.dir={quoted}")
    assert (status, out.splitlines()[-1]) == (0, f"folder: {tmp_path / name}")
    assert (tmp_path / name / ".hydra" / "config.yaml").exists()


def test_several_seeds_are_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(ffem(capsys, "train", "--json", "run.seeds=[0,1]")[1])
    assert [row["seed"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("placement", "status", "told"),
    [("all", 0, "accuracy 0.750"), ("first", 0, "run.train_over_cap=true"), ("last", 1, "loss is NaN at step 7")],
)
def test_the_exit_status_says_how_it_went(
    capsys: pytest.CaptureFixture[str], placement: str, status: int, told: str
) -> None:
    found, out, _ = ffem(capsys, "train", "attention=se", f"arch.attention.placement={placement}")
    assert found == status
    assert told in out


def test_a_config_folder_of_the_user_s(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine" / "arch").mkdir(parents=True)
    (tmp_path / "mine" / "arch" / "tiny.yaml").write_text("name: tiny\nhead_channels: 0\n")
    status, out, _ = ffem(capsys, "train", "--cfg", "--json", "--config-dir", "mine", "arch=tiny", "run.seeds=[4]")
    config = json.loads(out)
    assert (status, config["arch"]["name"], config["arch"]["head_channels"]) == (0, "tiny", 0)
    assert config["run"]["seeds"] == [4]


# ------------------------------------------------------------------------------------- sweep

MIXED = ["sweep", "placement", "seed=0", "arch.attention.kind=se", "data=synthetic"]
HALTED = ["sweep", "resolution", "seed=0", "data=synthetic", "data.resolution=48,64,80"]


def check_mixed(status: int, err: str, tmp_path: Path) -> None:
    """Of the four of MIXED two are done, one is over the cap, one failed; all of them ran."""
    assert status == 1
    over_cap, first, failed, last = err.splitlines()[-4:]
    assert (over_cap, failed) == ("over the cap: 1", "failed: 1")
    assert "first seed 0: not trained, over the cap, 8.80 MB [" in first
    assert "last seed 0: failed, FloatingPointError: loss is NaN at step 7 [" in last
    records = read_records(tmp_path / "outputs" / "placement-synthetic" / "records.jsonl")
    assert sorted(record.status for record in records) == ["done", "done", "failed", "over_cap"]
    assert len({record.trial_dir for record in records}) == 4


def test_a_failing_trial_leaves_the_others_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = ffem(capsys, *MIXED)
    check_mixed(status, err, tmp_path)
    assert out.splitlines()[0] == "a frontier of 2"
    assert sum(line.startswith("[") for line in err.splitlines()) == 4
    assert "all seed 0: accuracy 0.750 (0.650 to 0.850), 8.80 MB; best so far 0.750" in err


def test_started_again_it_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ffem(capsys, *MIXED)
    status, out, err = ffem(capsys, *MIXED, "--json")
    assert "4 trials from 4 combinations, 2 of them recorded as done" in err
    summary = json.loads(out)
    assert (status, summary["done"], summary["over_cap"], summary["failed"]) == (1, 2, 1, 1)
    assert summary["frontier"] == {"trials": 4}
    records = read_records(summary["records"])
    assert len([record for record in records if record.status == "done"]) == 2, "a done trial was run again"


@pytest.mark.slow
def test_a_sweep_stopped_early_says_so_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ffem(capsys, *MIXED, "run.stop_epoch=4", "--json")
    counts = json.loads(out)
    assert (status, counts["done"], counts["pruned"], counts["over_cap"], counts["failed"]) == (1, 0, 2, 1, 1)
    assert "all seed 0, stopped after epoch 4 of 30: accuracy 0.750 (0.650 to 0.850), 8.80 MB\n" in err
    assert "pruned before the end: 2\n" in err
    status, out, err = ffem(capsys, *MIXED, "--json")
    counts = json.loads(out)
    assert (counts["done"], counts["pruned"]) == (2, 0)
    status, out, _ = ffem(capsys, "train", "run.stop_epoch=4", "hydra.run.dir=one")
    assert status == 0
    assert "resumes from there" in out


@pytest.mark.slow
def test_a_real_multirun_in_other_processes(tmp_path: Path) -> None:
    environment = stand_in.write_sitecustomize(tmp_path)
    command = [sys.executable, "-m", "ffem_jax.cli", *MIXED, "launcher=joblib", "launcher.jobs=2", "--json"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert json.loads(result.stdout)["done"] == 2, result.stderr
    check_mixed(result.returncode, result.stderr, tmp_path)


def test_multirun_of_train_is_a_sweep_without_a_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = ffem(capsys, "train", "-m", "arch=ffem,ffem_am", "data=synthetic")
    assert (status, out.splitlines()[0]) == (0, "a frontier of 2"), err
    assert len(read_records(tmp_path / "outputs" / "multirun-synthetic" / "records.jsonl")) == 2


def test_nothing_done_is_no_frontier(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ffem(capsys, "sweep", "placement", "seed=0", "attention=se", "arch.attention.placement=last",
                            "arch.attention.kind=se")  # fmt: skip
    assert (status, out) == (1, "")
    assert "no frontier: no trial is done" in err


def test_a_sweep_of_the_user_s_from_any_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "width.yaml").write_text(
        "# @package _global_\n# How wide?\ndefaults:\n  - override /data: synthetic\n"
        "hydra:\n  sweeper:\n    params:\n      arch.width_multiplier: 0.25,0.5\n"
    )
    status, _, err = ffem(capsys, "sweep", "width")
    assert status == 0, err
    assert len(read_records(tmp_path / "outputs" / "width-synthetic" / "records.jsonl")) == 2
    questions = json.loads(ffem(capsys, "sweep", "--list", "--json")[1])
    assert questions["width"] == "How wide?"
    assert "placement" in questions


@pytest.mark.slow
def test_a_hard_stop_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FFEM_STAND_IN", "interrupt")
    status, out, err = ffem(capsys, *HALTED)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1].endswith(f"resumes from here: ffem {' '.join(HALTED)}")
    monkeypatch.delenv("FFEM_STAND_IN")
    assert ffem(capsys, *HALTED)[0] == 0
    records = read_records(tmp_path / "outputs" / "resolution-synthetic" / "records.jsonl")
    assert len(records) == len(latest_records(records)) == 3


# ------------------------------------------------------------------------- cost and frontier


def test_cost_of_the_composed_network(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Cost:
        def __init__(self, arch: object, resolution: int) -> None:
            self.arch, self.resolution = arch, resolution

        def to_dict(self) -> dict[str, int]:
            return {"params": self.arch.embedding_dim, "bytes_float32": 8_800_000, "bytes_int8": 2_200_000}  # type: ignore[attr-defined]

    module = ModuleType("ffem_jax.cost.cost")
    module.__dict__["compute_cost"] = Cost
    monkeypatch.setitem(sys.modules, "ffem_jax.cost.cost", module)
    status, out, err = ffem(capsys, "cost", "--json", "arch=ffem_am", "arch.embedding_dim=64", "data.resolution=64")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "arch": "ffem_am", "resolution": 64, "params": 64, "bytes_float32": 8_800_000, "bytes_int8": 2_200_000,
    }  # fmt: skip
    assert "is over the cap of 2 MB" in ffem(capsys, "cost", "run.cap_mb=2", "run.cap_precision=int8")[1]
    assert "8,800,000" in ffem(capsys, "cost")[1]


def test_frontier_reads_files_and_folders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        append_record(tmp_path / name / "records.jsonl", stand_in.make_record(TrialSpec(seed=seed), tmp_path))
    with open(tmp_path / "b" / "records.jsonl", "a") as file:
        file.write("half a li")
    status, out, err = ffem(capsys, "frontier", "a/records.jsonl", "b", "--json", "--out", "drawn")
    assert (status, json.loads(out)["networks"][0]["trials"]) == (0, 2)
    assert err.startswith("ffem: warning: b/records.jsonl:2: skipped")
    assert ffem(capsys, "frontier", "a", "--out", "drawn")[2].endswith("frontier: drawn\n")


def test_frontier_draws_where_out_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    append_record(tmp_path / "records.jsonl", stand_in.make_record(TrialSpec(), tmp_path))
    before = set(tmp_path.iterdir())
    status, out, err = ffem(capsys, "frontier", "records.jsonl", "--json")
    assert (status, json.loads(out)["files"]) == (0, []), err
    assert set(tmp_path.iterdir()) == before, "just to look writes nothing"
    status, out, err = ffem(capsys, "frontier", "records.jsonl", "--json", "--out", "frontier")
    assert status == 0, err
    assert isinstance(json.loads(out), dict)
    assert {".png", ".svg"} <= {path.suffix for path in (tmp_path / "frontier").iterdir()}
