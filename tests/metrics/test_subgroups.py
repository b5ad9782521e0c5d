"""Accuracy by group: by hand, against SciPy's Fisher test where images are independent, and where people are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from ffem_jax.metrics.intervals import compute_clustered_interval
from ffem_jax.metrics.subgroups import FEWEST_IMAGES, FEWEST_PEOPLE, compute_group_accuracies, compute_largest_gap


def test_a_case_by_hand():
    # Group a: images 0, 1, 4 of people 0, 0, 2, right in 1, 1/2 and 0 of their tests.
    a, b = compute_group_accuracies([1, 0.5, 1, 1, 0], ["a", "a", "b", "b", "a"], [0, 0, 1, 1, 2])
    assert (a.name, a.images, a.people, a.accuracy) == ("a", 3, 2, 0.5)
    assert (a.low, a.high) == compute_clustered_interval([1, 0.5, 0], [0, 0, 2])
    assert (b.name, b.images, b.people, b.accuracy, b.high) == ("b", 2, 1, 1.0, 1.0)
    assert not a.enough
    assert not b.enough


@given(st.lists(st.tuples(st.sampled_from([0.0, 1 / 3, 1.0]), st.sampled_from("abc"), st.integers(0, 3)), min_size=1))
def test_groups_hold_every_image_once_and_average_to_the_whole(rows):
    rates, groups, people = map(np.asarray, zip(*rows, strict=True))
    found = compute_group_accuracies(rates, groups, people)
    assert sum(group.images for group in found) == len(rows)
    assert sum(group.images * group.accuracy for group in found) == pytest.approx(rates.sum())
    assert all(0 <= g.low <= g.accuracy + 1e-12 and g.accuracy - 1e-12 <= g.high <= 1 for g in found)


@pytest.mark.parametrize(("images", "people"), [(FEWEST_IMAGES - 1, FEWEST_PEOPLE), (FEWEST_IMAGES, FEWEST_PEOPLE - 1)])
def test_a_group_of_few_images_or_people_is_not_tested(images, people):
    small = np.arange(images) % people
    large = 100 + np.arange(60) % 10
    arrays = np.ones(images + 60), np.repeat(["small", "large"], [images, 60]), np.concatenate([small, large])
    assert [group.enough for group in compute_group_accuracies(*arrays)] == [True, False]
    assert compute_largest_gap(*arrays) is None


def test_one_image_a_person_is_fishers_exact_test():
    rates = np.repeat([1, 0, 1, 0], [30, 20, 42, 8])
    gap = compute_largest_gap(rates, np.repeat(["a", "b"], 50), np.arange(100))
    assert (gap.best, gap.worst, gap.drawn) == ("b", "a", "people")
    assert gap.difference == pytest.approx(12 / 50)
    assert gap.p_value == pytest.approx(fisher_exact([[30, 20], [42, 8]]).pvalue, abs=0.005)


def test_images_that_go_together_are_not_so_many_opinions():
    # 5 of 10 people of group a are always wrong: 100 images of each group say as much as 10 people do.
    people = np.repeat(np.arange(20), 10)
    groups = np.where(people < 10, "a", "b")
    rates = np.where(people < 5, 0.0, 1.0)
    gap = compute_largest_gap(rates, groups, people)
    assert gap.drawn == "people"
    assert gap.p_value == pytest.approx(fisher_exact([[5, 5], [10, 0]]).pvalue, abs=0.01)
    assert fisher_exact([[50, 50], [100, 0]]).pvalue < 1e-9


def test_what_people_differ_by_is_taken_off_a_group_within_people():
    # Hard people wear glasses more often, and glasses themselves change nothing.
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 20)
    hard = people < 10
    glasses = random.random(400) < np.where(hard, 0.8, 0.2)
    rates = (random.random(400) < np.where(hard, 0.4, 0.9)).astype(float)
    gap = compute_largest_gap(rates, np.where(glasses, "with", "without"), people)
    assert (gap.best, gap.drawn) == ("without", "images within people")
    assert gap.difference > 0.2
    assert gap.p_value > 0.05
    # Here they do.
    worse = rates * (random.random(400) < np.where(glasses, 0.5, 1.0))
    assert compute_largest_gap(worse, np.where(glasses, "with", "without"), people).p_value < 0.01


def test_looking_for_the_largest_of_many_gaps_finds_one_no_more_often():
    """20 deals of 4 groups without any gap: about one p-value in twenty is under 0.05."""
    random = np.random.default_rng(3)
    people = np.repeat(np.arange(40), 8)
    found = [
        compute_largest_gap(random.random(320) < 0.7, np.asarray(list("abcd"))[people % 4], people, draws=200, seed=i)
        for i in range(40)
    ]
    assert sum(gap.p_value < 0.05 for gap in found) <= 6


def test_the_order_of_images_decides_nothing_but_chance_and_shapes_must_agree():
    random = np.random.default_rng(5)
    arrays = random.random(200) < 0.6, np.asarray(["a", "b"])[np.arange(200) % 2], np.arange(200) // 20
    turned = [array[::-1] for array in arrays]
    assert compute_largest_gap(*arrays).p_value == pytest.approx(compute_largest_gap(*turned).p_value, abs=0.03)
    assert compute_largest_gap(*arrays) == compute_largest_gap(*arrays)
    with pytest.raises(ValueError, match="must be .image. each"):
        compute_group_accuracies([1, 0], ["a"], [0, 0])
