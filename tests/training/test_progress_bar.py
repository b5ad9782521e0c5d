"""The bar of a training: drawn on a terminal, and nothing of it where nobody watches; lines do not tear it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

SCRIPT = """
import time
from ffem_jax.specs.trial import RecipeSpec, TrialSpec
from ffem_jax.training.progress_bar import TrainingBar, say
with TrainingBar(TrialSpec(recipe=RecipeSpec(epochs=3)), 10, enabled={enabled}) as bar:
    for epoch in range(3):
        for step in range(1, 11):
            bar.update(epoch, step, 1.5 / (epoch + 1), 321.4)
            time.sleep(0.03)
        say(f"seed {{epoch}} [red]is 1.00[/red] :smile: " + "wide " * 30 + chr(27))
    print("a result")
"""
LINES = [f"seed {epoch} [red]is 1.00[/red] :smile: {'wide ' * 30}\\x1b" for epoch in range(3)]


def run_on_terminal(script: str, term: str) -> tuple[str, str]:
    """(what a terminal of 80 columns got on standard error, standard output)."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": term, "COLUMNS": "80", "LINES": "24"}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=child, env=environment, text=True
    ) as process:
        os.close(child)
        seen = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            seen += part
        out = process.stdout.read()
    os.close(parent)
    assert process.returncode == 0, seen
    return seen.decode().replace("\r\n", "\n"), out


def strip_controls(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_terminal_sees_the_bar_and_whole_lines():
    seen, out = run_on_terminal(SCRIPT.format(enabled=True), "xterm-256color")
    text = strip_controls(seen)
    assert out == "a result\n"
    assert "epoch 1/3" in text
    assert "epoch 3/3" in text
    assert re.search(r"\d+%.*left, loss 0\.500, 321 images/s", text)
    # Each whole and on a line of its own: what stands before is a bar that was erased.
    for line in LINES:
        assert re.search(rf"(^|\r){re.escape(line)}$", text, re.MULTILINE), line
    # The bar is gone at the end.
    assert seen.rstrip("\n").endswith("\x1b[2K")


@pytest.mark.parametrize(("term", "enabled"), [("dumb", True), ("xterm-256color", False)])
def test_where_a_bar_is_of_no_use_there_are_lines_alone(term, enabled):
    seen, out = run_on_terminal(SCRIPT.format(enabled=enabled), term)
    assert seen.splitlines() == LINES
    assert out == "a result\n"


@pytest.mark.parametrize("colours", [{}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}])
def test_a_pipe_gets_lines_alone(colours):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(enabled=True)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **colours},
    )
    assert result.stderr.splitlines() == LINES
    assert result.stdout == "a result\n"


def test_a_bar_ends_with_the_training_that_fails():
    script = SCRIPT.format(enabled=True).replace("time.sleep(0.03)", "1 / 0 if epoch == 1 else time.sleep(0.03)")
    seen, _ = run_on_terminal(
        "import sys\ntry:\n" + "".join(f"    {line}\n" for line in script.strip().splitlines())
        + "except ZeroDivisionError:\n    print('after', file=sys.stderr)\n",
        "xterm-256color",
    )  # fmt: skip
    assert strip_controls(seen).rstrip().endswith("after")
    assert "\x1b[?25h" in seen  # the cursor is shown again
