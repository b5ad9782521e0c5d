"""`ffem verify RECORDS...`: the folds of LFW's View 2 put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.frontier import find_records
from ffem_jax.cli.terminal import DONE, Parser, print_table, say


def run(words: Sequence[str]) -> int:
    """Print each network's accuracy over folds, and write the ROC and the report."""
    parser = Parser("verify", "Verification of pairs (protocol=view2): mean over folds, standard error, ROC.")
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: verification/ beside the first records")
    options = parser.parse_intermixed_args(words)

    from ffem_jax.records import latest_records, read_records
    from ffem_jax.sweep import check_writable
    from ffem_jax.view2 import write_view2

    paths = find_records(options.records)
    out = options.out or paths[0].parent / "verification"
    check_writable(out, "--out DIR")
    report = write_view2(latest_records(record for path in paths for record in read_records(path)), out)
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        print_table(report.table)
        for result in report.results:
            if result.missing:
                say(f"{result.label}: folds {', '.join(map(str, result.missing))} are missing")
        say(f"verification: {out}")
    return DONE
