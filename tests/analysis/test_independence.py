"""Trainings that share a pretraining, a teacher or a split: what is drawn anew, and how often the interval holds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from made_records import build_record
from made_trainings import IMAGES, ONCE, SPLIT, draw_trials, make_trial, start

from ffem_jax.analysis.agreement import measure_agreement
from ffem_jax.analysis.answer import answer_records, lay_out
from ffem_jax.analysis.comparability import FrontierError, Run
from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.groups import choose_records
from ffem_jax.analysis.independence import compute_deviation, describe_exclusions, label_draws, label_units
from ffem_jax.analysis.pairing import find_pairs
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.comparison import list_sentences, write_page


def forget(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The same answers as of independent trainings, each from a start that nobody shares."""
    own: dict[str, int] = {}
    again = []
    for record in records:
        kind = record.spec["arch"]["attention"]["kind"]
        own[kind] = own.get(kind, -1) + 1
        made = build_record(seed=own[kind], attention={"kind": kind})
        again.append(dataclasses.replace(record, spec=made.spec, seed=own[kind], trial_key=made.trial_key))
    return again


# ---------------------------------------------------------------------------------------- coverage


@pytest.mark.slow
def test_the_interval_holds_the_truth_over_pretrainings_and_did_not_over_their_seeds() -> None:
    random, held, before = np.random.default_rng(3), 0, 0
    for _ in range(30):
        records = draw_trials(random, (0, 1, 2), effect=0.08)
        (row,) = compare_records(records, "attention.kind").rows
        held += row.low <= 0 <= row.high
        (row,) = compare_records(forget(records), "attention.kind").rows
        before += row.low <= 0 <= row.high
    assert held >= 26, "95 % claimed"
    assert before <= 24, "seeds of one pretraining are no independent trainings"


def test_the_row_says_how_many_were_drawn() -> None:
    comparison = compare_records(draw_trials(np.random.default_rng(0), (0, 1, 2)), "attention.kind")
    (row,) = comparison.rows
    assert (row.pretrainings, row.seeds, row.pairs, row.tests) == (3, 9, 9, 9 * IMAGES)
    assert list_sentences(comparison)[1] == (
        "3 pretrainings per network: the intervals resample them, each with all its trainings."
    )
    page = write_page(comparison)
    assert "images and pretrainings, each with its seeds, are resampled" in page
    assert ONCE not in page


def test_with_one_pretraining_the_numbers_are_those_of_its_seeds_and_the_sentence_says_it() -> None:
    records = draw_trials(np.random.default_rng(1), (4,), seeds=4)
    once, alone = (compare_records(own, "attention.kind") for own in (records, forget(records)))
    assert dataclasses.replace(once.rows[0], pretrainings=0) == alone.rows[0]
    assert once.rows[0].pretrainings == 1
    assert list_sentences(once) == [*list_sentences(alone)[:1], ONCE, SPLIT]
    assert ONCE not in list_sentences(alone)


def test_two_pretrainings_say_next_to_nothing_of_a_third() -> None:
    random = np.random.default_rng(2)
    widths = []
    for pretrainings in ((0, 1), (0, 1, 2), (0, 1, 2, 3, 4, 5)):
        (row,) = compare_records(draw_trials(random, pretrainings, seeds=2), "attention.kind").rows
        widths.append(row.high - row.low)
    assert widths == sorted(widths, reverse=True)


# ----------------------------------------------------------------------------- what else is shared


def test_seeds_of_one_split_are_drawn_with_it() -> None:
    runs = [Run(seed, 0, split, 0) for split in (0, 1, 2) for seed in (0, 1)]
    assert label_units(runs) == [0, 0, 1, 1, 2, 2]
    assert label_units(runs[:2]) == runs[:2], "one split cannot be drawn anew"
    # Two seeds that say the same of each of three splits are three opinions and no six.
    random = np.random.default_rng(5)
    records = [
        make_trial(random.random(IMAGES) < 0.6, attention={"kind": kind}, protocol={"split_seed": split})
        for split in (0, 1, 2) for kind in ("none", "eca")
    ]  # fmt: skip
    again = [
        build_record(seed=1, attention={"kind": r.spec["arch"]["attention"]["kind"]}, protocol=r.spec["protocol"])
        for r in records
    ]
    twins = [
        dataclasses.replace(record, spec=other.spec, seed=1, trial_key=other.trial_key)
        for record, other in zip(records, again, strict=True)
    ]
    (one,) = compare_records(records, "attention.kind").rows
    (two,) = compare_records([*records, *twins], "attention.kind").rows
    assert (one.seeds, two.seeds) == (3, 6)
    assert (two.low, two.high) == pytest.approx((one.low, one.high), abs=0.004)


