"""Folds put together: means and pooled rates worked by hand, folds that are missing, records that do not belong."""

from __future__ import annotations

import math

import pytest

from ffem_jax.analysis.summary import FrontierError
from ffem_jax.reports.view2 import View2Error, combine_folds


def test_the_mean_its_error_and_the_pooled_pairs(make_fold):
    records = [
        make_fold(0, (0.1, 0.5), (0.4, 0.9), correct=3),
        make_fold(1, (0.2, 0.3), (0.8, 0.7), correct=4),
        make_fold(2, (0.1, 0.6), (0.5, 0.9), correct=2),
        make_fold(3, (0.2, 0.3), (0.7, 0.9), correct=3),
    ]
    (result,) = combine_folds(records)
    assert (result.folds, result.missing, result.accuracies) == ((0, 1, 2, 3), (), (0.75, 1.0, 0.5, 0.75))
    assert result.accuracy == 0.75
    assert result.standard_error == pytest.approx(math.sqrt((0.25**2 * 2) / 3) / 2)
    assert (result.same_pairs, result.different_pairs, result.params) == (8, 8, 2_200_448)
    # By the other folds' own distances 0.3 suits every fold best, or as well as any: 3, 4, 3 and 4 of 4 are right.
    assert result.accuracy_strangers == 0.875
    assert result.standard_error_strangers == pytest.approx(math.sqrt((0.125**2 * 4) / 3) / 2)
    # Ranked: six same pairs up to 0.3, a different one at 0.4, one of each at 0.5, the last same pair at 0.6.
    assert (result.tar_at_far_1e2, result.tar_at_far_1e3) == (6 / 8, 6 / 8)
    assert result.eer == 0.25  # at 0.4 FAR is 1/8 and 2/8 are rejected
    assert result.auc == pytest.approx((6 * 8 + 6.5 + 6) / 64)


def test_folds_that_are_missing_or_failed_are_named(make_fold):
    failed = make_fold(3, status="failed", error="MemoryError: no room", verification={})
    (result,) = combine_folds([make_fold(2, correct=4), failed])
    assert (result.folds, result.missing, result.errors) == ((2,), (0, 1, 3), ("MemoryError: no room",))
    assert (result.accuracy, result.standard_error) == (1.0, None)
    assert (result.accuracy_strangers, result.standard_error_strangers) == (None, None)


def test_networks_and_seeds_stand_apart(make_fold):
    records = [make_fold(f, seed=s, attention=a) for a in ("none", "eca") for s in (0, 1) for f in range(4)]
    results = combine_folds(records)
    labels = [result.label for result in results]
    assert len(set(labels)) == 4
    assert [label[-6:] for label in labels] == ["seed 0", "seed 1"] * 2
    assert all(result.missing == () for result in results)


def test_a_fold_recorded_again_counts_once(make_fold):
    (result,) = combine_folds([make_fold(0, correct=1), make_fold(0, correct=4, data={"root": "moved"})])
    assert (result.folds, result.accuracies) == ((0,), (1.0,))


def test_records_that_hold_no_fold_or_mix_data_are_refused(make_fold):
    with pytest.raises(View2Error, match="no fold of View 2 is recorded as done: ffem train"):
        combine_folds([])
    with pytest.raises(View2Error, match="done; 1 trials of it failed"):
        combine_folds([make_fold(0, status="failed", verification={})])
    with pytest.raises(FrontierError, match=r"data\.min_images \(10, 4\)"):
        combine_folds([make_fold(0, data={"min_images": 10}), make_fold(1, data={"min_images": 4})])
    held_out = make_fold(1)
    held_out.spec["protocol"]["validation_per_person"] = 1
    with pytest.raises(FrontierError, match="view2 with validation_per_person=0 .*validation_per_person=1"):
        combine_folds([make_fold(0), held_out])
