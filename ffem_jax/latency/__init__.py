"""Milliseconds a network takes where it is deployed, measured and written into records.

turns: models called one after another by a runtime in a process of its own; measure: records' networks by that.
"""

from __future__ import annotations

from ffem_jax.errors import FfemError


class LatencyError(FfemError):
    """Networks that cannot be timed, here or at all. The message is one line and says what to do."""
