"""Table 2's numbers by hand: accuracies and intervals, the frontier, the paper's order, the curves."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ffem_jax.analysis.summary import FrontierError
from ffem_jax.metrics.paired import compute_paired_interval
from ffem_jax.reports.paper.curves import describe_validation, make_curves
from ffem_jax.reports.paper.published import NETWORKS, TESTED, find_network, load_arch
from ffem_jax.reports.paper.results import compute_paper
from ffem_jax.reports.paper.settings import find_settings
from ffem_jax.reports.paper.tables import find_frontier, find_row, make_rows, order_pairs
from ffem_jax.specs.architecture import AttentionSpec

ALL = {"ffem": 70, "ffem_am": 80, "ffem_se": 75, "mobilenetv2": 75, "shufflenetv2": 60}


def compute(records):
    (setting,) = compute_paper(records, "not asked").settings
    return setting


# ------------------------------------------------------------------------------ what is published


def test_each_published_accuracy_is_a_whole_number_of_photographs():
    for network in NETWORKS:
        if network.accuracy is not None:
            # Printed in tenths of a percent, cut or rounded.
            assert network.correct / TESTED == pytest.approx(network.accuracy, abs=0.001)
            assert {network.correct} == {n for n in range(105) if abs(n / TESTED - network.accuracy) < 0.002}


def test_a_network_is_known_by_what_is_built(make_trial):
    assert [find_network(make_trial(network.name)).name for network in NETWORKS] == [n.name for n in NETWORKS]
    eca = AttentionSpec(kind="eca", placement=(0, 13), gamma=2.0, reduction=4)
    am = dataclasses.replace(load_arch("ffem"), attention=eca)
    assert find_network(make_trial("ffem", arch=am)).name == "ffem_am"
    for other in ({"width_multiplier": 0.5}, {"embedding_dim": 64}, {"attention": AttentionSpec(kind="eca")}):
        changed = dataclasses.replace(load_arch("mobilenetv2"), **other)
        assert find_network(make_trial("mobilenetv2", arch=changed)) is None
    broken = make_trial("ffem")
    broken.spec["arch"] = {"colour": "green"}
    assert find_network(broken) is None


# ------------------------------------------------------------------------------------- settings


def test_recipes_and_resolutions_are_never_pooled(make_set):
    both = {"ffem": 70, "ffem_am": 80}
    records = [
        *make_set(both, recipe={"name": "paper", "loss": "softmax"}),
        *make_set(both),
        *make_set(both, recipe={"epochs": 60}),
        *make_set(both, data={"resolution": 96}),
    ]
    settings, left_out = find_settings(records)
    assert [setting.label for setting in settings] == [
        "modern, epochs 30, 64 x 64",
        "modern, epochs 30, 96 x 96",
        "modern, epochs 60, 64 x 64",
        "paper, 64 x 64",
    ]
    assert left_out == 0
    assert [len(setting.records) for setting in settings] == [20, 20, 20, 20]


def test_a_recipe_is_what_training_reads(make_trial):
    # The scale is normalized_softmax's alone: these two are one recipe, and one network.
    records = [
        make_trial("ffem", seed=seed, recipe={"name": "paper", "loss": "softmax", "scale": 4.0 + seed})
        for seed in (0, 1)
    ]
    (setting,) = find_settings(records)[0]
    (row,) = make_rows(setting)
    assert (setting.recipe, row.summary.trials) == ("paper", 2)


def test_records_that_make_no_table_are_refused(make_trial):
    wide = dataclasses.replace(load_arch("ffem"), width_multiplier=0.5)
    with pytest.raises(FrontierError, match="none of 1 recorded trials is of one of the paper's networks"):
        compute_paper([make_trial("ffem", arch=wide)], "")
    with pytest.raises(FrontierError, match="no trial of the paper's networks is done \\(1 failed\\)"):
        compute_paper([make_trial("ffem", status="failed", accuracy=None)], "")
    with pytest.raises(FrontierError, match="mix data sets"):
        compute_paper([make_trial("ffem"), make_trial("ffem_am", data={"name": "synthetic"})], "")
    with pytest.raises(FrontierError, match="ffem verify"):
        compute_paper([make_trial("ffem", protocol={"name": "view2", "folds": 10})], "")
    result = compute_paper([make_trial("ffem"), make_trial("ffem", arch=wide)], "")
    assert (result.left_out, len(result.settings[0].rows)) == (1, 1)


# -------------------------------------------------------------------------------------- Table 2


def test_one_seed_has_wilson_s_interval_of_its_images(make_set):
    (row,) = compute(make_set({"ffem": 60}, seeds=(0,))).rows
    assert (row.summary.label, row.summary.trials, row.summary.tested, row.over_seeds) == ("FFEM", 5, 100, False)
    assert row.summary.accuracy == 0.6
    # By hand: (0.6 + 1.9208 / 100 -+ 1.96 sqrt(0.24 / 100 + 0.9604 / 100**2)) / (1 + 3.8416 / 100).
    assert (row.summary.accuracy_low, row.summary.accuracy_high) == pytest.approx((0.5020, 0.6906), abs=1e-4)
    assert (row.summary.params, row.summary.macs, row.summary.bytes_float32) == (2_200_000, 21_000_000, 8_800_000)


def test_several_seeds_are_one_set_of_images_and_are_drawn_too(make_set):
    records = make_set({"ffem": 60}, seeds=(0,)) + make_set({"ffem": 70}, seeds=(1,))
    (row,) = compute(records).rows
    assert row.summary.accuracy == pytest.approx(0.65)
    assert row.over_seeds
    right = np.array([np.arange(100) < 60, np.arange(100) < 70]).astype(float)
    expected = compute_paired_interval(right, np.ones((2, 100)))
    assert (row.summary.accuracy_low, row.summary.accuracy_high) == pytest.approx(expected)
    assert expected[0] < 0.60
    assert expected[1] > 0.70
    blind = [dataclasses.replace(record, hits="", test_images=[]) for record in records]
    (row,) = compute(blind).rows
    assert (row.over_seeds, row.summary.tested) == (False, 100)


def test_nothing_but_right_answers_has_an_interval_still(make_set):
    (row,) = compute(make_set({"ffem": 100})).rows
    assert row.summary.accuracy == row.summary.accuracy_high == 1.0
    assert row.summary.accuracy_low == pytest.approx(0.025 ** (1 / 100))
    (row,) = compute(make_set({"ffem": 0})).rows
    assert row.summary.accuracy == row.summary.accuracy_low == 0.0
    assert row.summary.accuracy_high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_what_is_missing_is_known_by_what_others_have(make_set):
    records = make_set(ALL)
    kept = [r for r in records if not (r.arch == "ffem" and r.seed == 1 and r.test_images[0] == 4)]
    result = compute(kept)
    assert {row.network.name: row.missing for row in result.rows if row.missing} == {"ffem": ((1, 0, 0, 4),)}
    assert not result.frontier.whole
    # Over the nine trials that all have, and over all ten in the table.
    assert result.frontier.summaries["ffem_am"].trials == 9
    assert next(row for row in result.rows if row.network.name == "ffem_am").summary.trials == 10


def test_the_frontier_is_of_accuracy_against_bytes(make_set):
    frontier = find_frontier(find_settings(make_set(ALL))[0][0])
    assert frontier.whole
    assert frontier.names == ("ffem", "ffem_am", "shufflenetv2")
    assert frontier.find_smaller("ffem_am") == ["ffem", "shufflenetv2"]
    assert frontier.find_dominators("ffem_am") == []
    assert frontier.find_dominators("mobilenetv2") == ["ffem_am", "ffem_se"]
    # As accurate and smaller is enough; as accurate and larger is not.
    level = find_frontier(find_settings(make_set({**ALL, "ffem": 80, "ffem_se": 80}))[0][0])
    assert level.find_dominators("ffem_am") == ["ffem"]


def test_networks_that_share_no_trial_have_no_frontier(make_trial):
    setting = find_settings([make_trial("ffem", seed=0), make_trial("ffem_am", seed=1)])[0][0]
    assert find_frontier(setting) is None


# ------------------------------------------------------------------------------------- the order


def test_the_paper_s_order_pair_by_pair(make_set):
    result = compute(make_set({**ALL, "mobilenetv2": 70, "shufflenetv2": 40}))
    found = {(pair.higher.name, pair.lower.name): pair for pair in result.order}
    assert {names: pair.verdict for names, pair in found.items()} == {
        ("mobilenetv2", "ffem"): "not told apart",
        ("shufflenetv2", "ffem"): "reversed",
        ("ffem_am", "ffem"): "confirmed",
        ("shufflenetv2", "mobilenetv2"): "reversed",
        ("ffem_am", "mobilenetv2"): "confirmed",
        ("ffem_am", "shufflenetv2"): "confirmed",
    }
    pair = found["ffem_am", "ffem"]
    assert pair.claimed == pytest.approx(8 / 104)
    # Newcombe by hand, from the Wilson intervals of 94 and of 102: [0.832, 0.947] and [0.933, 0.995].
    assert pair.claimed_low == pytest.approx(8 / 104 - math.hypot(0.9808 - 0.9326, 0.9467 - 0.9038), abs=1e-3)
    assert pair.difference == pytest.approx(0.1)
    reverse = found["shufflenetv2", "ffem"]
    assert reverse.difference == pytest.approx(-0.3)
    assert reverse.low < reverse.difference < reverse.high < 0
    assert {pair.verdict for pair in order_pairs(None)} == {"not compared"}


def test_a_row_turned_around_says_the_same(make_set):
    networks = compute(make_set(ALL)).networks
    row, turned = find_row(networks, "ffem", "ffem_am"), find_row(networks, "ffem_am", "ffem")
    assert (row.difference, row.low, row.high) == (-turned.difference, -turned.high, -turned.low)
    assert (row.only_second, row.bytes_first) == (turned.only_first, turned.bytes_second)
    assert find_row(networks, "ffem", "x") is None


def test_attention_is_compared_within_the_family_and_networks_by_name(make_set):
    result = compute(make_set(ALL))
    assert [(row.first, row.second, row.pairs, row.seeds) for row in result.attention.rows] == [
        ("none", "eca", 10, 2),
        ("none", "se", 10, 2),
        ("eca", "se", 10, 2),
    ]
    assert len(result.networks.rows) == 10
    assert {row.context for row in result.networks.rows} == {""}
    alone = compute(make_set({"ffem": 70}))
    assert isinstance(alone.attention, str)
    assert isinstance(alone.networks, str)


# ---------------------------------------------------------------------------------------- Fig. 7


def test_a_curve_is_mean_and_deviation_over_trials(make_trial):
    records = [make_trial("ffem", seed=seed, validation_accuracy=[0.1, 0.2, 0.4 + 0.2 * seed]) for seed in (0, 1)]
    records.append(make_trial("ffem_am", loss=[3.0, None, 1.0]))
    records.append(make_trial("ffem_se", loss=[1.0]))
    curves = make_curves(find_settings(records)[0][0])
    ffem, am = curves
    assert (ffem.trials, ffem.loss) == (2, (3.0, 2.0, 1.5))
    assert ffem.loss_deviation == pytest.approx((0, 0, math.sqrt(0.5)))
    assert ffem.validation == pytest.approx((0.1, 0.2, 0.5))
    assert ffem.validation_deviation[2] == pytest.approx(0.2 / math.sqrt(2))
    assert (am.trials, am.loss_deviation) == (1, ())
    assert math.isnan(am.loss[1])


def test_validation_is_named_for_what_it_is_of(make_trial):
    def describe(*counts):
        return describe_validation([make_trial("ffem", validated=count) for count in counts])

    assert describe(0, 0) == "the test images"
    assert describe(104, 104) == "104 images per trial, held out of training and never tested"
    assert describe(103, 104).startswith("103 to 104 images")
    assert describe(0, 104) == "held-out images or, if a trial held none out, the test images"
