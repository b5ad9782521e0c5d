"""Bars and lines show the user's texts as they are, and a count where nobody watches costs nothing."""

from __future__ import annotations

import io

import pytest
from made_texts import NASTY
from rich.console import Console

from ffem_jax.text import progress
from ffem_jax.text.display import show_unseen


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal of 200 columns gets."""
    seen = io.StringIO()
    monkeypatch.setattr(progress, "CONSOLE", Console(file=seen, force_terminal=True, width=200, color_system=None))
    monkeypatch.setattr(progress, "can_draw", lambda: True)
    return seen


@pytest.mark.parametrize("text", NASTY)
def test_a_text_is_shown_as_it_is(terminal, text):
    assert list(progress.track([1, 2], text)) == [1, 2]
    progress.say(text)
    assert terminal.getvalue().count(show_unseen(text)) >= 2


def test_a_count_of_those_done(terminal):
    assert list(progress.track(iter(range(3)), "decoding", total=3)) == [0, 1, 2]
    assert "3/3" in terminal.getvalue()


def test_an_error_inside_ends_the_bar(terminal):
    def fail():
        for _ in progress.track(range(3), "decoding"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    # Another bar can be drawn.
    assert list(progress.track(range(2), "again")) == [0, 1]


def test_nothing_is_drawn_for_nobody(capfd):
    assert list(progress.track(range(3), "decoding")) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_what_is_kept_is_one_line_in_a_pipe(capfd):
    with progress.make_progress("{task.description}", "bar", "bytes", keep=True) as bar:
        bar.update(bar.add_task("[archive].tgz", total=10), advance=10)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("[archive].tgz ")
    assert "10/10 bytes" in err
