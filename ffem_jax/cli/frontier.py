"""`ffem frontier RECORDS...`: which of the recorded networks no other beats."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_records, find_records, read_all
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.specs.trial import PRECISIONS


def run(words: Sequence[str]) -> int:
    """Print the Pareto table, and write the figure and the report."""
    parser = Parser("frontier", "The Pareto frontier of recorded trials: table, figure, report.")
    add_records(parser)
    parser.add_argument("--cap-mb", type=float, default=10.0, help="the size limit, in MB of 10**6 bytes (10)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="bytes at this precision (float32)")
    costs = ("bytes", "params", "macs", "latency_ms_wasm")
    parser.add_argument("--against", choices=costs, default="bytes", help="the cost (bytes); see also ffem latency")
    parser.add_argument("--metric", choices=("accuracy", "accuracy_gallery"), default="accuracy")
    parser.add_argument("--style", choices=("screen", "paper"), default="screen", help="paper: a column wide, too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: frontier/ beside the first records")
    parser.add_argument("--finalists", type=int, metavar="N", help="write the N best as configs, and a sweep of them")
    parser.add_argument("--beside", default="", metavar="ARCH,...", help="what that sweep trains besides: ffem_am,ffem")
    options = parser.parse_intermixed_args(words)
    if options.finalists is not None and options.finalists < 1:
        raise UsageError(f"--finalists {options.finalists} must be at least 1")
    beside = [name for name in options.beside.split(",") if name]
    if beside and options.finalists is None:
        raise UsageError("--beside is for the sweep that --finalists N writes; give both")

    from ffem_jax.reports.frontier import write_frontier
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    out = options.out or paths[0].parent / "frontier"
    check_writable(out, "--out DIR")
    records = read_all(paths)
    result = write_frontier(
        records,
        out,
        cap_mb=options.cap_mb,
        precision=options.precision,
        against=options.against,
        metric=options.metric,
        style=options.style,
        faces=options.faces,
    )
    for note in result.notes:
        say(f"ffem: warning: {note}")
    if options.finalists:
        from ffem_jax.reports.finalists import write_finalists

        write_finalists(records, result.networks, result.question, out / "finalists", options.finalists, beside)
    if options.json:
        print(json.dumps(result.to_dict()))
    else:
        print_table(result.table)
        if told := result.agreement.describe():
            say(told)
        say(f"frontier: {out}")
        if options.finalists:
            say(f"to train the best again: ffem sweep finalists --config-dir {shlex.quote(str(out / 'finalists'))}")
    return DONE
