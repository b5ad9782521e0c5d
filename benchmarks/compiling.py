"""What compiling costs a search, network by network: with the compiled kernels and with plain JAX.

    python -m benchmarks.compiling [--records results/search/records.jsonl] [--first 60] [--networks 20]
    python -m benchmarks.compiling --report-only

From the repository root. The networks are those that a search trained, in its order. Two processes on one core train
them alternately, one sleeping while the other works: compile, then one epoch. Nothing is compiled beforehand or read
from disk, so this is the cost for a search worker. Writes results/speed/compiling.jsonl, .md and .png.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, report
from benchmarks.contest import make_faces
from benchmarks.harness import Row, Worker, tell
from ffem_jax.kernels.huge_pages import use_huge_pages
from ffem_jax.records.record import TrialRecord, read_records

# By the value of FFEM_ENGINE.
WAYS = {"kernels": "with the compiled kernels", "jax": "with plain JAX"}
TRAIN, TEST = 1155, 312


def main(words: Sequence[str] | None = None) -> None:
    """Measure both ways and write the page; --report-only only writes the page."""
    parser = harness.make_parser(__doc__, "speed")
    parser.add_argument("--records", type=Path, default=Path("results/search/records.jsonl"), help="of a search")
    harness.add_numbers(parser, first=(60, "number of the first network"), networks=(20, "number of networks"))
    options = parser.parse_args(words)
    harness.check_positive(options, "networks")
    path = options.out / "compiling.jsonl"
    if not options.report_only:
        done = [record for record in read_records(options.records) if record.status == "done"]
        records = done[options.first : options.first + options.networks]
        if len(records) < options.networks:
            raise SystemExit(f"{options.records} has {len(done)} trained networks; take fewer with --first, --networks")
        rows = compete(records, options.first)
        path.unlink(missing_ok=True)
        harness.append_rows(path, *rows)
    print(write_report(harness.demand_rows(harness.read_lines(path)), options.out))


def compete(records: Sequence[TrialRecord], first: int) -> list[Row]:
    """Measure both ways network by network, in one process each on the same core; they alternate in going first."""
    core, machine, rows = {min(os.sched_getaffinity(0))}, harness.describe_machine(), []
    workers = {}
    for way in WAYS:
        variables = {"JAX_NUM_CPU_DEVICES": "1", "FFEM_ENGINE": "jax" if way == "jax" else ""}
        workers[way] = Worker(start, records, environment=variables, cores=core)
    for number in range(len(records)):
        row: Row = {"network": first + number, "machine": machine}
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            try:
                row[way] = workers[way].ask(number)
            except RuntimeError as error:
                raise SystemExit(f"network {first + number}, {WAYS[way]}: {error}") from None
        seconds = ", ".join(f"{way} {row[way]['compile_seconds']:.1f} s" for way in WAYS)
        tell(f"{number + 1} of {len(records)}: {seconds}")
        rows.append(row)
    for worker in workers.values():
        worker.end()
    return rows


def start(records: Sequence[TrialRecord]) -> tuple[None, Callable[[int], Row]]:
    """Return the function that trains a network by number; runs in the process of one way."""
    import jax
    import numpy as np

    jax.config.update("jax_enable_compilation_cache", False)

    def train(number: int) -> Row:
        from benchmarks.peers.ours import make_steps
        from ffem_jax.machine.devices import release_memory
        from ffem_jax.records.view import read_trial
        from ffem_jax.specs.architecture import resolve_network
        from ffem_jax.training.trainer import Trainer

        trial, sides = read_trial(records[number].spec), (np.arange(TRAIN), np.arange(TEST))
        faces, network = make_faces(trial.data.resolution, TRAIN + TEST), resolve_network(trial.arch)
        started = time.process_time()
        trainer = Trainer(network, trial.recipe, [0], *faces, *sides)
        compiled = time.process_time() - started
        state: Any = trainer.init()
        for first, last in ((0, 2), (2, trainer.steps_per_epoch)):  # the first two warm up
            begun = time.perf_counter()
            state = jax.block_until_ready(make_steps(trainer, state, 0, first, last))
            seconds = (time.perf_counter() - begun) / (last - first)
        resident = harness.read_memory("VmRSS") / 1e9
        del trainer, state
        release_memory()
        return {"compile_seconds": round(compiled, 3), "step_seconds": round(seconds, 5), "gigabytes": resident}

    return None, train


def write_report(rows: Sequence[Row], folder: Path) -> str:
    """Write compiling.md and compiling.png, and return the page."""
    marks = [
        report.Mark("", str(row["network"]), f"compiled {WAYS[way]}", *[row[way]["compile_seconds"]] * 3)
        for way in reversed(WAYS)
        for row in rows
    ]
    axis = "seconds of CPU; rows: networks, in the order of the search"
    report.draw_marks(folder / "compiling.png", marks, "Compiling each network of a search", axis, log=False)
    seconds = {way: [row[way]["compile_seconds"] for row in rows] for way in WAYS}
    ratios = [row["kernels"]["step_seconds"] / row["jax"]["step_seconds"] for row in rows]
    return report.fill_page(
        folder / "compiling.md",
        "compiling",
        first=rows[0]["network"],
        count=len(rows),
        machine=rows[0]["machine"],
        versions=report.describe_versions(rows[0]["machine"]),
        total={way: sum(own) for way, own in seconds.items()},
        each={way: report.write_range(own, "{:.1f}".format) for way, own in seconds.items()},
        memory={way: max(row[way]["gigabytes"] for row in rows) for way in WAYS},
        less=sum(seconds["jax"]) / sum(seconds["kernels"]),
        steps=report.write_range(ratios, "{:.2f}".format),
    )


if __name__ == "__main__":
    use_huge_pages()  # for both sides: their processes inherit the setting that `ffem` requests for itself
    main()
