"""What the trainings of some records share is said in one way by all commands and on all pages."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record
from made_reports import read_page, run
from made_trainings import ONCE, SPLIT, draw_trials, start

from ffem_jax.cli import main
from ffem_jax.records.record import append_record


@pytest.mark.parametrize(
    ("pretrainings", "drawn", "given"),
    [
        ((3,), ONCE, ONCE),
        (
            (0, 1, 2),
            "3 pretrainings per network: the intervals resample them, each with all its trainings.",
            "3 pretrainings per network: the intervals exclude variance between pretraining runs.",
        ),
    ],
)
def test_every_command_and_page_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pretrainings: tuple[int, ...], drawn: str, given: str
) -> None:
    path = tmp_path / "records.jsonl"
    records = draw_trials(np.random.default_rng(14), pretrainings)
    for record in records:
        append_record(path, record)
    compare = ["compare", str(path), "--factor", "attention.kind"]
    assert run(capsys, "frontier", str(path))["exclusions"] == [given, SPLIT]
    assert run(capsys, *compare)["exclusions"] == run(capsys, "answer", str(path))["exclusions"] == [drawn, SPLIT]
    for words, sentence, page in (
        ([*compare, "--out", str(tmp_path / "c")], drawn, "c/compare.md"),
        (["answer", str(path), "--out", str(tmp_path / "a")], drawn, "a/answer.md"),
        (["frontier", str(path), "--out", str(tmp_path / "f")], given, "f/frontier.md"),
    ):
        assert main(words) == 0
        said = capsys.readouterr()
        assert sentence in " ".join((said.out + said.err).split())
        assert sentence in " ".join((tmp_path / page).read_text().split())
    run(capsys, "report", str(path), "--out", str(tmp_path / "page.html"))
    (group,) = read_page(tmp_path / "page.html")["groups"]
    assert group["answer"][-2:] == [given, SPLIT]
    (entry,) = [one for one in group["comparisons"] if one["factor"] == "attention.kind"]
    assert entry["notes"][-2:] == [drawn, SPLIT]


def test_folds_of_view2_have_no_split_to_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.jsonl"
    for fold in range(3):
        for seed in (0, 1):
            append_record(
                path,
                build_record(
                    correct=30, tested=40, seed=seed, pretrain=start(0), data={"name": "lfw"},
                    protocol={"name": "view2", "folds": 3, "fold": fold},
                    verification={"threshold": 0.4, "distances_same": [0.1, 0.3], "distances_different": [0.2, 0.6]},
                ),
            )  # fmt: skip
    told = run(capsys, "verify", str(path), "--out", str(tmp_path / "v"))
    assert told["exclusions"] == [
        "Each network was pretrained once: the standard errors exclude variance between pretraining runs."
    ]
    assert told["exclusions"][0] in (tmp_path / "v" / "verification.md").read_text()


def test_the_page_explains_each_measure_in_sentences_and_rounds_chance_as_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    for seed in (0, 1):
        append_record(path, build_record(seed=seed, people=8))
    run(capsys, "report", str(path), "--out", str(tmp_path / "page.html"))
    (group,) = read_page(tmp_path / "page.html")["groups"]
    for measure in group["measures"].values():
        assert not re.search(r"\. [a-z]", measure["told"]), measure["told"]
    assert "A network that guesses scores 12.5 %" in group["measures"]["accuracy"]["told"]
