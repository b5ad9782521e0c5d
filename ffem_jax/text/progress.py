"""Progress bars and messages on standard error. Texts are printed literally, never as markup."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ffem_jax.text.display import show_unseen

Item = TypeVar("Item")

# Shared by bars and messages, so that a message does not break a bar. It looks up sys.stderr at each use.
CONSOLE = Console(stderr=True)


class SecondsColumn(ProgressColumn):
    """Whole seconds since the task started."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        return Text(f"{task.elapsed or 0:.0f} s")


PARTS: dict[str, Callable[[], ProgressColumn]] = {
    "bar": lambda: BarColumn(bar_width=None),
    "percent": TaskProgressColumn,
    "rest": lambda: TimeRemainingColumn(compact=True),
    "seconds": SecondsColumn,
    "bytes": DownloadColumn,
    "speed": TransferSpeedColumn,
}


def can_draw() -> bool:
    """Whether standard error is a terminal that can move its cursor."""
    # Check the stream as well as rich: with FORCE_COLOR rich takes any pipe for a terminal.
    return sys.stderr.isatty() and not CONSOLE.is_dumb_terminal


def make_progress(*parts: str, enabled: bool = True, keep: bool = False) -> Progress:
    """Create a rich progress display, to be used as a context manager.

    Args:
        parts: from left to right, names of PARTS or formats of a task, such as `{task.description}`.
        enabled: whether to draw if possible (`can_draw`).
        keep: leave the final state on screen, and print it even if bars cannot be drawn.
    """
    return Progress(
        *(PARTS[part]() if part in PARTS else TextColumn(part, markup=False) for part in parts),
        console=CONSOLE,
        transient=not keep,
        refresh_per_second=4,
        # Results go to standard output, which must not be redirected to the console on standard error.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not enabled or not (keep or can_draw()),
    )


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` and show progress out of `total`, which defaults to the length of `items` if it has one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with make_progress("{task.description}", "bar", "{task.completed}/{task.total}", "rest") as progress:
        task = progress.add_task(show_unseen(what), total=total)
        for item in items:
            yield item
            progress.advance(task)


def say(message: str) -> None:
    """Print a line on standard error, above a running bar."""
    CONSOLE.out(show_unseen(message), highlight=False)
