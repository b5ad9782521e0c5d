"""`ffem frontier RECORDS...`: the recorded networks that no other beats."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import add_cap, add_metric, add_records, add_where, choose_out, find_records, read_all
from ffem_jax.cli.terminal import DONE, Parser, UsageError, print_table, say
from ffem_jax.records.costs import COST_AXES


def run(words: Sequence[str]) -> int:
    """Print the Pareto table; with --out, write the figure and the report."""
    parser = Parser("frontier", "The Pareto frontier of recorded trials: table, figure, report.")
    add_records(parser)
    add_where(parser)
    add_cap(parser)
    parser.add_argument(
        "--against", choices=tuple(COST_AXES), default="bytes", metavar="COST",
        help=f"the cost: one of {', '.join(COST_AXES)} (bytes); ffem latency measures the last",
    )  # fmt: skip
    add_metric(parser)
    parser.add_argument("--style", choices=("screen", "paper"), default="screen", help="paper: also one column wide")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the figure and the report here; else nowhere")
    parser.add_argument(
        "--finalists", type=int, metavar="N",
        help="write the N best as configs, and a sweep of them, into finalists/ in --out DIR (or in frontier/ beside "
        "the first records, if new)",
    )  # fmt: skip
    parser.add_argument("--beside", default="", metavar="ARCH,...", help="networks to train as well: ffem_am,ffem")
    options = parser.parse_intermixed_args(words)
    if options.finalists is not None and options.finalists < 1:
        raise UsageError(f"--finalists {options.finalists} must be at least 1")
    beside = [name for name in options.beside.split(",") if name]
    if beside and options.finalists is None:
        raise UsageError("--beside adds to the sweep that --finalists N writes; give both")

    if options.style == "paper" and options.out is None:
        raise UsageError("--style paper is for the figure that --out DIR writes; give both")

    from ffem_jax.analysis.selection import select_where
    from ffem_jax.reports.frontier import compute_frontier, write_result
    from ffem_jax.reports.wording import describe_agreement, judge_frontier
    from ffem_jax.runs.sweep import check_writable

    paths = find_records(options.records)
    finalists: Path | None = None
    if options.finalists:
        default = paths[0].parent / "frontier" / "finalists"
        finalists = choose_out(options.out and options.out / "finalists", default, "--out DIR")
    for folder in filter(None, (options.out, finalists)):
        check_writable(folder, "--out DIR")
    recorded = read_all(paths)
    records = select_where(recorded, options.where)
    result = compute_frontier(
        records,
        cap_mb=options.cap_mb,
        precision=options.precision,
        against=options.against,
        metric=options.metric,
        faces=options.faces,
        among=recorded,
    )
    if options.out:
        result = write_result(result, options.out, options.style)
    for note in (*result.notes, *result.warnings):
        say(f"ffem: warning: {note}")
    if finalists:
        from ffem_jax.reports.finalists import write_finalists

        write_finalists(records, result.networks, result.question, finalists, options.finalists, beside)
    if options.json:
        print(json.dumps(result.to_dict()))
    else:
        print_table(result.table)
        front = [n for n, is_on in zip(result.networks, result.on_frontier, strict=True) if is_on]
        judged = judge_frontier(result.networks, front, result.question)
        for told in (*judged, describe_agreement(result.agreement), *result.exclusions):
            if told:
                say(told)
        if options.out:
            say(f"frontier: {options.out}")
        if finalists:
            say(f"to retrain the best: ffem sweep finalists --config-dir {shlex.quote(str(finalists))}", whole=True)
    return DONE
