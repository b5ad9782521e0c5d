"""A contest of speed from its options to its page, with contestants that take no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.contest import Call, Cell, Contest, Contestant, run

WORDS = "--networks ffem_am --resolutions 32 --batches 2 --rounds 2 --seconds 0.001".split()


def build_right(cell: Cell, folder: Path) -> Call:
    (folder / "compiled").touch()
    return lambda steps: np.full(cell.spec.embedding_dim, cell.batch, np.float32)


def build_wrong(cell: Cell, folder: Path) -> Call:
    return lambda steps: np.full(cell.spec.embedding_dim, 1.01 * cell.batch, np.float32)


def build_none(cell: Cell, folder: Path) -> Call:
    raise MemoryError("no room for it")


def make_contest(*peers: Contestant) -> Contest:
    ours = Contestant("ours", "ffem_jax", (), f"{__name__}:build_right", cached=True)
    return Contest("made", "a made step", "step", "Nothing is computed.", (ours, *peers), batches=(2,))


@pytest.mark.slow
def test_a_cell_is_measured_once_and_whoever_fails_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "PAUSE_SECONDS", 0)
    contest = make_contest(
        Contestant("same", "Same", ("json",), f"{__name__}:build_right"),
        Contestant("none", "None", (), f"{__name__}:build_none"),
        Contestant("absent", "Absent", ("no_such_library",), f"{__name__}:build_right"),
    )
    words = [*WORDS, "--out", str(tmp_path)]
    run(contest, words)
    (row,) = harness.read_lines(tmp_path / "made.jsonl")
    assert list(row)[:7] == ["network", "resolution", "batch", "rounds", "seconds", "busy_cores", "difference"]
    assert (row["network"], row["resolution"], row["batch"], row["difference"]) == ("ffem_am", 32, 2, 0.0)
    assert row["contestants"].keys() == {"ours", "same", "none"}
    ours, same = row["contestants"]["ours"], row["contestants"]["same"]
    assert len(ours["turns"]) == len(same["turns"]) == 2
    assert {"cached_first_seconds", "cached_peak_bytes", "peak_bytes"} <= ours.keys()
    assert "cached_first_seconds" not in same
    page = (tmp_path / "made.md").read_text()
    assert "Against Same: " in page
    assert "Left out: None: MemoryError: no room for it (FFEM-AM, 32 pixels, batch 2)" in page
    assert (tmp_path / "made.png").stat().st_size > 1000
    told = capsys.readouterr().err
    assert "Absent is left out: no no_such_library" in told
    run(contest, words)
    assert "[1/1] ffem_am, 32 pixels, batch 2: already measured" in capsys.readouterr().err
    assert len(harness.read_lines(tmp_path / "made.jsonl")) == 1


def test_a_peer_that_computes_something_else_ends_it_and_nothing_is_kept(tmp_path):
    contest = make_contest(Contestant("wrong", "Wrong", (), f"{__name__}:build_wrong"))
    with pytest.raises(SystemExit, match=r"wrong computes a different result: 1\.0e-02 from ours, more than 1e-03"):
        run(contest, [*WORDS, "--out", str(tmp_path)])
    assert not (tmp_path / "made.jsonl").exists()


def test_an_unknown_network_is_named(tmp_path):
    with pytest.raises(SystemExit, match="network 'nobody' is not known; choose from: "):
        run(make_contest(), ["--networks", "nobody", "--out", str(tmp_path)])
