"""Accuracy against size: networks from records, their Pareto frontier, its figure and its report."""

from ffem_jax.frontier.hypervolume import compute_hypervolume
from ffem_jax.frontier.pareto import find_pareto
from ffem_jax.frontier.report import FrontierResult, write_frontier
from ffem_jax.frontier.summary import FrontierError, NetworkSummary, summarize_records

__all__ = [
    "FrontierError",
    "FrontierResult",
    "NetworkSummary",
    "compute_hypervolume",
    "find_pareto",
    "summarize_records",
    "write_frontier",
]
