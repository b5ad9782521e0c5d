"""`ffem report RECORDS...`: one HTML page to read, filter and pass on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_cap, add_metric, add_records, add_where, choose_out, find_records
from ffem_jax.cli.terminal import DONE, Parser, say


def run(words: Sequence[str]) -> int:
    """Write the page."""
    parser = Parser(
        "report", "One HTML page of recorded trials: answer, frontier, comparisons, curves, failures, a table."
    )
    add_records(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html beside the first records, if new",
    )
    add_where(parser)
    add_cap(parser)
    add_metric(parser)
    parser.add_argument("--title", default="", help="a name for the page, such as the sweep's")
    parser.add_argument("--question", default="", help="the question; default: the most accurate under the limit")
    parser.add_argument(
        "--mixed", action="store_true", help="accept records of several data sets or protocols, each on its own axes"
    )
    options = parser.parse_intermixed_args(words)

    from ffem_jax.analysis.selection import select_where
    from ffem_jax.records.record import latest_records
    from ffem_jax.reports.html import write_report
    from ffem_jax.reports.html.wording import read_for_report
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    out = choose_out(options.out, paths[0].parent / "report.html", "--out FILE")
    if out.is_dir():
        out = out / "report.html"
    check_writable(out.parent, "--out FILE")
    recorded, left_out = read_for_report(paths)
    records = select_where(recorded, options.where)
    for line in left_out:
        say(f"ffem: warning: {line}")
    notes = write_report(
        records,
        out,
        title=options.title,
        question=options.question,
        cap_mb=options.cap_mb,
        precision=options.precision,
        metric=options.metric,
        mixed=options.mixed,
        left_out=left_out,
        faces=options.faces,
        among=latest_records(recorded),
    )
    for note in notes:
        say(f"ffem: warning: {note}")
    if options.json:
        print(
            json.dumps(
                {"file": str(out), "bytes": out.stat().st_size, "left_out": [*left_out, *notes]}
                | dict(Counter(record.status for record in records))
            )
        )
    else:
        say(f"report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return DONE
