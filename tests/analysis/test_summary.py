import dataclasses
import statistics

import pytest

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.metrics import compute_wilson_interval

KFOLD = {"name": "kfold", "folds": 3}


def kfold_records(make_record, counts, **settings):
    """counts[seed][fold] right of 10, 20 and 30 images."""
    return [
        make_record(correct=correct, tested=10 * (fold + 1), seed=seed, protocol={**KFOLD, "fold": fold}, **settings)
        for seed, row in enumerate(counts)
        for fold, correct in enumerate(row)
    ]


def test_folds_are_pooled_by_their_images(make_record):
    (summary,) = summarize_records(kfold_records(make_record, [[5, 15, 27]]))
    assert summary.accuracy == pytest.approx(47 / 60)
    assert (summary.accuracy_low, summary.accuracy_high) == pytest.approx(compute_wilson_interval(47, 60))
    assert (summary.tested, summary.trials, summary.seeds, summary.folds) == (60, 3, (0,), (0, 1, 2))
    assert summary.seed_deviation is None
    assert summary.complete


def test_another_seed_adds_no_test_images(make_record):
    (summary,) = summarize_records(kfold_records(make_record, [[5, 15, 27], [7, 15, 29]]))
    assert summary.accuracy == pytest.approx(98 / 120)
    assert summary.tested == 60
    assert (summary.accuracy_low, summary.accuracy_high) == pytest.approx(compute_wilson_interval(49, 60))
    assert summary.seed_deviation == pytest.approx(statistics.stdev([47 / 60, 51 / 60]))


def test_seeds_that_saw_different_folds_have_no_deviation(make_record):
    records = kfold_records(make_record, [[5, 10, 15], [6, 10, 15]])[:-1]
    (summary,) = summarize_records(records)
    # Each fold by the seeds that ran it: 5.5 of 10, 10 of 20, 15 of 30.
    assert summary.accuracy == pytest.approx(30.5 / 60)
    assert summary.seed_deviation is None
    assert not summary.complete


def test_missing_folds_are_incomplete(make_record):
    (summary,) = summarize_records(kfold_records(make_record, [[5, 10]]))
    assert (summary.tested, summary.complete) == (30, False)


def test_another_split_of_the_same_faces_adds_no_images(make_record):
    records = [make_record(correct=c, tested=104, protocol={"split_seed": s}) for s, c in enumerate([90, 94])]
    (summary,) = summarize_records(records)
    assert (summary.tested, summary.trials) == (104, 2)
    assert summary.accuracy == pytest.approx(92 / 104)


def test_one_network_however_it_is_spelt(make_record):
    records = [
        make_record(seed=0),
        # None is none, wherever it would have been; a name and a folder decide nothing.
        make_record(seed=1, attention={"placement": "all", "gamma": 3.0}),
        make_record(seed=2, arch={"name": "another"}, data={"cache_dir": "elsewhere", "root": "there"}),
    ]
    (summary,) = summarize_records(records)
    assert summary.seeds == (0, 1, 2)
    assert (summary.attention, summary.placement) == ("none", "")


def test_kernel_rules_with_the_same_kernels_are_one_network(make_record):
    attentions = [{"gamma": 2.0}, {"gamma": 2.0, "b": 1.05}]
    records = [make_record(seed=i, attention={"kind": "eca", **a}) for i, a in enumerate(attentions)]
    assert len(summarize_records(records)) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": {"kind": "eca"}},
        {"arch": {"width_multiplier": 0.5}},
        {"data": {"resolution": 96}},
        {"recipe": {"epochs": 60}},
    ],
)
def test_what_decides_a_result_keeps_networks_apart(make_record, settings):
    assert len(summarize_records([make_record(), make_record(**settings)])) == 2


def test_a_spec_this_package_cannot_build_is_still_grouped(make_record):
    records = [make_record(seed=seed) for seed in (0, 1)]
    for record in records:
        record.spec["arch"]["a_field_of_tomorrow"] = 1
    (summary,) = summarize_records(records)
    assert summary.seeds == (0, 1)


def test_a_trial_recorded_twice_counts_once(make_record):
    (summary,) = summarize_records([make_record(correct=80), make_record(correct=80)])
    assert summary.trials == 1


def test_over_the_cap_has_a_size_and_no_accuracy(make_record):
    (summary,) = summarize_records([make_record(status="over_cap", params=2_663_000)])
    assert (summary.status, summary.bytes_float32) == ("over_cap", 10_652_000)
    assert summary.accuracy is summary.accuracy_low is summary.tested is None


def test_failures_are_kept_with_their_errors(make_record):
    records = [make_record(), make_record(seed=1, status="failed", params=None, error="NaN loss at step 5")]
    (summary,) = summarize_records(records)
    assert (summary.status, summary.trials, summary.failed_trials) == ("done", 1, 1)
    assert summary.errors == ("NaN loss at step 5",)
    assert summary.params == 2_200_448


