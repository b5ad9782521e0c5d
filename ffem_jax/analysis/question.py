"""What a frontier is asked: accuracy against which cost, at which precision, under which cap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.analysis.summary import METRICS, FrontierError, NetworkSummary
from ffem_jax.specs.trial import PRECISIONS

COSTS = ("bytes", "params", "macs", "latency_ms_wasm")
BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class FrontierQuestion:
    """The two axes and the cap.

    cap_mb: in MB of 10**6 bytes, against the bytes at `precision`, whichever cost is asked for: what does not fit
        is never on a frontier. pairs: `accuracy` is of pairs (View 2) and not of images. Raises FrontierError for a
        value outside its choices.
    """

    cap_mb: float = 10.0
    precision: str = "float32"
    against: str = "bytes"
    metric: str = "accuracy"
    pairs: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("precision", PRECISIONS), ("against", COSTS), ("metric", tuple(METRICS))):
            if getattr(self, name) not in choices:
                raise FrontierError(f"{name}={getattr(self, name)!r} is not known; choose one of: {', '.join(choices)}")
        if not (math.isfinite(self.cap_mb) and self.cap_mb > 0):
            raise FrontierError(f"cap_mb={self.cap_mb} must be a size above 0, in MB of 10**6 bytes")

    @property
    def measure(self) -> str:
        """What the accuracy is of: the metric, or `verification` where it is of pairs."""
        return "verification" if self.pairs else self.metric

    def get_bytes(self, summary: NetworkSummary) -> float:
        """The deployed size at this precision; NaN where it is not known."""
        size = getattr(summary, f"bytes_{self.precision}")
        return math.nan if size is None else float(size)

    def get_cost(self, summary: NetworkSummary) -> float:
        """The cost on the horizontal axis, in bytes, parameters, MACs or milliseconds; NaN where it is not known."""
        if self.against == "bytes":
            return self.get_bytes(summary)
        cost = getattr(summary, self.against)
        return math.nan if cost is None else float(cost)

    def fits(self, summary: NetworkSummary) -> bool:
        """Whether the network is known to fit the cap."""
        return self.get_bytes(summary) <= self.cap_mb * BYTES_PER_MB

    def mark_frontier(self, summaries: Sequence[NetworkSummary]) -> list[bool]:
        """Which of the trained networks that fit no other such network beats."""
        costs = [self.get_cost(s) if s.accuracy is not None and self.fits(s) else math.nan for s in summaries]
        values = [math.nan if s.accuracy is None else s.accuracy for s in summaries]
        return [bool(stands) for stands in find_pareto(costs, values)]
