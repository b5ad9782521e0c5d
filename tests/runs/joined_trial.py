"""One process of a trial, as a program: `python joined_trial.py FOLDER SETTINGS`, to be killed or started with others.

SETTINGS is JSON: `run` (of RunSpec) and `recipe`, what they change; `seed`; `teacher`, a file of vectors; `pretrained`,
whether the trial is. `die_after` kills this process after so many epochs, `fail_after` has it fail there. It prints the
records, one per line, and says which images of streamed batches it reads, [batch][row] of each epoch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from made_trials import TRIAL, run

from ffem_jax.errors import FfemError
from ffem_jax.specs.trial import DataSpec, PretrainSpec, ProtocolSpec, TeacherSpec
from ffem_jax.training import feed
from ffem_jax.training.trainer import Position, Trainer

OTHERS = PretrainSpec(
    name="others",
    data=DataSpec(name="synthetic", people=4, images_per_person=6, resolution=16, seed=9),
    protocol=ProtocolSpec(test_per_person=1, test_people=2),
    recipe=dataclasses.replace(TRIAL.recipe, epochs=1),
)


def break_after(epochs: int, how: str) -> None:
    """Have this process end, or fail, when it has trained so many epochs."""
    train_epoch = Trainer._train_epoch

    def broken(self: Trainer, start: Position, *rest: Any) -> Any:
        if start.epochs == epochs:
            if how == "die_after":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the disk vanished")
        return train_epoch(self, start, *rest)

    Trainer._train_epoch = broken  # type: ignore[method-assign]


def say_what_is_read() -> None:
    """Have this process say the images that a feed reads."""
    read_batches = feed.read_batches

    def read(images: Any, places: np.ndarray) -> Any:
        print(json.dumps(places.tolist()), file=sys.stderr)
        return read_batches(images, places)

    feed.read_batches = read


def main(folder: str, words: str) -> None:
    """Run the trial."""
    settings = json.loads(words)
    recipe = dataclasses.replace(TRIAL.recipe, **settings.get("recipe", {}))
    trial = dataclasses.replace(TRIAL, recipe=recipe, seed=settings.get("seed", 0))
    if settings.get("pretrained"):
        trial = dataclasses.replace(trial, pretrain=OTHERS)
    if "teacher" in settings:
        trial = dataclasses.replace(trial, teacher=TeacherSpec("vectors", settings["teacher"]))
    for how in ("die_after", "fail_after"):
        if how in settings:
            break_after(settings[how], how)
    say_what_is_read()
    try:
        records = run(Path(folder), trial, **settings.get("run", {}))
    except FfemError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    for record in records:
        print(record.to_json())
    sys.exit(any(record.status == "failed" for record in records))


if __name__ == "__main__":
    main(*sys.argv[1:])