def test_where_the_pretraining_is_the_factor_its_seeds_are_drawn_too() -> None:
    """Seeds without a pretraining stand against the same seeds of each pretraining: both are shared."""
    random = np.random.default_rng(6)
    records = draw_trials(random, (None,), kinds=("none",)) + draw_trials(
        random, (0, 1, 2), kinds=("none",), effect=0.15
    )
    (row,) = compare_records(records, "pretrain.name").rows
    assert (row.first, row.second, row.pairs, row.seeds, row.pretrainings) == ("none", "rest", 9, 3, 3)
    means = [np.mean([r.accuracy for r in records[3 * k + 3 : 3 * k + 6]]) for k in range(3)]
    # Student's t of three means is 4.3 standard errors, and that alone is in it.
    assert (row.high - row.low) / 2 > 0.9 * 4.3 * statistics.stdev(means) / 3**0.5


def test_no_pretraining_is_lost_where_a_difference_is_followed_along_it() -> None:
    random = np.random.default_rng(7)
    records = draw_trials(random, (None,)) + draw_trials(random, (0, 1, 2))
    answer = answer_records(records)
    (interaction,) = answer.list_effects("interaction")
    assert (interaction.row.pretrainings, interaction.row.pairs, interaction.row.seeds) == (3, 9, 3)


def test_trainings_of_two_teachers_are_no_pair() -> None:
    random = np.random.default_rng(8)
    records = [
        make_trial(random.random(IMAGES) < 0.6, attention={"kind": kind}, teacher={"name": name, "vectors": name * 8})
        for kind, name in (("none", "a"), ("eca", "b"))
    ]
    with pytest.raises(FrontierError, match="no two of 2 trials differ only in"):
        compare_records(records, "attention.kind")
    same = dataclasses.replace(records[1], teacher=records[0].teacher, trial_key="taught by the other")
    (sentence,) = compare_records([records[0], same], "attention.kind").exclusions
    assert sentence == "Taught by one teacher: the intervals exclude variance between teachers."
    assert compare_records([*records, same], "teacher.vectors").rows[0].pairs == 1


def test_one_training_in_two_files_or_of_two_releases_counts_once() -> None:
    records = draw_trials(np.random.default_rng(9), (0, 1, 2))
    # The same training under another key, as of a matching threshold that no accuracy depends on.
    again = [dataclasses.replace(record, trial_key=record.trial_key[::-1]) for record in records]
    assert compare_records([*records, *again], "attention.kind").rows == compare_records(records, "attention.kind").rows
    assert len(choose_records([*records, *again])) == len(records)
    (first, *_), (second, *_) = (summarize_records(own) for own in (records, [*records, *again]))
    assert (second.accuracy, second.seed_deviation) == (first.accuracy, first.seed_deviation)
    assert measure_agreement([*records, *again]) == measure_agreement(records)


def test_folds_of_one_run_are_no_trainings_to_draw() -> None:
    random = np.random.default_rng(10)
    records = []
    for kind in ("none", "eca"):
        for fold in range(3):
            images = list(range(fold, IMAGES, 3))
            trial = make_trial(
                random.random(100) < 0.6, attention={"kind": kind}, test_images=images, pretrain=start(0),
                protocol={"name": "kfold", "folds": 3, "fold": fold},
            )  # fmt: skip
            records.append(trial)
    comparison = compare_records(records, "attention.kind")
    assert (comparison.rows[0].seeds, comparison.rows[0].pretrainings) == (1, 1)
    assert comparison.exclusions == (ONCE,)


# -------------------------------------------------------------------------------------- deviation


