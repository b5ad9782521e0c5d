"""Which search finds the best frontier for the same number of trainings?

    python -m benchmarks.search_quality --table nas-bench-macro_cifar10.json
    python -m benchmarks.search_quality --records results/search/records.jsonl --cost bytes_float32
    python -m benchmarks.search_quality --report-only

Searches are replayed on networks that are already trained, so that thousands of them take minutes. A searcher that
trains a network sees one of its trainings, drawn at random. The frontier of what it saw is scored by each network's
mean over all trainings. A network is trained once: requesting it again returns the same result and costs nothing. The
table is NAS-Bench-Macro's (github.com/xiusu/NAS-Bench-Macro, Apache-2.0), from --table or FFEM_NAS_BENCH_MACRO.
Optuna's searchers need the extra `bench`. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Row
from benchmarks.search_table import COSTS, Memory, Table, find_table, read_recorded
from ffem_jax.search.halving import Halving, Promotion, compute_rungs
from ffem_jax.search.model.encoding import embed_codes, encode_points
from ffem_jax.search.model.proposal import Observation, SurrogateSampler
from ffem_jax.search.model.surrogate import ADDITIVE

# Yields networks to train; reads their results from the memory.
Asker = Iterator[int]
# (trainings spent, share of the table's hypervolume) after each training of a search.
Curve = list[tuple[float, float]]
REDUCTION = 3  # for halving
REPEATED_ASKS = 300  # requests in a row for networks already trained; then a random one follows
MARKS = (10, 20, 30, 50, 75, 100, 150, 200)


# ------------------------------------------------------------------- searchers


def ask_random(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """Propose networks in random order."""
    yield from map(int, rng.permutation(len(table.points)))


def ask_grid(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """Propose a grid that the budget just covers: networks at equal steps through the ordered list of all."""
    order = np.lexsort(table.codes.T[::-1])
    step = max(1.0, len(order) / budget)
    start = rng.uniform(0, step)
    yield from (int(order[int(start + index * step) % len(order)]) for index in range(min(budget, len(order))))


def ask_surrogate(table: Table, memory: Memory, rng: np.random.Generator, budget: int, **settings: object) -> Asker:
    """Propose with the project's own sampler; among the recorded networks if they are not the complete space."""
    sampler = SurrogateSampler(table.space, **settings)  # type: ignore[arg-type]
    order = rng.permutation(len(table.points))
    while True:
        known = [
            Observation(table.points[i], accuracy, (float(table.costs[i]),), table.tested)
            for i, accuracy in memory.seen.items()
        ]
        if table.whole:
            point = sampler.propose(known, rng, lambda point: table.points.index(point) in memory.started)
            yield table.points.index(point)
        else:
            left = np.array([index for index in order if index not in memory.started])
            if not len(left):
                return
            yield int(left[sampler.rank(known, table.codes[left])[0]])


def ask_optuna(table: Table, memory: Memory, rng: np.random.Generator, budget: int, kind: str) -> Asker:
    """Propose with Optuna's samplers, with numbers as integers, which suits both better than categories."""
    import optuna

    from ffem_jax.search.samplers import suggest_point

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    settings = {"multivariate": True} if kind == "TPESampler" else {"population_size": 20}
    sampler = getattr(optuna.samplers, kind)(seed=int(rng.integers(2**31)), **settings)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    while True:
        trial = study.ask()
        point = suggest_point(table.space, trial)
        if point in table.points:
            network = table.points.index(point)
        else:  # not recorded: the nearest recorded one, untrained if possible
            alike = (table.features @ embed_codes(table.space, encode_points(table.space, [point]))[0]).astype(float)
            alike[list(memory.started)] -= 1e-3
            network = int(alike.argmax())
        yield network
        study.tell(trial, [memory.seen[network], float(table.costs[network])])


# By name, each searcher's label and the function that proposes networks.
ASKERS: dict[str, tuple[str, Callable[[Table, Memory, np.random.Generator, int], Asker]]] = {
    "random": ("random", ask_random),
    "grid": ("grid", ask_grid),
    "nsga2": ("NSGA-II (Optuna)", partial(ask_optuna, kind="NSGAIISampler")),
    "tpe": ("TPE (Optuna)", partial(ask_optuna, kind="TPESampler")),
    "additive": ("surrogate, additive only", partial(ask_surrogate, kernels=ADDITIVE)),
    "surrogate": ("surrogate", ask_surrogate),
}
HALVED = ("random", "surrogate")


