"""At which distance a face is accepted: fixed by hand, or from a calibration and the false-accept rate asked for.

A false-accept rate is one of strangers who ask. A calibration gives the rate of single comparisons. With N vectors
enrolled a stranger is accepted at most N times as often, so each comparison is allowed one N-th of the rate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ffem_jax.metrics.calibration import Calibration, CalibrationError, read_calibration


class Threshold(Protocol):
    """Eq. 7's sigma for a gallery."""

    def at(self, vectors: int) -> float:
        """The largest accepted distance, in 0 to 1, where so many vectors are enrolled."""
        ...

    def find_shortage(self, vectors: int) -> str | None:
        """What is missing to hold what was promised where so many vectors are enrolled; None where nothing is."""
        ...


@dataclass(frozen=True)
class FixedThreshold:
    """The same distance whatever is enrolled; nothing is promised about strangers."""

    sigma: float

    def at(self, vectors: int) -> float:
        """`sigma`."""
        return self.sigma

    def find_shortage(self, vectors: int) -> str | None:
        """Nothing is promised."""
        return None


@dataclass(frozen=True)
class CalibratedThreshold:
    """At most `false_accept_rate` (0 to 1) of the strangers who ask are accepted as anybody.

    A stranger is compared with every vector enrolled, and each is a chance to be mistaken: with N of them at most N
    times the rate of a single comparison. So the rate allowed to one comparison is the Nth part, and the threshold
    tightens as the gallery grows.
    """

    calibration: Calibration
    false_accept_rate: float

    def at(self, vectors: int) -> float:
        """The calibration's threshold for the Nth part of the rate."""
        return self.calibration.choose_threshold(self.false_accept_rate / max(1, vectors))

    def find_shortage(self, vectors: int) -> str | None:
        """That the calibration has too few pairs to show so low a rate, and by how much."""
        rate = self.false_accept_rate / max(1, vectors)
        return None if self.calibration.has_enough(rate) else self.calibration.describe_shortage(rate)


def load_calibration(path: Path, model_id: str) -> Calibration:
    """The calibration in the file `path`.

    Raises CalibrationError where it is none or was made with another model, and OSError where it cannot be read.
    """
    try:
        calibration = read_calibration(json.loads(path.read_text(encoding="utf-8")))
    except (CalibrationError, ValueError, RecursionError) as error:
        raise CalibrationError(f"{path}: {error}; make one with ffem embed --calibrate") from None
    if calibration.model_id != model_id:
        raise CalibrationError(
            f"{path} was made with model {calibration.model_id}, not with {model_id}; ffem embed --calibrate makes one"
        )
    return calibration
