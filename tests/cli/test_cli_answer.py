"""`ffem answer` as it is typed: table, sentences and files; one line for a mistake; every width; no JAX."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.records.record import append_record
from ffem_jax.text.display import escape_sentence

IMAGES = 240
REPOSITORY = Path(__file__).resolve().parents[2]


def write_records(path: Path, *, seeds: int = 2, effect: float = 0.2, named: bool = False, **fields: Any) -> None:
    random = np.random.default_rng(0)
    for kind, size, seed in itertools.product(("none", "eca"), (48, 96, 128), range(seeds)):
        hits = random.random(IMAGES) < 0.5 + effect * (kind == "eca")
        record = build_record(
            attention={"kind": kind, "placement": "last"}, data={"resolution": size}, seed=seed,
            arch={"name": "ffem_am" if kind == "eca" else "ffem"},
            correct=int(hits.sum()), tested=IMAGES, hits="".join("01"[int(hit)] for hit in hits),
            test_images=list(range(IMAGES)), data_fingerprint=f"f{size}", pictures_fingerprint="p",
            test_identities=[i // 4 for i in range(IMAGES)] if named else [],
            macs=size * size * 1000, people=60, **fields,
        )  # fmt: skip
        append_record(path, record)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "run" / "records.jsonl")
    return tmp_path


def ffem(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_answer_is_a_table_the_design_and_what_may_be_said(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    status, out, err = ffem(capsys, "answer", "run")
    assert status == 0
    assert "arch.name: 1 of 1 differences compare the trials of another factor" in err
    assert "- 12 trials of 6 networks, 240 distinct test images, 2 runs per network" in out
    assert re.search(
        r"- With 80 % power the design detects a difference of [\d.]+( to [\d.]+)? points or more between two levels",
        out,
    )
    assert re.search(r"attention kind `eca` is \d\d\.\d points better than attention kind `none`", out)
    silent = [line for line in out.splitlines() if "indistinguishable" in line or "no significant trend" in line]
    assert silent
    assert all(re.search(r"This design detects [\d.]+ points( per doubling)? or more", line) for line in silent)
    assert "1 interaction was tested, and none is significant" in out
    assert sorted(path.name for path in Path("run").iterdir()) == ["records.jsonl", "records.jsonl.lock"]


def test_the_files_and_json_say_the_same(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = ffem(capsys, "answer", "run", "--json", "--out", "out")
    found, written = json.loads(out), json.loads(Path("out/answer.json").read_text(encoding="utf-8"))
    assert (status, found) == (0, written)
    assert [effect["kind"] for effect in found["effects"]] == ["pair", "pair", "pair", "pair", "trend", "interaction"]
    page = Path("out/answer.md").read_text(encoding="utf-8")
    for effect in found["effects"][:5]:
        assert escape_sentence(effect["sentence"]) in page
    assert page.count("](answer_") == 3
    assert {path.name for path in Path("out").iterdir()} == {
        "answer.md", "answer.json", *(f"answer_{name}.{kind}" for name in ("attention_kind", "data_resolution", "macs")
        for kind in ("png", "svg")),
    }  # fmt: skip


def test_one_run_says_what_the_interval_leaves_out(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_records(folder / "one" / "records.jsonl", seeds=1)
    _, out, _ = ffem(capsys, "answer", "one")
    assert "- One run per network: the intervals exclude variance between seeds." in out
    significant = next(line for line in out.splitlines() if "points better than attention kind" in line)
    assert significant.endswith("the interval excludes variance between seeds.")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["answer", "run"]) == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    assert any("points" in line and "95 %" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing does not exist"),
        (["run", "--factor", "arch.depth_multiplier"], "cannot be compared"),
        (["run", "--where", "attention.kind=eca", "--where", "data.resolution=96"], "nothing varies"),
        (["run", "--metric", "auc"], "belongs to protocol=open_set"),
        (["run", "--points", "5"], "need --chance"),
        (["run", "--chance", "ffem", "ffem_am", "--points", "0"], "--points 0: give a lead above 0"),
        (["run", "--chance", "ffem", "ffem_am", "--factor", "attention.kind"], "without --factor and --against"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], folder: Path, words: list[str], message: str
) -> None:
    status, out, err = ffem(capsys, "answer", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_chance_draws_people_of_the_records(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    write_records(folder / "named" / "records.jsonl", effect=0.0, named=True)
    words = ["answer", "named", "--where", "data.resolution=96", "--chance", "ffem", "ffem_am", "--points", "7.7"]
    status, out, _ = ffem(capsys, *words, "--out", "out")
    assert status == 0
    assert re.match(r"On 120 test images of 60 people `ffem_am` leads `ffem` by 7.7 points or more in \d+\.\d %", out)
    page = Path("out/chance.md").read_text(encoding="utf-8")
    assert "This resamples recorded results and trains nothing: 4 trainings" in page
    assert {path.name for path in Path("out").iterdir()} == {"chance.md", "chance.png", "chance.svg"}
    _, out, _ = ffem(capsys, *words, "--json")
    assert json.loads(out)["images"] == 120


def test_the_command_needs_no_jax(folder: Path) -> None:
    code = "import sys; from ffem_jax.cli import main; main(['answer', 'run']); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={**os.environ}, timeout=100)


@pytest.mark.parametrize("question", ["paper", "ablation", "placement"])
def test_committed_records_have_an_answer(
    capsys: pytest.CaptureFixture[str], question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = {"paper": "attention.kind", "ablation": "recipe.epochs", "placement": "attention.placement"}[question]
    where = ["--where", "recipe.name=paper"] if question == "paper" else []
    words = ["answer", str(REPOSITORY / "results" / question / "records.jsonl"), "--factor", factor, *where, "--json"]
    status, out, _ = ffem(capsys, *words)
    found = json.loads(out)
    assert status == 0
    assert {effect["factor"] for effect in found["effects"]} == {factor}
    shown = {(e["row"]["first"], e["row"]["second"]) for e in found["effects"] if e["shown"]}
    assert shown == ({("30", "60")} if question == "ablation" else set())
    assert (found["chance"] is None) == (question == "placement")
