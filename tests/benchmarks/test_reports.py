"""Each committed page of a benchmark is what it writes again from the committed records, letter by letter."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "results"
SWEEP = "--data lfw52 --resolution 64 --networks 8 --seeds 3 --epochs 5 --rounds 1"
# Module, further words, folder in results/, and the pages written there.
REPORTS = [
    ("train_step", "", "speed", ["train_step.md"]),
    ("inference", "", "speed", ["inference.md"]),
    ("compiling", "", "speed", ["compiling.md"]),
    ("sweep", SWEEP, "speed", ["sweep.md"]),
    ("gpu", "", "speed", ["gpu.md"]),
    ("on_device", "", "on_device", ["README.md"]),
    ("serve", "", "serve", ["README.md"]),
    ("quantisation", "", "quantisation", ["quantisation.md"]),
    ("search_trained", f"--searches {RESULTS / 'search_quality/trained'}", "search_quality", ["trained.md"]),
    ("search_quality", "", "search_quality", ["nas_bench_macro.md", "lfw52_records.md"]),
    ("scale", "", "scale", ["README.md"]),
]


def copy_records(folder: Path, out: Path) -> None:
    """The records of a folder of results, and what a person wrote for its page; no page and no figure."""
    out.mkdir()
    for path in folder.iterdir():
        if path.suffix in (".json", ".jsonl") or path.name == "reading.md":
            shutil.copy(path, out)


@pytest.mark.parametrize(("module", "words", "folder", "pages"), REPORTS, ids=[row[0] for row in REPORTS])
def test_a_page_follows_from_its_records(module, words, folder, pages, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    out = tmp_path / "out"
    copy_records(RESULTS / folder, out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    importlib.import_module(f"benchmarks.{module}").main(["--report-only", *words.split(), "--out", str(out)])
    for name in pages:
        assert (out / name).read_text(encoding="utf-8") == (RESULTS / folder / name).read_text(encoding="utf-8")
        for figure in (out / name).read_text(encoding="utf-8").split("](")[1:]:
            target = figure.partition(")")[0]
            if target.endswith((".png", ".svg")):
                assert (out / target).stat().st_size > 1000
    assert {name: (out / name).read_bytes() for name in kept} == kept, "a report changes no record"


def test_the_table_of_the_rungs_follows_from_the_records(capsys):
    from benchmarks.rungs import main

    main([str(RESULTS / name / "records.jsonl") for name in ("placement", "paper", "ablation")])
    page = (RESULTS / "halving" / "README.md").read_text(encoding="utf-8")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 15
    assert "\n".join(lines) in page


@pytest.mark.parametrize("module", [row[0] for row in REPORTS])
def test_without_records_a_report_says_what_to_do(module, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    words = ["--report-only", "--out", str(tmp_path)]
    words += ["--searches", str(tmp_path)] if module == "search_trained" else []
    if module == "gpu":  # its page says that nothing was run
        importlib.import_module("benchmarks.gpu").main(words)
        assert "**Not run.**" in (tmp_path / "gpu.md").read_text(encoding="utf-8")
        return
    with pytest.raises(SystemExit, match=r"run without --report-only|networks are trained"):
        importlib.import_module(f"benchmarks.{module}").main(words)
    assert list(tmp_path.iterdir()) == []