def test_the_deviation_of_another_training_is_that_between_pretrainings_and_within() -> None:
    rates = {Run(seed, first, 0, 0): 0.6 + 0.1 * first for first in (0, 1, 2) for seed in (0, 1, 2)}
    assert compute_deviation(rates) == pytest.approx(0.1), "the three pretrainings', whatever the number of seeds"
    assert compute_deviation({run: rate for run, rate in rates.items() if not run.pretraining_seed}) == 0.0
    one_each = {run: rate for run, rate in rates.items() if not run.seed}
    assert compute_deviation(one_each) == pytest.approx(statistics.stdev(one_each.values()))
    assert compute_deviation({Run(0, 0, 0, 0): 0.5}) is None
    random, found = np.random.default_rng(11), []
    for _ in range(400):
        shifts = 0.03 * random.standard_normal(4)
        drawn = {Run(s, p, 0, 0): shifts[p] + 0.02 * random.standard_normal() for p in range(4) for s in range(3)}
        found.append((compute_deviation(drawn) or 0.0) ** 2)
    assert np.mean(found) == pytest.approx(0.03**2 + 0.02**2, rel=0.1)


def test_orders_of_seeds_that_share_a_pretraining_are_not_taken_for_another_training_s() -> None:
    """Seeds agree on what their pretraining happened to give; another pretraining does not."""
    random = np.random.default_rng(12)
    records = []
    for width in range(8):
        for first, lift in enumerate((width, 3 * width % 8)):
            for seed in (0, 1):
                hits = random.random(IMAGES) < 0.3 + 0.08 * lift
                arch = {"width_multiplier": 0.5 + 0.05 * width}
                records.append(make_trial(hits, arch=arch, pretrain=start(first), seed=seed))
    one = [record for record in records if record.view.pretrain.seed == 0]
    several, once = (measure_agreement(own).seeds for own in (records, one))
    assert several is not None
    assert once is not None
    assert once.tau > 0.6, "with one pretraining the seeds are all there is"
    assert several.tau < once.tau - 0.3


def test_the_power_of_a_design_is_that_of_its_pretrainings() -> None:
    records = draw_trials(np.random.default_rng(13), (0, 1, 2))
    pairs, _ = find_pairs(records, "arch.attention.kind")
    design = lay_out(pairs, 1)
    assert design.few
    assert set(design.runs) == set(design.trainings) == {0, 1, 2}
    shared, apart = (answer_records(own).list_effects("pair")[0].smallest for own in (records, forget(records)))
    assert apart is not None
    assert shared is None or shared > 1.5 * apart


def test_what_was_pretrained_once_is_counted_where_others_were_more_often() -> None:
    random = np.random.default_rng(15)
    records = draw_trials(random, (0, 1), kinds=("none",)) + draw_trials(random, (0,), kinds=("eca",))
    assert describe_exclusions(records, drawn=True)[0] == (
        "1 of 2 pretrained networks was pretrained once: the intervals of these exclude variance between pretraining "
        "runs."
    )
    assert describe_exclusions(records)[0] == (
        "1 to 2 pretrainings per network: the intervals exclude variance between pretraining runs."
    )
    assert describe_exclusions([]) == []
    some = [*draw_trials(random, (0,), kinds=("none",)), *draw_trials(random, (None,), kinds=("eca",))]
    assert describe_exclusions(some)[0] == ONCE.replace("Each network", "Each pretrained network")


def test_a_context_without_a_pretraining_is_none_of_several() -> None:
    """Trainings from scratch and from one pretraining: one is not drawn, and no second is invented. The trainings of a
    seed in both contexts are drawn together."""
    random = np.random.default_rng(16)
    records = draw_trials(random, (None,)) + draw_trials(random, (0,))
    (*_, overall) = compare_records(records, "attention.kind").rows
    assert (overall.overall, overall.pretrainings, overall.seeds) == (True, 1, 3)
    alone = [row for row in compare_records(records, "attention.kind").rows if not row.overall]
    assert overall.high - overall.low < max(row.high - row.low for row in alone)
    # With several, those from scratch are drawn by themselves beside them.
    several = draw_trials(random, (None,)) + draw_trials(random, (0, 1, 2))
    (*_, overall) = compare_records(several, "attention.kind").rows
    assert (overall.overall, overall.pretrainings, overall.seeds) == (True, 3, 9)
    labels = label_draws([(pair.run, pair.start) for pair in find_pairs(several, "arch.attention.kind")[0]])
    assert len(set(labels["starts"] or ())) == 6
    assert len(set(labels["units"])) == 12, "within the starts, and so not drawn beside them"
