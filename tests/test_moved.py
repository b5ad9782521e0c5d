"""Scripts that import a module by its name of version 0.1 get what they got."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ffem_jax.moved import MOVED

PACKAGES = ("config", "cost", "records", "text")  # folders now, which forward without a warning


@pytest.mark.parametrize("old", sorted(set(MOVED) - set(PACKAGES)))
def test_every_old_name_forwards_to_a_module_that_is_there(old: str) -> None:
    sys.modules.pop(f"ffem_jax.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"ffem_jax.{old} is ffem_jax.{MOVED[old]} now"):
        module = importlib.import_module(f"ffem_jax.{old}")
    new = importlib.import_module(f"ffem_jax.{MOVED[old]}")
    public = [name for name in vars(new) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(new, name) for name in public)


OLD_LINES = (
    "from ffem_jax.arch import ArchSpec, AttentionSpec",
    "from ffem_jax.records import TrialRecord, read_records",
    "from ffem_jax.frontier.compare import compare_records",
    "from ffem_jax.config import open_composer, to_specs",
    "from ffem_jax.cost import compute_cost",
    "from ffem_jax.text import show_unseen",
    "from ffem_jax.trial import run_trials",
    "import ffem_jax.train; ffem_jax.train.Trainer",
)


@pytest.mark.parametrize(
    "line",
    [
        "from ffem_jax.spec import DataSpec, TrialSpec, trial_key",
        "from ffem_jax.frontier import FrontierError, summarize_records, write_frontier, find_pareto",
        "from ffem_jax.weights import load_trial",
        *(pytest.param(line, marks=pytest.mark.slow) for line in OLD_LINES),
    ],
)
def test_lines_of_old_scripts_still_run(line: str) -> None:
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_name_that_never_was_is_still_no_module() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"ffem_jax.specification"):
        importlib.import_module("ffem_jax.specification")
    with pytest.raises(ImportError, match="never_was"):
        from ffem_jax.records import never_was  # noqa: F401
