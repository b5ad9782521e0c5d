"""`ffem align`: what it prints, its exit status, and a mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_photographs import FindDiscs, draw_photograph, write_photographs


def ffem_align(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    from ffem_jax.cli import main

    status = main(["align", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ffem_jax.align import detector

    monkeypatch.setattr(detector, "load_detector", FindDiscs)


@pytest.mark.usefixtures("discs")
def test_the_command_prints_counts_and_what_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = write_photographs(tmp_path / "photographs")
    status, out, err = ffem_align(capsys, str(people), str(tmp_path / "faces"))
    assert status == 0
    assert out.splitlines()[0] == "9 photographs: 7 aligned, 1 no face, 0 several faces, 1 unreadable"
    assert "  bob/two.JPG: 2 faces, one kept" in out
    assert "notes" not in out
    assert ".txt (1)" in err
    status, out, _ = ffem_align(capsys, str(people), str(tmp_path / "faces"), "--json")
    summary = json.loads(out)
    assert (status, summary["photographs"], summary["done_before"], summary["aligned"]) == (0, 9, 9, 7)
    assert [row["path"] for row in summary["to_check"]] == ["ann/none.png", "bob/broken.png", "bob/two.JPG"]


@pytest.mark.usefixtures("discs")
def test_nothing_aligned_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_photograph(tmp_path / "people" / "ann" / "1.png")
    status, out, _ = ffem_align(capsys, str(tmp_path / "people"), str(tmp_path / "faces"))
    assert status == 1
    assert out.startswith("1 photographs: 0 aligned, 1 no face")


@pytest.mark.usefixtures("discs")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "out"], "is not there"),
        (["people"], "the following arguments are required: OUT"),
        (["people", "out", "--size", "7"], "from 16 to 1024"),
        (["people", "out", "--several", "all"], "largest"),
        (["people", "people/out"], "lie in one another"),
        (["people", "file"], "file"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_photograph(tmp_path / "people" / "ann" / "1.png", (100, 80, 40))
    (tmp_path / "file").write_text("")
    status, out, err = ffem_align(capsys, *words)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert told in err
