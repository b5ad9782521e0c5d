"""`ffem <command>`: finds the command, runs it, turns what it raises into one line and an exit status.

Standard output holds results and nothing else; what is said on the way goes to standard error. Each command is a
module here with a `run(words) -> int`, imported when it is asked for, as are Hydra, JAX and rich inside it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from ffem_jax import __version__
from ffem_jax.cli.terminal import (
    BAD_USAGE,
    DONE,
    INTERRUPTED,
    NOBODY_READS,
    forget_closed,
    prepare_streams,
    say,
)
from ffem_jax.errors import FfemError
from ffem_jax.kernels import check_engine
from ffem_jax.kernels.huge_pages import use_huge_pages
from ffem_jax.text.tables import find_width, wrap_prose

# Command -> its module and what it does.
COMMANDS = {
    "train": ("ffem_jax.cli.train", "train and evaluate one network"),
    "sweep": ("ffem_jax.cli.sweep", "train the networks of sweeps/NAME.yaml; started again, it goes on"),
    "frontier": ("ffem_jax.cli.frontier", "which networks no other beats in size and accuracy: table, figure, report"),
    "align": ("ffem_jax.cli.align", "photographs of people to aligned faces that data=folder reads"),
    "cost": ("ffem_jax.cli.cost", "parameters, MACs, bytes, peak activation of a network; trains nothing"),
    "export": (
        "ffem_jax.cli.export",
        "a trained network as files for a phone or a browser, checked against the original",
    ),
    "latency": ("ffem_jax.cli.latency", "how long recorded networks take in a browser's runtime, into their records"),
    "completion": ("ffem_jax.cli.completion", "a script that completes all this in bash or zsh"),
    "compare": ("ffem_jax.cli.compare", "what one setting changes, pair by pair: differences, intervals, exact tests"),
    "answer": ("ffem_jax.cli.answer", "what a sweep answers: effects, trends, interactions, and its power"),
    "embed": ("ffem_jax.cli.embed", "photographs of people to vectors: a file, a gallery, a calibration"),
    "effects": ("ffem_jax.cli.effects", "what each choice of a search changes: main effects with intervals"),
    "list": ("ffem_jax.cli.list_trials", "every recorded trial: network, key, status, accuracy, bytes, folder"),
    "settings": ("ffem_jax.cli.settings", "every setting that is typed as key=value: values, default, meaning"),
    "show": ("ffem_jax.cli.show_trials", "one recorded trial or network: settings, accuracy, cost, files"),
    "groups": ("ffem_jax.cli.groups", "accuracy by group of test images, such as with and without glasses"),
    "paper": ("ffem_jax.cli.paper", "the paper's tables and curves from records of its networks: one page"),
    "report": (
        "ffem_jax.cli.report",
        "one HTML page of a sweep: answer, frontier, comparisons, curves, failures, table",
    ),
    "predict": ("ffem_jax.cli.predict", "which untrained networks are worth training, from records of some"),
    "teach": ("ffem_jax.cli.teach", "a large network's vectors of a folder of faces, for small ones to learn from"),
    "serve": ("ffem_jax.cli.serve", "the recognition server: vectors in, names out; serve keys manages who may ask"),
    "verify": ("ffem_jax.cli.verify", "LFW's View 2 over its folds: accuracy with its standard error, ROC"),
}

# Those that train: they are started again for memory in huge pages, which takes as long as a short command.
COMPUTING = ("train", "sweep", "export", "embed", "align", "teach", "latency")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a trial failed, 2 bad usage, 130 interrupted, 141 where
    nobody reads the output any more."""
    typed, words = words is None, list(sys.argv[1:] if words is None else words)
    if typed and words and words[0] in COMPUTING:
        use_huge_pages()
    prepare_streams()
    os.environ.pop("JAX_ENABLE_X64", None)  # everything here is float32
    try:
        try:
            return run_command(words)
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and forget_closed():
            return NOBODY_READS
        if os.environ.get("HYDRA_FULL_ERROR") or not isinstance(error, FfemError | OSError):
            raise
        if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
            return complain(f"{os.fsdecode(error.filename)}: {error.strerror}")
        return complain(str(error))


def run_command(words: Sequence[str]) -> int:
    """Run the command that `words` begin with; its exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(make_help())
        return DONE if words else BAD_USAGE
    if words[0] != "--version" and words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of: {', '.join(COMMANDS)}"
        return complain(f"there is no command {words[0]!r}; {hint}")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(f"ffem: warning: {' '.join(str(message).splitlines())}")
        if words[0] == "--version":
            return tell_version()
        check_engine()
        return int(importlib.import_module(COMMANDS[words[0]][0]).run(words[1:]))


def tell_version() -> int:
    """Print the version, and what computes on a CPU."""
    from ffem_jax.kernels import describe_engine

    print(f"ffem {__version__}, on a CPU by {describe_engine()}")
    return DONE


def complain(message: str) -> int:
    """Say what is wrong, in one line."""
    say(f"ffem: error: {' '.join(message.split())}")
    return BAD_USAGE


def make_help() -> str:
    """What `ffem --help` prints."""
    width = find_width(sys.stdout)
    commands = "\n".join(wrap_prose(f"  {name:10} {what}", width, 13) for name, (_, what) in COMMANDS.items())
    return (
        "usage: ffem COMMAND ...\n\nSearch small face-feature networks under a hard size limit.\n\n"
        f"{commands}\n\nffem COMMAND --help says more; ffem --version."
    )
