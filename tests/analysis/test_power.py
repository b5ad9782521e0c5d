"""What a design can show: predictions against the comparison itself on made answers, closed forms, limits."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.power import (
    ASSUMED,
    Chance,
    Design,
    compute_power,
    estimate_chance,
    find_smallest_difference,
    make_design,
)
from ffem_jax.records.record import TrialRecord

NORMAL = NormalDist()


PEOPLE = 6  # images of each


def make_record(hits: np.ndarray, level: str, seed: int, **fields: Any) -> TrialRecord:
    kind = {"kind": level, "placement": "last"}
    text = "".join("1" if hit else "0" for hit in hits)
    known = {"test_images": list(range(len(hits))), "hits": text, "data_fingerprint": "a", "pictures_fingerprint": "p"}
    return build_record(correct=int(hits.sum()), tested=len(hits), attention=kind, seed=seed, **{**known, **fields})


def answer(
    random: np.random.Generator,
    images: int,
    seeds: int,
    shift: float,
    *,
    persistent: float,
    by_person: float,
    named: bool = False,
) -> list[TrialRecord]:
    """Two levels' answers by a latent score per image: another model than the one that predicts.

    persistent, by_person: shares of the variance, of what a level finds hard about an image, and about a person.
    """
    hard, people = random.standard_normal(images) * math.sqrt(0.6), np.arange(images) // PEOPLE
    records = []
    for level, better in (("none", 0.0), ("eca", shift)):
        own = math.sqrt(persistent) * random.standard_normal(images)
        own += math.sqrt(by_person) * random.standard_normal(images)[people]
        for seed in range(seeds):
            fresh = math.sqrt(0.4 - persistent - by_person) * random.standard_normal(images)
            whose = {"test_identities": people.tolist()} if named else {}
            records.append(make_record(hard + own + fresh + 0.6 + better > 0, level, seed, **whose))
    return records


@pytest.mark.parametrize(
    ("seeds", "persistent", "by_person", "named"),
    [
        pytest.param(1, 0.0, 0.0, False, id="one"),
        pytest.param(3, 0.0, 0.0, False, id="three", marks=pytest.mark.slow),
        pytest.param(2, 0.1, 0.02, False, id="mixed", marks=pytest.mark.slow),
        pytest.param(2, 0.05, 0.05, True, id="people"),
    ],
)
def test_the_predicted_power_is_that_of_the_comparison(
    seeds: int, persistent: float, by_person: float, named: bool
) -> None:
    """Chance is estimated from pilot records; at the predicted difference the real rule finds it four times in five."""
    images, random, shares = 240, np.random.default_rng(1), {"persistent": persistent, "by_person": by_person}
    pilot = [r for n in range(6) for r in answer(random, images, 2, 0.1, **shares)]
    pilot = [
        make_record(
            np.array(list(r.hits)) == "1", r.view.arch.attention.kind, r.seed, pictures_fingerprint=f"p{n // 4}"
        )
        for n, r in enumerate(pilot)
    ]
    people = np.arange(images) // PEOPLE
    chance = estimate_chance(pilot, {tuple(range(images)): people})
    assert chance is not None
    design = make_design(runs=seeds, tests=seeds * images, images=images, people=people, clustered=named)
    difference = find_smallest_difference(design, chance)
    assert difference is not None
    shift = NORMAL.inv_cdf(NORMAL.cdf(0.6) + difference) - 0.6
    trials = 120
    found = 0
    for _ in range(trials):
        records = answer(random, images, seeds, shift, named=named, **shares)
        (row,) = compare_records(records, "attention.kind").rows
        assert (row.people is not None) == named
        found += row.significant and row.difference > 0
    assert 0.8 - 0.11 < found / trials < 0.8 + 0.11


def test_of_one_run_it_is_the_textbook_s() -> None:
    """McNemar's: z * sqrt(D / n), D less the square of the difference."""
    for images, discordance in ((500, 0.2), (2000, 0.1)):
        design = make_design(runs=1, tests=images, images=images)
        found = find_smallest_difference(design, Chance(discordance))
        wanted = (NORMAL.inv_cdf(0.975) + NORMAL.inv_cdf(0.8)) * math.sqrt(discordance / images)
        assert found == pytest.approx(wanted, rel=0.08)


def test_without_a_difference_little_is_found() -> None:
    design = make_design(runs=2, tests=600, images=300)
    assert compute_power(design, Chance(0.2), 0.0, draws=2000) <= 0.03  # one of two sides of 5 %


def test_more_chance_more_rows_and_fewer_tests_show_less() -> None:
    def find(images: int = 300, runs: int = 2, rows: int = 1, **chance: float) -> float:
        people = np.arange(images) // 6
        design = make_design(runs=runs, tests=runs * images, images=images, people=people, rows=rows)
        found = find_smallest_difference(design, Chance(**{"discordance": 0.2, **chance}))
        assert found is not None
        return found

    plain = find()
    assert find(discordance=0.3) > plain
    assert find(by_image=0.5) > plain
    assert find(by_person=0.1) > plain
    assert find(run_sd=0.03) > plain
    assert find(rows=20) > plain
    assert find(images=100) > plain
    assert find(runs=6) < plain


def test_too_few_tests_show_nothing() -> None:
    # Four images: the smallest p of McNemar's test is 2 / 2**4.
    assert find_smallest_difference(make_design(runs=1, tests=4, images=4), ASSUMED) is None


