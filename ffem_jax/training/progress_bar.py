"""The progress bar of one trial: epoch, loss, images per second, time left; drawn on terminals only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType

from ffem_jax.specs.trial import TrialSpec
from ffem_jax.text.display import show_unseen
from ffem_jax.text.progress import make_progress, say

__all__ = ["TrainingBar", "say", "show_activity"]


class TrainingBar:
    """A context manager whose `update` moves a bar of epochs * steps on standard error.

    It draws nothing if standard error is a pipe, a file or a terminal that cannot move its cursor (TERM=dumb).
    """

    def __init__(self, trial: TrialSpec, steps_per_epoch: int, *, enabled: bool = True):
        self.epochs, self.steps_per_epoch = trial.recipe.epochs, steps_per_epoch
        parts = "{task.description}", "bar", "percent", "rest", "left, {task.fields[numbers]}"
        self.progress = make_progress(*parts, enabled=enabled)
        self.task = self.progress.add_task("", total=self.epochs * steps_per_epoch, numbers="")

    def update(
        self, epoch: int, step: int, loss: float, images_per_second: float, data_wait_fraction: float | None = None
    ) -> None:
        """Move the bar to `step` steps of `epoch` (from 0); `loss` is the epoch's mean so far.

        data_wait_fraction: the share of the time spent waiting for images; None if all images are on the device.
        """
        waiting = "" if data_wait_fraction is None else f", {data_wait_fraction:.0%} waiting for images"
        self.progress.update(
            self.task,
            completed=epoch * self.steps_per_epoch + step,
            description=f"epoch {epoch + 1}/{self.epochs}",
            numbers=f"loss {loss:.3f}, {images_per_second:.0f} images/s{waiting}",
        )

    def __enter__(self) -> TrainingBar:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


@contextlib.contextmanager
def show_activity(what: str, *, enabled: bool = True) -> Iterator[None]:
    """Draw `what` and the elapsed seconds while the block runs, if `TrainingBar` would draw; must not contain one."""
    with make_progress("{task.description},", "seconds", enabled=enabled) as progress:
        progress.add_task(show_unseen(what), total=None)
        yield
