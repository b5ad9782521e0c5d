"""How long a sweep takes from start to end: `ffem sweep` against Optuna and PyTorch, on the same networks and faces.

    python -m benchmarks.sweep                    everything, into results/speed/
    python -m benchmarks.sweep --ours joblib      one way of running ours, and the peer
    python -m benchmarks.sweep --report-only      the page and the figure again, from sweep.jsonl

What is measured is a process from its start to its end, compilation included; `second sweep` is the same command with
the compiled programs that the first left. Started again, it goes on: what sweep.jsonl holds is not measured again,
unless other work was in the way.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# By name, since the peer's process has them loaded before its clock starts: its users would not wait for them.
import ffem_jax.models  # noqa: F401
from benchmarks import harness
from benchmarks.harness import Row, tell
from benchmarks.sweep_report import FIRST, INSTALLED, OURS, PEERS, SECOND, name_row, select_rows, write_report
from ffem_jax.config.compose import open_composer
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.protocols import load_split
from ffem_jax.kernels.huge_pages import use_huge_pages
from ffem_jax.latency.turns import BUSY_CORES
from ffem_jax.records.record import TrialRecord, read_records
from ffem_jax.runs.sweep import SweepPlan, plan_sweep
from ffem_jax.specs.architecture import resolve_network

# The sweep's networks: FFEM with each attention in each depth (of 9 and of 14 bottlenecks). All fit the cap of 10 MB.
ATTENTIONS = (
    "arch.attention={kind: none}",
    "arch.attention={kind: eca, placement: first_last}",
    "arch.attention={kind: eca, placement: all}",
    "arch.attention={kind: se, placement: first_last}",
)
DEPTHS = ("0.5", "1.0")
SETTINGS = ("data", "resolution", "networks", "seeds", "epochs")
LIBRARIES = ("jax", "flax", "joblib", "torch", "optuna")

SWEEP_NAME = "speed"
SWEEP = """\
# @package _global_
# How long does a sweep take? Written by benchmarks/sweep.py.
defaults:
  - override /arch: ffem
  - override /data: {data}
  - override /protocol: holdout
  - override /recipe: modern
data:
  resolution: {resolution}
protocol: # one split for all, so that every seed and the peer test the same images
  test_per_person: 6
  split_seed: 0
recipe:
  epochs: {epochs}
hydra:
  sweeper:
    params:
      arch.attention: "{attentions}"
      arch.depth_multiplier: {depths}
"""


# -------------------------------------------------------------------------------- the sweep


def select_attentions(options: argparse.Namespace) -> Sequence[str]:
    """The attentions of as many networks as asked for."""
    return ATTENTIONS[: options.networks // len(DEPTHS)]


def write_sweep(folder: Path, options: argparse.Namespace) -> None:
    """Write the sweep to `folder`/sweeps, where --config-dir finds it; it has every value but the seeds."""
    attentions = ", ".join(line.partition("=")[2] for line in select_attentions(options))
    text = SWEEP.format(**vars(options), attentions=attentions, depths=",".join(DEPTHS))
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / f"{SWEEP_NAME}.yaml").write_text(text)


def plan(folder: Path, seeds: int) -> SweepPlan:
    """The sweep as `ffem sweep` plans it: the peer's networks, recipe and split are read off it."""
    with open_composer(folder) as composer:
        return plan_sweep(composer, SWEEP_NAME, [list_seeds("basic", seeds)], folder)


def list_seeds(variant: str, seeds: int) -> str:
    """The override that gives the sweep its seeds."""
    listed = ",".join(map(str, range(seeds)))
    return f"run.seeds=[{listed}]" if variant == "seeds" else f"seed={listed}"


def make_command(variant: str, seeds: int) -> list[str]:
    """The words after `ffem` that run the sweep as `variant`, but for --config-dir."""
    jobs = [f"launcher.jobs={harness.describe_machine()['cores']}"] if variant == "joblib" else []
    launcher = f"launcher={'joblib' if variant == 'joblib' else 'local'}"
    return ["sweep", SWEEP_NAME, launcher, *jobs, list_seeds(variant, seeds)]


