"""How long a sweep takes from start to end: `ffem sweep` against Optuna and PyTorch, on the same networks and faces.

    python -m benchmarks.sweep                    everything, into results/speed/
    python -m benchmarks.sweep --ours joblib      one way of running ours, and the peers
    python -m benchmarks.sweep --report-only      only the page and the figure, from sweep.jsonl

The time is that of a process from its start to its end, compilation included; `second sweep` is the same command with
the compiled programs of the first in the cache. A restarted run resumes: what sweep.jsonl holds is not measured again,
unless other work disturbed it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

# Imported here so that the peer's process has it loaded before its clock starts: its users would not wait for it.
import ffem_jax.models  # noqa: F401
from benchmarks import harness, report
from benchmarks.harness import Row, tell
from ffem_jax.config.compose import open_composer
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.protocols import load_split
from ffem_jax.kernels.huge_pages import use_huge_pages
from ffem_jax.latency.turns import BUSY_CORES
from ffem_jax.records.record import read_records
from ffem_jax.runs.sweep import SweepPlan, plan_sweep
from ffem_jax.specs.architecture import resolve_network

# The sweep's networks: FFEM with each attention at each depth (9 and 14 bottlenecks). All are under the cap of 10 MB.
ATTENTIONS = (
    "{kind: none}",
    "{kind: eca, placement: first_last}",
    "{kind: eca, placement: all}",
    "{kind: se, placement: first_last}",
)
DEPTHS = ("0.5", "1.0")
SETTINGS = ("data", "resolution", "networks", "seeds", "epochs")
LIBRARIES = ("jax", "flax", "joblib", "torch", "optuna")
SWEEP_NAME = "speed"

PEER, INSTALLED = "peer", "peer as installed"  # with the huge pages that ffem requests, and without
FIRST, SECOND = "first sweep", "second sweep"
OURS = {"basic": "ffem, one after another", "joblib": "ffem, a process per core", "seeds": "ffem, seeds in one program"}
PEERS = {INSTALLED: "Optuna + PyTorch", PEER: "Optuna + PyTorch, with huge pages"}
NAMES = {**PEERS, **OURS}
HEAD = [
    *("", "wall seconds", "trials per hour", "speed relative to PyTorch", "relative to PyTorch with huge pages"),
    *("mean accuracy, %", "seconds compiling"),
]
ONCE = ", once each: the spread is unknown, and a difference of a few percent means nothing."

Selected = Mapping[tuple[str, str], Sequence[Row]]


def plan(folder: Path, seeds: int) -> SweepPlan:
    """Plan the sweep as `ffem sweep` does: the peer takes its networks, recipe and split from the plan."""
    with open_composer(folder) as composer:
        return plan_sweep(composer, SWEEP_NAME, [list_seeds("basic", seeds)], folder)


def list_seeds(variant: str, seeds: int) -> str:
    """Return the override that sets the sweep's seeds."""
    listed = ",".join(map(str, range(seeds)))
    return f"run.seeds=[{listed}]" if variant == "seeds" else f"seed={listed}"


def measure_peer(peer: str, folder: Path, options: argparse.Namespace) -> Row:
    """Run Optuna and PyTorch in a separate process that times itself, from importing them to the last trial."""
    pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"} if peer == INSTALLED else {}
    try:
        worker = harness.Worker(run_peer, folder, options.seeds, environment=pages)
    except RuntimeError as error:
        raise SystemExit(f"{PEERS[peer]} failed: {error}") from None
    worker.end()  # wait for it, so that its processor seconds do not count as other work
    return worker.start


def run_peer(folder: Path, seeds: int) -> tuple[Row, None]:
    """Run the peer's sweep in a worker process. Faces and networks are ready before its clock starts."""
    planned = plan(folder, seeds)
    faces, split = load_split(planned.trials[0].data, planned.trials[0].protocol)
    networks = list(dict.fromkeys(resolve_network(trial.arch) for trial in planned.trials))
    started = time.perf_counter()
    from benchmarks.peers.torch_trial import run_study

    with tempfile.TemporaryDirectory(prefix="ffem-study-") as study:
        accuracies = run_study(networks, range(seeds), faces, split, planned.trials[0].recipe, Path(study))
        seconds = time.perf_counter() - started
    import torch

    return {"seconds": seconds, "accuracies": accuracies, "threads": torch.get_num_threads()}, None


