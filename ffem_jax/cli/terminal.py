"""What the commands share: reading words, and talking on the right stream."""

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
    """Words on the command line that mean nothing. The message is one line."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a text, each broken between words where the terminal is narrower."""

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
        self.add_argument("--json", action="store_true", help="print JSON, and nothing else, on standard output")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; of words that argparse does not know, name the options and what they may be meant for."""
        before, unknown, words = message.partition("unrecognized arguments: ")
        options = [word for word in words.split() if word.startswith("-") and word != "-"]
        if unknown and not before and options:
            # argparse lists the words behind an unknown option as well.
            known = [name for action in self._actions for name in action.option_strings]
            message = f"there is no option {options[0]};{suggest(options[0], known)}"
            raise UsageError(f"{message} see {self.prog} --help")
        raise UsageError(f"{message}; see {self.prog} --help")


class OverridesParser(Parser):
    """A parser that takes Hydra overrides, and shows the groups and their choices in its help."""

    def __init__(self, command: str, description: str) -> None:
        from ffem_jax.config.compose import list_groups

        groups = "\n".join(f"  {group}={'|'.join(choices)}" for group, choices in list_groups().items())
        values = (
            "values: any setting, such as arch.width_multiplier=0.5 or seed=1\n"
            "ffem settings [PATTERN] says what there is and what it means (docs/settings.md)\n"
            "ffem train --cfg prints those of a command"
        )
        super().__init__(command, description, epilog=f"choices:\n{groups}\n\n{values}")
        self.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides, such as arch=ffem_am")
        add_config_dir(self)


class _OwnFolder(argparse.Action):
    """Load the Python files of a folder as soon as it is named: what is read after it may need their kinds."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        from ffem_jax.specs.own_code import add_folder

        if not values.is_dir():
            raise UsageError(f"{self.option_strings[0]} {values} is not a folder")
        add_folder(values)
        setattr(namespace, self.dest, values)


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """The argument --config-dir, a folder of the user's own."""
    parser.add_argument(
        "--config-dir", type=Path, action=_OwnFolder, metavar="DIR",
        help="a folder with config files, sweeps and Python files of your own",
    )  # fmt: skip


def say(text: str, *, whole: bool = False) -> None:
    """A line for the user, on standard error; a terminal gets it broken between words.

    whole: it holds a command to be copied, which a line's end would cut in two.
    """
    if whole:
        print(show_unseen(text), file=sys.stderr, flush=True)
    else:
        print_prose(text, sys.stderr)


def show(text: str, *, whole: bool = False) -> None:
    """A line of results, on standard output; names in it are shown as they are and move no cursor.

    whole: as `say` has it.
    """
    if whole:
        print(show_unseen(text), flush=True)
    else:
        print_prose(text)


def prepare_streams() -> None:
    """Let no text end a command: what an output's encoding has no letter for comes out as an escape such as `\\xfc`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def forget_closed() -> bool:
    """Send what is still to be written to an output that nobody reads any more nowhere; whether there is such a one.

    Called after a BrokenPipeError.
    """
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)  # what is wrong with it is told unasked
    closed = [number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    # A socket whose other end reads no more is told by writing alone, which has just failed.
    closed = closed or [number for number in (1, 2) if stat.S_ISSOCK(os.fstat(number).st_mode)]
    for number in closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return bool(closed)


@contextlib.contextmanager
def open_output(folder: Path, option: str = "--out DIR") -> Iterator[None]:
    """Make the folder that a command writes to; where the command fails, take it away again unless something is in it.

    Raises:
        ConfigError: files cannot be made there.
    """
    from ffem_jax.config.compose import check_writable

    made = [place for place in (folder, *folder.absolute().parents) if not place.exists()]
    try:
        check_writable(folder, option)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # which is what a folder with something in it raises
            for place in made:
                place.rmdir()
        raise


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
        say(f"ffem: stopped; the same command goes on from here: ffem {shlex.join(words)}", whole=True)
        raise
