"""`ffem latency RECORDS...`: times recorded networks in a browser's runtime and adds the result to their records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.cli.recorded import find_records
from ffem_jax.cli.terminal import DONE, Parser, UsageError, keep_stdout_clean, say
from ffem_jax.cli.trials import add_network_options, choose_keys
from ffem_jax.text.tables import print_prose

EPILOG = """\
Each network is timed in TensorFlow.js' wasm backend in Node, on one thread of this machine, alternating with others.
The trials' files are not needed: a call takes the same time with any weights. For each done trial a record with the
median, latency_ms_wasm, is appended; existing lines do not change. Keep the machine idle meanwhile.
Then: ffem frontier RECORDS... --against latency_ms_wasm"""


def run(words: Sequence[str]) -> int:
    """Time the networks of the records, append the records, print one line per network."""
    parser = Parser("latency", "Milliseconds per face of recorded networks, written into their records.", EPILOG)
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORDS", help="records.jsonl, or a folder with some")
    parser.add_argument("--rounds", type=int, default=30, help="calls per network, after a warm-up (30)")
    parser.add_argument("--again", action="store_true", help="also measure networks that already have a latency")
    add_network_options(parser)
    options = parser.parse_intermixed_args(words)
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds} must be at least 1")

    from ffem_jax.latency.measure import describe_networks, measure_records
    from ffem_jax.latency.turns import BUSY_CORES

    paths = find_records(options.records)
    keys = choose_keys(options.records, options.network, options.best)
    with keep_stdout_clean():
        files, networks, busy = measure_records(paths, rounds=options.rounds, again=options.again, keys=keys, tell=say)
    if options.json:
        rows = [
            {
                "network": n.name,
                "resolution": n.resolution,
                "latency_ms_wasm": n.timing.median,
                "quartiles_ms": n.timing.quartiles,
            }
            for n in networks
        ]
        updated = [{"file": str(file.path), "updated": file.updated, "kept": file.kept} for file in files]
        print(json.dumps({"networks": rows, "files": updated, "busy_cores": busy.mean}))
    else:
        for line in describe_networks(networks):
            print_prose(line)
    for file in files:
        say(f"{file.path}: {file.updated} trials updated, {file.kept} unchanged")
    if busy.mean > BUSY_CORES:
        say(
            f"warning: other processes used {busy.mean:.2f} cores meanwhile; measure again (--again) on an idle machine"
        )
    return DONE
