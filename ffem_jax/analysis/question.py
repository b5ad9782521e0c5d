"""The question that a frontier answers: accuracy against which cost, at which precision, under which cap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.analysis.summary import FrontierError, NetworkSummary
from ffem_jax.records.costs import BYTES_PER_MB, COST_AXES, CostAxis
from ffem_jax.records.measures import MEASURES, Measure, find_measure
from ffem_jax.specs.trial import PRECISIONS


@dataclass(frozen=True)
class FrontierQuestion:
    """The two axes and the cap.

    Args:
        cap_mb: in MB of 10**6 bytes, applied to the bytes at `precision` whatever the cost: a network that does not
            fit is never on a frontier.
        pairs: whether `accuracy` is over pairs (View 2) instead of images.
        protocol: the protocol of the records, which defines `accuracy`.

    Raises:
        FrontierError: a value is not one of its choices.
    """

    cap_mb: float = 10.0
    precision: str = "float32"
    against: str = "bytes"
    metric: str = "accuracy"
    pairs: bool = False
    protocol: str = ""

    def __post_init__(self) -> None:
        for name, choices in (("precision", PRECISIONS), ("against", tuple(COST_AXES)), ("metric", tuple(MEASURES))):
            if getattr(self, name) not in choices:
                raise FrontierError(f"{name}={getattr(self, name)!r} is not known; choose one of: {', '.join(choices)}")
        if not (math.isfinite(self.cap_mb) and self.cap_mb > 0):
            raise FrontierError(f"cap_mb={self.cap_mb} must be a size above 0, in MB of 10**6 bytes")

    @property
    def measure(self) -> Measure:
        """The measure behind the accuracy."""
        return find_measure(self.metric, self.protocol or ("view2" if self.pairs else ""))

    @property
    def axis(self) -> CostAxis:
        """The cost on the horizontal axis."""
        return COST_AXES[self.against]

    def describe_axis(self) -> str:
        """Return the label of the horizontal axis."""
        return self.axis.axis.format(precision=self.precision)

    def get_bytes(self, summary: NetworkSummary) -> float:
        """Return the deployed size at this precision; NaN if not known."""
        return _get_field(summary, f"bytes_{self.precision}")

    def get_cost(self, summary: NetworkSummary) -> float:
        """Return the cost on the horizontal axis, in the unit of the record's field; NaN if not known."""
        return _get_field(summary, self.axis.name_field(self.precision))

    def show_cost(self, summary: NetworkSummary) -> str:
        """Return the cost as shown in a table, in the unit of the axis; `?` if not known."""
        cost = self.get_cost(summary)
        return "?" if math.isnan(cost) else f"{cost / self.axis.scale:,.{self.axis.digits}f}"

    def fits(self, summary: NetworkSummary) -> bool:
        """Whether the network is known to fit the cap."""
        return self.get_bytes(summary) <= self.cap_mb * BYTES_PER_MB

    def mark_frontier(self, summaries: Sequence[NetworkSummary]) -> list[bool]:
        """Mark the trained networks within the cap that no other such network dominates."""
        costs = [self.get_cost(s) if s.accuracy is not None and self.fits(s) else math.nan for s in summaries]
        values = [math.nan if s.accuracy is None else self.measure.score(s.accuracy) for s in summaries]
        return [bool(stands) for stands in find_pareto(costs, values)]


def _get_field(summary: NetworkSummary, field: str) -> float:
    value = getattr(summary, field)
    return math.nan if value is None else float(value)
