"""`ffem align FOLDER OUT`: crops and aligns the faces in photographs, for `data=folder`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffem_jax.cli.terminal import DONE, FAILED, Parser, say, say_how_to_go_on, show
from ffem_jax.text.display import show_unseen

if TYPE_CHECKING:
    from ffem_jax.align.photographs import Alignment

SHOWN_AT_MOST = 20


def run(words: Sequence[str]) -> int:
    """Align a folder of photographs and list those that need a manual check."""
    parser = Parser(
        "align",
        "Find the face in each photograph of FOLDER/person/*.jpg (or jpeg, png, pgm, webp), rotate and scale it by\n"
        "the eyes, and crop it as LFW's faces are for training, into OUT/person/*.png. OUT/faces.csv lists all\n"
        "photographs; OUT/to_check.csv those with no face, with several, or unreadable. Run again, it resumes.",
        epilog="then: ffem train data=folder data.root=OUT",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photographs, one folder per person")
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder; created if missing")
    parser.add_argument(
        "--size", type=_parse_size, default=140, metavar="PIXELS", help="side length of a face; default: 140, as in LFW"
    )
    parser.add_argument(
        "--several", choices=("largest", "central", "skip"), default="largest",
        help="the face to keep if there are several; skip keeps none; default: largest",
    )  # fmt: skip
    options = parser.parse_intermixed_args(words)

    from ffem_jax.align.detector import DETECTOR, load_detector
    from ffem_jax.align.photographs import LIST_NAME, TO_CHECK_NAME, Settings, align_folder

    settings = Settings(options.size, options.several, DETECTOR)
    with say_how_to_go_on(["align", *words]):
        alignment = align_folder(options.folder, options.out, settings, load_detector())
    counts = alignment.count()
    for note in alignment.notes:
        say(note)
    if options.json:
        to_check = [dataclasses.asdict(outcome) for outcome in alignment.outcomes if not outcome.is_plain]
        summary = {"photographs": len(alignment.outcomes), **counts, "done_before": alignment.kept}
        lists = {"list": str(options.out / LIST_NAME), "to_check_list": str(options.out / TO_CHECK_NAME)}
        print(json.dumps({"out": str(options.out), **summary, **lists, "to_check": to_check}))
    else:
        for line in describe_alignment(alignment, options.out / TO_CHECK_NAME):
            show(line)
    return DONE if counts["aligned"] else FAILED


def describe_alignment(alignment: Alignment, to_check: Path) -> list[str]:
    """Return the closing lines: counts, and the first photographs to check."""
    counts = ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in alignment.count().items())
    done_before = f" ({alignment.kept:,} done before)" if alignment.kept else ""
    lines = [f"{len(alignment.outcomes):,} photographs{done_before}: {counts}"]
    rows = [outcome for outcome in alignment.outcomes if not outcome.is_plain]
    for outcome in rows[:SHOWN_AT_MOST]:
        what = outcome.reason or f"{outcome.faces} faces" + (", one kept" if outcome.output else "")
        lines.append(show_unseen(f"  {outcome.path}: {what}"))
    if rows:
        more = f"{len(rows) - SHOWN_AT_MOST:,} more and all " if len(rows) > SHOWN_AT_MOST else "all "
        lines.append(f"{more}{len(rows):,} to check: {to_check}")
    return lines


def _parse_size(text: str) -> int:
    if not text.isdecimal() or not 16 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 16 to 1024")
    return int(text)
