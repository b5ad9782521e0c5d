"""Which way of searching finds the better frontier for the same number of trainings?

    python -m benchmarks.search_quality --table nas-bench-macro_cifar10.json
    python -m benchmarks.search_quality --records results/search/records.jsonl --cost bytes_float32
    python -m benchmarks.search_quality --report-only

Searches are replayed on networks that were all trained before, so that thousands of them take minutes. A searcher that
trains a network sees one of its trainings, drawn at random; what it would show in the end, the frontier of what it
saw, is scored by the mean over all trainings. A network is trained once: one that a searcher asks for again is told
from memory and spends nothing. The table is NAS-Bench-Macro's (github.com/xiusu/NAS-Bench-Macro, Apache-2.0), by
--table or FFEM_NAS_BENCH_MACRO. Optuna's searchers need the extra `bench`. About ten minutes on two cores.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import harness
from benchmarks.search_quality_report import Curves, summarize, write_report
from benchmarks.search_table import COSTS, Memory, Table, find_table, read_recorded
from ffem_jax.search.halving import Halving, Promotion, compute_rungs
from ffem_jax.search.model.encoding import embed_codes, encode_points
from ffem_jax.search.model.proposal import Observation, SurrogateSampler
from ffem_jax.search.model.surrogate import ADDITIVE
from ffem_jax.search.space import Point

# Yields networks to train; looks into the memory for what came of them.
Asker = Iterator[int]
REDUCTION = 3  # of halving
REPEATED_ASKS = 300  # of networks trained before, in a row; a random one follows


def ask_random(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """Networks in random order."""
    yield from (int(network) for network in rng.permutation(len(table.points)))


def ask_grid(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """A grid that the budget just covers: networks at equal steps through the list of all, in its order."""
    order = np.lexsort(table.codes.T[::-1])
    step = max(1.0, len(order) / budget)
    start = rng.uniform(0, step)
    yield from (int(order[int(start + index * step) % len(order)]) for index in range(min(budget, len(order))))


def ask_surrogate(table: Table, memory: Memory, rng: np.random.Generator, budget: int, **settings: object) -> Asker:
    """The project's own sampler; among what was recorded, where that is not the whole space."""
    sampler = SurrogateSampler(table.space, **settings)  # type: ignore[arg-type]
    places = {tuple(row): index for index, row in enumerate(table.codes.tolist())}
    order = rng.permutation(len(table.points))

    def find(point: Point) -> int:
        return places[tuple(encode_points(table.space, [point])[0].tolist())]

    while True:
        known = [
            Observation(table.points[i], accuracy, (float(table.costs[i]),), table.tested)
            for i, accuracy in memory.seen.items()
        ]
        if table.whole:
            point = sampler.propose(known, rng, lambda p: find(p) in memory.started)
            yield find(point)
        else:
            left = np.array([index for index in order if index not in memory.started])
            if not len(left):
                return
            yield int(left[sampler.rank(known, table.codes[left])[0]])


