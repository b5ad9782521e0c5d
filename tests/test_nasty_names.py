"""Networks, levels and errors whose names mean something to Markdown: every page shows them, and reads them as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_records import build_record
from markdown_it import MarkdownIt

from ffem_jax.analysis.compare import compare_records
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.comparison import write_comparison
from ffem_jax.reports.frontier import write_frontier

READER = MarkdownIt("commonmark").enable("table")
NAMES = ["net[/v2](x)", "a|b*c*_d_`e`", "# <b>bold</b> & :smile: $x$"]


def read_page(path: Path) -> tuple[str, set[str]]:
    """The text that a reader of the page sees, and the kinds of marks in it."""
    text, kinds = [], set()
    for token in READER.parse(path.read_text(encoding="utf-8")):
        kinds.add(token.type)
        for child in token.children or ():
            kinds.add(child.type)
            text.append(child.content)
        text.append("\n")
    return "".join(text), kinds


def count_cells(path: Path) -> set[int]:
    """How many cells the rows of the page's tables have."""
    counts, cells = set(), 0
    for token in READER.parse(path.read_text(encoding="utf-8")):
        if token.type in ("td_open", "th_open"):
            cells += 1
        if token.type == "tr_close":
            counts.add(cells)
            cells = 0
    return counts


@pytest.fixture
def records() -> list[TrialRecord]:
    """Several networks told apart by their names alone, one of them failed for a reason with signs in it."""
    made = []
    for number, (name, kind) in enumerate(zip(NAMES, ("none", "eca", "se"), strict=True)):
        for seed in (0, 1):
            own = {"arch": {"name": name}, "attention": {"kind": kind}, "seed": seed, "device": "cpu <b>"}
            made.append(build_record(correct=70 + number + seed, params=5 * 10**5 * (1 + number), **own))
    failed = {"arch": {"name": "bad *name*", "width_multiplier": 0.5}, "attention": {"kind": "eca"}}
    made.append(build_record(status="failed", error="ValueError: [x](y) | <script>\nmore", correct=None, **failed))
    return made


def test_a_frontier_s_page(records: list[TrialRecord], tmp_path: Path) -> None:
    write_frontier(records, tmp_path)
    text, kinds = read_page(tmp_path / "frontier.md")
    for name in [*NAMES, "bad *name*", "ValueError: [x](y) | <script>", "cpu <b>"]:
        assert name in text
    assert not kinds & {"html_inline", "html_block", "em_open", "link_open"}
    assert len(count_cells(tmp_path / "frontier.md")) == 1


def test_a_comparison_s_page(records: list[TrialRecord], tmp_path: Path) -> None:
    write_comparison(compare_records(records, "arch.name"), tmp_path)
    text, kinds = read_page(tmp_path / "compare.md")
    for name in NAMES:
        assert text.count(name) >= 2  # in the table and in a sentence
    assert not kinds & {"html_inline", "html_block", "em_open", "link_open"}
    assert len(count_cells(tmp_path / "compare.md")) == 1


def test_a_page_of_effects(tmp_path: Path) -> None:
    from ffem_jax.search.model.effects import Effect, Effects, Estimate
    from ffem_jax.search.model.effects_page import write_effects

    estimate = Estimate(0.1, 0.02, 0.2, 0.001)
    rows = tuple(Effect("arch.name", name, "x|y", 3, 1, estimate, estimate, 1.1) for name in NAMES)
    effects = Effects(rows, 10, 20, 0, 2, 0.5, "float32", "faces <b>", False)
    (tmp_path / "effects.md").write_text(write_effects(effects), encoding="utf-8")
    text, kinds = read_page(tmp_path / "effects.md")
    for name in [*NAMES, "faces <b>"]:
        assert name in text
    assert not kinds & {"html_inline", "html_block", "em_open", "link_open"}
    assert len(count_cells(tmp_path / "effects.md")) == 1