def measure_ours(variant: str, folder: Path, cache: Path, options: argparse.Namespace) -> Row:
    """Run `ffem sweep` as a user does, in an empty folder and with `cache` for compiled programs."""
    decoded = {path.name for path in cache.glob("*.npz")}
    jobs = ["launcher=joblib", f"launcher.jobs={harness.describe_machine()['cores']}"]
    launcher = jobs if variant == "joblib" else ["launcher=local"]
    words = ["sweep", SWEEP_NAME, *launcher, list_seeds(variant, options.seeds)]
    with tempfile.TemporaryDirectory(prefix="ffem-sweep-") as work:
        command = [sys.executable, "-m", "ffem_jax.cli", *words, "--config-dir", str(folder), "--json"]
        environment = harness.make_environment(FFEM_CACHE_DIR=str(cache))
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=work, env=environment)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"ffem {' '.join(words)} exited with status {done.returncode}")
        records = read_records(json.loads(done.stdout)["records"])
    if {path.name for path in cache.glob("*.npz")} != decoded:
        raise SystemExit("the sweep decoded faces, which should have been cached; nothing is recorded")
    accuracies = [record.accuracy for record in records if record.accuracy is not None]
    # Summed over processes; seeds of one program share their seconds.
    compiling = sum({record.trial_dir: record.compile_seconds or 0.0 for record in records}.values())
    return {"seconds": seconds, "accuracies": accuracies, "compile_seconds": compiling}


def watch(run: Callable[[], Row], options: argparse.Namespace) -> Row:
    """Return the row of `run()`, the cores that other work used meanwhile, and the machine.

    On a busy core PyTorch's threads wait for each other and slow down several times, which would favour us. Raises
    SystemExit if trials are missing.
    """
    busy, own, started = read_busy_seconds(), read_own_seconds(), time.perf_counter()
    measured = run()
    others = read_busy_seconds() - busy - (read_own_seconds() - own)
    cores = max(0.0, others / (time.perf_counter() - started))
    finished, trials = len(measured["accuracies"]), options.networks * options.seeds
    if finished != trials:
        raise SystemExit(f"{finished} of {trials} trials finished; not recorded")
    tell(f"    {measured['seconds']:.1f} s")
    if cores > BUSY_CORES:
        tell(f"other work used {cores:.2f} cores, which is too much; the next run measures this again")
    return {**measured, "busy_cores": cores, **harness.describe_machine(LIBRARIES)}


def read_busy_seconds() -> float:
    """Return processor seconds of the machine since its start; 0 if the system does not report them."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    ticks = [int(word) for word in path.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # less idle, and waiting for a disk


def read_own_seconds() -> float:
    """Return processor seconds of this process and of the child processes it has awaited."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(path: Path, settings: Row, options: argparse.Namespace) -> None:
    """Take all missing measurements, round by round, one per contestant."""
    sweeps = [(peer, "") for peer in PEERS] if has_peer() else []
    sweeps += [(variant, cache) for variant in options.variants for cache in (FIRST, SECOND)]
    cells = {}
    for number, (contestant, cache) in itertools.product(range(options.rounds), sweeps):
        cell = {"contestant": contestant, "cache": cache, "round": number}
        cells[f"round {number + 1}, {name_row((contestant, cache))}"] = {**cell, **settings}
    with tempfile.TemporaryDirectory(prefix="ffem-sweep-") as scratch:
        folder, text = Path(scratch) / "config", (report.PAGES / "sweep.yaml").read_text(encoding="utf-8")
        (folder / "sweeps").mkdir(parents=True)
        text = text.format(**settings, attentions=", ".join(options.attentions), depths=",".join(DEPTHS))
        (folder / "sweeps" / f"{SWEEP_NAME}.yaml").write_text(text, encoding="utf-8")
        trial = plan(folder, options.seeds).trials[0]
        # Decode the faces if they are not cached, so that neither side is timed doing it.
        load_split(trial.data, trial.protocol)

        def take(cell: Row) -> Row:
            contestant, cache = cell["contestant"], Path(scratch) / f"{cell['contestant']}-{cell['round']}"
            if contestant in PEERS:
                return watch(functools.partial(measure_peer, contestant, folder, options), options)
            run = functools.partial(measure_ours, contestant, folder, cache, options)
            if not cache.exists():  # start with the decoded faces and no compiled programs
                cache.mkdir()
                for found in find_cache_folder(trial.data).glob(f"{trial.data.name}-*.npz"):
                    shutil.copy(found, cache)
                if cell["cache"] == SECOND:
                    tell("    repeating the first sweep for its compiled programs")
                    run()
            return watch(run, options)

        harness.measure_missing(path, cells, lambda row: row["busy_cores"] <= BUSY_CORES, take, options.fresh)


def has_peer() -> bool:
    """Return whether torch and optuna are installed."""
    return not harness.find_missing(("torch", "optuna"))


