"""Text of users in figures: drawn as it is, on one line, in files that can be read."""

from __future__ import annotations

import html
import warnings
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
from made_records import build_record
from matplotlib import rcParams

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures import canvas
from ffem_jax.figures.canvas import apply_look, clean_text, make_figure, save_figure
from ffem_jax.figures.frontier import plot_frontier
from ffem_jax.figures.paper_figure import plot_column
from ffem_jax.reports.view2.plots import plot_roc

NAMES = [
    "net$1$", "$x$ and $y$", "net[/v2]", "a_b^c", "_hidden", r"\$5", r"$\frac{1}{0}$", "<&>\"'--", "]]>", "Jose\u0301",
    "\u00fc ( ' , = & #", "line\nbreak", "bell\x07", "nul\x00", "turned\u202eround", "half\udce9", "\ufffe", "W" * 80,
]  # fmt: skip


def read_texts(path) -> list[str]:
    """The texts of an SVG: Matplotlib draws them as outlines and leaves each in a comment."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return [node.text.strip() for node in root.iter() if node.tag is ElementTree.Comment]


def build(names: list[str]):
    return summarize_records(
        [
            build_record(
                params=500_000 + 30_000 * n, correct=50 + n, arch={"name": name, "depth_multiplier": 1 + n / 9}
            )
            for n, name in enumerate(names)
        ]
    )


@pytest.mark.parametrize("names", zip(NAMES[::2], NAMES[1::2], strict=True))
@pytest.mark.parametrize("plot", [plot_frontier, pytest.param(plot_column, marks=pytest.mark.slow)])
def test_any_name_is_drawn_as_it_is(tmp_path, plot, names) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = plot(build(list(names)), tmp_path / "figure", FrontierQuestion(), synthetic=True)
    # Matplotlib escapes what it writes into a comment, and parts two hyphens.
    drawn = html.unescape("".join("".join(text.split()) for text in read_texts(tmp_path / "figure.svg")))
    for name in names:
        assert "".join(clean_text(name).split()) in drawn
    ends = {"png": b"IEND\xaeB`\x82", "svg": b"</svg>", "pdf": b"%%EOF"}
    assert all(path.read_bytes().rstrip().endswith(ends[path.suffix[1:]]) for path in files)


def test_what_is_no_letter_is_made_visible() -> None:
    assert clean_text("a\nb\tc") == "a b c"
    assert clean_text("a\x00b\x07\u202e\udce9\ufffe") == "a\ufffdb" + 4 * "\ufffd"
    assert clean_text("e\u0301 \N{NO-BREAK SPACE}$<&>") == "\u00e9 \N{NO-BREAK SPACE}$<&>"


def test_letters_that_no_font_has_are_named_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(canvas, "FALLBACKS", ())
    monkeypatch.setattr(canvas, "_told", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("one", "two"):
            plot_frontier(build(["\u674e\u5c0f\u9f99", "other"]), tmp_path / name, FrontierQuestion())
    (warning,) = caught
    assert "no installed font has \u5c0f \u674e \u9f99" in str(warning.message)


def test_other_warnings_are_heard_and_settings_given_back() -> None:
    before = dict(rcParams)
    with pytest.warns(DeprecationWarning, match="old"), apply_look({}):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert dict(rcParams) == before


def test_dollars_are_no_formula_and_ticks_whole_numbers(tmp_path) -> None:
    with save_figure(tmp_path / "figure", (4, 3)) as figure:
        axes = figure.add_subplot()
        axes.plot([8.8100, 8.8101], [0, 1])
        axes.set_title("costs $1$ and $2$")
    texts = read_texts(tmp_path / "figure.svg")
    assert "costs $1$ and $2$" in texts
    assert any(text.startswith("8.81") for text in texts)


def test_a_curve_is_named_whatever_its_name_begins_with(tmp_path) -> None:
    far = np.array([0.0, 0.01, 1.0])
    results = [
        SimpleNamespace(
            label=label, different_pairs=300, pooled=SimpleNamespace(far=far, tar=np.array([0.2, 0.5, 1.0])),
            accuracy=0.8, standard_error=0.01, folds=(1,) * 10, missing=(),
        )
        for label in ("_hidden", "net$1$", "<&>", "a" * 200)
    ]  # fmt: skip
    plot_roc(results, tmp_path / "roc", "title $x$")
    texts = read_texts(tmp_path / "roc.svg")
    for name in ("_hidden", "net$1$", "a" * 51 + "\N{HORIZONTAL ELLIPSIS}"):
        assert f"{name}: 80.0 \N{PLUS-MINUS SIGN} 1.0 %" in texts
    assert "title $x$" in texts
    assert {"0.01", "0.1", "1"} <= set(texts)


def test_pixels_of_a_figure_are_points() -> None:
    assert make_figure((2, 1)).bbox.size.tolist() == [144, 72]
