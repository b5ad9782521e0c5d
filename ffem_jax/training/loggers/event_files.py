"""TensorBoard's event files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord
from ffem_jax.training.loggers.board import Numbers, name_trial


class EventFiles:
    """Event files in `tensorboard/` in the trial's folder, one folder per trial: tensorboard --logdir outputs.

    A trial that continues, or is trained again, begins a file that repeats all earlier steps and supersedes older ones.
    """

    def __init__(self, record: TrialRecord, out_dir: Path, retrain: bool = False) -> None:
        from tensorboardX import SummaryWriter

        self.make_writer: Any = SummaryWriter
        self.writer: Any = None
        self.folder = out_dir / "tensorboard" / name_trial(record)
        self.written: set[tuple[str, int]] = set()

    def write(self, numbers: Numbers) -> None:
        """Write what is missing, where a reader finds it a second later."""
        if self.writer is None:
            # Readers take files in the order of their names, which begin with the second: of a clock that is ahead,
            # what was written before would come after.
            for path in self.folder.glob("events.out.tfevents.*"):
                if path.name >= f"events.out.tfevents.{int(time.time())}":
                    path.unlink()
            # Readers drop what older files hold: all of the trial so far follows.
            self.writer = self.make_writer(str(self.folder), purge_step=0, flush_secs=1)
        for (name, step), value in numbers.items():
            if (name, step) not in self.written:
                self.writer.add_scalar(name, value, step)
                self.written.add((name, step))

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Write what is missing, and let go."""
        if numbers:
            self.write(numbers)
        if self.writer:
            self.writer.close()
