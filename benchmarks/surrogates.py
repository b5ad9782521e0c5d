"""Which model predicts untrained networks best from a few trained ones? Measured on NAS-Bench-Macro.

    python -m benchmarks.surrogates --table nas-bench-macro_cifar10.json --out results/search_quality

Each model learns from one training each of a few random networks and ranks 1,500 others, whose truth is the mean of
three trainings. Random forest and gradient boosting come from scikit-learn (extra `dev`), used only here.
The table is NAS-Bench-Macro's, from --table or FFEM_NAS_BENCH_MACRO. Three minutes on two cores.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness, report
from benchmarks.search_table import Table, find_table
from ffem_jax.metrics.ranking import compute_kendall_tau, compute_top_tau
from ffem_jax.search.model.encoding import embed_codes
from ffem_jax.search.model.surrogate import ADDITIVE, KERNELS, SCALES, Kernel, Scale, fit_rates
from ffem_jax.search.space import SearchSpace

KNOWN, UNSEEN = (30, 60, 100, 200), 1500  # networks
REPEATS = 20  # random choices of networks
CONFIDENCE = 0.9
LOGIT = (Scale(),)
# Predictions for the unseen networks, on any scale, and the interval for a single training of each, if any.
Answer = tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]
# Arguments: the known networks, their accuracies, and the unseen networks.
Model = Callable[[np.ndarray, np.ndarray, np.ndarray], Answer]


def make_models(table: Table) -> dict[str, Model]:
    """Return the models by name."""
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

    plain = SearchSpace(tuple(replace(choice, ordered=False) for choice in table.space.choices))
    one_hot, ordered = embed_codes(plain, table.codes), table.features
    costs = table.costs[:, None]
    joint = tuple(kernel for kernel in KERNELS if not kernel.cost)

    def ours(features: np.ndarray, kernels: tuple[Kernel, ...], scales: tuple[Scale, ...], cost: bool = False) -> Model:
        def answer(known: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> Answer:
            priced = costs[known] if cost else None
            model, scale = fit_rates(features[known], seen, costs=priced, kernels=kernels, scales=scales)
            means, deviations = model.predict(features[unseen], costs[unseen])
            reach = model.compute_reach(CONFIDENCE) * np.hypot(deviations, model.noise_deviation)
            return means, (scale.to_rates(means - reach), scale.to_rates(means + reach))

        return answer

    def trees(kind: Any, features: np.ndarray) -> Model:
        def answer(known: np.ndarray, seen: np.ndarray, unseen: np.ndarray) -> Answer:
            fitted = kind(random_state=0).fit(features[known], Scale().to_values(seen))
            return fitted.predict(features[unseen]), None

        return answer

    priced = np.hstack([ordered, np.log(costs)])
    return {
        "additive ridge, one-hot, logits": ours(one_hot, ADDITIVE, LOGIT),
        "additive ridge, ordered, logits": ours(ordered, ADDITIVE, LOGIT),
        "additive ridge, ordered": ours(ordered, ADDITIVE, SCALES),
        "additive ridge, ordered, and cost": ours(ordered, (Kernel(), Kernel(cost=1.0)), SCALES, cost=True),
        "additive and joint, one-hot": ours(one_hot, joint, SCALES),
        "additive and joint, ordered": ours(ordered, joint, SCALES),
        "additive, joint and cost, ordered, logits": ours(ordered, KERNELS, LOGIT, cost=True),
        "additive, joint and cost, ordered (the default)": ours(ordered, KERNELS, SCALES, cost=True),
        "random forest, 100 trees": trees(RandomForestRegressor, ordered),
        "random forest, with cost": trees(RandomForestRegressor, priced),
        "gradient boosting, 100 trees": trees(GradientBoostingRegressor, ordered),
        "gradient boosting, with cost": trees(GradientBoostingRegressor, priced),
        f"no model: {table.cost_name} alone": lambda known, seen, unseen: (table.costs[unseen], None),
    }


# By model, [repeat, measure]: tau, tau among the best tenth, share of single trainings inside their interval.
Measured = dict[str, np.ndarray]


def measure(table: Table, known: int) -> Measured:
    """Measure each model, trained on `known` random networks, in each repeat."""
    models, found = make_models(table), defaultdict(list)
    for repeat in range(REPEATS):
        draw = np.random.default_rng([repeat, known])
        order = draw.permutation(len(table.points))
        few, unseen = order[:known], order[known : known + UNSEEN]
        single = np.array([accuracies[draw.integers(len(accuracies))] for accuracies in table.trainings])
        truth, seen = table.truth[unseen], single[unseen]
        for name, model in models.items():
            means, interval = model(few, single[few], unseen)
            inside = np.mean((interval[0] <= seen) & (seen <= interval[1])) if interval else math.nan
            found[name].append((compute_kendall_tau(means, truth), compute_top_tau(means, truth), inside))
        pair = np.array([draw.permutation(table.trainings[i])[:2] for i in unseen]).T
        again = compute_kendall_tau(*pair), compute_top_tau(*pair), math.nan
        found["no model: another training of each"].append(again)
    return {name: np.array(rows) for name, rows in found.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measure all models and write surrogates.md, with a column per number of known networks."""
    from tqdm import tqdm

    parser = harness.make_parser(__doc__, "search_quality", kept=False)
    parser.add_argument("--table", type=Path, help="NAS-Bench-Macro's JSON; default: FFEM_NAS_BENCH_MACRO")
    options = parser.parse_args(words)
    table = find_table(options)
    columns = [measure(table, known) for known in tqdm(KNOWN, unit="size")]

    def tabulate(number: int, write: Callable[[np.ndarray], str]) -> str:
        names = [name for name, values in columns[0].items() if not np.isnan(values[:, number]).any()]
        rows = [[name, *(write(column[name][:, number]) for column in columns)] for name in names]
        return report.write_table(["", *map(str, KNOWN)], rows)

    page = report.fill_page(
        options.out / "surrogates.md",
        "surrogates",
        title=table.title,
        unseen=UNSEEN,
        repeats=REPEATS,
        confidence=100 * CONFIDENCE,
        tau=tabulate(0, lambda values: f"{np.mean(values):.2f} ± {np.std(values):.2f}"),
        top=tabulate(1, lambda values: f"{np.mean(values):.2f} ± {np.std(values):.2f}"),
        inside=tabulate(2, lambda values: f"{100 * np.mean(values):.0f}"),
    )
    print(page)


if __name__ == "__main__":
    main()
