"""The page of `benchmarks.search_trained`: what a search had after each training, and who is ahead."""

from __future__ import annotations

import argparse

import pytest
from made_records import build_record

from benchmarks.search_trained import SAMPLERS, follow, make_words, read_curves, write_report
from ffem_jax.config.compose import open_composer
from ffem_jax.records.record import append_record
from ffem_jax.search.plan import plan_search


def test_the_hypervolume_is_the_share_of_cap_and_perfect_accuracy():
    # 0.8 of 1 MB from 0.4 MB on; then 0.5 already from 0.2 MB on; the third adds nothing.
    made = ((100_000, 8), (50_000, 5), (200_000, 7))
    records = [build_record(params=params, correct=correct, tested=10) for params, correct in made]
    assert follow(records) == pytest.approx([0.8 * 0.6, 0.8 * 0.6 + 0.5 * 0.2, 0.8 * 0.6 + 0.5 * 0.2])


def test_the_page_says_who_is_ahead_and_which_search_is_unfinished(tmp_path):
    options = argparse.Namespace(searches=tmp_path / "searches", seeds=2, networks=3)
    for sampler, right in (("random", (2, 4, 5)), ("surrogate", (3, 6, 9))):
        for seed in range(2):
            for number, correct in enumerate(right):
                path = options.searches / f"{sampler}-{seed}" / "records.jsonl"
                record = build_record(params=100_000, correct=correct - seed, tested=10, seed=number)
                append_record(path, record)
    curves = read_curves(options)
    page = write_report(curves, 3, tmp_path)
    assert "| surrogate | 0 | 54.0 | 2 |" in page
    assert "2 of 2 seeds: +24.0, +24.0 points compared with random search" in page
    assert (tmp_path / "trained.png").stat().st_size > 0
    with pytest.raises(SystemExit, match=r"random, seed 0: 3 of 4 networks"):
        read_curves(argparse.Namespace(searches=options.searches, seeds=2, networks=4))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_its_searches_can_be_planned(sampler, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_composer() as composer:
        plan = plan_search(composer, "search", make_words(sampler, 7, 12)[2:])
    assert (plan.settings.sampler, plan.settings.seed, plan.settings.n_trials) == (sampler, 7, 12)
    assert (plan.base.data.name, plan.run.cap_mb) == ("synthetic", 1.0)
    assert all(len(choice.values) == 1 for choice in plan.space.choices if "repeats" in choice.name)
