"""Answers of sweeps that never ran, whose effects are known."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.analysis.answer import INTERACTION, PAIR, TREND, Answer, Effect, answer_records
from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.compare import compare_records
from ffem_jax.metrics.paired import correct_holm
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.answer import describe_design, list_sentences
from ffem_jax.specs.trial import DataSpec

IMAGES = 300
SIZES = (48, 64, 96, 128)
Rate = Callable[[str, int], float]


def make_trial(hits: np.ndarray, *, images: list[int] | None = None, **fields: Any) -> TrialRecord:
    text = "".join("1" if hit else "0" for hit in hits)
    images = list(range(len(hits))) if images is None else images
    known = {"test_images": images, "hits": text, "data_fingerprint": "f", "pictures_fingerprint": "p"}
    return build_record(correct=int(hits.sum()), tested=len(hits), **{**known, **fields})


def sweep(
    rate: Rate,
    *,
    seeds: int = 3,
    kinds: tuple[str, ...] = ("none", "eca"),
    sizes: tuple[int, ...] = SIZES,
    draw: int = 0,
) -> list[TrialRecord]:
    """Kinds of attention by resolution; `rate` is the accuracy of a kind at a size, on images of varying difficulty."""
    random = np.random.default_rng(draw)
    hard, records = 0.3 * random.random(IMAGES) - 0.15, []
    for kind, size, seed in itertools.product(kinds, sizes, range(seeds)):
        hits = random.random(IMAGES) < rate(kind, size) + hard
        attention = {"kind": kind} if kind == "none" else {"kind": kind, "placement": "last"}
        fields = {"attention": attention, "data": {"resolution": size}, "data_fingerprint": f"f{size}"}
        records.append(make_trial(hits, seed=seed, **fields))
    return records


def find(answer: Answer, factor: str, kind: str) -> list[Effect]:
    return [effect for effect in answer.effects if (effect.factor, effect.kind) == (factor, kind)]


def test_known_effects_are_found_with_their_size() -> None:
    answer = answer_records(sweep(lambda kind, size: 0.4 + 0.1 * np.log2(size / 48) + 0.12 * (kind == "eca")))
    (kind,) = find(answer, "attention.kind", PAIR)
    (trend,) = find(answer, "data.resolution", TREND)
    assert kind.row.significant
    assert kind.row.difference == pytest.approx(0.12, abs=0.03)
    assert trend.row.significant
    assert trend.row.difference == pytest.approx(0.1, abs=0.02)
    assert (trend.unit, trend.row.first, trend.row.second) == ("doubling", "48", "128")
    assert trend.row.low < 0.1 < trend.row.high
    (interaction,) = answer.list_effects(INTERACTION)
    assert (interaction.factor, interaction.other) == ("attention.kind", "data.resolution")
    assert not interaction.row.significant
    assert (answer.design.seeds, answer.design.images) == (3, IMAGES)


def test_an_interaction_is_found_with_its_size() -> None:
    answer = answer_records(sweep(lambda kind, size: 0.5 + (kind == "eca") * 0.2 * np.log2(size / 78), seeds=4))
    (interaction,) = answer.list_effects(INTERACTION)
    assert interaction.row.significant
    assert interaction.row.difference == pytest.approx(0.2, abs=0.05)
    assert interaction.unit == "doubling"


@pytest.mark.slow
def test_chance_alone_is_seldom_called_an_effect() -> None:
    sizes = (48, 64, 96)
    claims = [
        any(e.row.significant for e in answer_records(sweep(lambda *_: 0.5, seeds=2, sizes=sizes, draw=n)).effects)
        for n in range(6)
    ]
    assert sum(claims) <= 2


def test_pairs_are_those_of_the_comparison_and_one_correction_is_over_all() -> None:
    records = sweep(lambda kind, size: 0.5 + 0.04 * (kind == "eca"), seeds=2)
    answer = answer_records(records)
    main = answer.list_effects(PAIR, TREND)
    rows = compare_records(records, "data.resolution").rows
    overall = {(r.first, r.second): r for r in rows if r.overall}
    for effect in find(answer, "data.resolution", PAIR):
        row = overall[effect.row.first, effect.row.second]
        assert dataclasses.replace(effect.row, p_corrected=None) == dataclasses.replace(row, p_corrected=None)
    assert [e.row.p_corrected for e in main] == correct_holm([e.row.p_value for e in main])
    assert {e.family for e in main} == {len(main)} == {8}  # one pair of kinds, six of sizes, one trend


def test_the_predicted_difference_is_found_about_as_often_as_said() -> None:
    def build(draw: int, shift: float) -> list[TrialRecord]:
        return sweep(lambda kind, _: 0.5 + shift * (kind == "eca"), seeds=1, sizes=(64,), draw=draw)

    (effect,) = answer_records(build(0, 0.0)).effects
    assert effect.smallest is not None
    assert 0.05 < effect.smallest < 0.25
    found = sum(answer_records(build(1 + n, effect.smallest)).effects[0].row.significant for n in range(30))
    assert 17 <= found <= 29


def test_no_attention_at_every_placement_is_no_interaction() -> None:
    random = np.random.default_rng(5)
    attentions = [{"kind": "none"}, *({"kind": k, "placement": p} for k in ("eca", "se") for p in ("first", "last"))]
    records = [
        make_trial(random.random(IMAGES) < 0.5, attention=attention, seed=seed)
        for attention in attentions for seed in (0, 1)
    ]  # fmt: skip
    interactions = answer_records(records).list_effects(INTERACTION)
    assert [(e.row.first, e.row.second, e.other, e.other_levels) for e in interactions] == [
        ("eca", "se", "attention.placement", ("first", "last"))
    ]


# ------------------------------------------------------------------------------ what is incomplete


def test_one_seed_says_so() -> None:
    answer = answer_records(sweep(lambda kind, _: 0.3 + 0.4 * (kind == "eca"), seeds=1, sizes=(64,)))
    assert (answer.design.seeds, answer.effects[0].row.significant) == (1, True)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "none of the 0 recorded trials is done"),
        (sweep(lambda *_: 0.5, kinds=("eca",), sizes=(64,)), "nothing varies"),
        (sweep(lambda *_: 0.5, kinds=("eca",), sizes=(64,), seeds=1), "nothing varies: the records have one trial"),
        (
            [*sweep(lambda *_: 0.5), make_trial(np.ones(9, bool), data={"name": "folder"}, data_fingerprint="z")],
            "mix data sets",
        ),
        (
            [make_trial(np.ones(9, bool), attention={"kind": k}, seed=n) for n, k in enumerate(("none", "eca"))],
            "no two of 2 trials differ only in attention.kind",
        ),
    ],
)
def test_what_answers_nothing_says_why(records: list[TrialRecord], message: str) -> None:
    records = [dataclasses.replace(r, data=r.view.data.name) for r in records]
    with pytest.raises(FrontierError, match=message) as error:
        answer_records(records)
    assert "\n" not in str(error.value)


def test_failed_pruned_and_missing_trials_are_named() -> None:
    records = sweep(lambda *_: 0.5, seeds=2, sizes=(48, 64, 96))
    lost = dataclasses.replace(records[-1], status="failed", accuracy=None, hits="", error="out of memory\nmore")
    answer = answer_records([*records[:-1], lost])
    assert answer.notes[0] == "not in the answer: 1 failed, the first with: out of memory"
    missing = "seeds that other networks have, or folds of the protocol, are missing for: "
    assert any(note.startswith(missing) and "seed 1" in note for note in answer.notes)
    assert (
        "not in the trend along data.resolution, because a level is missing: 1 of 4 runs (seed, fold, context)"
        in answer.notes
    )


def test_missing_folds_are_named_and_leave_the_trend() -> None:
    random = np.random.default_rng(6)
    records = [
        make_trial(
            random.random(60) < 0.5, images=list(range(fold, IMAGES, 5)), seed=seed,
            arch={"width_multiplier": width}, protocol={"name": "kfold", "fold": fold, "folds": 5},
        )
        for width in (0.5, 0.75, 1.0) for seed in (0, 1) for fold in range(5)
        if (width, seed, fold) not in {(1.0, 1, 3), (1.0, 1, 4)}
    ]  # fmt: skip
    answer = answer_records(records)
    assert any("seed 1 fold 3 and 1 more" in note for note in answer.notes)
    (trend,) = find(answer, "arch.width_multiplier", TREND)
    assert (trend.row.pairs, trend.row.seeds, trend.row.tests) == (8, 2, 480)
    assert describe_design(answer)[0].endswith(", 5 folds.")
    first = [record for record in records if record.view.protocol.fold == 0]
    assert describe_design(answer_records(first))[0].endswith(", 1 of 5 folds.")


def test_records_that_do_not_say_what_was_right_have_no_test_and_no_power() -> None:
    records = [dataclasses.replace(r, hits="") for r in sweep(lambda *_: 0.5)]
    answer = answer_records(records)
    assert answer.chance is None
    assert all(e.row.p_value is None and e.smallest is None and not e.row.significant for e in answer.effects)
    assert any("no trend along data.resolution" in note for note in answer.notes)


def test_drawn_faces_of_several_sizes_have_no_trend() -> None:
    records = [
        dataclasses.replace(record, synthetic=True, data="synthetic")
        for record in sweep(lambda *_: 0.5, kinds=("eca",))
    ]
    answer = answer_records(records)
    assert answer.synthetic
    assert not answer.list_effects(TREND)


def test_a_name_and_its_setting_are_one_test() -> None:
    random = np.random.default_rng(7)
    records = [
        make_trial(random.random(IMAGES) < 0.5, attention={"kind": kind}, arch={"name": name}, seed=seed)
        for kind, name in (("none", "ffem"), ("eca", "ffem_am")) for seed in (0, 1)
    ]  # fmt: skip
    answer = answer_records(records)
    assert [(e.factor, e.family) for e in answer.effects] == [("attention.kind", 1)]
    assert any(note.startswith("arch.name: 1 of 1 differences") for note in answer.notes)


def test_factors_and_a_level_can_be_chosen() -> None:
    records = sweep(lambda *_: 0.5, kinds=("none", "eca", "se"), sizes=(64, 96))
    answer = answer_records(records, factors=["attention.kind"], against="none")
    assert [(e.row.first, e.row.second) for e in answer.effects] == [("none", "eca"), ("none", "se")]
    with pytest.raises(
        FrontierError, match="not a level of any factor here; choose one of: attention.kind: none, eca, se"
    ):
        answer_records(records, against="cbam")
    with pytest.raises(FrontierError, match="cannot be compared"):
        answer_records(records, factors=["arch.depth_multiplier"])


def test_people_are_the_sample_where_records_name_them() -> None:
    people = (np.arange(IMAGES) // 6).tolist()
    records = [dataclasses.replace(r, test_identities=people) for r in sweep(lambda *_: 0.5, sizes=(64, 96, 128))]
    answer = answer_records(records)
    assert answer.design.people == 50
    assert {e.row.people for e in answer.effects} == {50}


def test_shared_pretrainings_are_told() -> None:
    random = np.random.default_rng(8)
    records = [
        make_trial(
            random.random(IMAGES) < 0.5, attention={"kind": kind}, seed=seed,
            pretrain={"name": "rest", "data": DataSpec(name="lfw_rest", resolution=64), "seed": first},
        )
        for kind in ("none", "eca") for seed in (0, 1) for first in (0, 1)
    ]  # fmt: skip
    design = answer_records(records).design
    assert (design.pretrainings, design.nested, design.seeds) == (2, True, 4)


def test_what_is_true_of_all_factors_is_said_once() -> None:
    """Records of an older release have no hits, whichever factor is asked about."""
    records = [dataclasses.replace(r, hits="", hits_gallery="", test_images=[]) for r in sweep(lambda *_: 0.5)]
    answer = answer_records(records)
    assert len(answer.comparisons) > 1
    assert sum("do not record which of the same images were classified correctly" in note for note in answer.notes) == 1
    assert not any("so there is no test" in sentence for sentence in list_sentences(answer))
    assert any("do not list the correctly classified images" in line for line in describe_design(answer))