def test_the_same_numbers_give_the_same_answer() -> None:
    design = make_design(runs=2, tests=200, images=150)
    assert find_smallest_difference(design, ASSUMED) == find_smallest_difference(design, ASSUMED)


@pytest.mark.parametrize(
    ("numbers", "trainings"),
    [
        ({"runs": 2, "tests": 200, "images": 100}, 2),  # one split
        ({"runs": 2, "tests": 200, "images": 150}, 2),  # a split per seed
        ({"runs": 2, "tests": 200, "images": 200}, 2),
        ({"runs": 2, "tests": 200, "images": 100, "folds": 5}, 10),
        ({"runs": 3, "tests": 1200, "images": 100, "repeats": 4}, 12),
    ],
)
def test_a_design_has_the_tests_that_are_asked_for(numbers: dict[str, int], trainings: int) -> None:
    design = make_design(**numbers)
    assert len(design.runs) == len(design.trainings) == len(design.images) == numbers["tests"]
    assert len(np.unique(design.runs)) == numbers["runs"]
    assert len(np.unique(design.trainings)) == trainings
    assert len(design.people) == numbers["images"]
    assert (np.diff(design.images) >= 0).all()
    # A training belongs to one run, and tests no image twice.
    assert all(len(set(design.runs[design.trainings == one])) == 1 for one in set(design.trainings.tolist()))
    pairs = list(zip(design.trainings.tolist(), design.images.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


# ---------------------------------------------------------------------------------- from records


def test_chance_is_what_the_records_hold() -> None:
    """Two networks that disagree on one image in five, always the same ones, person by person."""
    images = 200
    right = np.ones(images, bool)
    other = right.copy()
    other[: images // 5] = False
    records = [make_record(hits, level, seed) for level, hits in (("none", right), ("eca", other)) for seed in (0, 1)]
    people = np.arange(images) // 10
    chance = estimate_chance(records, {tuple(range(images)): people})
    assert chance is not None
    assert chance.discordance == pytest.approx(0.2)
    assert chance.by_image == pytest.approx(1.0)
    assert chance.by_person == pytest.approx(1.0, abs=0.02)
    assert chance.run_sd == 0.0
    assert "two networks with the same seed disagree on 20.0 % of the tests (2 pairs)" in chance.source
    assert estimate_chance(records).by_person == 0.0  # type: ignore[union-attr]


def test_seeds_alone_tell_less_and_it_is_said() -> None:
    random = np.random.default_rng(0)
    records = [make_record(random.random(1000) < 0.8, "eca", seed) for seed in range(5)]
    chance = estimate_chance(records)
    assert chance is not None
    assert chance.discordance == pytest.approx(2 * 0.8 * 0.2, abs=0.02)
    assert "two seeds of one network" in chance.source
    assert chance.by_image == 0.0


def test_a_spread_between_trainings_is_found() -> None:
    random = np.random.default_rng(0)
    rates = 0.8 + 0.05 * random.standard_normal(40)
    records = [make_record(random.random(2000) < rate, "eca", seed) for seed, rate in enumerate(rates)]
    chance = estimate_chance(records)
    assert chance is not None
    assert chance.run_sd == pytest.approx(0.05 * math.sqrt(2), rel=0.3)


@pytest.mark.parametrize(
    "change", [{"status": "failed"}, {"hits": ""}, {"test_images": [1, 2]}, {"pictures_fingerprint": "other"}]
)
def test_records_that_do_not_answer_the_same_tests_say_nothing(change: dict[str, Any]) -> None:
    first, second = (make_record(np.ones(20, bool), level, 0) for level in ("none", "eca"))
    for name, value in change.items():
        setattr(second, name, value)
    assert estimate_chance([first, second]) is None
    assert estimate_chance([]) is None


def test_many_records_are_sampled() -> None:
    random = np.random.default_rng(0)
    records = [make_record(random.random(50) < 0.5, "eca", seed) for seed in range(200)]
    assert estimate_chance(records) is not None


def test_a_design_is_plain_numbers() -> None:
    design = Design(np.array([0]), np.array([0]), np.array([0]), np.array([0]))
    assert compute_power(design, ASSUMED, 1.0, draws=10) == 0.0


def test_a_few_pretrainings_show_less_than_as_many_seeds() -> None:
    known = {"tests": 9 * 300, "images": 300, "repeats": 3}
    seeds, pretrainings = make_design(runs=3, **known), make_design(runs=3, few=True, **known)
    assert len(set(pretrainings.trainings)) == 3
    assert len(set(seeds.trainings)) == 9
    chance = Chance(discordance=0.2, by_image=0.2, run_sd=0.01)
    of_seeds, of_pretrainings = (find_smallest_difference(one, chance, draws=200) for one in (seeds, pretrainings))
    assert of_seeds is not None
    assert of_pretrainings is None or of_pretrainings > 1.3 * of_seeds


def test_the_rule_of_few_pretrainings_holds_its_level() -> None:
    """Without a difference the simulated comparison finds one as seldom as it says, though pretrainings sway."""
    design = make_design(runs=3, tests=3 * 3 * 200, images=200, repeats=3, few=True)
    chance = Chance(discordance=0.2, run_sd=0.05)
    assert compute_power(design, chance, 0.0, draws=400) <= 0.05
