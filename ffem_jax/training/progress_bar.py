"""The progress bar of one trial: epoch, loss, images per second, time left; silent where nobody watches."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from ffem_jax.specs.trial import TrialSpec
from ffem_jax.text.display import show_unseen


class TrainingBar:
    """A context whose `update` moves a bar of epochs * steps on standard error, if that is a terminal."""

    def __init__(self, trial: TrialSpec, steps_per_epoch: int, *, enabled: bool = True):
        self.epochs, self.steps_per_epoch = trial.recipe.epochs, steps_per_epoch
        self.bar = tqdm(
            total=self.epochs * steps_per_epoch,
            disable=not (enabled and sys.stderr.isatty()),
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
            bar_format="{desc} {bar} {percentage:3.0f}% {remaining} left{postfix}",
        )

    def update(self, epoch: int, step: int, loss: float, images_per_second: float) -> None:
        """After `step` steps of `epoch` (from 0); `loss` is the epoch's mean so far."""
        self.bar.set_description(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.3f}, {images_per_second:.0f} images/s", refresh=False)
        self.bar.n = epoch * self.steps_per_epoch + step
        self.bar.refresh()

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()


def say(message: str) -> None:
    """A line on standard error that does not tear a running bar."""
    tqdm.write(show_unseen(message), file=sys.stderr)
