"""`ffem compare RECORDS... --factor NAME`: the effect of one setting, in pairs of trials."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_metric, add_precision, add_records, add_where, find_records, read_all
from ffem_jax.cli.terminal import DONE, Parser, print_table, say
from ffem_jax.text.tables import print_prose


def run(words: Sequence[str]) -> int:
    """Print the comparison and its conclusion; with --out, write page, JSON and figure."""
    parser = Parser(
        "compare", "The effect of one setting: pairs that differ in nothing else, with intervals and exact tests."
    )
    add_records(parser)
    parser.add_argument(
        "--factor", required=True, help="such as attention.kind, arch.width_multiplier, recipe.loss, data.resolution"
    )
    parser.add_argument("--against", default="", metavar="LEVEL", help="compare every other level only with this one")
    add_where(parser)
    add_metric(parser)
    add_precision(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write compare.md, compare.json and the figure here")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.analysis.cap import choose_cap
    from ffem_jax.analysis.compare import compare_records
    from ffem_jax.reports.comparison import (
        comparison_to_dict,
        list_sentences,
        render_comparison,
        write_comparison,
    )
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    if options.out:
        check_writable(options.out, "--out DIR")
    records = read_all(paths, options.where)
    found = compare_records(
        records,
        options.factor,
        against=options.against,
        metric=options.metric,
        precision=choose_cap(records, precision=options.precision)[0].precision,
        faces=options.faces,
    )
    if options.out:
        write_comparison(found, options.out)
    if options.json:
        print(json.dumps(comparison_to_dict(found)))
    else:
        print_table(render_comparison(found))
        for sentence in list_sentences(found):
            print_prose(f"- {sentence}")
    for note in found.notes:
        say(note)
    if options.out:
        say(f"comparison: {options.out}")
    return DONE
