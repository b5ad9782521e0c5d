"""Leads by chance: against closed forms on made records."""

from __future__ import annotations

import numpy as np
import pytest
from made_records import build_record

from ffem_jax.analysis.chance import resample_leads
from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.records.record import TrialRecord

PEOPLE, EACH, FOLDS = 20, 6, 2
WHOSE = np.repeat(np.arange(PEOPLE), EACH)


def make_trial(name: str, hits: np.ndarray, fold: int = 0, seed: int = 0, **fields: object) -> TrialRecord:
    first = fold * PEOPLE * EACH
    return build_record(
        arch={"name": name}, correct=int(hits.sum()), tested=len(hits), seed=seed,
        attention={"kind": "eca" if name == "ffem_am" else "none"},
        hits="".join("1" if hit else "0" for hit in hits), test_images=list(range(first, first + len(hits))),
        data_fingerprint="f", pictures_fingerprint="p", protocol={"name": "kfold", "fold": fold, "folds": FOLDS},
        **fields,
    )  # fmt: skip


def make_all(random: np.random.Generator, rates: dict[str, float], seeds: int = 4) -> list[TrialRecord]:
    return [
        make_trial(name, random.random(PEOPLE * EACH) < rate, fold, seed)
        for name, rate in rates.items() for fold in range(FOLDS) for seed in range(seeds)
    ]  # fmt: skip


def name_people(records: list[TrialRecord]) -> dict[tuple[int, ...], np.ndarray]:
    return {tuple(record.test_images): WHOSE for record in records}


def test_independent_answers_spread_as_the_binomial_says() -> None:
    records = make_all(np.random.default_rng(0), {"ffem": 0.6, "ffem_am": 0.6}, seeds=12)
    leads = resample_leads(records, "ffem", "ffem_am", name_people(records))
    assert (leads.images, leads.people, leads.trainings, leads.places) == (40, 20, 48, 2)
    expected = np.sqrt(2 * 0.6 * 0.4 / 40)
    for values in (leads.exchanged, leads.between, leads.trained):
        assert values.std() == pytest.approx(expected, rel=0.1)
    assert leads.exchanged.mean() == pytest.approx(0, abs=0.01)
    assert leads.share(leads.exchanged, 5.0) == pytest.approx(leads.share(-leads.exchanged, 5.0), abs=0.02)


def test_exchanged_trainings_know_no_network_and_trained_ones_do() -> None:
    records = make_all(np.random.default_rng(1), {"ffem": 0.3, "ffem_am": 0.9})
    leads = resample_leads(records, "ffem", "ffem_am", name_people(records))
    assert leads.trained.mean() == pytest.approx(0.6, abs=0.05)
    assert leads.exchanged.mean() == pytest.approx(0, abs=0.02)
    assert leads.between.mean() == pytest.approx(0, abs=0.02)
    assert (leads.rate_first, leads.rate_second) == pytest.approx((0.3, 0.9), abs=0.05)


def test_each_person_has_as_many_images_in_every_resample() -> None:
    # Right on the images of the first half of the people and nowhere else: the rate cannot vary between resamples.
    half = WHOSE < PEOPLE // 2
    records = [make_trial("ffem", half), make_trial("ffem_am", np.ones_like(half))]
    leads = resample_leads(records, "ffem", "ffem_am", name_people(records), per_person=3, draws=50)
    assert set(np.abs(leads.exchanged)) == {0.5}
    assert set(leads.trained) == {0.5}
    assert (leads.images, leads.between.size) == (60, 0)


def test_a_lead_counts_as_it_is_rounded() -> None:
    records = make_all(np.random.default_rng(2), {"ffem": 0.5, "ffem_am": 0.5})
    leads = resample_leads(records, "ffem", "ffem_am", name_people(records))
    assert leads.share(np.array([8 / 104, 7 / 104]), 7.7) == 0.5


def test_what_cannot_be_resampled_is_refused_in_one_line() -> None:
    records = make_all(np.random.default_rng(3), {"ffem": 0.5, "ffem_am": 0.5}, seeds=1)
    people = name_people(records)
    other = make_trial("ffem", np.ones(PEOPLE * EACH, bool), recipe={"epochs": 60})
    apart = [record for record in records if record.view.protocol.fold == (record.arch == "ffem")]
    for own, names, more, message in (
        (records, ("ffem", "mobilenetv2"), {}, "no finished trial of mobilenetv2 .* choose two of: ffem, ffem_am"),
        (records, ("ffem", "ffem"), {}, "two different networks"),
        ([*records, other], ("ffem", "ffem_am"), {}, "several networks are named ffem here; add --where"),
        (apart, ("ffem", "ffem_am"), {}, "never tested on the same fold"),
        (records, ("ffem", "ffem_am"), {"per_person": 0}, "at least one image per person"),
        (records, ("ffem", "ffem_am"), {"per_person": 7}, "no person has that many test images"),
    ):
        with pytest.raises(FrontierError, match=message):
            resample_leads(own, *names, people, **more)
