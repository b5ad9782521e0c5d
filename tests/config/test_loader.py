"""The loader keeps what it has read and merged, and nobody notices but by the time."""

from __future__ import annotations

import pickle
from pathlib import Path

from ffem_jax.config.compose import open_composer, to_specs


def test_a_config_is_the_caller_s_own() -> None:
    with open_composer() as composer:
        first, wanted = composer.compose(["arch=ffem"]), composer.compose(["arch=ffem"])
        first.arch.stem_channels = 8
        first.hydra.overrides.task.append("seed=1")
        again = composer.compose(["arch=ffem"])
    assert again == wanted
    assert again.arch.stem_channels != 8


def test_values_of_one_do_not_stay_for_the_next() -> None:
    with open_composer() as composer:
        composer.compose(["arch=ffem", "seed=5", "arch.attention.kind=se", "data.resolution=48"])
        kept = composer.compose(["arch=ffem"])
    with open_composer() as composer:
        assert to_specs(kept) == to_specs(composer.compose(["arch=ffem"]))


def test_a_file_that_is_edited_meanwhile_changes_nothing_and_the_next_command_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "arch" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("defaults: [ffem]\nname: mine\nstem_channels: 16\n")
    with open_composer(tmp_path) as composer:
        before = composer.compose(["arch=mine"]).arch.stem_channels
        path.write_text("defaults: [ffem]\nname: mine\nstem_channels: 24\n")
        assert composer.compose(["arch=mine", "seed=1"]).arch.stem_channels == before == 16
    with open_composer(tmp_path) as composer:
        assert composer.compose(["arch=mine"]).arch.stem_channels == 24


def test_a_sweep_that_is_registered_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with open_composer() as composer:
        composer.compose(["seed=1"])
        for seed in (3, 4):
            path.write_text(f"seed: {seed}\n")
            composer.register_sweep("mine", path)
            assert composer.compose(["+sweep=mine"]).seed == seed


def test_it_goes_to_a_worker_without_what_it_keeps() -> None:
    with open_composer() as composer:
        wanted = composer.compose(["arch=ffem"])
        sent = pickle.dumps(composer.loader)
        assert len(sent) < 100_000
        composer.loader = pickle.loads(sent)
        assert composer.compose(["arch=ffem"]) == wanted
