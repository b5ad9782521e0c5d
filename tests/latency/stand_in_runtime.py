"""A runtime that tells what it was asked and takes the times it is given."""

from __future__ import annotations

from typing import Any

from ffem_jax.latency.turns import TimedModel


class StandInRuntime:
    """Calls of model `name` take, in turn, milliseconds[name]; the last of them for ever after."""

    def __init__(self, milliseconds: dict[str, list[float]] | None = None):
        self.milliseconds = milliseconds or {}
        self.loaded: list[TimedModel] = []
        self.called: list[str] = []

    def __enter__(self) -> StandInRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def load(self, model: TimedModel) -> dict[str, Any]:
        self.loaded.append(model)
        return {"load_ms": 1.0, "first_call_ms": 2.0, "weight_tensor_bytes": 4000, "peak_tensor_bytes": 6000}

    def time(self, name: str) -> float:
        calls = self.milliseconds.get(name, [1.0])
        self.called.append(name)
        return calls[min(self.called.count(name), len(calls)) - 1]

    def describe(self) -> str:
        return "stand-in 1, 1 thread"
