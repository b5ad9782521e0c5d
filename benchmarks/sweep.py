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
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

# By name, since the peer's process has them loaded before its clock starts: its users would not wait for them.
import ffem_jax.models  # noqa: F401
from benchmarks.contest import BUSY_CORES, describe_machine, tell
from ffem_jax.arch import resolve_network
from ffem_jax.config import open_composer
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.protocols import load_split
from ffem_jax.records import TrialRecord, read_records
from ffem_jax.spec import DataSpec
from ffem_jax.sweep import SweepPlan, plan_sweep

# The sweep's networks: FFEM with each attention in each depth (of 9 and of 14 bottlenecks). All fit the cap of 10 MB.
ATTENTIONS = (
    "arch.attention={kind: none}",
    "arch.attention={kind: eca, placement: first_last}",
    "arch.attention={kind: eca, placement: all}",
    "arch.attention={kind: se, placement: first_last}",
)
DEPTHS = ("arch.depth_multiplier=0.5", "arch.depth_multiplier=1.0")

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

PEER = "peer"
FIRST, SECOND = "first sweep", "second sweep"
OURS = {"basic": "ffem, one after another", "joblib": "ffem, a process a core", "seeds": "ffem, seeds in one program"}
NAMES = {PEER: "Optuna + PyTorch, one after another", **OURS}
SETTINGS = ("data", "resolution", "networks", "seeds", "epochs")
PACKAGES = ("jax", "flax", "joblib", "torch", "optuna")


# ------------------------------------------------------------------------------------ records


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Append `row` as one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `append_line` wrote; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def describe_this_machine() -> dict[str, Any]:
    """Processor, cores, date and the versions of what takes part."""
    machine = describe_machine()
    versions = {"python": machine["versions"]["python"]}
    versions |= {name: version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    return {**machine, "versions": versions}


# -------------------------------------------------------------------------------- the sweep


def write_sweep(folder: Path, options: argparse.Namespace) -> None:
    """Write the sweep to `folder`/sweeps, where --config-dir finds it; it has every value but the seeds."""
    attentions = [line.partition("=")[2] for line in select_attentions(options)]
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / f"{SWEEP_NAME}.yaml").write_text(
        SWEEP.format(
            data=options.data,
            resolution=options.resolution,
            epochs=options.epochs,
            attentions=", ".join(attentions),
            depths=",".join(line.partition("=")[2] for line in DEPTHS),
        )
    )


