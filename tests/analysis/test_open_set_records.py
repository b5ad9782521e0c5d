"""Records of people nobody trained on: folds pooled, people drawn, error rates the better the lower."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from ffem_jax.analysis.agreement import measure_agreement
from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.groups import choose_records
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import FrontierError, summarize_records
from ffem_jax.metrics.intervals import compute_clustered_interval, compute_wilson_interval
from ffem_jax.reports.comparison import write_comparison, write_page, write_sentence
from ffem_jax.reports.frontier import write_frontier
from ffem_jax.reports.html.page import write_report
from ffem_jax.reports.table import render_table

EACH, PEOPLE = 5, 20  # images per person, people per fold
RATES = ("tar_at_far_1e2", "tar_at_far_1e3", "tar_at_far_1e4", "eer", "auc")


@pytest.fixture
def record(make_record):
    """Makes the record of a fold in which the people at `right` are recognised in all images and nobody else."""

    def make(right, *, fold=0, rate=0.5, reach=0.1, **settings):
        people = np.repeat(np.arange(PEOPLE) + PEOPLE * fold, EACH)
        hits = "".join("1" if person % PEOPLE in right else "0" for person in people)
        ends = {"": rate, "_low": rate - reach, "_high": rate + reach}
        fields = {
            "data_fingerprint": "f" * 16, "pictures_fingerprint": "p" * 16, "hits": hits, "accuracy_gallery": None,
            "correct_gallery": None, "test_images": (np.arange(len(people)) + len(people) * fold).tolist(),
            "test_identities": people.tolist(),
            "open_set": {"images": len(people), "people": PEOPLE}
            | {name + end: value for name in RATES for end, value in ends.items()},
        }  # fmt: skip
        protocol = {"name": "open_set", "folds": 2, "fold": fold}
        return make_record(correct=hits.count("1"), tested=len(hits), protocol=protocol, **{**fields, **settings})

    return make


def test_folds_and_seeds_are_one_network_whose_interval_is_for_other_people(record) -> None:
    right = [range(10), range(6)]
    (network,) = summarize_records(
        [record(right[fold], fold=fold, seed=seed) for fold in range(2) for seed in range(3)]
    )
    assert (network.trials, network.seeds, network.folds, network.tested) == (6, (0, 1, 2), (0, 1), 200)
    assert network.accuracy == pytest.approx(0.4)
    rates = np.repeat(
        [*(person in right[0] for person in range(20)), *(person in right[1] for person in range(20))], EACH
    )
    wanted = compute_clustered_interval(rates, np.repeat(np.arange(40), EACH))
    assert (network.accuracy_low, network.accuracy_high) == pytest.approx(wanted)
    # A person's images are right or wrong together: 40 people say as much as 40 images.
    assert network.accuracy_high - network.accuracy_low > 2 * np.diff(compute_wilson_interval(80, 200))[0] * 0.99
    assert network.chance == pytest.approx((EACH - 1) / (EACH * PEOPLE - 1))


@pytest.mark.parametrize("metric", RATES)
def test_intervals_of_rates_narrow_with_folds_and_not_with_seeds(record, metric) -> None:
    def measure(folds, seeds):
        (network,) = summarize_records(
            [record([1], fold=fold, seed=seed, rate=0.4 + 0.2 * fold) for fold in folds for seed in seeds], metric
        )
        return network.accuracy, network.accuracy_low, network.accuracy_high

    assert measure([0], [0]) == pytest.approx((0.4, 0.3, 0.5))
    assert measure([0], [0, 1, 2]) == pytest.approx((0.4, 0.3, 0.5))
    half = 0.1 / np.sqrt(2)
    assert measure([0, 1], [0]) == measure([0, 1], [0, 1]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_another_split_of_the_same_people_is_no_new_sample(record) -> None:
    def split(seed):
        protocol = {"name": "open_set", "folds": 2, "split_seed": seed}
        return dataclasses.replace(record([1]), spec={**record([1]).spec, "protocol": protocol}, trial_key=f"k{seed}")

    (network,) = summarize_records([split(0), split(1)], "auc")
    assert network.accuracy_high - network.accuracy_low == pytest.approx(0.2)


def test_people_are_drawn_and_turn_their_sign_together(record) -> None:
    firsts = [record(range(10), fold=fold, attention={"kind": "none"}) for fold in range(2)]
    seconds = [record(range(13), fold=fold, attention={"kind": "se"}) for fold in range(2)]
    (row,) = compare_records([*firsts, *seconds], "attention.kind").rows
    assert (row.images, row.people, row.test) == (200, 40, "sign flip of people")
    assert row.difference == pytest.approx(0.15)
    # Six people of 40 became right with all five images each; 30 independent images would give 2 / 2**30.
    assert row.p_value == pytest.approx(2 / 2**6)
    per_person = np.sqrt(40 * 0.15 * 0.85) / 40
    assert row.high - row.low == pytest.approx(2 * 1.96 * per_person, rel=0.15)


def test_a_comparison_says_that_people_are_drawn(record, tmp_path) -> None:
    records = [record(range(10), attention={"kind": "none"}), record(range(16), attention={"kind": "se"})]
    found = compare_records(records, "attention.kind")
    page = write_page(found)
    assert "Measured: rank-1 identification accuracy among unknown people." in page
    assert "People are resampled for the interval, with all their images" in page
    assert "exact, by people" in page
    assert "does not generalise to other people" not in page
    write_comparison(found, tmp_path)
    assert "difference of accuracy, points" in (tmp_path / "compare.svg").read_text()


@pytest.mark.parametrize(("metric", "verdict"), [("eer", "worse"), ("auc", "better")])
def test_a_rate_is_compared_without_a_test_and_in_its_own_direction(record, metric, verdict) -> None:
    first, second = (
        record([1], attention={"kind": "none"}, rate=0.2, reach=0.03),
        record([1], attention={"kind": "se"}, rate=0.6, reach=0.04),
    )
    found = compare_records([first, second], "attention.kind", metric=metric)
    (row,) = found.rows
    assert (row.difference, row.p_value, row.test) == (pytest.approx(0.4), None, "")
    assert (row.low, row.high) == pytest.approx((0.4 - 0.05, 0.4 + 0.05))
    assert f"40.0 points {verdict} than" in write_sentence(row, found)
    assert any(f"{metric} is not a share of tests" in note for note in found.notes)
    assert "is not a share of tests" in write_page(found)
    assert not found.rows[0].significant


def test_the_frontier_of_an_error_rate_is_the_lowest(record, tmp_path) -> None:
    records = [
        record([1], params=10**6 * size, rate=rate, reach=0.02, arch={"width_multiplier": size})
        for size, rate in ((1, 0.4), (2, 0.1), (3, 0.2))
    ]
    marks = {}
    for metric in ("eer", "auc", "accuracy"):
        found = write_frontier(records, tmp_path / metric, cap_mb=100, metric=metric)
        marks[metric] = found.on_frontier
        assert found.question.protocol == "open_set"
    assert marks["eer"] == (True, True, False)
    assert marks["auc"] == (True, False, False)
    text = (tmp_path / "eer" / "frontier.md").read_text()
    assert "# EER against bytes" in text
    assert "The interval of `width 2` lies below those of all the others that fit." in text
    assert "EER, % [95 %]" in text
    assert "lower is better" in text
    assert "bootstrap over people" in text
    assert "equal error rate (%), lower is better" in (tmp_path / "eer" / "frontier.svg").read_text()
    assert "for other people" in (tmp_path / "accuracy" / "frontier.md").read_text()
    table = render_table(summarize_records(records, "eer"), [True] * 3, FrontierQuestion(metric="eer"))
    assert "EER, % [95 %]" in [column.name for column in table.columns]
    by_eer = write_frontier(records, tmp_path / "again", cap_mb=16, metric="eer").hypervolume
    assert by_eer == pytest.approx((4 * 0.6 + 8 * 0.9) / 16)


def test_an_error_rate_at_chance_is_said(record) -> None:
    (network,) = summarize_records([record([1], rate=0.45, reach=0.1)], "eer")
    assert not network.above_chance
    (network,) = summarize_records([record([1], rate=0.3, reach=0.1)], "eer")
    assert network.above_chance


def test_the_page_has_every_measure_with_its_interval(record, tmp_path) -> None:
    write_report([record(range(10)), record(range(5), fold=1)], tmp_path / "report.html", metric="eer")
    text = (tmp_path / "report.html").read_text()
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])
    (group,) = payload["groups"]
    assert set(group["networks"][0]["rates"]) == {"accuracy", *RATES}
    assert group["measures"]["eer"]["lower"]
    assert group["measures"]["accuracy"]["title"] == "Rank-1"
    assert group["measured"].startswith("equal error rate")
    trial = dict(zip(payload["columns"], group["trials"][0], strict=True))
    assert trial["others"]["auc"] == [0.5, 0.4, 0.6]
    assert "bootstrap over people" in text


def test_a_measure_of_another_protocol_names_those_there_are(record, make_record) -> None:
    plain = [make_record(), make_record(attention={"kind": "se"})]
    for read in (
        lambda: summarize_records(plain, "auc"),
        lambda: compare_records(plain, "attention.kind", metric="auc"),
    ):
        with pytest.raises(
            FrontierError, match="auc belongs to protocol=open_set.*choose one of: accuracy, accuracy_gallery"
        ):
            read()
    with pytest.raises(FrontierError, match="mix protocols"):
        summarize_records([record([1]), make_record(correct=80, tested=100, data_fingerprint="f" * 16)])


def test_groups_are_of_images(record) -> None:
    assert len(choose_records([record([1])])) == 1
    with pytest.raises(FrontierError, match="auc is not a share of images.*choose one of: accuracy, accuracy_gallery"):
        choose_records([record([1])], "auc")
    with pytest.raises(FrontierError, match="protocol=open_set says which images are correct by accuracy_gallery"):
        choose_records([record([1])], "accuracy_gallery")


def test_an_order_by_an_error_rate_is_an_order_by_what_is_good(record) -> None:
    records = [
        record([1], fold=fold, params=10**6 * size, rate=0.9 - 0.1 * size, reach=0.01, arch={"width_multiplier": size})
        for size in range(1, 7)
        for fold in range(2)
    ]
    assert measure_agreement(records, "eer").macs.tau == pytest.approx(1.0)
    assert measure_agreement(records, "auc").macs.tau == pytest.approx(-1.0)
