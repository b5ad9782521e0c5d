"""Huge pages are asked for once, by a process that starts anew, and by nobody who chose otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ffem_jax.kernels import huge_pages


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The programs that were started in place of this one, on a system that gives huge pages to who asks."""
    calls = []
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "SETTING", setting)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(os, "execv", lambda path, words: calls.append((path, words)))
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "ffem_jax.cli", "train", "a=b c"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


def test_the_same_program_starts_again_once_with_the_same_words(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")
    huge_pages.use_huge_pages()
    huge_pages.use_huge_pages()
    assert started == [(sys.executable, [sys.executable, "-m", "ffem_jax.cli", "train", "a=b c"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=0:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("library", ["glibc 2.31", "", None, "musl"])
def test_a_c_library_that_does_not_know_them_is_left_alone(started, monkeypatch, library):
    monkeypatch.setattr(os, "confstr", lambda name: library)
    huge_pages.use_huge_pages()
    assert not started
    assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_where_asking_changes_nothing_nobody_asks(started, setting):
    if setting is None:
        huge_pages.SETTING.unlink()
    else:
        huge_pages.SETTING.write_text(setting)
    huge_pages.use_huge_pages()
    assert not started


def test_who_chose_otherwise_keeps_it(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    huge_pages.use_huge_pages()
    assert not started


def test_a_command_that_started_again_answers_as_before():
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment["FFEM_ENGINE"] = "jax"  # nothing is said of kernels that are not there
    command = [sys.executable, "-m", "ffem_jax.cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0
    assert result.stdout.startswith("ffem ")
    assert not result.stderr
