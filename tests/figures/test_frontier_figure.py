import itertools
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures import annotations
from ffem_jax.figures.annotations import split_shared
from ffem_jax.figures.frontier import plot_frontier
from ffem_jax.figures.styles import MORE_STYLES, STYLES, get_style


def read_texts(path):
    """The texts of an SVG: Matplotlib draws them as outlines and leaves each in a comment."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(path, parser).getroot()
    return [node.text.strip() for node in root.iter() if node.tag is ElementTree.Comment]


def draw(folder, records, question=None, **settings):
    png, svg = plot_frontier(summarize_records(records), folder / "figure", question or FrontierQuestion(), **settings)
    assert png.read_bytes().startswith(b"\x89PNG")
    return read_texts(svg)


@pytest.fixture
def placement(make_record):
    """Nine networks of nearly one size, as a placement sweep gives, and one over the cap."""
    rng = np.random.default_rng(0)
    records = [make_record(correct=75)]
    for kind, place in itertools.product(("eca", "se"), ("first", "last", "first_last", "all")):
        params = 2_200_456 if kind == "eca" or place == "first" else 2_316_830
        settings = {"attention": {"kind": kind, "placement": place}, "params": params}
        records.append(make_record(correct=int(rng.integers(70, 90)), **settings))
    refused = {"kind": "se", "placement": "all", "reduction": 4}
    return [*records, make_record(status="over_cap", params=2_663_000, attention=refused)]


def test_a_crowd_gets_numbers_and_a_key(tmp_path, placement):
    texts = draw(tmp_path, placement, title="lfw52, 64 x 64")
    assert "lfw52, 64 x 64" in texts
    assert "cap 10 MB" in texts
    assert "over the cap, not trained (1)" in texts
    counted = Counter(texts)
    for number in range(1, 11):  # once in the key, once at its mark
        assert counted[str(number)] >= 2
    assert "no attention" in texts
    assert "not trained" in texts
    assert "ECA first_last" in texts
    assert "SYNTHETIC FACES" not in texts


def test_few_networks_are_named_in_place(tmp_path, make_record):
    widths = [0.25, 0.5, 1.0]
    records = [make_record(arch={"width_multiplier": w}, params=int(2e6 * w), correct=60 + int(30 * w)) for w in widths]
    texts = draw(tmp_path, records)
    assert {"width 0.25", "width 0.5", "width 1"} <= set(texts)
    assert "% [95 % interval]" not in texts


def test_many_networks_name_their_frontier_only(tmp_path, make_record):
    rng = np.random.default_rng(1)
    widths = np.linspace(0.2, 1.1, 40).round(3)
    records = [
        make_record(
            arch={"width_multiplier": float(w)}, params=int(2e6 * w), correct=int(60 + 20 * w + rng.integers(9))
        )
        for w in widths
    ]
    texts = draw(tmp_path, records)
    summaries = summarize_records(records)
    marks = FrontierQuestion().mark_frontier(summaries)
    for summary, marked in zip(summaries, marks, strict=True):
        assert (summary.label in texts) == marked


def test_synthetic_faces_are_marked(tmp_path, make_record):
    assert "SYNTHETIC FACES" in draw(tmp_path, [make_record(data={"name": "synthetic"})], synthetic=True)


def test_all_over_the_cap_shows_where_they_lie(tmp_path, make_record):
    records = [
        make_record(status="over_cap", params=int(2.2e6 * w), arch={"width_multiplier": w}) for w in (1.2, 1.3, 1.4)
    ]
    texts = draw(tmp_path, records)
    assert {"no network was trained", "over the cap, not trained (3)", "width 1.2"} <= set(texts)
    assert "frontier (named in bold)" not in texts


def test_failures_alone_draw_without_falling_over(tmp_path, make_record):
    assert "no network was trained" in draw(tmp_path, [make_record(status="failed", params=None)])
    assert "no network was trained" in draw(tmp_path, [])


def test_trained_over_the_cap_is_drawn_and_never_on_the_frontier(tmp_path, make_record):
    records = [make_record(), make_record(arch={"width_multiplier": 1.4}, params=3_000_000, correct=104)]
    summaries = summarize_records(records)
    assert FrontierQuestion().mark_frontier(summaries) == [True, False]
    assert FrontierQuestion(cap_mb=15).mark_frontier(summaries) == [True, True]
    assert FrontierQuestion(precision="float16").mark_frontier(summaries) == [True, True]
    assert "width 1.4" in draw(tmp_path, records)


def test_a_cap_far_away_is_pointed_at(tmp_path, make_record):
    texts = draw(tmp_path, [make_record()], FrontierQuestion(precision="int8"))
    assert "cap 10 MB: further right \N{RIGHTWARDS ARROW}" in texts


@pytest.mark.parametrize("against", ["params", "macs"])
def test_the_cap_line_belongs_to_bytes(tmp_path, placement, against):
    texts = draw(tmp_path, placement, FrontierQuestion(against=against))
    assert not any(text.startswith("cap ") for text in texts)
    assert "over the cap, not trained (1)" in texts


def test_the_same_records_give_the_same_bytes(tmp_path, placement):
    first = [
        path.read_bytes() for path in plot_frontier(summarize_records(placement), tmp_path / "a", FrontierQuestion())
    ]
    again = [
        path.read_bytes() for path in plot_frontier(summarize_records(placement), tmp_path / "b", FrontierQuestion())
    ]
    assert first == again
    assert b"<dc:date>" not in first[1]


def test_global_state_of_matplotlib_is_left_alone(tmp_path, make_record):
    import matplotlib

    before = dict(matplotlib.rcParams)
    draw(tmp_path, [make_record()])
    assert dict(matplotlib.rcParams) == before


def test_attention_kinds_differ_in_shape_fill_and_colour():
    styles = [*STYLES.values(), *MORE_STYLES]
    assert len({style["marker"] for style in styles}) == len(styles)
    assert len({style["color"] for style in styles}) == len(styles)
    assert len({style["fillstyle"] for style in STYLES.values()}) == len(STYLES)
    kinds = ["none", "eca", "cbam", "triplet"]
    assert len({get_style(kind, kinds)["marker"] for kind in kinds}) == len(kinds)


def test_what_all_of_the_key_share_is_said_once():
    labels = ["SE first, stem stride 1, no head, width 0.5", "stem stride 1, no head, width 1 #1"]
    assert split_shared(labels) == ("", labels)
    shared, rest = split_shared([*labels, "stem stride 1, no head, width 1 #2"])
    assert shared == "stem stride 1, no head"
    assert rest == ["SE first, width 0.5", "width 1, #1", "width 1, #2"]
    # Of one nothing would be left.
    alone = ["stem stride 1", "stem stride 1, width 1", "stem stride 1, width 2"]
    assert split_shared(alone) == ("", alone)


def test_smaller_letters_are_given_longer_lines():
    short, long = (
        ["width 1", "width 2"],
        [f"SE first_last position depthwise reduction {n}, width 1" * 3 for n in range(9)],
    )
    assert annotations._fit_lines(short, 0.7) == [["width 1"], ["width 2"]]
    lines = annotations._fit_lines(long, 0.7)
    _, size = annotations._measure_lines(lines, 0.7)
    _, narrow = annotations._measure_lines([annotations._wrap(text, annotations.LETTERS) for text in long], 0.7)
    assert 1.2 * narrow < size < 7.5
    assert max(len(line) for own in lines for line in own) * size <= annotations.LETTERS * 7.5


def test_a_key_says_once_what_is_shared(tmp_path, make_record):
    records = [
        make_record(params=100_000 * n, correct=50 + 5 * n, attention={"kind": kind, "placement": "first_last"},
                    arch={"width_multiplier": n / 4, "head_channels": 0, "stem_stride": 1, "embedding_dim": 64 * n})
        for n, kind in enumerate(["se", "eca"] * 4, 1)
    ]  # fmt: skip
    records += [make_record(params=2_000_000 + n, correct=n, arch={"width_multiplier": 2 + n / 20}) for n in range(20)]
    texts = draw(tmp_path, records)
    assert "all of these: stem stride 1, no head" in texts
    assert sum("stem stride" in text for text in texts) == 1
