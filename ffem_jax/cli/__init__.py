"""`ffem <command>`: finds and runs the command, and turns an error into one line and an exit status.

Standard output holds only results; progress and messages go to standard error. Each command is a module here with a
`run(words) -> int`. It is imported on demand, and it imports Hydra, JAX and rich on demand.
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

# Command -> module and summary.
COMMANDS = {
    "train": ("ffem_jax.cli.train", "train and evaluate one network"),
    "sweep": ("ffem_jax.cli.sweep", "train the networks of sweeps/NAME.yaml; run again, it resumes"),
    "frontier": (
        "ffem_jax.cli.frontier",
        "show the networks that none beats in size and accuracy: table, figure, report",
    ),
    "align": ("ffem_jax.cli.align", "crop and align the faces in photographs, for data=folder"),
    "cost": ("ffem_jax.cli.cost", "print a network's parameters, MACs, bytes, peak activation; trains nothing"),
    "export": (
        "ffem_jax.cli.export",
        "write a trained network as files for a phone or a browser, checked against the original",
    ),
    "latency": ("ffem_jax.cli.latency", "time recorded networks in a browser's runtime and add it to their records"),
    "completion": ("ffem_jax.cli.completion", "print a completion script for bash or zsh"),
    "compare": (
        "ffem_jax.cli.compare",
        "measure one setting's effect in pairs: differences, intervals, exact tests",
    ),
    "answer": ("ffem_jax.cli.answer", "answer a sweep's question: effects, trends, interactions, and power"),
    "embed": ("ffem_jax.cli.embed", "turn photographs of people into vectors: a file, a gallery, a calibration"),
    "effects": ("ffem_jax.cli.effects", "measure the effect of each choice in a search, with intervals"),
    "list": ("ffem_jax.cli.list_trials", "list every recorded trial: network, key, status, accuracy, bytes, folder"),
    "settings": ("ffem_jax.cli.settings", "list every key=value setting: values, default, meaning"),
    "show": ("ffem_jax.cli.show_trials", "show one recorded trial or network: settings, accuracy, cost, files"),
    "groups": ("ffem_jax.cli.groups", "show accuracy by group of test images, such as with and without glasses"),
    "paper": ("ffem_jax.cli.paper", "write the paper's tables and curves, from records of its networks"),
    "report": (
        "ffem_jax.cli.report",
        "write one HTML page for a sweep: answer, frontier, comparisons, curves, failures, table",
    ),
    "predict": (
        "ffem_jax.cli.predict",
        "predict from records which untrained networks are worth training",
    ),
    "teach": (
        "ffem_jax.cli.teach",
        "store a large network's vectors of faces, for small networks to learn from",
    ),
    "serve": ("ffem_jax.cli.serve", "run the recognition server: vectors in, names out; serve keys manages access"),
    "verify": ("ffem_jax.cli.verify", "evaluate LFW's View 2 over its folds: accuracy with its standard error, ROC"),
}

# Commands that train restart themselves to get huge pages, which takes as long as a short command.
COMPUTING = ("train", "sweep", "export", "embed", "align", "teach", "latency")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 a trial failed, 2 bad usage, 130 interrupted, 141 when
    the reader of the output has gone."""
    typed, words = words is None, list(sys.argv[1:] if words is None else words)
    if typed and words and words[0] in COMPUTING:
        use_huge_pages()
    prepare_streams()
    os.environ.pop("JAX_ENABLE_X64", None)  # everything here is float32
    try:
        try:
            return run_command(words)
        finally:
            sys.stdout.flush()  # here, where a full disk can still be reported
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
    """Run the command named by the first of `words` and return its exit status."""
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
    """Print the version and the CPU engine."""
    from ffem_jax.kernels import describe_engine

    print(f"ffem {__version__}, on a CPU by {describe_engine()}")
    return DONE


def complain(message: str) -> int:
    """Report an error in one line."""
    say(f"ffem: error: {' '.join(message.split())}")
    return BAD_USAGE


def make_help() -> str:
    """Return the text of `ffem --help`."""
    width = find_width(sys.stdout)
    commands = "\n".join(wrap_prose(f"  {name:10} {what}", width, 13) for name, (_, what) in COMMANDS.items())
    return (
        "usage: ffem COMMAND ...\n\nSearch small face-feature networks under a hard size limit.\n\n"
        f"{commands}\n\nSee also: ffem COMMAND --help, ffem --version."
    )