def select_attentions(options: argparse.Namespace) -> Sequence[str]:
    """The attentions of as many networks as asked for."""
    return ATTENTIONS[: options.networks // len(DEPTHS)]


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
    launcher = (
        ["launcher=joblib", f"launcher.jobs={describe_machine()['cores']}"]
        if variant == "joblib"
        else ["launcher=local"]
    )
    return ["sweep", SWEEP_NAME, *launcher, list_seeds(variant, seeds)]


# ------------------------------------------------------------------------------ measurements


def measure_peer(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Optuna and PyTorch, in a process of their own that times itself: from importing them to the last trial."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--peer-in", str(folder), "--seeds", str(options.seeds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=make_environment())
    return json.loads(done.stdout.splitlines()[-1])


def run_peer(folder: Path, seeds: int) -> dict[str, Any]:
    """The peer's sweep, in this process. Faces and networks are ready before its clock starts."""
    planned = plan(folder, seeds)
    faces, split = load_split(planned.trials[0].data, planned.trials[0].protocol)
    networks = list(dict.fromkeys(resolve_network(trial.arch) for trial in planned.trials))
    recipe = planned.trials[0].recipe
    started = time.perf_counter()
    from benchmarks.peers.torch_trial import run_study

    with tempfile.TemporaryDirectory(prefix="ffem-study-") as study:
        accuracies = run_study(
            networks, range(seeds), faces.images, faces.labels, split.train, split.test, recipe, Path(study)
        )
        seconds = time.perf_counter() - started
    import torch

    return {"seconds": seconds, "accuracies": accuracies, "threads": torch.get_num_threads()}


def measure_ours(variant: str, folder: Path, cache: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`ffem sweep` as a user starts it, in an empty folder and with compiled programs in `cache`."""
    decoded = {path.name for path in cache.glob("*.npz")}
    with tempfile.TemporaryDirectory(prefix="ffem-sweep-") as work:
        words = [*make_command(variant, options.seeds), "--config-dir", str(folder), "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "ffem_jax.cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=work,
            env=make_environment(FFEM_CACHE_DIR=str(cache)),
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"ffem {' '.join(make_command(variant, options.seeds))} ended with {done.returncode}")
        records = read_records(json.loads(done.stdout)["records"])
    if {path.name for path in cache.glob("*.npz")} != decoded:
        raise SystemExit("the sweep decoded faces, which was to be done before; nothing is recorded")
    accuracies = [record.accuracy for record in records if record.accuracy is not None]
    return {"seconds": seconds, "accuracies": accuracies, "compile_seconds": add_compile_seconds(records)}


def watch(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `run()` measures in processes that it starts and awaits, and the cores that other work took meanwhile.

    A busy core makes PyTorch's threads wait for each other and slows it many times over: it would flatter us.
    """
    busy, own, started = read_busy_seconds(), read_own_seconds(), time.perf_counter()
    measured = run()
    others = read_busy_seconds() - busy - (read_own_seconds() - own)
    return {**measured, "busy_cores": max(0.0, others / (time.perf_counter() - started))}


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


def add_compile_seconds(records: Sequence[TrialRecord]) -> float:
    """Seconds spent tracing and compiling, over all processes; seeds of one program share theirs."""
    return sum({record.trial_dir: record.compile_seconds or 0.0 for record in records}.values())


def make_environment(**more: str) -> dict[str, str]:
    """This process's environment, with this checkout first and no other cache of compiled programs."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH", "")))), **more}


def fill_cache(cache: Path, data: DataSpec) -> None:
    """Give the empty folder `cache` the decoded faces, and no compiled programs."""
    for path in find_cache_folder(data).glob(f"{data.name}-*.npz"):
        shutil.copy(path, cache)


class Measurements:
    """sweep.jsonl of the settings in `options`, which is added to; the last line of a contestant and round counts."""

    def __init__(self, path: Path, options: argparse.Namespace):
        self.path = path
        self.settings = {name: getattr(options, name) for name in SETTINGS}
        self.rows = [row for row in read_lines(path) if all(row[name] == self.settings[name] for name in SETTINGS)]
        self.fresh = options.fresh

    def has(self, contestant: str, cache: str, round_: int) -> bool:
        """Whether that measurement is there and need not be taken again, as one taken beside other work must be."""
        quiet = (row for row in self.rows if row["busy_cores"] <= BUSY_CORES)
        wanted = (contestant, cache, round_)
        return not self.fresh and any((row["contestant"], row["cache"], row["round"]) == wanted for row in quiet)

    def add(self, contestant: str, cache: str, round_: int, measured: dict[str, Any]) -> None:
        """Keep a measurement that came to its end with every trial."""
        trials = self.settings["networks"] * self.settings["seeds"]
        if len(measured["accuracies"]) != trials:
            raise SystemExit(f"{contestant} finished {len(measured['accuracies'])} of {trials} trials; not recorded")
        identity = {"contestant": contestant, "cache": cache, "round": round_}
        row = {**identity, **self.settings, **measured, **describe_this_machine()}
        append_line(self.path, row)
        self.rows.append(row)
        tell(f"{NAMES[contestant]}{', ' + cache if cache else ''}: {measured['seconds']:.1f} s")
        if measured["busy_cores"] > BUSY_CORES:
            tell(f"other work took {measured['busy_cores']:.2f} cores: too much; the next call measures this again")

    def select(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(contestant, cache) -> one row a round, the latest."""
        latest = {(row["contestant"], row["cache"], row["round"]): row for row in self.rows}
        selected: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for contestant in NAMES:
            for cache in ("", FIRST, SECOND):
                rows = [row for key, row in latest.items() if key[:2] == (contestant, cache)]
                if rows:
                    selected[contestant, cache] = rows
        return selected


def measure(measurements: Measurements, variants: Sequence[str], options: argparse.Namespace) -> None:
    """Take every measurement that is missing: one of each contestant, then the next round."""
    with tempfile.TemporaryDirectory(prefix="ffem-config-") as config:
        folder = Path(config)
        write_sweep(folder, options)
        planned = plan(folder, options.seeds)
        if len(planned.trials) != options.networks * options.seeds:
            raise SystemExit(f"the sweep has {len(planned.trials)} trials, not {options.networks * options.seeds}")
        # Decodes the faces where they are not yet: neither side is timed doing it.
        load_split(planned.trials[0].data, planned.trials[0].protocol)
        for round_ in range(options.rounds):
            if has_peer() and not measurements.has(PEER, "", round_):
                tell(f"round {round_ + 1}: {NAMES[PEER]}")
                measurements.add(PEER, "", round_, watch(lambda: measure_peer(folder, options)))
            for variant in variants:
                missing = [cache for cache in (FIRST, SECOND) if not measurements.has(variant, cache, round_)]
                if missing:
                    measure_twice(measurements, variant, missing, round_, folder, planned.trials[0].data, options)


def measure_twice(
    measurements: Measurements,
    variant: str,
    missing: Sequence[str],
    round_: int,
    folder: Path,
    data: DataSpec,
    options: argparse.Namespace,
) -> None:
    """The first sweep, which fills an empty cache and is run even if it is recorded, and the second where missing."""
    with tempfile.TemporaryDirectory(prefix="ffem-cache-") as cache:
        fill_cache(Path(cache), data)
        for sweep in (FIRST, SECOND):
            if sweep == FIRST or sweep in missing:
                tell(f"round {round_ + 1}: {NAMES[variant]}, {sweep}")
                measured = watch(lambda: measure_ours(variant, folder, Path(cache), options))
                if sweep in missing:
                    measurements.add(variant, sweep, round_, measured)


def has_peer() -> bool:
    """Whether torch and optuna are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "optuna"))


# ---------------------------------------------------------------------------------- reporting


def summarize(measurements: Measurements) -> Iterator[dict[str, Any]]:
    """One row a contestant and cache: the median over rounds, the range, and the ratio to the peer."""
    selected = measurements.select()
    peer = selected.get((PEER, ""))
    for (contestant, cache), rows in selected.items():
        seconds = [row["seconds"] for row in rows]
        compiling = [row["compile_seconds"] for row in rows if "compile_seconds" in row]
        middle = statistics.median(seconds)
        yield {
            "name": NAMES[contestant] + (f", {cache}" if cache else ""),
            "contestant": contestant,
            "cache": cache,
            "seconds": middle,
            "range": (min(seconds), max(seconds)),
            "rounds": len(rows),
            "trials_an_hour": 3600 * len(rows[0]["accuracies"]) / middle,
            "ratio": statistics.median(row["seconds"] for row in peer) / middle if peer else None,
            "accuracy": statistics.mean(value for row in rows for value in row["accuracies"]),
            "compile_seconds": statistics.median(compiling) if compiling else None,
        }


def write_page(measurements: Measurements, options: argparse.Namespace) -> None:
    """Write sweep.md and sweep.png beside sweep.jsonl."""
    summary, settings = list(summarize(measurements)), measurements.settings
    folder = measurements.path.parent
    if not summary:
        raise SystemExit(f"{measurements.path} has no measurement with these settings; run without --report-only")
    latest = measurements.rows[-1]
    several = any(row["rounds"] > 1 for row in summary)
    busy = max(row["busy_cores"] for rows in measurements.select().values() for row in rows)
    trials = settings["networks"] * settings["seeds"]
    counts = sorted({str(row["threads"]) for row in measurements.select().get((PEER, ""), [])})
    threads = f" ({', '.join(counts)})" if counts else ""
    lines = [
        "# How long does a sweep take?",
        "",
        f"{settings['networks']} networks with {settings['seeds']} seeds, {trials} trials of {settings['epochs']} "
        f"epochs, on `data={settings['data']}` at {settings['resolution']} x {settings['resolution']} pixels: "
        "`ffem sweep` against the plain way, Optuna and PyTorch.",
        "",
        "```",
        make_own_command(options),
        "```",
        "",
        f"Machine: {latest['processor']}, {latest['cores']} cores. Versions: "
        f"{', '.join(f'{name} {number}' for name, number in latest['versions'].items())}. "
        f"Measured {latest['date']}"
        + (
            ", median of the rounds with their range."
            if several
            else ", once each: differences of some percent mean nothing."
        )
        + f" Meanwhile other work took at most {busy:.2f} cores."
        + (" **That is too much: these numbers are no benchmark.**" if busy > BUSY_CORES else ""),
        "",
        "![Wall time of the sweep](sweep.png)",
        "",
        "| | wall seconds | trials an hour | times as fast as the peer | mean accuracy, % | seconds compiling |",
        "|---|---:|---:|---:|---:|---:|",
        *(describe_row(row) for row in summary),
        "",
        *EXPLANATION.format(
            jobs=latest["cores"],
            threads=threads,
            attentions="\n".join(f"- `{line}`" for line in select_attentions(options)),
        ).splitlines(),
    ]
    (folder / "sweep.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw_figure(summary, folder / "sweep.png", trials)
    tell(f"{folder / 'sweep.md'}")


EXPLANATION = """\
## What is compared
FFEM in two depths (`arch.depth_multiplier` 0.5 and 1.0), each with
{attentions}

Both sides train the networks that this package resolves these to, on the same training images, with `recipe=modern`
(batch 32, SGD with Nesterov momentum and weight decay, one cycle, softmax of scaled cosines, label smoothing, mirror),
and test the same images after every epoch. Chance differs (initial weights, order, mirroring), so accuracies agree on
average and not trial by trial; so few epochs leave them low. Accuracy is the mean of all trials' last epochs.

- **Optuna + PyTorch**: a grid study in SQLite, one trial after another in one process, as many threads as PyTorch takes
  by itself{threads}, channels last, the faces in memory as one tensor of bytes, a fused optimiser; no `torch.compile`.
  Its clock runs from the import of PyTorch and Optuna, in a process where Python, the faces and the list of networks
  are ready.
- **ffem**: the command `ffem sweep` from the start of its process to its end. Python's start, imports, reading the
  faces, planning, a checkpoint an epoch, embeddings of all images for gallery accuracy, records and frontier are
  included; of these the peer does none. `one after another` is `launcher=local seed=0,1,...`; `a process a core` is
  `launcher=joblib launcher.jobs={jobs}`; `seeds in one program` is `launcher=local run.seeds=[0,1,...]`.
- **First sweep**: nothing is compiled beforehand. **Second sweep**: the same with the compiled programs of the first in
  the cache and no records. Seconds compiling are those in the records, tracing and reading the cache included, added up
  over processes that run side by side.
- Photographs are decoded before either clock starts (drawn faces are drawn while ours is timed, and not the peer).
"""


def make_own_command(options: argparse.Namespace) -> str:
    """The command that makes the page: what differs from the defaults, and no folder of this machine."""
    words = ["python -m benchmarks.sweep", f"--data {options.data}", f"--resolution {options.resolution}"]
    words += [f"--{name} {getattr(options, name)}" for name in ("networks", "seeds", "epochs", "rounds")]
    return " ".join([*words, "--data-root DIR"] if options.data.startswith("lfw") else words)


def describe_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["range"]
    seconds = f"{row['seconds']:.0f}" + (f" ({low:.0f} to {high:.0f})" if row["rounds"] > 1 else "")
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    compiling = "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f}"
    accuracy = f"{100 * row['accuracy']:.1f}"
    return f"| {row['name']} | {seconds} | {row['trials_an_hour']:.0f} | {ratio} | {accuracy} | {compiling} |"


def draw_figure(summary: Sequence[dict[str, Any]], path: Path, trials: int) -> None:
    """Horizontal bars of wall time, the peer grey; a whisker spans the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {PEER: "#8a8a8a"}
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.45 * len(summary)), layout="constrained")
    for position, row in enumerate(summary):
        low, high = row["range"]
        minutes = row["seconds"] / 60
        whisker = [[minutes - low / 60], [high / 60 - minutes]] if row["rounds"] > 1 else None
        colour = colours.get(row["contestant"], "#1f6fb4" if row["cache"] == FIRST else "#8fbbe0")
        axes.barh(position, minutes, color=colour, xerr=whisker, height=0.7)
        ratio = f", {row['ratio']:.2f} x" if row["ratio"] is not None and row["contestant"] != PEER else ""
        axes.annotate(
            f"{minutes:.1f} min{ratio}", (high / 60, position), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(summary)), [row["name"] for row in summary])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"wall time of {trials} trials, minutes (x: times as fast as Optuna + PyTorch)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# ------------------------------------------------------------------------------------ command