# ------------------------------------------------------------------------------ measurements


def measure_peer(peer: str, folder: Path, options: argparse.Namespace) -> Row:
    """Optuna and PyTorch, in a process of their own that times itself: from importing them to the last trial."""
    pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"} if peer == INSTALLED else {}
    try:
        worker = harness.Worker(run_peer, folder, options.seeds, environment=pages)
    except RuntimeError as error:
        raise SystemExit(f"{PEERS[peer]} failed: {error}") from None
    worker.end()  # waits for it: its processor seconds are no other work's
    return worker.start


def run_peer(folder: Path, seeds: int) -> tuple[Row, None]:
    """The peer's sweep, in a worker's process. Faces and networks are ready before its clock starts."""
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
    """`ffem sweep` as a user starts it, in an empty folder and with compiled programs in `cache`."""
    decoded = {path.name for path in cache.glob("*.npz")}
    words = make_command(variant, options.seeds)
    with tempfile.TemporaryDirectory(prefix="ffem-sweep-") as work:
        command = [sys.executable, "-m", "ffem_jax.cli", *words, "--config-dir", str(folder), "--json"]
        environment = harness.make_environment(FFEM_CACHE_DIR=str(cache))
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=work, env=environment)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"ffem {' '.join(words)} ended with {done.returncode}")
        records = read_records(json.loads(done.stdout)["records"])
    if {path.name for path in cache.glob("*.npz")} != decoded:
        raise SystemExit("the sweep decoded faces, which was to be done before; nothing is recorded")
    accuracies = [record.accuracy for record in records if record.accuracy is not None]
    return {"seconds": seconds, "accuracies": accuracies, "compile_seconds": add_compile_seconds(records)}


def add_compile_seconds(records: Sequence[TrialRecord]) -> float:
    """Seconds spent tracing and compiling, over all processes; seeds of one program share theirs."""
    return sum({record.trial_dir: record.compile_seconds or 0.0 for record in records}.values())


def watch(run: Callable[[], Row], trials: int) -> Row:
    """What `run()` measures of `trials` trials, the cores that other work took meanwhile, and the machine.

    A busy core makes PyTorch's threads wait for each other and slows it many times over: it would flatter us. Raises
    SystemExit where trials are missing.
    """
    busy, own, started = read_busy_seconds(), read_own_seconds(), time.perf_counter()
    measured = run()
    others = read_busy_seconds() - busy - (read_own_seconds() - own)
    cores = max(0.0, others / (time.perf_counter() - started))
    if len(measured["accuracies"]) != trials:
        raise SystemExit(f"{len(measured['accuracies'])} of {trials} trials were finished; not recorded")
    tell(f"    {measured['seconds']:.1f} s")
    if cores > BUSY_CORES:
        tell(f"other work took {cores:.2f} cores: too much; the next call measures this again")
    return {**measured, "busy_cores": cores, **harness.describe_machine(LIBRARIES)}


