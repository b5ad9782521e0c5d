"""The networks of a frontier as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.text.tables import Column, Table, make_table
from ffem_jax.text.tables import print_table as print_table

# Columns that a narrow terminal drops, the highest rank first. A network's name already distinguishes it.
RANKS = {
    "seed sd": 8, "trials": 7, "recipe": 6, "pixels": 6, "attention": 5, "placement": 5, "params": 4, "fits": 3,
}  # fmt: skip


def render_table(
    networks: Sequence[NetworkSummary], on_frontier: Sequence[bool], question: FrontierQuestion, title: str = ""
) -> Table:
    """Return a table with one line per network; `*` marks the frontier. Constant settings are left out."""
    varying: list[tuple[str, Callable[[NetworkSummary], str]]] = [
        ("attention", lambda n: n.attention),
        ("placement", lambda n: n.placement or "-"),
        ("pixels", lambda n: str(n.resolution)),
        ("recipe", lambda n: n.recipe),
    ]
    columns = [(name, get) for name, get in varying if len({get(network) for network in networks}) > 1]
    # Parameters and bytes are always shown, another cost only if it is requested.
    costs = [] if question.against in ("bytes", "params") else [(question.axis.head, question.show_cost)]
    word = "" if question.measure.word == "accuracy" else f"{question.measure.word}, "
    rate = f"{word}% [95 %]"
    numbers = ("params", *(name for name, _ in costs), f"MB {question.precision}", rate, "seed sd", "trials")
    # The size may be dropped if another cost was requested.
    ranks = RANKS | ({f"MB {question.precision}": 1} if costs else {})
    heads: list[Column | str] = [
        "",
        Column("network", fold=True),
        *(Column(name, fold=True, rank=RANKS[name]) for name, _ in columns),
        *(Column(name, right=True, whole=True, rank=ranks.get(name, 0)) for name in numbers),
        Column("fits", rank=RANKS["fits"]),
    ]

    def list_cells(network: NetworkSummary, marked: bool) -> list[str]:
        size = question.get_bytes(network) / BYTES_PER_MB
        return [
            "*" if marked else "",
            network.label,
            *(get(network) for _, get in columns),
            "?" if network.params is None else f"{network.params:,}",
            *(get(network) for _, get in costs),
            "?" if size != size else f"{size:.2f}",
            format_accuracy(network),
            "-" if network.seed_deviation is None else f"{100 * network.seed_deviation:.1f}",
            format_trials(network),
            "?" if size != size else "yes" if question.fits(network) else "no",
        ]

    rows = [list_cells(*pair) for pair in zip(networks, on_frontier, strict=True)]
    return make_table(heads, rows, title=title, bold=on_frontier)


def format_accuracy(network: NetworkSummary) -> str:
    """Return the accuracy in percent with its interval, or why there is none."""
    if network.accuracy is None or network.accuracy_low is None or network.accuracy_high is None:
        return {"over_cap": "not trained", "pruned": "stopped early"}.get(network.status, "failed")
    return f"{100 * network.accuracy:.1f} [{100 * network.accuracy_low:.1f}, {100 * network.accuracy_high:.1f}]"


def format_trials(network: NetworkSummary) -> str:
    """Return seeds by folds if all were run, else the number of trials; with pruned and failed ones."""
    seeds, folds = len(network.seeds), len(network.folds)
    text = f"{seeds} x {folds}" if folds > 1 and seeds * folds == network.trials else str(network.trials)
    text += f", {network.pruned_trials} pruned" if network.pruned_trials else ""
    return text + (f", {network.failed_trials} failed" if network.failed_trials else "")