def replay(table: Table, method: str, repeat: int, budget: int) -> Curve:
    """Replay one search. A method whose name ends in `+halving` first trains networks for part of the epochs."""
    rng = np.random.default_rng([repeat, sum(map(ord, method))])
    name, _, halved = method.partition("+")
    memory = Memory()
    asker = ASKERS[name][1](table, memory, rng, budget)
    outcomes = np.array([accuracies[rng.integers(len(accuracies))] for accuracies in table.trainings])
    if halved:
        return replay_halving(table, asker, memory, outcomes, budget)
    curve: Curve = []
    repeated = 0
    while len(curve) < budget:
        network = next(asker, None)
        repeated = repeated + 1 if network in memory.started else 0
        if network is None or repeated > REPEATED_ASKS:
            network = int(rng.choice([i for i in range(len(table.points)) if i not in memory.started]))
        if network not in memory.started:
            memory.started.add(network)
            memory.seen[network] = float(outcomes[network])
            curve.append((float(len(memory.seen)), table.score(memory.seen)))
    return curve


def replay_halving(table: Table, asker: Asker, memory: Memory, outcomes: np.ndarray, budget: int) -> Curve:
    """Replay the package's successive halving, with one point per full training.

    A network is first trained for a ninth of the epochs. The searcher only learns the results of full trainings. The
    search ends when the epochs of `budget` trainings are spent, or nothing is left to train.
    """
    assert table.curves is not None
    epochs = table.curves.shape[1]
    rungs = compute_rungs(max(1, round(epochs / REDUCTION**2)), REDUCTION, epochs)
    halving: Halving[int] = Halving(rungs, REDUCTION)
    curve: Curve = []
    while halving.epochs_spent < budget * epochs:
        new = itertools.chain(itertools.islice(asker, 1), range(len(table.points)))
        task = halving.propose() or next((Promotion(n, rungs[0]) for n in new if n not in memory.started), None)
        if task is None:
            break
        network, epoch = task
        memory.started.add(network)
        halving.report(network, epoch, table.curves[network, epoch - 1], [table.costs[network]])
        if epoch == epochs:
            memory.seen[network] = float(outcomes[network])
            curve.append((halving.epochs_spent / epochs, table.score(memory.seen)))
    return curve


def replay_all(table: Table, budget: int, options: argparse.Namespace) -> dict[str, list[Curve]]:
    """Replay all searches of all methods, in the requested number of processes."""
    import joblib
    from tqdm import tqdm

    methods = list(dict.fromkeys(["random", *options.methods]))  # all are compared with random
    if table.curves is not None:
        methods += [f"{name}+halving" for name in HALVED if name in methods]
    cells = list(itertools.product(range(options.repeats), methods))
    calls = (joblib.delayed(replay)(table, method, repeat, budget) for repeat, method in cells)
    replays = joblib.Parallel(options.jobs, return_as="generator")(calls)
    curves: dict[str, list[Curve]] = {method: [] for method in methods}
    for (_, method), curve in zip(cells, tqdm(replays, total=len(cells), unit="search"), strict=True):
        curves[method].append(curve)
    return curves


# ------------------------------------------------------------------- the page


def align(curves: Sequence[Curve], budget: int) -> np.ndarray:
    """Return the share reached after 1, 2, ... `budget` trainings, [repeat, training]; 0 before the first result."""
    shares = np.zeros((len(curves), budget))
    for row, curve in zip(shares, curves, strict=True):
        for spent, share in curve:
            row[max(0, math.ceil(spent - 1e-9) - 1) :] = share
    return shares


def count_to_reach(shares: np.ndarray, target: float) -> np.ndarray:
    """Return after how many trainings each repeat first reaches `target`, [repeat]; infinite if never."""
    reached = shares >= target
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def summarize(table: Table, curves: Mapping[str, Sequence[Curve]], budget: int, command: str) -> Row:
    """Return the contents of NAME.json, from which the page and the figure are made."""
    shares = {method: align(rows, budget) for method, rows in curves.items()}
    target = float(np.median(shares["random"][:, -1]))
    methods: Row = {}
    for method, values in shares.items():
        low, middle, high = np.quantile(values, (0.1, 0.5, 0.9), axis=0).round(5).tolist()
        counts = [None if math.isinf(count) else int(count) for count in count_to_reach(values, target)]
        methods[method] = {"median": middle, "low": low, "high": high, "trainings_to_reach_random": counts}
    return {
        "table": table.title,
        "networks": len(table.points),
        "cost": table.cost_name,
        "reference": table.reference,
        "budget": budget,
        "repeats": len(shares["random"]),
        "random_final": target,
        "command": command,
        "methods": methods,
    }