def read_busy_seconds() -> float:
    """Processor seconds of the whole machine since its start; 0 where the system does not say."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    ticks = [int(word) for word in path.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # less idle, and waiting for a disk


def read_own_seconds() -> float:
    """Processor seconds of this process and of those that it has started and awaited."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(path: Path, settings: Row, variants: Sequence[str], options: argparse.Namespace) -> None:
    """Take every measurement that is missing: one of each contestant, then the next round."""
    with tempfile.TemporaryDirectory(prefix="ffem-config-") as config:
        folder, trials = Path(config), options.networks * options.seeds
        write_sweep(folder, options)
        planned = plan(folder, options.seeds)
        if len(planned.trials) != trials:
            raise SystemExit(f"the sweep has {len(planned.trials)} trials, not {trials}")
        data = planned.trials[0].data
        # Decodes the faces where they are not yet: neither side is timed doing it.
        load_split(data, planned.trials[0].protocol)

        def add(round_: int, contestant: str, sweep: str, run: Callable[[], Row], filled: Path | None = None) -> None:
            """Take a measurement unless it is held; one that finds compiled programs needs them in `filled`."""

            def take(_: Row) -> Row:
                if filled and not any(found.suffix != ".npz" for found in filled.iterdir()):
                    tell("    the first sweep once more, for its compiled programs")
                    run()
                return watch(run, trials)

            cell = {"contestant": contestant, "cache": sweep, "round": round_, **settings}
            name = f"round {round_ + 1}, {name_row((contestant, sweep))}"
            harness.measure_missing(path, {name: cell}, is_quiet, take, options.fresh)

        for round_ in range(options.rounds):
            for peer in PEERS if has_peer() else ():
                add(round_, peer, "", functools.partial(measure_peer, peer, folder, options))
            for variant in variants:
                with tempfile.TemporaryDirectory(prefix="ffem-cache-") as name:
                    cache = Path(name)  # it begins with the decoded faces and no compiled programs
                    for found in find_cache_folder(data).glob(f"{data.name}-*.npz"):
                        shutil.copy(found, cache)
                    ours = functools.partial(measure_ours, variant, folder, cache, options)
                    add(round_, variant, FIRST, ours)
                    add(round_, variant, SECOND, ours, filled=cache)


def is_quiet(row: Row) -> bool:
    """Whether no other work was in the way of a measurement, which would have to be taken again."""
    return row["busy_cores"] <= BUSY_CORES


def has_peer() -> bool:
    """Whether torch and optuna are installed."""
    return not harness.find_missing(("torch", "optuna"))


# ------------------------------------------------------------------------------------ command


def write_command(options: argparse.Namespace) -> str:
    """The command that makes the page: what differs from the defaults, and no folder of this machine."""
    names = ("data", "resolution", "networks", "seeds", "epochs", "rounds")
    words = ["python -m benchmarks.sweep", *(f"--{name} {getattr(options, name)}" for name in names)]
    return " ".join([*words, "--data-root DIR"] if options.data.startswith("lfw") else words)


def parse_options(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = harness.make_parser("Time a whole sweep: ffem against Optuna and PyTorch.", "speed")
    parser.add_argument("--ours", choices=(*OURS, "all"), default="all", help="which way of running ours (all)")
    harness.add_numbers(
        parser,
        networks=(8, "2, 4, 6 or 8"),
        seeds=(3, "seeds of each network"),
        epochs=(5, "epochs of each trial"),
        rounds=(1, "how often, the contestants in turn"),
        resolution=(64, "pixels per side"),
    )
    parser.add_argument("--data", choices=("lfw52", "lfw", "synthetic"), help="lfw52 where its folder is given")
    parser.add_argument("--data-root", type=Path, help="the folder of LFW (default: FFEM_LFW_ROOT)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is recorded")
    options = parser.parse_args(words)
    harness.check_positive(options, "seeds", "epochs", "rounds", "resolution")
    if options.networks not in range(len(DEPTHS), len(ATTENTIONS) * len(DEPTHS) + 1, len(DEPTHS)):
        parser.error(f"--networks {options.networks} is not one of 2, 4, 6, 8: each attention comes in two depths")
    if options.data_root:
        os.environ["FFEM_LFW_ROOT"] = str(options.data_root.absolute())
    options.data = options.data or ("lfw52" if os.environ.get("FFEM_LFW_ROOT") else "synthetic")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the page."""
    options = parse_options(words)
    path, settings = options.out / "sweep.jsonl", {name: getattr(options, name) for name in SETTINGS}
    if not options.report_only:
        if not has_peer():
            tell('without Optuna and PyTorch ours is timed alone; pip install -e ".[bench]" brings them')
        measure(path, settings, list(OURS) if options.ours == "all" else [options.ours], options)
    rows = [row for row in harness.read_lines(path) if settings.items() <= row.items()]
    if not rows:
        raise SystemExit(f"{path.name} has no measurement with these settings; {harness.NOTHING}")
    write_report(select_rows(rows), settings, select_attentions(options), write_command(options), options.out)


if __name__ == "__main__":
    use_huge_pages()  # both sides: their processes inherit what `ffem` asks for itself
    main()
