"""What people type and what their scripts read stays: commands, options, config names, exit statuses, weights' names.

`golden/interface.json` is what was promised. Additions need no change there; whatever is missing fails.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from ffem_jax.cli import COMMANDS, main, terminal
from ffem_jax.config.compose import find_sweeps, list_groups, open_composer, to_specs
from ffem_jax.models import build_model
from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.trial import trial_key
from ffem_jax.training.weights import name_leaves

GOLDEN = Path(__file__).parent / "golden" / "interface.json"
STATUSES = ("DONE", "FAILED", "BAD_USAGE", "INTERRUPTED", "NOBODY_READS")
SUBCOMMANDS = (["serve", "keys", "add"], ["serve", "keys", "list"], ["serve", "keys", "revoke"])


def read_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Every --option that the command's help names."""
    with contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return sorted(set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out)))


def read_interface(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Today's interface, as `golden/interface.json` has it."""
    commands = [*([name] for name in COMMANDS), *SUBCOMMANDS]
    groups = list_groups()
    chosen = [f"{group}={name}" for group in ("arch", "recipe") for name in groups[group]]
    needed = {"recipe=distill": ["teacher=vectors", "teacher.path=/teacher.npz"]}
    with open_composer() as composer:
        trials = {
            words: to_specs(composer.compose([words, "data=synthetic", *needed.get(words, [])]))[0] for words in chosen
        }
    network = trials["arch=ffem_am"].arch
    weights = name_leaves(nnx.state(plan_draws(lambda keys: build_model(network, 96, rngs=keys))[0]))
    return {
        "options": {" ".join(words): read_options(words, capsys) for words in commands},
        "groups": groups,
        "sweeps": sorted(find_sweeps()),
        "statuses": {name: getattr(terminal, name) for name in STATUSES},
        "weights": sorted(weights),
        "keys": {name: trial_key(trial) for name, trial in trials.items()},
    }


def list_missing(promised: Any, found: Any, where: str = "") -> list[str]:
    """What stands in `promised` and not, or with another value, in `found`."""
    if isinstance(promised, dict):
        absent = [f"{where}.{key}" for key in promised if key not in found]
        kept = [key for key in promised if key in found]
        return absent + [line for key in kept for line in list_missing(promised[key], found[key], f"{where}.{key}")]
    if isinstance(promised, list):
        return [f"{where}: {item}" for item in promised if item not in found]
    return [] if promised == found else [f"{where}: {found} instead of {promised}"]


def test_nothing_promised_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_missing(json.loads(GOLDEN.read_text(encoding="utf-8")), read_interface(capsys)) == []


def test_the_check_sees_a_loss() -> None:
    promised = {"options": {"cost": ["--json"]}, "statuses": {"DONE": 0}}
    assert list_missing(promised, {"options": {"cost": ["--out", "--json"]}, "statuses": {"DONE": 0}, "new": 1}) == []
    lost = {"options": {"cost": []}, "statuses": {"DONE": 3}}
    assert list_missing(promised, lost) == [".options.cost: --json", ".statuses.DONE: 3 instead of 0"]
    assert list_missing(promised, {"statuses": {"DONE": 0}}) == [".options"]
