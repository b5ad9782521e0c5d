"""Comparisons of trials that never ran: who pairs with whom, what the rows say, what is written."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.comparison import ComparisonRow
from ffem_jax.analysis.summary import FrontierError
from ffem_jax.reports.comparison import comparison_to_dict, write_comparison, write_page, write_sentence
from ffem_jax.specs.trial import DataSpec
from ffem_jax.text.numbers import format_p, format_points

IMAGES = 100
NONE = {"kind": "none"}
PRETRAINED = {"name": "lfw_rest", "data": DataSpec(name="lfw_rest", resolution=64)}


@pytest.fixture
def record(make_record):
    """Makes a record that got `hits` ("101...") of `images` (the first ones) right."""

    def make(hits, *, images=None, **settings):
        images = list(range(len(hits))) if images is None else images
        fields = {"data_fingerprint": "f" * 16, "pictures_fingerprint": "p" * 16, "test_images": images, "hits": hits}
        made = make_record(correct=hits.count("1"), tested=len(hits), **{**fields, **settings})
        return dataclasses.replace(made, trial_key=made.trial_key + settings.get("data_fingerprint", ""))

    return make


def draw_hits(seed, rate, images=IMAGES):
    return "".join("1" if hit else "0" for hit in np.random.default_rng(seed).random(images) < rate)


def eca(placement="first_last", **more):
    return {"kind": "eca", "placement": placement, **more}


# -------------------------------------------------------------------------------- one pair, by hand


def test_one_pair_by_hand(record):
    # Of 20 images both are right on 8, the second alone on 7, the first alone on 1, neither on 4.
    first = record("1" * 8 + "0" * 7 + "1" + "0" * 4, attention=NONE)
    second = record("1" * 8 + "1" * 7 + "0" + "0" * 4, attention=eca(), params=2_200_456)
    comparison = compare_records([first, second], "attention.kind")
    (row,) = comparison.rows
    assert (row.first, row.second, row.context, row.overall) == ("none", "eca", "", False)
    assert (row.accuracy_first, row.accuracy_second) == (9 / 20, 15 / 20)
    assert row.difference == pytest.approx(6 / 20)
    assert (row.only_first, row.only_second, row.pairs, row.seeds, row.images, row.tests) == (1, 7, 1, 1, 20, 20)
    assert row.test == "mcnemar"
    assert row.p_value == row.p_corrected == pytest.approx(binomtest(1, 8).pvalue)
    assert row.low < row.difference < row.high
    assert (row.bytes_first, row.bytes_second) == ((8_801_792,) * 2, (8_801_824,) * 2)
    assert not row.significant  # p = 0.07
    assert comparison.notes == ()


def test_the_order_of_the_records_does_not_turn_a_difference_around(record):
    a, b = record(draw_hits(0, 0.9), attention=eca()), record(draw_hits(1, 0.5), attention=NONE)
    assert compare_records([a, b], "attention.kind").rows == compare_records([b, a], "attention.kind").rows


def test_folds_are_one_test_and_seeds_are_not(record):
    folds = [(fold, list(range(fold, IMAGES, 5))) for fold in range(5)]
    records = [
        record(draw_hits(10 * seed + fold, 0.6), images=images, attention=attention, seed=seed,
               protocol={"name": "kfold", "fold": fold})
        for seed in (0, 1) for fold, images in folds for attention in (NONE, eca())
    ]  # fmt: skip
    records = [dataclasses.replace(r, hits=r.hits[:20], correct=r.hits[:20].count("1"), tested=20) for r in records]
    (one,) = compare_records([r for r in records if r.seed == 0], "attention.kind").rows
    (both,) = compare_records(records, "attention.kind").rows
    assert (one.pairs, one.seeds, one.images, one.tests, one.test) == (5, 1, 100, 100, "mcnemar")
    assert (both.pairs, both.seeds, both.images, both.tests, both.test) == (10, 2, 100, 200, "sign flip")


# ------------------------------------------------------------------------------ who pairs with whom


def levels(comparison):
    return [(row.first, row.second, row.context, row.pairs) for row in comparison.rows]


def test_no_attention_pairs_with_every_placement_and_contexts_get_a_row_each(record):
    records = [record(draw_hits(i, 0.7), attention=a) for i, a in enumerate([NONE, eca("first"), eca("last")])]
    assert levels(compare_records(records, "attention.kind")) == [
        ("none", "eca", "placement first", 1),
        ("none", "eca", "placement last", 1),
        ("none", "eca", "all 2", 2),
    ]
    by_place = compare_records(records, "attention.placement")
    assert levels(by_place) == [("first", "last", "", 1)]
    assert by_place.notes == ("not compared, because they have no attention.placement: 1 trial",)


def test_names_and_settings_that_nobody_reads_block_no_pair(record):
    a = record(draw_hits(0, 0.7), arch={"name": "ffem"}, attention={**NONE, "gamma": 1.0}, recipe={"name": "modern"})
    b = record(draw_hits(1, 0.7), arch={"name": "ffem_am"}, attention=eca(reduction=4), recipe={"name": "mine"})
    assert levels(compare_records([a, b], "attention.kind")) == [("none", "eca", "", 1)]
    # The scale is normalized_softmax's alone.
    c = record(draw_hits(1, 0.7), recipe={"loss": "softmax", "scale": 4.0})
    d = record(draw_hits(2, 0.7), recipe={"loss": "normalized_softmax", "scale": 16.0})
    assert levels(compare_records([c, d], "recipe.loss")) == [("softmax", "normalized_softmax", "", 1)]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"protocol": {"split_seed": 1}},
        {"recipe": {"epochs": 60}},
        {"recipe": {"weight_averaging": 0.99}},  # which stands in a record only where it is used
        {"arch": {"embedding_norm": True}},
        {"arch": {"width_multiplier": 0.5}},
        {"pretrain": PRETRAINED},
    ],
)
def test_what_differs_in_anything_else_is_no_pair(record, other):
    a, b = record(draw_hits(0, 0.7), attention=NONE), record(draw_hits(1, 0.7), attention=eca(), **other)
    with pytest.raises(FrontierError, match="no two of 2 trials differ only in attention.kind"):
        compare_records([a, b], "attention.kind")


def test_a_pretraining_can_be_the_factor(record):
    a, b = record(draw_hits(0, 0.7)), record(draw_hits(1, 0.8), pretrain=PRETRAINED)
    assert levels(compare_records([a, b], "pretrain.name")) == [("none", "lfw_rest", "", 1)]


def test_another_fold_of_view2_is_no_pair(record):
    kinds = (NONE, eca())
    a, b = (
        record(draw_hits(i, 0.7), attention=kinds[i], protocol={"name": "view2", "folds": 10, "fold": i})
        for i in (0, 1)
    )
    with pytest.raises(FrontierError, match="no two of 2 trials differ only in"):
        compare_records([a, b], "attention.kind")


def test_a_placement_is_known_by_its_bottlenecks(record):
    records = [record(draw_hits(i, 0.7), attention=eca(p)) for i, p in enumerate(([0, -1], "all", [3]))]
    assert levels(compare_records(records, "attention.placement")) == [
        ("first_last", "all", "", 1),
        ("first_last", "[3]", "", 1),
        ("all", "[3]", "", 1),
    ]


def test_a_name_stands_for_what_is_the_same_wherever_it_is_used(record):
    records = [
        record(draw_hits(i, 0.7), arch={"name": name, "width_multiplier": width}, attention=attention)
        for i, (name, width, attention) in enumerate(
            [("ffem", 1.0, NONE), ("ffem", 0.5, NONE), ("ffem_am", 1.0, eca()), ("ffem_am", 0.5, eca())]
        )
    ]
    assert levels(compare_records(records, "arch.name")) == [
        ("ffem", "ffem_am", "width multiplier 1", 1),
        ("ffem", "ffem_am", "width multiplier 0.5", 1),
        ("ffem", "ffem_am", "all 2", 2),
    ]


def test_a_context_is_named_by_what_tells_it_from_the_others(record):
    records = [
        record(draw_hits(i, 0.7), arch={"width_multiplier": width}, attention=attention)
        for i, (width, attention) in enumerate([(0.5, NONE), (1.0, NONE), (0.5, eca("all")), (1.0, eca("all"))])
    ]
    rows = compare_records(records, "arch.width_multiplier").rows
    assert [row.context for row in rows] == ["attention none", "attention eca", "all 2"]


def test_numbers_are_ordered_by_size(record):
    records = [record(draw_hits(i, 0.7), arch={"width_multiplier": w}) for i, w in enumerate((1.5, 0.5, 1.0))]
    pairs = [(first, second) for first, second, *_ in levels(compare_records(records, "arch.width_multiplier"))]
    assert pairs == [("0.5", "1"), ("0.5", "1.5"), ("1", "1.5")]


def test_resolutions_pair_by_their_pictures(record):
    small = record(draw_hits(0, 0.6), data={"resolution": 48}, data_fingerprint="a" * 16)
    large = record(draw_hits(1, 0.7), data={"resolution": 96}, data_fingerprint="b" * 16)
    (row,) = compare_records([large, small], "data.resolution").rows
    assert (row.first, row.second, row.test) == ("48", "96", "mcnemar")
    other = dataclasses.replace(large, pictures_fingerprint="q" * 16)
    with pytest.raises(FrontierError, match=r"data.resolution is \d\d in all.*the faces changed.*--faces"):
        compare_records([other, small], "data.resolution")


def test_a_factor_over_two_resolutions_counts_a_picture_once(record):
    records = [
        record(draw_hits(10 * size + i, 0.7), data={"resolution": size}, data_fingerprint=f"{size:016}", attention=a)
        for size in (48, 96)
        for i, a in enumerate((NONE, eca()))
    ]
    rows = compare_records(records, "attention.kind").rows
    assert [(row.context, row.images, row.tests) for row in rows] == [
        ("resolution 48", IMAGES, IMAGES),
        ("resolution 96", IMAGES, IMAGES),
        ("all 2", IMAGES, 2 * IMAGES),
    ]


# ------------------------------------------------------------------------------------- what is refused


def test_against_one_level_the_others_are_not_compared_with_each_other(record):
    records = [record(draw_hits(n, 0.5), attention=a) for n, a in enumerate((eca("last"), eca("first"), eca("all")))]
    every = compare_records(records, "attention.placement")
    some = compare_records(records, "attention.placement", against="first")
    assert len(every.rows) == 3
    assert sorted((row.first, row.second) for row in some.rows) == [("first", "all"), ("first", "last")]
    mended = {(row.first, row.second): row for row in every.rows}
    for row in some.rows:
        other = mended.get((row.first, row.second)) or mended[row.second, row.first]
        assert row.p_value == other.p_value
        assert abs(row.difference) == abs(other.difference)
    with pytest.raises(FrontierError, match=r"against=.front. is not a level .* choose one of: "):
        compare_records(records, "attention.placement", against="front")


def test_factors_that_do_not_vary_name_those_that_do(record):
    records = [record(draw_hits(0, 0.7), attention=NONE), record(draw_hits(1, 0.7), attention=eca())]
    with pytest.raises(FrontierError, match="factor='atention.kind' does not vary.* choose one of: attention.kind$"):
        compare_records(records, "atention.kind")
    with pytest.raises(FrontierError, match="recipe.loss is normalized_softmax in all of these records"):
        compare_records(records, "recipe.loss")
    with pytest.raises(FrontierError, match="no setting does"):
        compare_records(records[:1], "x")


def test_two_data_sets_or_protocols_are_refused_by_name(record):
    a = record(draw_hits(0, 0.7), attention=NONE)
    with pytest.raises(FrontierError, match=r"lfw52 \(1 trials\), synthetic \(1 trials\); use them separately"):
        compare_records([a, record(draw_hits(1, 0.7), attention=eca(), data={"name": "synthetic"})], "attention.kind")
    with pytest.raises(FrontierError, match="mix protocols: holdout with test_per_person=2.*kfold with folds=5"):
        compare_records([a, record(draw_hits(1, 0.7), attention=eca(), protocol={"name": "kfold"})], "attention.kind")


def test_nothing_done_and_bad_choices_are_refused(make_record):
    with pytest.raises(FrontierError, match="none of the 1 recorded trials is done"):
        compare_records([make_record(status="failed")], "attention.kind")
    with pytest.raises(FrontierError, match="metric='x' is not known"):
        compare_records([], "attention.kind", metric="x")


def test_refused_and_failed_trials_are_counted(record, make_record):
    records = [record(draw_hits(0, 0.7), attention=NONE), record(draw_hits(1, 0.7), attention=eca())]
    records += [make_record(status="over_cap", attention={"kind": "se"}), make_record(status="failed", seed=5)]
    records += [make_record(status="pruned", seed=6)]
    assert compare_records(records, "attention.kind").notes == (
        "not compared: 1 over the cap, 1 failed, 1 pruned before the end",
    )


# --------------------------------------------------------------------------------------- old records


def test_records_without_hits_are_compared_unpaired_and_say_so(make_record):
    old = [make_record(correct=c, attention=a, seed=s) for s in (0, 1) for c, a in ((70, NONE), (90, eca()))]
    comparison = compare_records(old, "attention.kind")
    (row,) = comparison.rows
    # Two seeds on the same 104 images are no 208 images.
    assert (row.images, row.tests, row.test, row.p_value, row.p_corrected) == (104, 208, "", None, None)
    assert row.difference == pytest.approx(20 / 104)
    assert not row.significant
    assert "2 of 2 pairs do not record which of the same images were classified correctly" in comparison.notes[0]
    assert "by an unpaired interval without a test: a hint" in write_sentence(row, comparison)
    assert "Newcombe" in write_page(comparison)


def test_pairs_without_hits_are_left_out_of_a_row_that_has_others(record):
    new = [record(draw_hits(i, 0.7), attention=a) for i, a in enumerate((NONE, eca()))]
    old = [dataclasses.replace(record(draw_hits(9, 0.7), attention=a, seed=1), hits="") for a in (NONE, eca())]
    comparison = compare_records(new + old, "attention.kind")
    assert comparison.rows[0].pairs == 1
    assert "1 of 2 pairs" in comparison.notes[0]
    # Hits of other images do not pair either.
    moved = [new[0], dataclasses.replace(new[1], test_images=list(range(1, IMAGES + 1)))]
    assert compare_records(moved, "attention.kind").rows[0].test == ""


def test_the_gallery_has_hits_of_its_own(record):
    a, b = (record(draw_hits(i, 0.7), attention=k, hits_gallery="1" * IMAGES) for i, k in enumerate((NONE, eca())))
    (row,) = compare_records([a, b], "attention.kind", metric="accuracy_gallery").rows
    assert (row.only_first, row.only_second, row.p_value) == (0, 0, 1.0)


# ------------------------------------------------------------------------------------------ what it says


def make_row(**changes):
    plain = {f.name: None for f in dataclasses.fields(ComparisonRow)}
    values = {
        "first": "none",
        "second": "eca",
        "context": "",
        "overall": False,
        "difference": 0.012,
        "low": 0.003,
        "pretrainings": 0,
    }
    return ComparisonRow(**{**plain, **values, "high": 0.021, "p_value": 0.01, "p_corrected": 0.01, **changes})


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {},
            "Attention kind `eca` is 1.2 points better than attention kind `none` (95 % CI +0.3 to +2.1; p = 0.01 "
            "after Holm's correction).",
        ),
        (
            {"difference": -0.012, "low": -0.021, "high": -0.003, "context": "placement all", "p_corrected": 1e-9},
            "Placement all: attention kind `eca` is 1.2 points worse than attention kind `none` (95 % CI -2.1 to -0.3; "
            "p < 0.001 after Holm's correction).",
        ),
        (
            {"low": -0.013, "p_value": 0.2, "p_corrected": 0.2},
            "Attention kind `eca` is statistically indistinguishable from attention kind `none` (+1.2 points, 95 % CI "
            "-1.3 to +2.1).",
        ),
        (
            {"p_corrected": 0.3},
            "Attention kind `eca` came out 1.2 points better than attention kind `none` (95 % CI +0.3 to +2.1), but "
            "this does not survive the correction for 2 comparisons (p = 0.3): a hint, not a finding.",
        ),
        (
            {"low": -0.013, "overall": True, "context": "all 3"},
            "Over all 3 contexts: attention kind `eca` and attention kind `none` differ in the networks trained here "
            "(+1.2 points, p = 0.01 after Holm's correction), but seeds vary too much to generalise "
            "(95 % CI -1.3 to +2.1).",
        ),
    ],
)
def test_a_sentence_claims_what_the_numbers_allow(record, changes, wanted):
    row = make_row(**changes)
    records = [record(draw_hits(i, 0.7), attention=a) for i, a in enumerate((NONE, eca()))]
    comparison = dataclasses.replace(compare_records(records, "attention.kind"), rows=(row, make_row()))
    assert write_sentence(row, comparison) == wanted


def test_numbers_are_written_without_a_signed_nought():
    assert [format_points(rate) for rate in (0.0004, -0.0004, 0.012, -0.1)] == ["0.0", "0.0", "+1.2", "-10.0"]
    assert [format_p(p) for p in (None, 1e-9, 0.0412, 1.0)] == ["-", "< 0.001", "0.041", "1"]


def test_holm_counts_every_row_of_the_table(record):
    records = [
        record(draw_hits(i, 0.5 + 0.1 * i), attention=a) for i, a in enumerate([NONE, eca("first"), eca("last")])
    ]
    rows = compare_records(records, "attention.kind").rows
    smallest = min(rows, key=lambda row: row.p_value)
    assert smallest.p_corrected == pytest.approx(min(1.0, 3 * smallest.p_value))


# ------------------------------------------------------------------------------------------- on disk


def test_page_json_and_figure_are_written_and_repeat(record, tmp_path):
    records = [
        record(draw_hits(i, 0.5 + 0.2 * i), attention=a, data={"name": "synthetic"})
        for i, a in enumerate([NONE, eca("first"), eca("last")])
    ]
    comparison = compare_records(records, "attention.kind")
    paths = write_comparison(comparison, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["compare.md", "compare.json", "compare.png", "compare.svg"]
    assert all(path.stat().st_size for path in paths)
    again = write_comparison(compare_records(records, "attention.kind"), tmp_path / "again")
    assert [a.read_bytes() for a in paths] == [b.read_bytes() for b in again]
    page = paths[0].read_text()
    assert "Synthetic faces" in page
    assert "it excludes variance between seeds" in page
    assert "SYNTHETIC FACES" in paths[3].read_text()
    stored = json.loads(paths[1].read_text())
    assert stored == comparison_to_dict(comparison)
    assert [row["sentence"] for row in stored["rows"]] == [write_sentence(row, comparison) for row in comparison.rows]
