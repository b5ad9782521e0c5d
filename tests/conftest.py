"""What every test shares: where real faces lie, a cache of the run's own, and settings that make runs repeat."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import absl.logging
import hypothesis
import pytest
from made_records import build_record

from ffem_jax.records.record import TrialRecord

REPOSITORY = Path(__file__).resolve().parent.parent

# Golden values hold on the CPU; a run on another device asks for it by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# As on the machines of users: more than one core, each a device.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# A program of a test runs for moments, and compiles sooner where LLVM does not optimise it. The quickstart and the test
# of the wheel run programs as users do.
if os.environ["JAX_PLATFORMS"] == "cpu":
    unoptimised = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["XLA_FLAGS"] = f"{unoptimised} {os.environ.get('XLA_FLAGS', '')}".strip()

# A loaded machine is no bug, so no deadline; CI draws the same examples every time.
hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Hydra sets logging up anew and so closes every handler; absl's, which Orbax brings, would close pytest's capture too.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

_cache = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Give decoded faces and compiled programs an empty cache folder, shared by the workers and by what they start.

    No test reads what another run left, and a program that several tests need is compiled by the first of them.
    """
    if not hasattr(config, "workerinput"):
        config.stash[_cache] = tempfile.mkdtemp(prefix="ffem-tests-")
        os.environ["FFEM_CACHE_DIR"] = config.stash[_cache]
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(config.stash[_cache]) / "compiled"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the run's cache folder."""
    if _cache in config.stash:
        shutil.rmtree(config.stash[_cache], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _no_flushing() -> Iterator[None]:
    """Records are flushed to the disk before a call returns; no test cuts the power, and several workers wait long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def make_record() -> Callable[..., TrialRecord]:
    """A function that makes the record of a trial that never ran."""
    return build_record


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    """The folder of Labeled Faces in the Wild: FFEM_LFW_ROOT, or ../shared/data/lfw beside the checkout."""
    root = Path(os.environ.get("FFEM_LFW_ROOT") or REPOSITORY.parent / "shared" / "data" / "lfw")
    if not root.is_dir():
        pytest.skip(f"no Labeled Faces in the Wild at {root}; set FFEM_LFW_ROOT")
    return root
