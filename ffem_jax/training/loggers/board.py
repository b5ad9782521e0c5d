"""What a board is, and what of a trial goes on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ffem_jax.records.record import TrialRecord

# What a board gets of a trial at its end; the record has the rest. MEASURED: dicts of a record, their numbers too.
RESULTS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery", "bytes_float32", "params", "macs")
MEASURED = ("verification", "open_set", "bins")
CURVES = ("loss", "train_accuracy", "validation_accuracy")

# By name and step; the first epoch is step 1.
Numbers = Mapping[tuple[str, int], float]


class Board(Protocol):
    """Where one trial's numbers go."""

    def write(self, numbers: Numbers) -> None:
        """Hold these numbers, all of the trial so far, each once: what is there already is not written again."""

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Hold these numbers, say how the trial ended, and let go.

        outcome: done or pruned, as its record says; failed; or killed, where it was stopped in the middle. There are
        then no numbers, and what is there stays.
        """


class BoardError(RuntimeError):
    """A board that cannot be used. The message is one line and says what to do."""


def name_trial(record: TrialRecord) -> str:
    """What a board calls the trial."""
    return f"{record.arch}-seed{record.seed}-{record.trial_key}"


def list_settings(record: TrialRecord) -> dict[str, str]:
    """The settings of the trial by dotted names, but for where faces and a teacher lie."""
    named = _flatten({name: value for name, value in record.spec.items() if isinstance(value, dict)})
    hidden = (".root", ".cache_dir", "teacher.path")
    return {name: str(value) for name, value in named.items() if not name.endswith(hidden)}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def list_results(record: TrialRecord) -> dict[tuple[str, int], float]:
    """The RESULTS and the MEASURED numbers that the trial has, at its last epoch, such as `result/accuracy` and
    `result/open_set/eer`."""
    values: dict[str, Any] = {name: getattr(record, name) for name in RESULTS}
    values |= {
        path.replace(".", "/"): value
        for name in MEASURED
        for path, value in _flatten(getattr(record, name), f"{name}.").items()
    }
    return {
        (f"result/{name}", record.epochs): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def list_curves(curves: Mapping[str, Sequence[float]]) -> dict[tuple[str, int], float]:
    """Curves [epoch] by their names, as numbers."""
    return {(name, epoch): value for name, values in curves.items() for epoch, value in enumerate(values, 1)}
