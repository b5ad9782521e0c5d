"""Shared by the commands that read records: finds files, selects one version of the faces, reports omissions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.terminal import UsageError, add_config_dir, say
from ffem_jax.records.measures import ACCURACIES, MEASURES
from ffem_jax.specs.trial import PRECISIONS

if TYPE_CHECKING:
    from ffem_jax.records.record import TrialRecord


def add_records(parser: argparse.ArgumentParser) -> None:
    """The arguments RECORDS..., --config-dir and --faces."""
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    add_config_dir(parser)
    parser.add_argument(
        "--faces",
        default="",
        metavar="FINGERPRINT",
        help="only the trials with these faces, if the data changed while trials were recorded (the newest)",
    )


def add_where(parser: argparse.ArgumentParser) -> None:
    """The argument --where, whose conditions `select_where` reads."""
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE",
        help="only trials with this setting, such as recipe.name=modern, attention.kind=eca or data.resolution=96; may "
        "be repeated: several values of one key are alternatives",
    )  # fmt: skip


def add_metric(parser: argparse.ArgumentParser) -> None:
    """The argument --metric, with the meaning of each choice."""
    first, *others = MEASURES.values()
    meanings = ". ".join(one.meaning.removesuffix(".") for one in (first, *ACCURACIES.values(), *others))
    parser.add_argument(
        "--metric", choices=tuple(MEASURES), default="accuracy", metavar="MEASURE", help=meanings.replace("%", "%%")
    )


def add_cap(parser: argparse.ArgumentParser) -> None:
    """The arguments --cap-mb and --precision, None by default: `analysis.cap.choose_cap` reads both."""
    add_cap_mb(parser)
    add_precision(parser)


_RECORDED = "default: that of the trials, else"


def add_cap_mb(parser: argparse.ArgumentParser) -> None:
    """The argument --cap-mb, None by default. Its value must be a size above 0."""
    parser.add_argument(
        "--cap-mb", type=_read_size, metavar="MB", help=f"the size limit, in MB of 10**6 bytes; {_RECORDED} 10"
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """The argument --precision, None by default."""
    parser.add_argument("--precision", choices=PRECISIONS, help=f"bytes at this precision; {_RECORDED} float32")


def _read_size(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a size above 0, in MB of 10**6 bytes")
    return size


def choose_out(given: Path | None, default: Path, option: str) -> Path:
    """Return the output path: `given`, or `default` if that does not exist yet.

    Raises UsageError if it does: the output of a sweep is replaced only on request.
    """
    if given is None and default.exists():
        raise UsageError(
            f"{default} already exists; choose another path with {option}, or replace it with "
            f"{option.split()[0]} {default}"
        )
    return given or default


def find_records(paths: Sequence[Path]) -> list[Path]:
    """Find the records files that `paths` name; folders are searched. Raises UsageError for a path without any."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a records file or a sweep's folder")
        files = sorted(path.rglob("records.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} contains no records.jsonl; give a records file or a sweep's folder")
        found += files
    return found


def read_all(paths: Iterable[Path], where: Sequence[str] = ()) -> list[TrialRecord]:
    """The latest record of every trial that meets `where`. Raises FrontierError as `select_where` does."""
    from ffem_jax.analysis.selection import select_where
    from ffem_jax.records.record import latest_records, read_records

    return select_where(latest_records(record for path in paths for record in read_records(path)), where)


def read_comparable(
    paths: Iterable[Path], faces: str, wanted: Callable[[TrialRecord], bool] = lambda _: True
) -> list[TrialRecord]:
    """Return the `wanted` records that share one axis; report what is left out.

    faces: see `select_comparable`. Raises FrontierError as it does.
    """
    from ffem_jax.analysis.comparability import select_comparable

    records, notes = select_comparable(filter(wanted, read_all(paths)), faces=faces)
    for note in notes:
        say(f"ffem: warning: {note}")
    return records
