"""The page of benchmarks/gpu.py: steps beside the least time that a device needs."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks import gpu, harness
from benchmarks.gpu import DEVICES, Cell, compute_floor, main

ROW = {
    "library": "ffem-jax", "form": "xla", "precision": "float32", "batch": 32, "seeds": 2, "resolution": 32,
    "device": "NVIDIA H200", "images_per_second": 1000.0, "date": "2026-01-01", "versions": {"python": "3", "jax": "1"},
}  # fmt: skip


def test_the_page_holds_the_last_record_of_each_cell_and_its_floor(tmp_path):
    rows = [ROW, {**ROW, "images_per_second": 2000.0}, {**ROW, "batch": 1024, "failed": "out of memory"}]
    rows.append({**ROW, "device": "a device of no known peak"})
    (tmp_path / "gpu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(["--report-only", "--out", str(tmp_path)])
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    floor, by = compute_floor(Cell("ffem-jax", "xla", "float32", 32, 2, 32), DEVICES["H200"])
    told = f"{1e3 * floor:.3f} ({by}) | {0.032 / floor:.1f} |"
    assert f"| ffem-jax xla | float32 | 32 | 32 | 2 | 2000 | 32.00 | {told}" in page
    assert "| 1024 | 2 | out of memory |  |" in page
    assert "No floor: the device's peaks are unknown" in page
    assert "Not run" not in page


def test_a_floor_grows_with_the_images():
    one, two = (compute_floor(Cell("", "", "TF32", batch, 1, 32), DEVICES["H100"]) for batch in (8, 16))
    assert two[0] == pytest.approx(2 * one[0])


def test_only_cells_that_the_records_lack_are_measured(tmp_path, monkeypatch):
    measured = []

    def measure(cell, options):
        measured.append((cell.library, cell.form, cell.precision, cell.batch, cell.seeds))
        return {"images_per_second": 100.0} if cell.seeds == 1 else {"failed": "out of memory"}

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "has_torch", lambda options: True)
    options = argparse.Namespace(batches=[8, 16], seeds=[1, 2], resolution=32, fresh=False)
    gpu.run(options, tmp_path / "gpu.jsonl")
    one = [("ffem-jax", form, 8 * n, 1) for form in gpu.FORMS for n in (1, 2)]
    one += [("ffem-jax", "xla", 8, 2), ("PyTorch", "", 8, 1), ("PyTorch", "", 16, 1)]
    assert measured == [(name, form, p, *rest) for p in gpu.PRECISIONS for name, form, *rest in one]
    rows = harness.read_lines(tmp_path / "gpu.jsonl")
    assert list(rows[0])[:8] == [*Cell._fields, "device", "images_per_second"]
    assert rows[0].keys() >= {"date", "processor", "cores", "versions"}
    options.batches = [8, 16, 32]
    measured.clear()
    gpu.run(options, tmp_path / "gpu.jsonl")
    assert {batch for *_, batch, _ in measured} == {32}