def write_report(path: Path) -> str:
    """Write NAME.md, NAME.png and NAME.svg beside NAME.json, and return the page."""
    found = json.loads(path.read_text(encoding="utf-8"))
    budget, target = found["budget"], 100 * found["random_final"]
    methods = {
        ASKERS[method.removesuffix("+halving")][0] + (", halving" if "+" in method else ""): row
        for method, row in found["methods"].items()
    }
    curves = {name: 100 * np.array([row["low"], row["median"], row["high"]]) for name, row in methods.items()}
    title = f"{found['table']}: {found['repeats']} searches of each kind, median and middle 80 %"
    axis = "hypervolume of the frontier found, % of the best possible"
    report.draw_curves(path.with_suffix(""), curves, title, axis, target=target)
    marks = [mark for mark in MARKS if mark < budget] + [budget]
    table = []
    for name, row in methods.items():
        shares = [f"{100 * row['median'][mark - 1]:.1f}" for mark in marks]
        ends = f"{100 * row['low'][-1]:.1f} to {100 * row['high'][-1]:.1f}"
        row["counts"] = find_counts(row)
        told = [f"over {budget}" if math.isinf(count) else f"{count:.0f}" for count in row["counts"]]
        typical = row["counts"][0]
        share = "-" if math.isinf(typical) else f"{typical / budget:.2f}"
        table.append([name, *shares, ends, f"{told[0]} ({told[1]} to {told[2]})", share])
    return report.fill_page(
        path.with_suffix(".md"),
        "search_quality",
        **found,
        name=path.stem,
        cost_name=found["cost"].replace("macs", "MACs").replace("params", "parameters").replace("bytes_", "bytes in "),
        corner=100 * found["reference"][1],
        target=target,
        rows=report.write_table(["search", *map(str, marks), "middle 80 %", "to random's end", "of random's"], table),
        verdict=judge(methods.get("surrogate"), budget),
        pool=report.fill_template("search_quality_pool") + " " if path.stem.endswith("_records") else "",
        halving=report.fill_template("search_quality_halving") if any("+" in name for name in found["methods"]) else "",
    )


def find_counts(row: Row) -> list[float]:
    """Return trainings to random's end: median and middle 80 % of the searches, infinite if never reached."""
    counts = [math.inf if count is None else count for count in row["trainings_to_reach_random"]]
    # "lower" and "higher" select values that occurred: one cannot interpolate towards infinity.
    ways = ((0.5, "higher"), (0.1, "lower"), (0.9, "higher"))
    return [float(np.quantile(counts, share, method=how)) for share, how in ways]  # type: ignore[call-overload]


def judge(surrogate: Row | None, budget: int) -> str:
    """Return one sentence on whether the goal is met."""
    if surrogate is None:
        return "The surrogate, which is the default search, was left out."
    if math.isinf(typical := surrogate["counts"][0]):
        return (
            f"The surrogate does not reach random search's hypervolume in {budget} trainings: the goal of a third is "
            "missed."
        )
    verdict = "met" if 3 * typical <= budget else "missed"
    goal = f"The goal, random search's final hypervolume in a third of the trainings, is {verdict}"
    return f"{goal}: the median for the surrogate is {typical:.0f} of {budget}."


def main(words: Sequence[str] | None = None) -> None:
    """Replay all searches into NAME.json, and write the page and the figure."""
    parser = harness.make_parser(__doc__, "search_quality")
    parser.add_argument("--table", type=Path, help="NAS-Bench-Macro's JSON; default: FFEM_NAS_BENCH_MACRO")
    parser.add_argument("--records", type=Path, nargs="+", help="records.jsonl files to replay instead of the table")
    parser.add_argument("--cost", choices=COSTS, default="macs", help="the cost to minimise (macs)")
    parser.add_argument("--methods", nargs="+", choices=tuple(ASKERS), default=list(ASKERS))
    harness.add_numbers(
        parser,
        budget=(150, "trainings per search"),
        repeats=(20, "searches of each kind, each with its own seed"),
        jobs=(os.cpu_count() or 1, "processes"),
    )
    options = parser.parse_args(words)
    harness.check_positive(options, "budget", "repeats", "jobs")
    if options.report_only:
        paths = [path for path in sorted(options.out.glob("*.json")) if "random_final" in json.loads(path.read_text())]
        if not paths:
            raise SystemExit(harness.NOTHING)
    else:
        table = read_recorded(options.records, options.cost) if options.records else find_table(options)
        # Shorten absolute paths to their last part: the page is read on other machines.
        typed = sys.argv[1:] if words is None else words
        command = shlex.join([Path(word).name if Path(word).is_absolute() else word for word in typed])
        budget = min(options.budget, math.ceil(len(table.points) * 0.8))  # what every search reaches shows nothing
        curves = replay_all(table, budget, options)
        summary = summarize(table, curves, budget, f"python -m benchmarks.search_quality {command}")
        paths = [options.out / f"{table.name}.json"]
        options.out.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(summary) + "\n", encoding="utf-8")
    for path in paths:
        print(write_report(path))


if __name__ == "__main__":
    main()
