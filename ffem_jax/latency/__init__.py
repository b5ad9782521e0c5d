"""Latency of networks where they are deployed: measured in milliseconds, and written into records.

turns: calls models in turn, by a runtime in a process of its own. measure: times the networks of records with it.
"""

from __future__ import annotations

from ffem_jax.errors import FfemError


class LatencyError(FfemError):
    """A network that cannot be timed. The message is one line and says what to do."""