def ask_additive(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """The same with nothing but additive ridge regression for a model."""
    return ask_surrogate(table, memory, rng, budget, kernels=ADDITIVE)


def ask_optuna(table: Table, memory: Memory, rng: np.random.Generator, budget: int, kind: str = "tpe") -> Asker:
    """Optuna's samplers, with numbers as whole numbers, which serves both better than categories."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    seed = int(rng.integers(2**31))
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=seed, multivariate=True)
        if kind == "tpe"
        else optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    places = {tuple(row): index for index, row in enumerate(table.codes.tolist())}
    while True:
        trial = study.ask()
        point = {}
        for choice in table.space.choices:
            if choice.ordered:
                point[choice.name] = choice.values[trial.suggest_int(choice.name, 0, len(choice.values) - 1)]
            else:
                point[choice.name] = trial.suggest_categorical(choice.name, choice.values)
        codes = encode_points(table.space, [point])
        network = places.get(tuple(codes[0].tolist()))
        if network is None:  # not recorded: the nearest that is, one not trained yet where it can be
            alike = (table.features @ embed_codes(table.space, codes)[0]).astype(float)
            alike[list(memory.started)] -= 1e-3
            network = int(alike.argmax())
        yield network
        study.tell(trial, [memory.seen[network], float(table.costs[network])])


def ask_nsga2(table: Table, memory: Memory, rng: np.random.Generator, budget: int) -> Asker:
    """NSGA-II by Optuna."""
    return ask_optuna(table, memory, rng, budget, kind="nsga2")


ASKERS: dict[str, Callable[[Table, Memory, np.random.Generator, int], Asker]] = {
    "random": ask_random,
    "grid": ask_grid,
    "nsga2": ask_nsga2,
    "tpe": ask_optuna,
    "additive": ask_additive,
    "surrogate": ask_surrogate,
}
HALVED = ("random", "surrogate")


def replay(table: Table, method: str, repeat: int, budget: int) -> list[tuple[float, float]]:
    """One search: (trainings spent, share of the table's hypervolume) after each training.

    A method whose name ends in `+halving` trains networks a part of the epochs first.
    """
    rng = np.random.default_rng([repeat, sum(map(ord, method))])
    name, _, halved = method.partition("+")
    memory = Memory()
    asker = ASKERS[name](table, memory, rng, budget)
    outcomes = np.array([accuracies[rng.integers(len(accuracies))] for accuracies in table.trainings])
    if halved:
        return replay_halving(table, asker, memory, outcomes, budget)
    curve: list[tuple[float, float]] = []
    repeated = 0
    while len(curve) < budget:
        network = next(asker, None)
        repeated = repeated + 1 if network in memory.started else 0
        if network is None or repeated > REPEATED_ASKS:
            network = int(rng.choice([i for i in range(len(table.points)) if i not in memory.started]))
        if network in memory.started:
            continue
        memory.started.add(network)
        memory.seen[network] = float(outcomes[network])
        curve.append((float(len(memory.seen)), table.score(memory.seen)))
    return curve


def replay_halving(
    table: Table, asker: Iterator[int], memory: Memory, outcomes: np.ndarray, budget: int
) -> list[tuple[float, float]]:
    """The package's successive halving: (trainings spent, share of the hypervolume) after each whole training.

    A network is first trained to a ninth of the epochs. Whoever proposes networks learns of those trained to the end
    alone. It ends when `budget` trainings' epochs are spent, or nothing is left to train.
    """
    assert table.curves is not None
    epochs = table.curves.shape[1]
    rungs = compute_rungs(max(1, round(epochs / REDUCTION**2)), REDUCTION, epochs)
    halving: Halving[int] = Halving(rungs, REDUCTION)
    curve: list[tuple[float, float]] = []
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


def main(words: Sequence[str] | None = None) -> None:
    """Replay all searches into NAME.json, and write the page and the figure."""
    parser = harness.make_parser(__doc__, "search_quality")
    parser.add_argument("--table", type=Path, help="NAS-Bench-Macro's JSON; default: FFEM_NAS_BENCH_MACRO")
    parser.add_argument("--records", type=Path, nargs="+", help="records.jsonl to replay, in place of the table")
    parser.add_argument("--cost", choices=COSTS, default="macs", help="what is wanted low (macs)")
    parser.add_argument("--methods", nargs="+", choices=tuple(ASKERS), default=list(ASKERS))
    harness.add_numbers(
        parser,
        budget=(150, "trainings a search may spend"),
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
        # Absolute paths by their last part: the page is read elsewhere.
        typed = sys.argv[1:] if words is None else words
        command = shlex.join([Path(word).name if Path(word).is_absolute() else word for word in typed])
        budget = min(options.budget, math.ceil(len(table.points) * 0.8))  # what everyone finds in the end tells nothing
        curves = replay_all(table, budget, options)
        summary = summarize(table, curves, budget, f"python -m benchmarks.search_quality {command}")
        paths = [options.out / f"{table.name}.json"]
        options.out.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(summary) + "\n", encoding="utf-8")
    for path in paths:
        print(write_report(path))


def replay_all(table: Table, budget: int, options: argparse.Namespace) -> Curves:
    """All searches of all methods, in as many processes as asked for."""
    from tqdm import tqdm

    methods = list(dict.fromkeys(["random", *options.methods]))  # all are compared with random
    if table.curves is not None:
        methods += [f"{name}+halving" for name in HALVED if name in methods]
    curves: dict[str, list[list[tuple[float, float]]]] = {method: [] for method in methods}
    # Spawned: nothing forks the threads of a library that is at work.
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        tasks = {
            pool.submit(replay, table, method, repeat, budget): method
            for repeat in range(options.repeats)
            for method in methods
        }
        for task in tqdm(as_completed(tasks), total=len(tasks), unit="search"):
            curves[tasks[task]].append(task.result())
    return curves


if __name__ == "__main__":
    main()
