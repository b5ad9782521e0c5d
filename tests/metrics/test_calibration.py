"""Thresholds from strangers' pairs: counted by hand, and their intervals held against many drawn crowds."""

from __future__ import annotations

import dataclasses
import itertools
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from ffem_jax.metrics import calibration as module
from ffem_jax.metrics.calibration import Calibration, CalibrationError, compute_calibration, read_calibration
from ffem_jax.metrics.verification import compute_pair_distances


def list_impostor_distances(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By pairs, one after another."""
    pairs = [(a, b) for a, b in itertools.combinations(range(len(labels)), 2) if labels[a] != labels[b]]
    first, second = np.array(pairs).T
    return np.sort(compute_pair_distances(vectors[first], vectors[second]))


def draw_crowd(people: int, pictures: int, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), pictures)
    return draw.normal(size=(people, 8))[labels] + spread * draw.normal(size=(len(labels), 8)), labels


@given(st.integers(3, 8), st.integers(1, 4), st.integers(0, 50), st.floats(0, 1))
def test_a_threshold_accepts_as_many_pairs_as_it_may_and_no_more(
    people: int, pictures: int, seed: int, rate: float
) -> None:
    vectors, labels = draw_crowd(people, pictures, seed)
    calibration = compute_calibration(vectors, labels, "model")
    distances = list_impostor_distances(vectors, labels)
    assert (calibration.people, calibration.images, calibration.pairs) == (people, len(labels), distances.size)
    # The two ways to a distance differ in their last digit.
    accepted = int((distances <= calibration.choose_threshold(rate) - 1e-12).sum())
    assert accepted <= rate * distances.size + 1e-6
    if distances.size <= 100:  # up to there the curve has every count
        assert accepted == int(rate * distances.size + 1e-9)
    for told in calibration.told:
        assert (
            told.accepted
            == (distances <= told.threshold - 1e-12).sum()
            <= told.false_accept_rate * distances.size + 1e-6
        )
        assert told.low <= told.accepted / distances.size <= told.high


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = draw_crowd(9, 5, 1)
    whole = compute_calibration(*crowd, "model")
    monkeypatch.setattr(module, "BLOCK_IMAGES", 7)
    assert compute_calibration(*crowd, "model").curve == pytest.approx(np.array(whole.curve))


def test_a_large_crowd_is_thinned_evenly_and_its_curve_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IMAGES", 300)
    calibration = compute_calibration(*draw_crowd(100, 6, 2), "model")
    assert (calibration.people, calibration.images) == (100, 300)
    assert calibration.pairs == 300 * 299 // 2 - 100 * 3
    assert len(calibration.curve) < 500
    assert calibration.curve[0][0] == 0
    assert calibration.choose_threshold(0) < calibration.choose_threshold(1) == 1


@pytest.mark.parametrize("people", [0, 1, 2])
def test_too_few_people(people: int) -> None:
    vectors, labels = draw_crowd(people, 4, 0)
    with pytest.raises(CalibrationError, match="at least 3 people"):
        compute_calibration(vectors, labels, "model")


def test_different_pictures_with_one_vector_are_accepted_by_no_zero_rate() -> None:
    vectors, labels = draw_crowd(4, 2, 0)
    vectors[2] = vectors[0]
    assert compute_calibration(vectors, labels, "model").choose_threshold(0) < 0


@given(st.integers(4, 8), st.integers(1, 4), st.integers(0, 50), st.data())
def test_one_picture_under_two_names_is_no_pair_of_different_people(
    people: int, pictures: int, seed: int, data: st.DataObject
) -> None:
    vectors, labels = draw_crowd(people, pictures, seed)
    plain = compute_calibration(vectors, labels, "model", content=range(len(labels)))
    # Copies of person 0's first picture under others, and of another's under the same person.
    others = data.draw(st.lists(st.integers(1, people - 1), max_size=3, unique=True))
    content = [*range(len(labels)), *[0] * len(others), len(labels) - 1]
    copied = np.concatenate([vectors, vectors[[0] * len(others) + [-1]]])
    found = compute_calibration(copied, [*labels, *others, people - 1], "model", content=content)
    assert (found.contested, found.repeated) == (len(others) + 1 if others else 0, 1)
    kept = np.arange(len(labels)) > 0 if others else slice(None)
    expected = compute_calibration(vectors[kept], labels[kept], "model")
    assert (found.curve, found.pairs) == (expected.curve, expected.pairs)
    assert found.curve[0][1] > 0
    if not others:
        assert found.curve == plain.curve


def test_a_crowd_of_contested_pictures_is_too_few() -> None:
    vectors, _ = draw_crowd(4, 1, 0)
    with pytest.raises(
        CalibrationError, match="at least 3 people.*there are 2 without the 2 images that occur under more"
    ):
        compute_calibration(vectors, range(4), "model", content=[0, 0, 1, 2])


# ------------------------------------------------------------------------------- how sure it is


def test_pairs_that_share_people_count_for_less() -> None:
    """Of 30 people, 20 pictures each, nearly alike, there is little more to learn than from one picture each."""
    once = compute_calibration(*draw_crowd(30, 1, 3), "model")
    often = compute_calibration(*draw_crowd(30, 20, 3, spread=0.05), "model")
    assert often.pairs == 400 * once.pairs
    assert once.design_effect < 3
    assert often.design_effect > 50
    rate = next(told for told in often.told if told.false_accept_rate == 0.01)
    assert rate.high / 0.01 > 1.3, "174,000 pairs that were independent would say 1.05"


@pytest.mark.slow
def test_intervals_of_few_people_hold_the_true_rate_in_nine_of_ten() -> None:
    # They claim 95 %. Of 25 people they hold it in 181 of 200 draws, and as independent pairs in 154.
    true_vectors, _ = draw_crowd(2500, 1, 999)
    true_distances = compute_pair_distances(true_vectors[:1250], true_vectors[1250:])
    for seed in range(40):
        shuffled = np.random.default_rng(seed).permutation(2500)
        true_distances = np.append(
            true_distances, compute_pair_distances(true_vectors[shuffled[:1250]], true_vectors[shuffled[1250:]])
        )
    held, naive = 0, 0
    for seed in range(200):
        vectors, labels = draw_crowd(25, 4, seed)
        told = next(
            told for told in compute_calibration(vectors, labels, "model").told if told.false_accept_rate == 0.1
        )
        rate = float((true_distances <= told.threshold).mean())
        pairs = 25 * 24 * 8
        held += told.low <= rate <= told.high
        naive += abs(rate - 0.1) <= 1.96 * (0.09 / pairs) ** 0.5
    assert held >= 180
    assert naive < held


def test_it_says_what_is_missing() -> None:
    calibration = dataclasses.replace(
        compute_calibration(*draw_crowd(30, 3, 3), "model"), pairs=3000, design_effect=3.0, people=30
    )
    assert calibration.has_enough(0.003)
    assert not calibration.has_enough(0.0029)
    assert calibration.describe_shortage(0.001) == (
        "a false-accept rate of 0.001 per comparison takes about 3,000 independent pairs; "
        "the 3,000 pairs from 30 people count as 1,000"
    )


# ---------------------------------------------------------------------------------------- files


def test_it_is_read_back_as_it_was() -> None:
    content = [0, *range(1, 35), 0]
    calibration = compute_calibration(*draw_crowd(12, 3, 3), "model", synthetic=True, content=content)
    assert calibration.contested == 2
    read = read_calibration(json.loads(json.dumps(calibration.to_dict())))
    assert read == calibration
    assert isinstance(read, Calibration)


def test_a_file_of_an_earlier_version_is_read() -> None:
    calibration = compute_calibration(*draw_crowd(12, 3, 3), "model")
    row = calibration.to_dict()
    del row["left_out"]
    assert read_calibration(row) == calibration


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"curve": []}, {"curve": [[1, 0.5]]}, {"curve": [[0, 0.5], [1, 0.4]]},
        {"curve": [[0, float("nan")]]}, {"curve": 7}, {"pairs": 0}, {"pairs": "many"}, {"design_effect": 0.5},
        {"rates": [{"x": 1}]}, {"left_out": 2}, {"left_out": {"contested": "many"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_file_is_refused(change: dict) -> None:
    row = compute_calibration(*draw_crowd(12, 3, 3), "model").to_dict()
    with pytest.raises(CalibrationError):
        read_calibration({**row, **change})


@pytest.mark.parametrize("row", [None, [], "text", {}, 1])
def test_what_is_no_calibration_is_refused(row: object) -> None:
    with pytest.raises(CalibrationError):
        read_calibration(row)
