"""`ffem verify RECORDS...`: summarises LFW's View 2 over its folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_records, choose_out, find_records, read_all, read_comparable
from ffem_jax.cli.terminal import DONE, Parser, print_table, say


def run(words: Sequence[str]) -> int:
    """Print each network's accuracy over folds, and write the ROC and the report."""
    parser = Parser("verify", "Verification of pairs (protocol=view2): mean over folds, standard error, ROC.")
    add_records(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: verification/ beside the first records, if new",
    )
    options = parser.parse_intermixed_args(words)

    from ffem_jax.reports.view2 import write_view2
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    out = choose_out(options.out, paths[0].parent / "verification", "--out DIR")
    check_writable(out, "--out DIR")
    records = read_comparable(paths, options.faces, lambda record: record.view.tests_pairs)
    report = write_view2(records, out, read_all(paths))
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        print_table(report.table)
        for result in report.results:
            if result.missing:
                say(f"{result.label}: folds {', '.join(map(str, result.missing))} are missing")
        for sentence in report.exclusions:
            say(sentence)
        say(f"verification: {out}")
    return DONE
