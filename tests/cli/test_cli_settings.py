"""`ffem settings`: every setting, its default as it counts, close names; and docs/settings.md, which it writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ffem_jax.cli import main
from ffem_jax.cli.settings import (
    describe_in_words,
    describe_values,
    list_everything,
    select_matching,
    write_default,
    write_page,
)
from ffem_jax.config.compose import list_groups, open_composer, to_application
from ffem_jax.config.schema import ApplicationSpec, list_keys
from ffem_jax.search.settings import SearchSettings
from ffem_jax.specs.fields import list_settings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "settings.md"
SETTINGS = list_everything()
BY_NAME = {one.name: one for one in SETTINGS}


def test_every_key_that_can_be_typed_is_listed() -> None:
    keys = {re.sub(r"\.0\.", ".N.", key) for key in list_keys()}
    assert keys - set(BY_NAME) == set()
    search = {one.name for one in list_settings(SearchSettings, "hydra.sweeper")} - {"hydra.sweeper._target_"}
    assert {"hydra.sweeper.n_trials", "hydra.sweeper.halving.reduction"} <= search <= set(BY_NAME)
    assert len(BY_NAME) == len(SETTINGS)


def test_every_setting_says_what_it_is() -> None:
    for one in SETTINGS:
        assert one.meaning.endswith("."), one.name
        assert describe_values(one), one.name
        assert "\n" not in describe_in_words(one)


def test_the_default_is_what_counts_without_a_word() -> None:
    with open_composer() as composer:
        config = composer.compose([])
    assert BY_NAME["data.crop"].default == config.data.crop != list_settings(ApplicationSpec, "")[0].default
    assert BY_NAME["arch.attention.kind"].default == "eca"  # of arch=ffem_am, not of the class
    assert BY_NAME["launcher.partition"].default is None


@pytest.mark.parametrize("one", [s for s in SETTINGS if s.default not in ("", None)], ids=lambda one: one.name)
def test_a_default_can_be_typed(one: object) -> None:
    """What the page gives as the default is read back as the same value."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name, default = one.name, one.default  # type: ignore[attr-defined]
    if ".N." in name or default == {}:
        return
    parsed = OverridesParser.create().parse_override(f"{name}={write_default(one)}")  # type: ignore[arg-type]
    value = parsed.value()
    assert OmegaConf.create({"v": value}) == OmegaConf.create({"v": default}), (name, value)


def test_the_default_of_everything_is_a_trial() -> None:
    with open_composer() as composer:
        plain = [
            f"{one.name}={write_default(one)}"
            for one in SETTINGS
            if isinstance(one.default, bool | int | float) and not one.name.startswith(("hydra.", "arch.stages.N"))
        ]
        to_application(composer.compose(plain))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("kernel_size", {"arch.attention.kernel_size"}),
        ("attention.kind", {"arch.attention.kind"}),
        ("ARCH.Attention.Kind", {"arch.attention.kind"}),
        ("arch.stages.0.channels", {"arch.stages.N.channels"}),
        ("data.resolution=48", {"data.resolution", "pretrain.data.resolution"}),
        ("launcher.*", {one.name for one in SETTINGS if one.name.startswith("launcher.")}),
        ("hydra.sweeper.halving", {one.name for one in SETTINGS if ".halving." in one.name}),
        ("s?ed", {"seed"}),
    ],
)
def test_patterns(pattern: str, expected: set[str]) -> None:
    assert {one.name for one in select_matching(SETTINGS, [pattern])} == expected


def test_several_patterns_are_one_list_in_order() -> None:
    names = [one.name for one in select_matching(SETTINGS, ["recipe.momentum", "arch.name"])]
    assert names == ["arch.name", "recipe.momentum", "pretrain.recipe.momentum"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("resoltion", "did you mean data.resolution?"),
        ("data.resolutoin", "did you mean data.resolution?"),
        ("widht", "width_multiplier"),
        ("hydra.sweeper.ntrials", "hydra.sweeper.n_trials"),
        ("pretrain.data.rot", "pretrain.data.root"),
        ("nesterof", "recipe.nesterov"),
        ("zzz", "no setting matches 'zzz'; ffem settings lists all"),
        ("*zzz", "no setting matches '*zzz'"),
    ],
)
def test_a_pattern_without_a_match_names_close_ones(
    pattern: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["settings", pattern]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_json_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(BY_NAME)
    rotation = rows["recipe.rotation"]
    assert (rotation["type"], rotation["low"], rotation["high"], rotation["unit"]) == ("float", 0.0, 180.0, "degrees")
    assert rows["run.cap_mb"]["high"] is None  # infinite, which JSON has no word for
    assert rows["recipe.loss"]["choices"][:2] == ["softmax", "normalized_softmax"]


def test_80_columns_hold_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["settings"]) == 0
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert "Columns dropped" not in printed
    for name in BY_NAME:
        assert any(line.split()[:1] == [name] for line in lines), name


def test_own_kinds_are_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "arch.block", "--config-dir", str(tmp_path / "no")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["settings", "arch.block", "--config-dir", str(tmp_path), "--json"]) == 0


@pytest.mark.parametrize("words", [["--markdown", "--json"], ["--markdown", "seed"]])
def test_the_page_is_whole(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", *words]) == 2
    assert "--markdown writes the whole page" in capsys.readouterr().err


def test_docs_settings_is_whole_and_current() -> None:
    written = PAGE.read_text(encoding="utf-8")
    for name in BY_NAME:
        assert written.count(f"| `{name}` |") == 1, name
    assert written == write_page(SETTINGS, list_groups()), (
        "docs/settings.md is not current; write it with: make settings"
    )


def test_help_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "sweep", "cost"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "ffem settings [PATTERN]" in capsys.readouterr().out
