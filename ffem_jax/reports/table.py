"""The networks of a frontier as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ffem_jax.analysis.question import BYTES_PER_MB, FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.text.tables import Column, make_table
from ffem_jax.text.tables import print_table as print_table

if TYPE_CHECKING:
    from rich.table import Table


def render_table(
    networks: Sequence[NetworkSummary], on_frontier: Sequence[bool], question: FrontierQuestion, title: str = ""
) -> Table:
    """One line a network; `*` marks the frontier. Columns that would say the same on every line are left out."""
    varying: list[tuple[str, Callable[[NetworkSummary], str]]] = [
        ("attention", lambda n: n.attention),
        ("placement", lambda n: n.placement or "-"),
        ("pixels", lambda n: str(n.resolution)),
        ("recipe", lambda n: n.recipe),
    ]
    columns = [(name, get) for name, get in varying if len({get(network) for network in networks}) > 1]
    # Only where it is what is asked for: parameters and bytes always stand there.
    asked: dict[str, tuple[str, Callable[[NetworkSummary], str]]] = {
        "macs": ("MACs", lambda n: "?" if n.macs is None else f"{n.macs:,}"),
        "latency_ms_wasm": ("ms wasm", lambda n: "?" if n.latency_ms_wasm is None else f"{n.latency_ms_wasm:.2f}"),
    }
    costs = [asked[question.against]] if question.against in asked else []
    numbers = ("params", *(name for name, _ in costs), f"MB {question.precision}", "% [95 %]", "seed sd", "trials")
    heads: list[Column | str] = [
        "",
        Column("network", fold=True),
        *(Column(name, fold=True) for name, _ in columns),
        *(Column(name, right=True, whole=True) for name in numbers),
        "fits",
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
    """Percent with its interval, or why there is none."""
    if network.accuracy is None or network.accuracy_low is None or network.accuracy_high is None:
        return {"over_cap": "not trained", "pruned": "stopped early"}.get(network.status, "failed")
    return f"{100 * network.accuracy:.1f} [{100 * network.accuracy_low:.1f}, {100 * network.accuracy_high:.1f}]"


def format_trials(network: NetworkSummary) -> str:
    """Seeds by folds where that is what was run, else the plain number; failures named."""
    seeds, folds = len(network.seeds), len(network.folds)
    text = f"{seeds} x {folds}" if folds > 1 and seeds * folds == network.trials else str(network.trials)
    text += f", {network.pruned_trials} pruned" if network.pruned_trials else ""
    return text + (f", {network.failed_trials} failed" if network.failed_trials else "")