def parse_options() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Time a whole sweep: ffem against Optuna and PyTorch.")
    parser.add_argument("--ours", choices=(*OURS, "all"), default="all", help="which way of running ours (all)")
    parser.add_argument("--networks", type=int, default=8, help="2, 4, 6 or 8 (default: 8)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each network (default: 3)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each trial (default: 5)")
    parser.add_argument("--rounds", type=int, default=1, help="how often, the contestants in turn (default: 1)")
    parser.add_argument("--data", choices=("lfw52", "lfw", "synthetic"), help="lfw52 where its folder is given")
    parser.add_argument("--data-root", type=Path, help="the folder of LFW (default: FFEM_LFW_ROOT)")
    parser.add_argument("--resolution", type=int, default=64, help="pixels a side (default: 64)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="default: results/speed")
    parser.add_argument("--fresh", action="store_true", help="measure again what is recorded")
    parser.add_argument("--report-only", action="store_true", help="write page and figure from the records")
    parser.add_argument("--peer-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.networks not in range(len(DEPTHS), len(ATTENTIONS) * len(DEPTHS) + 1, len(DEPTHS)):
        parser.error(f"--networks {options.networks} is not one of 2, 4, 6, 8: each attention comes in two depths")
    if options.data_root:
        os.environ["FFEM_LFW_ROOT"] = str(options.data_root.absolute())
    options.data = options.data or ("lfw52" if os.environ.get("FFEM_LFW_ROOT") else "synthetic")
    return options


def main() -> None:
    """Measure what is missing, then write the page."""
    options = parse_options()
    if options.peer_in:
        print(json.dumps(run_peer(options.peer_in, options.seeds)))
        return
    measurements = Measurements(options.out / "sweep.jsonl", options)
    if not options.report_only:
        if not has_peer():
            tell('without Optuna and PyTorch ours is timed alone; pip install -e ".[bench]" brings them')
        measure(measurements, list(OURS) if options.ours == "all" else [options.ours], options)
    write_page(measurements, options)


if __name__ == "__main__":
    main()
