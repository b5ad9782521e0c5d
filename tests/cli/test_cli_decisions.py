"""What a reader of a table needs to decide, said under it: the cheapest that may be best, that nothing fits, chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax.cli import BAD_USAGE, DONE, main
from ffem_jax.records.record import append_record

PLACEMENT = str(Path(__file__).parents[2] / "results" / "placement")


def test_the_frontier_names_the_cheapest_that_may_be_as_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", PLACEMENT]) == DONE
    told = " ".join(capsys.readouterr().err.split())
    assert "The highest accuracy is that of `SE last`, but it is not established as the best" in told
    assert "The cheapest network with an overlapping interval is `no attention`." in told


def test_where_nothing_fits_the_smallest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frontier", PLACEMENT, "--cap-mb", "1"]) == DONE
    assert "No trained network fits 1 MB at float32; the smallest has 8.81 MB." in capsys.readouterr().err


def test_the_best_of_networks_that_guess_is_not_exported_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = build_record(correct=3, tested=40, people=12)
    append_record(tmp_path / "records.jsonl", record)
    main(["export", str(tmp_path), "--best", "--format", "onnx", "--out", str(tmp_path / "out")])
    assert "it does not significantly beat guessing (8.3 %); train longer" in capsys.readouterr().err
    assert main(["frontier", str(tmp_path)]) in (DONE, BAD_USAGE)
    assert "at chance (8.3 %)" in capsys.readouterr().err


@pytest.mark.parametrize(("correct", "told"), [(3, True), (30, False)])
def test_compare_and_answer_say_where_all_networks_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], correct: int, told: bool
) -> None:
    for kind in ("none", "eca"):
        record = build_record(correct=correct, tested=40, people=12, attention={"kind": kind}, data_fingerprint="faces")
        record.test_images, record.test_identities = list(range(40)), [n % 12 for n in range(40)]
        record.hits = "1" * correct + "0" * (40 - correct)
        append_record(tmp_path / "records.jsonl", record)
    for words in (["compare", "--factor", "attention.kind"], ["answer"]):
        assert main([words[0], str(tmp_path), *words[1:]]) == DONE
        said = " ".join("".join(capsys.readouterr()).split())
        assert ("All 2 networks are at chance (8.3 %): train longer" in said) is told
