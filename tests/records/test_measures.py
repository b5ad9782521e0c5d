"""Every measure that is declared: its fields exist, its words stand, its chance and its direction go together."""

from __future__ import annotations

import dataclasses

import pytest

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.records.measures import (
    ACCURACIES,
    MEASURES,
    Measure,
    compute_chance,
    count_correct,
    find_measure,
    list_metrics,
    read_interval,
    read_rate,
)
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.protocol import PROTOCOLS

FIELDS = {field.name for field in dataclasses.fields(TrialRecord)}
EVERY = [*MEASURES.values(), *ACCURACIES.values()]
OPEN_SET = {"images": 11, "people": 5} | {
    f"{name}{end}": value
    for name, measure in MEASURES.items()
    if measure.within
    for end, value in (("", 0.4), ("_low", 0.3), ("_high", 0.6))
}


@pytest.fixture
def open_set_record(make_record) -> TrialRecord:
    return make_record(
        correct=4, tested=8, protocol={"name": "open_set"}, open_set=OPEN_SET, accuracy_gallery=None,
        test_identities=[0, 0, 1, 1, 1, 1, 4, 4], test_images=[1, 2, 3, 4, 6, 7, 8, 9], hits="10101010",
    )  # fmt: skip


@pytest.mark.parametrize("measure", EVERY, ids=lambda one: f"{one.protocol}-{one.name}")
def test_a_measure_is_whole(measure: Measure) -> None:
    held = {measure.within} if measure.within else {measure.name, f"{measure.name}_low", f"{measure.name}_high"}
    assert held | {name for name in (measure.counted, measure.hits) if name} <= FIELDS
    assert bool(measure.counted) == bool(measure.hits) != bool(measure.within)
    for text in (measure.title, measure.word, measure.noun, measure.axis, measure.short):
        assert text
        assert not text.endswith(".")
    for sentence in (measure.meaning, measure.interval):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    assert measure.meaning.startswith(measure.name)
    assert "%" in measure.axis
    assert measure.protocol in ("", *PROTOCOLS)
    assert measure.chance is None or 0 < measure.chance < 1
    # Guessing is never the best there is.
    assert measure.score(0.9) > measure.score(0.1) or measure.lower_is_better
    assert {measure.score(0.0), measure.score(1.0)} == {0.0, 1.0}
    assert measure.best == ("lowest" if measure.lower_is_better else "highest")


@pytest.mark.parametrize("metric", MEASURES)
def test_a_measure_is_read_from_a_record_that_has_it(metric, open_set_record, make_record) -> None:
    measure = MEASURES[metric]
    record = open_set_record if measure.within else make_record(correct=80, tested=104)
    assert read_rate(record, metric) == pytest.approx(0.4 if measure.within else 80 / 104)
    assert count_correct(record, metric) == pytest.approx(0.4 * 8 if measure.within else 80)
    assert metric in list_metrics([record])
    if measure.within:
        assert read_interval(record, metric) == (0.3, 0.6)
        assert read_rate(make_record(), metric) is None
        assert compute_chance(record, metric) == measure.chance


def test_accuracy_is_what_the_protocol_makes_it() -> None:
    nouns = {find_measure("accuracy", protocol).noun for protocol in ("holdout", "view2", "open_set")}
    assert len(nouns) == 3
    assert find_measure("accuracy", "kfold") == find_measure("accuracy", "holdout") == MEASURES["accuracy"]
    assert "rank-1" in FrontierQuestion(protocol="open_set").measure.noun
    assert "View 2" in FrontierQuestion(pairs=True).measure.noun


def test_chance_of_rank_1_is_that_of_another_image_drawn_blindly(open_set_record, make_record) -> None:
    # Two, four and two images of three people, among 11 images in all.
    assert compute_chance(open_set_record) == pytest.approx((2 * 1 + 4 * 3 + 2 * 1) / 8 / 10)
    assert compute_chance(make_record(protocol={"name": "view2", "folds": 10})) == 0.5
    assert compute_chance(make_record(people=52)) == 1 / 52
    assert compute_chance(make_record(protocol={"name": "open_set"})) is None


def test_an_open_set_record_is_read_as_it_was_written(open_set_record) -> None:
    assert TrialRecord.from_json(open_set_record.to_json()) == open_set_record
    assert open_set_record.view.tests_strangers
    assert open_set_record.view.folds == 5
