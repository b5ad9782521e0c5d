"""The frontier for a paper: its width, its fonts, and what tells kinds apart without colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures.paper_figure import plot_column
from ffem_jax.reports.frontier import write_frontier


@pytest.fixture
def networks(make_record):
    records = [make_record(attention={"kind": kind}, correct=c) for kind, c in (("none", 60), ("eca", 70), ("se", 80))]
    records.append(make_record(status="over_cap", params=3_000_000, arch={"width_multiplier": 1.4}))
    return summarize_records(records)


def test_a_column_wide_with_fonts_embedded(networks, tmp_path) -> None:
    svg, pdf = plot_column(networks, tmp_path / "figure", FrontierQuestion())
    width = ElementTree.parse(svg).getroot().attrib["width"]
    assert float(width.removesuffix("pt")) / 72 == pytest.approx(3.35)
    assert "<text" not in svg.read_text(encoding="utf-8")  # outlines: no font is asked for
    data = pdf.read_bytes()
    assert re.search(rb"/FontFile2 \d+ 0 R", data)
    assert not re.search(rb"/Subtype /Type3", data)
    assert re.search(rb"/MediaBox \[ 0 0 241\.2 ", data)
    # Byte for byte the same, so that a figure under version control changes when its numbers do.
    assert plot_column(networks, tmp_path / "again", FrontierQuestion())[1].read_bytes() == data


def test_the_names_are_below_and_nothing_is_passed_over(networks, tmp_path) -> None:
    svg, _ = plot_column(networks, tmp_path / "figure", FrontierQuestion(), synthetic=True)
    text = svg.read_text(encoding="utf-8")
    assert "SYNTHETIC FACES" in text
    assert "1  no attention" not in text  # all three are of one cost: the best alone stands
    assert re.search(r"1  .*SE.*: 76\.9 \[68\.0, 84\.0\] %", text)
    assert "1 over the size limit, not trained" in text


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_the_style_decides_what_is_written(make_record, tmp_path, style: str) -> None:
    result = write_frontier([make_record()], tmp_path, style=style)
    assert ("frontier_paper.pdf" in [path.name for path in result.files]) is (style == "paper")
    assert (tmp_path / "frontier_paper.svg").exists() is (style == "paper")
