"""Marks and whiskers stand at their numbers, however close the networks are."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from made_records import build_record
from matplotlib.figure import Figure

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures.frontier import plot_frontier
from ffem_jax.figures.paper_figure import plot_column
from ffem_jax.figures.scales import get_interval
from ffem_jax.records.record import TrialRecord, read_records

REPOSITORY = Path(__file__).resolve().parents[2]
USE = "{http://www.w3.org/2000/svg}use"
CAP = 2_500_000  # parameters that are 10 MB in float32, the rest of a file apart
KINDS = ("none", "eca", "se")


def build_networks(points: list[tuple[int, int]]) -> list[TrialRecord]:
    """A network for each (parameters, right of 104 images)."""
    return [
        build_record(
            params=params, correct=correct, attention={"kind": KINDS[i % 3]}, arch={"depth_multiplier": 1 + i / 50}
        )
        for i, (params, correct) in enumerate(points)
    ]


def draw(plot, records, folder, question, monkeypatch) -> Figure:
    """The figure as it is when it is saved."""
    figures = []
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
        plot(summarize_records(records), folder / "figure", question)
    return figures[0]


def measure(figure: Figure) -> tuple[list, list, list]:
    """The numbers of what is drawn: marks (cost, rate), whiskers (cost, low, high), and the staircase."""
    axes = figure.axes[0]
    marks, whiskers, steps = [], [], []
    for line in axes.lines:
        x, y = (np.asarray(values, dtype=float).tolist() for values in line.get_data())
        if line.get_drawstyle() == "steps-post":
            steps = list(zip(x, y, strict=True))
        elif line.get_linestyle() == "None":
            marks.append((x[0], y[0]))
        elif line.get_marker() in ("_", "none"):
            assert x[0] == x[1]
            whiskers.append((x[0], *y))
        else:
            continue  # the cap, or a line from a name to its mark
        assert line.get_transform() == axes.transData  # its numbers are those of the axes, not of pixels
    return marks, whiskers, steps


def check(plot, records, folder, monkeypatch, against="bytes") -> None:
    question = FrontierQuestion(against=against)
    networks = [s for s in summarize_records(records) if s.accuracy is not None]
    marks, whiskers, steps = measure(draw(plot, records, folder, question, monkeypatch))
    points = [(question.get_cost(s) / question.axis.scale, 100 * s.accuracy) for s in networks]
    ends = [tuple(100 * end for end in get_interval(s)) for s in networks]
    assert sorted(marks) == sorted(points)
    assert sorted(whiskers) == sorted((cost, *own) for (cost, _), own in zip(points, ends, strict=True))
    front = sorted(point for point, on in zip(points, question.mark_frontier(networks), strict=True) if on)
    assert steps[:-1] == front


PLOTS = pytest.mark.parametrize("plot", [plot_frontier, plot_column])


@PLOTS
@pytest.mark.parametrize("seed", range(6))
def test_any_networks_stand_at_their_numbers(tmp_path, monkeypatch, plot, seed) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 24))
    spread = 10 ** rng.uniform(0, 6.3)
    costs = np.append(rng.integers(2_200_000, 2_200_000 + spread, count), rng.choice([CAP, 2_200_000, 20_000], 3))
    points = [(int(cost), int(rng.integers(0, 105))) for cost in costs]
    for against in ("bytes", "params"):
        check(plot, build_networks(points), tmp_path, monkeypatch, against)


@PLOTS
@pytest.mark.parametrize(
    "points",
    [
        [(2_200_448, 80)],
        [(2_200_448, 80)] * 2,
        [(2_200_448 + 3 * n, 80 + n % 2) for n in range(9)],
        [(2_200_448, 60 + n) for n in range(30)],
        [(CAP, 80), (CAP + 1, 81), (CAP - 1, 82), (CAP, 83)],
        [(20_000, 40), (40_000, 50), (2_180_000, 70), (2_190_000, 71), (2_190_100, 71), (2_400_000, 72)],
        [(10_000 + 7919 * n % 900_000, 20 + n % 80) for n in range(150)],
        [(2_200_448, 0), (2_200_448, 104)],
    ],
    ids=["one", "twins", "nearly equal", "a column", "at the cap", "far and close", "150", "0 and 100 %"],
)
def test_crowds_stand_at_their_numbers(tmp_path, monkeypatch, plot, points) -> None:
    check(plot, build_networks(points), tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["placement", "search/finalists", "search/pretrained"])
def test_the_figures_of_the_repository_move_nothing(tmp_path, monkeypatch, name) -> None:
    records = read_records(REPOSITORY / "results" / name / "records.jsonl")
    for plot, against in itertools.product((plot_frontier, plot_column), ("bytes", "params")):
        check(plot, records, tmp_path, monkeypatch, against)


def test_the_key_draws_each_interval_at_its_numbers(tmp_path, monkeypatch) -> None:
    records = build_networks([(2_200_448 + 3 * n, 70 + n) for n in range(6)])
    figure = draw(plot_frontier, records, tmp_path, FrontierQuestion(), monkeypatch)
    key = figure.axes[-1]
    drawn = [
        line.get_xdata().tolist() for line in key.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 1
    ]
    networks = sorted(summarize_records(records), key=lambda s: s.params)
    np.testing.assert_allclose(drawn, [[100 * end for end in get_interval(s)] for s in networks])
    heights = [line.get_ydata()[0] for line in key.lines[::2]]
    assert heights == sorted(heights, reverse=True)
    assert np.ptp(np.diff(heights)) < 1e-9  # a row each


def test_close_marks_get_numbers_and_a_key_where_names_would_cover_them(tmp_path, monkeypatch) -> None:
    def count_axes(*points: tuple[int, int]) -> int:
        return len(draw(plot_frontier, build_networks(list(points)), tmp_path, FrontierQuestion(), monkeypatch).axes)

    far = (1_000_000, 60), (1_500_000, 70)
    assert count_axes(*far) == 1
    assert count_axes(*far, (1_500_100, 71)) == 2  # whiskers on each other
    assert count_axes(*far, (1_500_100, 8)) == 1  # of one cost, far apart in accuracy
    assert count_axes((1_500_000, 70), (1_500_000, 70)) == 2


@PLOTS
def test_in_the_file_a_mark_is_where_its_number_is_on_the_axis(tmp_path, plot) -> None:
    """From the SVG alone: the place of a mark between the ticks is the logarithm of its cost."""
    sizes = 20_000, 2_190_000, 2_190_100, 2_300_000
    records = [
        build_record(params=params, correct=90 - n, arch={"depth_multiplier": 1 + n}) for n, params in enumerate(sizes)
    ]
    plot(summarize_records(records), tmp_path / "figure", FrontierQuestion())
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(tmp_path / "figure.svg", parser).getroot()
    axes = next(node for node in root.iter() if node.get("id") == "axes_1")
    places, ticks = [], {}
    for part in axes:
        name, drawn = part.get("id", ""), [float(node.get("x")) for node in part.iter(USE) if node.get("x")]
        if name == "matplotlib.axis_1":
            for tick in part:
                texts = [node.text.strip() for node in tick.iter() if node.tag is ElementTree.Comment]
                if tick.get("id", "").startswith("xtick") and texts:
                    ticks[float(texts[0])] = next(float(node.get("x")) for node in tick.iter(USE) if node.get("x"))
        elif name.startswith("line2d"):
            places += drawn
    (low, left), *_, (high, right) = sorted(ticks.items())
    costs = [record.bytes_float32 / 1e6 for record in records]
    wanted = [left + (right - left) * math.log(cost / low) / math.log(high / low) for cost in costs]
    # A mark and the two ends of a whisker each.
    np.testing.assert_allclose(sorted(places), sorted(3 * wanted), atol=0.01)
