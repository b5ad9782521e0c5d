"""Shared by all commands: argument parsing and output streams."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import select
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ffem_jax.config.overrides import suggest
from ffem_jax.errors import FfemError
from ffem_jax.text.display import show_unseen
from ffem_jax.text.tables import find_width, print_prose, wrap_prose
from ffem_jax.text.tables import print_table as print_table

DONE, FAILED, BAD_USAGE, INTERRUPTED, NOBODY_READS = 0, 1, 2, 130, 141


class UsageError(FfemError):
    """An invalid command line. The message is one line."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and wraps lines that are longer than the terminal is wide."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = super()._fill_text(text, width, indent).splitlines()
        return "\n".join(wrap_prose(line, find_width(sys.stdout), indent=4 if line[:1] == " " else 0) for line in lines)


class Parser(argparse.ArgumentParser):
    """argparse with --json, and errors in one line."""

    def __init__(self, command: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"ffem {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )
        self.add_argument("--json", action="store_true", help="print only JSON on standard output")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; for unknown options, suggest similar ones."""
        before, unknown, words = message.partition("unrecognized arguments: ")
        options = [word for word in words.split() if word.startswith("-") and word != "-"]
        if unknown and not before and options:
            # argparse also lists the words after an unknown option.
            known = [name for action in self._actions for name in action.option_strings]
            message = f"there is no option {options[0]};{suggest(options[0], known)}"
            raise UsageError(f"{message} see {self.prog} --help")
        raise UsageError(f"{message}; see {self.prog} --help")


class OverridesParser(Parser):
    """A parser that accepts Hydra overrides, and lists the groups and their choices in its help."""

    def __init__(self, command: str, description: str) -> None:
        from ffem_jax.config.compose import list_groups

        groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in list_groups().items())
        values = (
            "values: any setting, such as arch.width_multiplier=0.5 or seed=1\n"
            "ffem settings [PATTERN] lists all settings and their meaning (docs/settings.md)\n"
            "ffem train --cfg prints those of a command"
        )
        super().__init__(command, description, epilog=f"choices:\n{groups}\n\n{values}")
        self.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, such as arch=ffem_am")
        add_config_dir(self)


class _OwnFolder(argparse.Action):
    """Loads the Python files of a folder as soon as it is parsed: later arguments may need the kinds they register."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from ffem_jax.specs.own_code import add_folder

        if not values.is_dir():
            raise UsageError(f"{self.option_strings[0]} {values} is not a folder")
        add_folder(values)
        setattr(namespace, self.dest, values)


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The argument --config-dir, a folder with the user's files."""
    parser.add_argument(
        "--config-dir", type=Path, action=_OwnFolder, metavar="DIR",
        help="a folder with config files, sweeps and Python files of your own",
    )  # fmt: skip


def say(text: str, *, whole: bool = False) -> None:
    """Print a message on standard error; on a terminal it is wrapped between words.

    whole: do not wrap, because it contains a command to copy.
    """
    if whole:
        print(show_unseen(text), file=sys.stderr, flush=True)
    else:
        print_prose(text, sys.stderr)


def show(text: str, *, whole: bool = False) -> None:
    """Print a line of results on standard output; control characters in names are escaped.

    whole: see `say`.
    """
    if whole:
        print(show_unseen(text), flush=True)
    else:
        print_prose(text)


def prepare_streams() -> None:
    """Prevent encoding errors: characters that the output's encoding lacks are escaped, such as `\\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_closed() -> bool:
    """Discard pending output to a closed pipe; return whether there is one.

    Called after a BrokenPipeError.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)  # errors are reported regardless of the event mask
    closed = [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    # A closed socket shows only when written to, which has just failed.
    closed = closed or [number for number in (1, 2) if stat.S_ISSOCK(os.fstat(number).st_mode)]
    for number in closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return bool(closed)


@contextlib.contextmanager
def open_output(folder: Path, option: str = "--out DIR") -> Iterator[None]:
    """Create the output folder of a command; if the command fails, remove it unless it has contents.

    Raises:
        ConfigError: the folder is not writable.
    """
    from ffem_jax.config.compose import check_writable

    made = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        check_writable(folder, option)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # raised if the folder is not empty
            for place in made:
                place.rmdir()
        raise


@contextlib.contextmanager
def keep_stdout_clean() -> Iterator[None]:
    """Redirect everything printed while trials run, by this process and its children, to standard error."""
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
    """On Ctrl-C say how to resume, then re-raise."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"ffem: stopped; the same command resumes from here: ffem {shlex.join(words)}", whole=True)
        raise
