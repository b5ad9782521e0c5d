"""What every reporting command prints, at 60, 80, 100 and 160 letters and into a pipe, from records that are made up.

After a change on purpose: FFEM_WRITE_GOLDEN=1 python -m pytest tests/reports/test_golden_tables.py, and read the diff.
"""

from __future__ import annotations

import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from made_reports import IMAGES, make_folds, make_paper, make_reported

from ffem_jax.analysis.groups import choose_records, compute_groups
from ffem_jax.cli import main
from ffem_jax.records.record import append_record
from ffem_jax.reports.groups import render_groups, write_gap
from ffem_jax.text.tables import print_prose, print_table

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tables"
WIDTHS = (60, 80, 100, 160)
NAME_COLUMNS = {"frontier": "network", "groups": "network", "verify": "network", "paper": "network"}


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def draw_groups() -> None:
    """What `ffem groups` prints, which needs the faces at hand."""
    records = make_reported()
    columns, people = {"half": np.array(["even", "odd"] * (IMAGES // 2))}, np.arange(IMAGES) % 40
    found = compute_groups(choose_records(records), columns, people, among=records)
    print_table(render_groups(found, "synthetic, 64 x 64"))
    for one in found:
        print_prose(f"- {write_gap(one)}")


COMMANDS = {
    "frontier": (["frontier"], make_reported),
    "frontier_peak": (["frontier", "--against", "peak_activation_bytes", "--cap-mb", "9"], make_reported),
    "compare": (["compare", "--factor", "attention.kind"], make_reported),
    "verify": (["verify", "--out", "out"], make_folds),
    "paper": (["paper", "--out", "out"], make_paper),
    "groups": ([], make_reported),
}


def draw(name: str, width: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command writes to standard output on a terminal of `width` letters, or into a pipe."""
    monkeypatch.chdir(folder)
    words, make = COMMANDS[name]
    if not Path("records.jsonl").exists():
        for record in make():
            append_record("records.jsonl", record)
    file = io.StringIO() if width is None else Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", str(width or 40))  # which a pipe does not heed
    if words:
        assert main([words[0], "records.jsonl", *words[1:]]) == 0
    else:
        draw_groups()
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())


@pytest.mark.parametrize("width", [*WIDTHS, None], ids=lambda width: str(width or "pipe"))
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_printed_is_what_was_agreed(
    name: str, width: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = draw(name, width, tmp_path, monkeypatch)
    path = GOLDEN / f"{name}-{width or 'pipe'}.txt"
    if os.environ.get("FFEM_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    if width is None:
        assert not [line for line in lines if line != line.rstrip()], "blanks at the ends of lines"
        assert "Columns dropped" not in text
    else:
        assert max(map(len, lines)) <= width
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_column_is_lost_without_a_word(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pipe has, a terminal has too or names as left out; what is compared is always there."""
    whole = draw(name, None, tmp_path, monkeypatch)
    heads = next(line for line in whole.splitlines() if "  " in line.strip() and "─" not in line)
    for width in WIDTHS:
        narrow = " ".join(draw(name, width, tmp_path, monkeypatch).split())
        for head in re.split(r" {2,}", heads.strip()):
            assert " ".join(head.split()) in narrow or all(word in narrow for word in head.split()), (width, head)
