"""The networks of a frontier as a table for the terminal. Rich is imported when a table is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from ffem_jax.frontier.question import BYTES_PER_MB, FrontierQuestion
from ffem_jax.frontier.summary import NetworkSummary

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH = 240  # of output that is no terminal; lines end where their text does


def render_table(
    networks: Sequence[NetworkSummary], on_frontier: Sequence[bool], question: FrontierQuestion, title: str = ""
) -> Table:
    """One line a network; `*` marks the frontier. Columns that would say the same on every line are left out."""
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("network", overflow="fold")
    varying: list[tuple[str, Callable[[NetworkSummary], str]]] = [
        ("attention", lambda n: n.attention),
        ("placement", lambda n: n.placement or "-"),
        ("pixels", lambda n: str(n.resolution)),
        ("recipe", lambda n: n.recipe),
    ]
    columns = [(name, get) for name, get in varying if len({get(network) for network in networks}) > 1]
    for name, _ in columns:
        table.add_column(name)
    # Only where it is what is asked for: parameters and bytes always stand there.
    asked: dict[str, tuple[str, Callable[[NetworkSummary], str]]] = {
        "macs": ("MACs", lambda n: "?" if n.macs is None else f"{n.macs:,}"),
        "latency_ms_wasm": ("ms wasm", lambda n: "?" if n.latency_ms_wasm is None else f"{n.latency_ms_wasm:.2f}"),
    }
    costs = [asked[question.against]] if question.against in asked else []
    for name in ("params", *(name for name, _ in costs), f"MB {question.precision}", "% [95 %]", "seed sd", "trials"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for network, marked in zip(networks, on_frontier, strict=True):
        size = question.get_bytes(network) / BYTES_PER_MB
        cells = [
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
        table.add_row(*cells, style="bold" if marked else None)
    return table


def print_table(table: Table, file: TextIO) -> None:
    """Write `table` to a terminal as it can show it, to anything else as plain lines of their full width."""
    from rich.console import Console

    if file.isatty():
        Console(file=file).print(table)
        return
    text = StringIO()
    Console(file=text, width=PLAIN_WIDTH, color_system=None, force_terminal=False).print(table)
    file.write("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")


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
