"""One setting has one name: whoever shortens or misspells it is told the whole one, and what a sweep file may say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ffem_jax.config.compose import Composer, ConfigError, load_sweep, open_composer, read_question
from ffem_jax.config.schema import check_key, find_keys, list_keys


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("resolution=48", "did you mean data.resolution?"),
        ("attention.kind=se", "did you mean arch.attention.kind or attention=NAME?"),
        ("kind=se", "did you mean arch.attention.kind?"),
        ("width=0.5", "did you mean arch.width_multiplier?"),
        ("epochs=3", "did you mean recipe.epochs?"),
        ("data.width_multiplier=1", "did you mean arch.width_multiplier?"),
        ("data.resolutoin=48", "did you mean data.resolution?"),
        ("arch.kind=se", "did you mean arch.attention.kind?"),
        ("att.kind=se", "did you mean arch.attention.kind?"),
        ("pretrain.resolution=3", "did you mean pretrain.data.resolution?"),
        ("pretrain.recipe.epoch=3", "did you mean pretrain.recipe.epochs?"),
        ("channels=3", "did you mean arch.stages.0.channels or teacher.channels?"),
        ("name=x", "did you mean arch.name, data.name or protocol.name?"),
        ("ffem_am", "did you mean arch=ffem_am?"),
        ("ffem_ma", "did you mean arch=ffem_am"),
        ("se", "did you mean attention=se?"),
        ("none", "did you mean attention=none, "),
        ("epochs", "did you mean recipe.epochs=VALUE?"),
        ("resolution", "did you mean ffem sweep resolution or data.resolution=VALUE?"),
        ("data.resolution", "did you mean data.resolution=VALUE?"),
        ("arch", "did you mean arch=VALUE?"),
        ("quickstart", "did you mean ffem sweep quickstart?"),
        ("nothing like it", "'nothing like it' cannot be read as key=value, such as arch=ffem_am"),
        ("xyz=1", "xyz is not known; the config has: arch"),
    ],
)
def test_a_shortened_or_misspelt_name_suggests_the_whole_one(composer: Composer, override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composer.parse([override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_key_is_found_by_its_last_parts_and_every_suggestion_is_a_key(composer: Composer) -> None:
    keys = list_keys()
    for key in keys:
        check_key(key, ())
        parts = key.split(".")
        for start in range(len(parts)):
            tail = ".".join(parts[start:])
            assert set(find_keys(tail)) <= set(keys)
            assert key.startswith("pretrain.") or key in find_keys(tail)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("seed: [0, 1]", "in one line: seed: 0,1"),
        ("arch: [ffem, ffem_am]", "in one line: arch: ffem,ffem_am"),
        ("recipe.nesterov: [true, false]", "in one line: recipe.nesterov: true,false"),
        ("arch.width_multiplier: [0.5, 1]", "in one line: arch.width_multiplier: 0.5,1"),
    ],
)
def test_a_sweep_s_values_as_a_yaml_list_are_told_how_to_write(tmp_path: Path, params: str, told: str) -> None:
    path = tmp_path / "listed.yaml"
    path.write_text(f"hydra:\n  sweeper:\n    params:\n      {params}\n")
    with pytest.raises(ConfigError) as caught:
        load_sweep(path)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "params", ["seed: 0,1", "arch.attention.placement: [0, 2]", "arch.stages: [{channels: 3}]", ""]
)
def test_a_key_that_takes_a_list_may_have_one(tmp_path: Path, params: str) -> None:
    path = tmp_path / "listed.yaml"
    path.write_text(f"hydra:\n  sweeper:\n    params:\n      {params}\n")
    load_sweep(path)


@pytest.mark.parametrize(
    ("head", "question"),
    [
        ("# @package _global_\n# Which (14.7 M\n# of them), at once?\n# More.", "Which (14.7 M of them), at once?"),
        ("# One line without an end\n#\n# More?", "One line without an end"),
        ("# Two? Three.\n# Four", "Two? Three."),
        ("seed: 1", ""),
    ],
)
def test_a_sweep_s_question_is_whole(tmp_path: Path, head: str, question: str) -> None:
    (tmp_path / "asked.yaml").write_text(head + "\n")
    assert read_question(tmp_path / "asked.yaml") == question