def write_report(rows: Sequence[Row], settings: Row, options: argparse.Namespace) -> None:
    """Write sweep.md and sweep.png, from one row per measurement."""
    selected = defaultdict(list)
    for row in sorted(rows, key=lambda row: (list(NAMES).index(row["contestant"]), row["cache"])):
        selected[row["contestant"], row["cache"]].append(row)
    trials, busy = options.networks * options.seeds, max(row["busy_cores"] for row in rows)
    several = max(map(len, selected.values())) > 1
    threads = ", ".join(sorted({str(row["threads"]) for row in rows if row["contestant"] in PEERS}))
    last = next(reversed(selected.values()))[-1]
    command = ["python -m benchmarks.sweep", *(f"--{name} {getattr(options, name)}" for name in (*SETTINGS, "rounds"))]
    if options.data.startswith("lfw"):  # its folder is specific to this machine
        command.append("--data-root DIR")
    report.fill_page(
        options.out / "sweep.md",
        "sweep",
        **settings,
        trials=trials,
        command=" ".join(command),
        machine=last,
        versions=report.describe_versions(last),
        spread=", median of the rounds with their range." if several else ONCE,
        busy=busy,
        judged=report.judge_busy(busy),
        table=report.write_table(HEAD, [describe(key, selected) for key in selected]),
        attentions="\n".join(f"- `arch.attention={kind}`" for kind in options.attentions),
        threads=f" ({threads})" if threads else "",
    )
    marks = []
    for key, own in selected.items():
        minutes = report.find_spread([row["seconds"] / 60 for row in own])
        marks.append(report.Mark("", f"{name_row(key)}: {minutes[1]:.1f} min", "", *minutes))
    title = f"{trials} trials, from the start of the process to its end"
    spread = "bars: lowest to highest round" if several else "one round, so the spread is unknown"
    report.draw_marks(options.out / "sweep.png", marks, title, f"wall time, minutes; {spread}", log=False)


def name_row(key: tuple[str, str]) -> str:
    """Return the label of a contestant and its sweep."""
    return NAMES[key[0]] + (f", {key[1]}" if key[1] else "")


def describe(key: tuple[str, str], selected: Selected) -> list[str]:
    """Format a row of the table: medians over rounds, with their range if there are several."""
    rows = selected[key]
    low, middle, high = report.find_spread([row["seconds"] for row in rows])
    peers = [selected.get((peer, ""), []) for peer in PEERS]
    compiling = [row["compile_seconds"] for row in rows if "compile_seconds" in row]
    return [
        name_row(key),
        f"{middle:.0f}" + (f" ({low:.0f} to {high:.0f})" if len(rows) > 1 else ""),
        f"{3600 * len(rows[0]['accuracies']) / middle:.0f}",
        *(f"{median(row['seconds'] for row in own) / middle:.2f}" if own else "" for own in peers),
        f"{100 * mean(value for row in rows for value in row['accuracies']):.1f}",
        f"{median(compiling):.0f}" if compiling else "",
    ]


def parse_options(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the command line; add the sweep's attentions and the ways of running ours."""
    parser = harness.make_parser("Time a whole sweep: ffem against Optuna and PyTorch.", "speed")
    parser.add_argument("--ours", choices=(*OURS, "all"), default="all", help="which way of running ours (all)")
    sizes = range(len(DEPTHS), len(ATTENTIONS) * len(DEPTHS) + 1, len(DEPTHS))
    parser.add_argument("--networks", type=int, choices=sizes, default=8, help="each attention at two depths (8)")
    harness.add_numbers(
        parser,
        seeds=(3, "seeds of each network"),
        epochs=(5, "epochs of each trial"),
        rounds=(1, "rounds, with the contestants in turn"),
        resolution=(64, "pixels per side"),
    )
    parser.add_argument("--data", choices=("lfw52", "lfw", "synthetic"), help="default: lfw52 if LFW is given")
    parser.add_argument("--data-root", type=Path, help="the folder of LFW (default: FFEM_LFW_ROOT)")
    parser.add_argument("--fresh", action="store_true", help="measure recorded cells again")
    options = parser.parse_args(words)
    harness.check_positive(options, "seeds", "epochs", "rounds", "resolution")
    if options.data_root:
        os.environ["FFEM_LFW_ROOT"] = str(options.data_root.absolute())
    options.data = options.data or ("lfw52" if os.environ.get("FFEM_LFW_ROOT") else "synthetic")
    options.attentions = ATTENTIONS[: options.networks // len(DEPTHS)]
    options.variants = list(OURS) if options.ours == "all" else [options.ours]
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page."""
    options = parse_options(words)
    path, settings = options.out / "sweep.jsonl", {name: getattr(options, name) for name in SETTINGS}
    if not options.report_only:
        if not has_peer():
            tell('Optuna or PyTorch is not installed, so only ours is timed; pip install -e ".[bench]" installs them')
        measure(path, settings, options)
    rows = harness.read_latest(path, "contestant", "cache", "round", *SETTINGS)
    rows = [row for row in rows if settings.items() <= row.items()]
    if not rows:
        raise SystemExit(f"{path.name} has no measurement with these settings; {harness.NOTHING}")
    write_report(rows, settings, options)


if __name__ == "__main__":
    use_huge_pages()  # for both sides: their processes inherit the setting that `ffem` requests for itself
    main()
