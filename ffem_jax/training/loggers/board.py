"""The interface of a board (the log of one trial in a tracking service), and the numbers that it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ffem_jax.records.record import TrialRecord

# Record fields that a board gets at the end of a trial; MEASURED fields are dicts, whose numbers are logged too.
RESULTS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_gallery", "bytes_float32", "params", "macs")
MEASURED = ("verification", "open_set", "bins")
CURVES = ("loss", "train_accuracy", "validation_accuracy")

# Keyed by name and step; the first epoch is step 1.
Numbers = Mapping[tuple[str, int], float]


class Board(Protocol):
    """The log of one trial."""

    def write(self, numbers: Numbers) -> None:
        """Write `numbers`, all of the trial so far, each once: numbers already written are skipped."""

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Write `numbers`, log how the trial ended, and release the board.

        outcome: done or pruned, the status of the record; failed; or killed, if the trial was interrupted. For failed
        and killed, `numbers` is empty and what was written stays.
        """


class BoardError(RuntimeError):
    """A board cannot be used. The message is one line and says what to do."""


def name_trial(record: TrialRecord) -> str:
    """Return the trial's name on a board."""
    return f"{record.arch}-seed{record.seed}-{record.trial_key}"


def list_settings(record: TrialRecord) -> dict[str, str]:
    """Return the trial's settings by dotted name, without the paths of faces and teacher."""
    named = _flatten({name: value for name, value in record.spec.items() if isinstance(value, dict)})
    hidden = (".root", ".cache_dir", "teacher.path")
    return {name: str(value) for name, value in named.items() if not name.endswith(hidden)}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def list_results(record: TrialRecord) -> dict[tuple[str, int], float]:
    """Return RESULTS and MEASURED numbers at the last epoch, e.g. `result/accuracy`, `result/open_set/eer`."""
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
    """Return curves [epoch], keyed by name, as numbers keyed by (name, step)."""
    return {(name, epoch): value for name, values in curves.items() for epoch, value in enumerate(values, 1)}
