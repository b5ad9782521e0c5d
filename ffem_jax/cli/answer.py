"""`ffem answer RECORDS...`: the answer of a sweep, and the power of its design."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_metric, add_records, add_where, find_records, read_all
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.text.tables import print_prose


def run(words: Sequence[str]) -> int:
    """Print the answer: design, table, sentences; with --out, write page, JSON and figures."""
    parser = Parser(
        "answer",
        "The answer of a sweep: power, main effects, trends along ordered levels and interactions, corrected together.",
    )
    add_records(parser)
    parser.add_argument(
        "--factor", action="append", default=[], metavar="NAME",
        help="only this setting, such as attention.kind; may be repeated. Fewer tests need a milder correction "
        "(default: all that vary)",
    )  # fmt: skip
    parser.add_argument("--against", default="", metavar="LEVEL", help="compare the other levels only with this one")
    add_where(parser)
    add_metric(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write answer.md, answer.json and the figures here")
    add_chance(parser)
    options = parser.parse_intermixed_args(words)

    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    if options.out:
        check_writable(options.out, "--out DIR")
    if options.chance:
        from ffem_jax.cli.answer_chance import run_chance

        return run_chance(paths, options)
    if options.per_person is not None or options.points is not None:
        raise UsageError("--points and --per-person need --chance FIRST SECOND, which names the two networks")
    return _answer(paths, options)


def add_chance(parser: argparse.ArgumentParser) -> None:
    """The arguments --chance, --points, --per-person."""
    parser.add_argument(
        "--chance", nargs=2, metavar=("FIRST", "SECOND"), default=None,
        help="instead, estimate how often the network SECOND would beat FIRST by --points by chance alone, in "
        "resamples of these records' images and trainings; writes chance.md and chance.png into --out",
    )  # fmt: skip
    parser.add_argument(
        "--points", type=float, default=None, metavar="POINTS", help="with --chance: the lead, in points (7.7)"
    )
    parser.add_argument(
        "--per-person", type=int, default=None, metavar="IMAGES",
        help="with --chance: test images per person in a resample (2); the faces must be on this machine",
    )  # fmt: skip


def _answer(paths: Sequence[Path], options: argparse.Namespace) -> int:
    from ffem_jax.analysis.answer import answer_records
    from ffem_jax.analysis.selection import select_where
    from ffem_jax.reports.answer import (
        answer_to_dict,
        describe_design,
        list_sentences,
        render_answer,
        write_answer,
    )

    recorded = read_all(paths)
    answer = answer_records(
        select_where(recorded, options.where),
        factors=options.factor,
        against=options.against,
        metric=options.metric,
        faces=options.faces,
        among=recorded,
    )
    if options.out:
        write_answer(answer, options.out)
    if options.json:
        print(json.dumps(answer_to_dict(answer)))
    else:
        print_table(render_answer(answer))
        for line in (*describe_design(answer), *list_sentences(answer)):
            print_prose(f"- {line}")
    for note in answer.notes:
        say(note)
    if options.out:
        say(f"answer: {options.out}")
    return DONE
