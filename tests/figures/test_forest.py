"""The forest plot of a comparison, and where a frontier's line of guessing has its name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_trainings import draw_trials
from matplotlib.figure import Figure

from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures.forest import plot_comparison
from ffem_jax.figures.scales import draw_chance


@pytest.mark.parametrize("several", [False, True])
def test_only_marks_that_are_drawn_are_explained(tmp_path, several):
    random = np.random.default_rng(0)
    records = draw_trials(random, (None,), seeds=1) + (draw_trials(random, (0,), seeds=1) if several else [])
    _, svg = plot_comparison(compare_records(records, "attention.kind"), tmp_path / "forest")
    text = svg.read_text()
    assert "hollow: not" in text
    assert ("diamond: over all" in text) == several


def test_the_name_of_the_line_of_guessing_leaves_the_cap_alone(make_record):
    """The cap stands at the right, where the largest networks are."""
    networks = summarize_records([make_record(correct=20, people=10)])
    axes = Figure().add_subplot()
    axes.set_ylim(0, 50)
    draw_chance(axes, networks)
    (label,) = axes.texts
    assert label.get_text() == "chance 10.0 %"
    assert (label.get_ha(), label.get_position()[0] < 0.1) == ("left", True)


def test_the_accuracy_of_a_shared_teacher_is_a_line_and_of_several_none(make_record):
    (network,) = summarize_records([make_record(correct=20, people=10)])
    taught = [dataclasses.replace(network, chance=None, teacher=rate) for rate in (0.4, 0.4, 0.3)]
    for networks, drawn in ((taught[:2], ["the teacher, which saw other data, 40.0 %"]), (taught, [])):
        axes = Figure().add_subplot()
        axes.set_ylim(0, 50)
        draw_chance(axes, networks)
        assert [text.get_text() for text in axes.texts] == drawn
