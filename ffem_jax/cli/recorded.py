"""What the commands that read records share: which files, which version of the faces, and what is left out, said."""

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
        help="the trials of these faces alone, where the data changed while trials were recorded (the newest)",
    )


def add_where(parser: argparse.ArgumentParser) -> None:
    """The argument --where, whose conditions `select_where` reads."""
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE",
        help="only trials with this setting, such as recipe.name=modern, attention.kind=eca or data.resolution=96; may "
        "be repeated: of one key, either value",
    )  # fmt: skip


def add_metric(parser: argparse.ArgumentParser) -> None:
    """The argument --metric, with what each choice means."""
    first, *others = MEASURES.values()
    meanings = ". ".join(one.meaning.removesuffix(".") for one in (first, *ACCURACIES.values(), *others))
    parser.add_argument(
        "--metric", choices=tuple(MEASURES), default="accuracy", metavar="MEASURE", help=meanings.replace("%", "%%")
    )


def add_cap(parser: argparse.ArgumentParser) -> None:
    """The arguments --cap-mb and --precision, None where they are not given: `analysis.cap.choose_cap` reads both."""
    add_cap_mb(parser)
    add_precision(parser)


_RECORDED = "default: the one that the trials were run under, else"


def add_cap_mb(parser: argparse.ArgumentParser) -> None:
    """The argument --cap-mb, None where it is not given. Its value must be a size above 0."""
    parser.add_argument(
        "--cap-mb", type=_read_size, metavar="MB", help=f"the size limit, in MB of 10**6 bytes; {_RECORDED} 10"
    )


def add_precision(parser: argparse.ArgumentParser) -> None:
    """The argument --precision, None where it is not given."""
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
    """Where a command writes: `given`, or `default` where nothing stands there yet.

    Raises UsageError where something does: what a sweep wrote is replaced only by name.
    """
    if given is None and default.exists():
        raise UsageError(
            f"{default} exists already; say where to write with {option}, or replace it with "
            f"{option.split()[0]} {default}"
        )
    return given or default


def find_records(paths: Sequence[Path]) -> list[Path]:
    """The records files that `paths` name, folders searched. Raises UsageError for a path that holds none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist; give a records file or a sweep's folder")
        files = sorted(path.rglob("records.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path} holds no records.jsonl; give a records file or a sweep's folder")
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
    """The `wanted` records of the files that can stand on one axis; says what is left out.

    faces: as `select_comparable` has it. Raises FrontierError as it does.
    """
    from ffem_jax.analysis.comparability import select_comparable

    records, notes = select_comparable(filter(wanted, read_all(paths)), faces=faces)
    for note in notes:
        say(f"ffem: warning: {note}")
    return records
