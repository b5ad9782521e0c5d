"""A board of TensorBoard event files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ffem_jax.records.record import TrialRecord
from ffem_jax.training.loggers.board import Numbers, name_trial


class EventFiles:
    """Event files in `tensorboard/` in the trial's folder, one folder per trial: tensorboard --logdir outputs.

    A trial that resumes, or is trained again, starts a file that repeats all earlier steps and supersedes older files.
    """

    def __init__(self, record: TrialRecord, out_dir: Path, retrain: bool = False) -> None:
        from tensorboardX import SummaryWriter

        self.make_writer: Any = SummaryWriter
        self.writer: Any = None
        self.folder = out_dir / "tensorboard" / name_trial(record)
        self.written: set[tuple[str, int]] = set()

    def write(self, numbers: Numbers) -> None:
        """Write the missing numbers; readers see them within about a second."""
        if self.writer is None:
            # Readers sort files by name, which starts with the time in seconds: a file written under a clock that ran
            # ahead would be read after the new one.
            for path in self.folder.glob("events.out.tfevents.*"):
                if path.name >= f"events.out.tfevents.{int(time.time())}":
                    path.unlink()
            # purge_step makes readers drop the contents of older files; the whole trial so far is written again.
            self.writer = self.make_writer(str(self.folder), purge_step=0, flush_secs=1)
        for (name, step), value in numbers.items():
            if (name, step) not in self.written:
                self.writer.add_scalar(name, value, step)
                self.written.add((name, step))

    def close(self, numbers: Numbers, outcome: str) -> None:
        """Write the missing numbers and close the file."""
        if numbers:
            self.write(numbers)
        if self.writer:
            self.writer.close()
