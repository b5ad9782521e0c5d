"""What compiling costs a search, network after network: with the compiled kernels and by plain JAX.

    python -m benchmarks.compiling [--records results/search/records.jsonl] [--first 60] [--networks 20]

From the repository root. The networks are those that a search trained, in its order. Two processes on one core train
them in turn, while the other sleeps: compile, then an epoch. Nothing is compiled beforehand or read from the disk, so
this is what a search's worker pays. Writes results/speed/compiling.jsonl, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import describe_machine, tell
from ffem_jax.records.record import TrialRecord, read_records

# By what FFEM_ENGINE says.
WAYS = {"kernels": "with the compiled kernels", "jax": "by plain JAX"}
PEOPLE, TRAIN, TEST = 52, 1155, 312


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path("results/search/records.jsonl"), help="of a search")
    parser.add_argument("--first", type=int, default=60, help="the first network taken (default: 60)")
    parser.add_argument("--networks", type=int, default=20, help="how many are taken (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="default: results/speed")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    records = select(options.records, options.first, options.networks)
    if options.way:
        serve(records)
        return
    rows = compete(options, len(records))
    command = f"python -m benchmarks.compiling --first {options.first} --networks {options.networks}"
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "compiling.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_page(rows, options.out, command)


def select(path: Path, first: int, count: int) -> list[TrialRecord]:
    """The trained networks of a search, in its order."""
    done = [record for record in read_records(path) if record.status == "done"]
    return done[first : first + count]


def compete(options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """Both ways, network by network, each in a process of its own; who goes first changes by turns."""
    core = min(os.sched_getaffinity(0))
    machine = describe_machine()
    processes = {}
    for way in WAYS:
        engine = "jax" if way == "jax" else ""
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "FFEM_ENGINE": engine}
        processes[way] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compiling", "--way", way, "--records", str(options.records),
             "--first", str(options.first), "--networks", str(options.networks)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
    rows = []
    for number in range(count):
        row: dict[str, Any] = {"network": options.first + number, "machine": machine}
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            process = processes[way]
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            row[way] = json.loads(process.stdout.readline())
        tell(f"{number + 1} of {count}: " + ", ".join(f"{way} {row[way]['compile_seconds']:.1f} s" for way in WAYS))
        rows.append(row)
    for process in processes.values():
        process.communicate()
    return rows


def serve(records: Sequence[TrialRecord]) -> None:
    """Train the networks that standard input asks for by number; answer each in a line."""
    import jax
    import numpy as np

    from ffem_jax.records.record import read_trial
    from ffem_jax.search.workers.worker import release_memory
    from ffem_jax.specs.architecture import resolve_network
    from ffem_jax.training.recipes import Schedule
    from ffem_jax.training.trainer import Trainer

    jax.config.update("jax_enable_compilation_cache", False)
    random = np.random.default_rng(0)
    labels = np.arange(TRAIN + TEST) % PEOPLE
    for line in sys.stdin:
        trial = read_trial(records[int(line)].spec)
        side = trial.data.resolution
        images = random.integers(0, 255, (TRAIN + TEST, side, side, 3)).astype(np.uint8)
        started = time.process_time()
        trainer = Trainer(
            resolve_network(trial.arch), trial.recipe, [0], images, labels, np.arange(TRAIN), np.arange(TEST)
        )
        compiled = time.process_time() - started
        state, seconds = trainer.init(), []
        schedule = Schedule(*(values[0] for values in trainer.schedule))
        for first, last in ((0, 2), (2, trainer.steps_per_epoch)):  # the first two warm up
            begun = time.perf_counter()
            arguments = trainer._zero_sums(), *trainer._faces, schedule, 0, first, last
            state, sums = trainer._program.train_steps(state, *arguments)
            jax.block_until_ready((state, sums))
            seconds.append((time.perf_counter() - begun) / (last - first))
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
        del trainer, state, sums, arguments
        release_memory()
        answer = {"compile_seconds": round(compiled, 3), "step_seconds": round(seconds[-1], 5), "gigabytes": resident}
        print(json.dumps(answer), flush=True)


def write_page(rows: Sequence[dict[str, Any]], folder: Path, command: str) -> None:
    """compiling.md and compiling.png."""
    machine = rows[0]["machine"]
    compiling = {way: [row[way]["compile_seconds"] for row in rows] for way in WAYS}
    totals = {way: sum(values) for way, values in compiling.items()}
    ratios = sorted(row["kernels"]["step_seconds"] / row["jax"]["step_seconds"] for row in rows)
    memory = {way: max(row[way]["gigabytes"] for row in rows) for way in WAYS}
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# What does compiling cost a search?",
        "",
        f"{len(rows)} networks that a search trained one after another ([results/search](../search/README.md)), from "
        f"its number {rows[0]['network']} on, with the compiled kernels and by plain JAX.",
        "",
        "```",
        command,
        "```",
        "",
        f"{machine['processor']}, one core for both, in turn, network by network. {versions}. {machine['date']}.",
        "",
        f"- Compiling: {totals['kernels']:.0f} seconds of CPU in all instead of {totals['jax']:.0f}, "
        f"{totals['jax'] / totals['kernels']:.1f} times less; of one network {describe(compiling['kernels'])} instead "
        f"of {describe(compiling['jax'])} (median, lowest and highest; tracing included, nothing read from the disk).",
        f"- A training step takes {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}] times as long "
        "(each network's epoch against its own, batch 32).",
        f"- The process holds up to {memory['kernels']:.1f} GB instead of {memory['jax']:.1f}.",
        "",
        "![Seconds to compile each network](compiling.png)",
        "",
    ]
    (folder / "compiling.md").write_text("\n".join(lines), encoding="utf-8")
    draw_figure(rows, folder / "compiling.png")
    tell(f"{folder / 'compiling.md'}")


def describe(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def draw_figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds of CPU to compile each network, both ways."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
    numbers = [row["network"] for row in rows]
    for way, colour, shift in (("jax", "#8a8a8a", -0.2), ("kernels", "#1f6fb4", 0.2)):
        heights = [row[way]["compile_seconds"] for row in rows]
        axes.bar([number + shift for number in numbers], heights, 0.38, color=colour, label=f"compiled {WAYS[way]}")
    axes.set_xticks(numbers)
    axes.set_xlabel("network, in the order of the search")
    axes.set_ylabel("seconds of CPU to compile")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