def test_a_network_stopped_early_has_no_accuracy_and_is_no_failure(make_record):
    pruned = make_record(status="pruned", correct=99, epochs=4)
    (alone,) = summarize_records([pruned])
    assert (alone.status, alone.trials, alone.pruned_trials, alone.failed_trials) == ("pruned", 0, 1, 0)
    assert (alone.accuracy, alone.seeds, alone.errors, alone.params) == (None, (), (), 2_200_448)
    (both,) = summarize_records([pruned, make_record(seed=1, correct=52)])
    assert (both.status, both.trials, both.pruned_trials, both.accuracy) == ("done", 1, 1, 0.5)


def test_the_gallery_metric_has_its_own_numbers(make_record):
    record = make_record(correct=80, accuracy_gallery=0.5, correct_gallery=52)
    (summary,) = summarize_records([record], "accuracy_gallery")
    assert summary.accuracy == 0.5
    assert (summary.accuracy_low, summary.accuracy_high) == pytest.approx(compute_wilson_interval(52, 104))


def test_a_teacher_that_was_measured_in_every_trial_is_a_level(make_record):
    taught = [
        make_record(protocol={"name": "view2", "fold": fold}, teacher={"measured": {"view2": own}})
        for fold, own in enumerate((0.95, 0.97))
    ]
    assert summarize_records(taught)[0].teacher == pytest.approx(0.96)
    # The measure of one protocol is no level for another measure.
    known = make_record(teacher={"measured": {"accuracy_gallery": 0.9}}, accuracy_gallery=0.5, correct_gallery=52)
    levels = [summarize_records([known], metric)[0].teacher for metric in ("accuracy", "accuracy_gallery")]
    assert levels == [None, 0.9]
    # Unknown for one of the trials: no level.
    assert summarize_records([*taught, make_record(protocol={"name": "view2", "fold": 2})])[0].teacher is None


def test_a_record_without_the_metric_is_named_and_not_invented(make_record):
    (summary,) = summarize_records([make_record(accuracy_gallery=None)], "accuracy_gallery")
    assert (summary.status, summary.accuracy) == ("failed", None)
    assert summary.errors == ("done, but the record has no accuracy_gallery",)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({}, {"data": {"name": "synthetic"}}, r"data sets: lfw52 \(1 trials\), synthetic \(1 trials\)"),
        ({"data_variant": "funneled"}, {"seed": 1, "data_variant": "deepfunneled"}, "data sets: lfw52 .funneled"),
        ({}, {"seed": 1, "synthetic": True}, "synthetic"),
        ({}, {"protocol": {"name": "kfold"}}, "protocols: holdout with test_per_person=2"),
        ({}, {"protocol": {"test_per_person": 6}}, "test_per_person=6"),
        ({"protocol": {"name": "kfold"}}, {"protocol": {"name": "kfold", "folds": 10}}, "folds=10"),
        ({}, {"data": {"people": 20}}, r"settings of lfw52: data.people \(0, 20\)"),
        (
            {"data": {"name": "folder"}, "data_fingerprint": "a"},
            {"data": {"name": "folder"}, "seed": 1, "data_fingerprint": "b"},
            r"versions of one data set: the pixels of the faces changed while trials of .*: a \(1\); --faces a",
        ),
    ],
)
def test_what_cannot_share_an_axis_is_refused_in_one_line(make_record, one, other, message):
    with pytest.raises(FrontierError, match=message) as caught:
        summarize_records([make_record(**one), make_record(**other)])
    assert "\n" not in str(caught.value)
    assert "use them separately" in str(caught.value)


def test_a_refused_network_that_never_saw_its_faces_is_comparable(make_record):
    records = [
        make_record(data_variant="deepfunneled", data_fingerprint="a"),
        make_record(status="over_cap", params=2_663_000, attention={"kind": "se", "reduction": 4}),
    ]
    assert [s.status for s in summarize_records(records)] == ["done", "over_cap"]


def test_unknown_metric_names_the_choices(make_record):
    with pytest.raises(FrontierError, match="accuracy, accuracy_gallery"):
        summarize_records([make_record()], "loss")


def test_no_records_give_no_networks():
    assert summarize_records([]) == []


def test_summaries_are_plain_data(make_record):
    (summary,) = summarize_records([make_record()])
    assert dataclasses.asdict(summary)["resolution"] == 64


def test_a_pretrained_network_is_another_than_the_network_alone(make_record):
    records = [make_record(correct=50, tested=100, seed=seed) for seed in (0, 1)]
    records[1].spec["pretrain"] = {"name": "lfw_rest", "seed": 0}
    alone, pretrained = summarize_records(records)
    assert (alone.trials, pretrained.trials) == (1, 1)
    assert pretrained.label == "pretrained on lfw_rest"
    assert alone.label != pretrained.label
