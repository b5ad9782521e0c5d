"""What the commands share: reading words, and talking on the right stream."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import select
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ffem_jax.errors import FfemError
from ffem_jax.text.display import show_unseen
from ffem_jax.text.tables import print_table as print_table

DONE, FAILED, BAD_USAGE, INTERRUPTED, NOBODY_READS = 0, 1, 2, 130, 141


class UsageError(FfemError):
    """Words on the command line that mean nothing. The message is one line."""


class Parser(argparse.ArgumentParser):
    """argparse with --json, and errors in one line."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"ffem {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}; see {self.prog} --help")


class OverridesParser(Parser):
    """A parser that takes Hydra overrides, and shows the groups and their choices in its help."""

    def __init__(self, command: str, description: str) -> None:
        from ffem_jax.config.compose import list_groups

        groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in list_groups().items())
        values = "values: any key that ffem train --cfg prints, such as arch.width_multiplier=0.5 or seed=1"
        super().__init__(command, description, epilog=f"choices:\n{groups}\n\n{values}")
        self.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, such as arch=ffem_am")
        self.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with config files of your own")


def say(text: str) -> None:
    """A line for the user, on standard error."""
    print(show_unseen(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A line of results, on standard output; names in it are shown as they are and move no cursor."""
    print(show_unseen(text))


def prepare_streams() -> None:
    """Let no text end a command: what an output's encoding has no letter for comes out as an escape such as `\\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_closed() -> bool:
    """Send what is still to be written to an output that nobody reads any more nowhere; whether there is such a one."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)  # what is wrong with it is told unasked
    closed = [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    for number in closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return bool(closed)


@contextlib.contextmanager
def keep_stdout_clean() -> Iterator[None]:
    """Send whatever is printed while trials run to standard error, by this process and by those it starts."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


@contextlib.contextmanager
def say_how_to_go_on(words: Sequence[str]) -> Iterator[None]:
    """On Ctrl-C say that nothing is lost, then let it through."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"ffem: stopped; the same command goes on from here: ffem {shlex.join(words)}")
        raise
