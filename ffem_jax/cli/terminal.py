"""What the commands share: reading words, and talking on the right stream."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
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
        from ffem_jax.config import list_groups

        groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in list_groups().items())
        values = "values: any key that ffem train --cfg prints, such as arch.width_multiplier=0.5 or seed=1"
        super().__init__(command, description, epilog=f"choices:\n{groups}\n\n{values}")
        self.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, such as arch=ffem_am")
        self.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with config files of your own")


def say(text: str) -> None:
    """A line for the user, on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_table(table: Any) -> None:
    """A rich table on standard output; a file or a pipe gets its columns in full."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


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
