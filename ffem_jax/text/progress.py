"""Progress bars on standard error, and lines that do not tear them. Texts are shown as they are, never as markup."""

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

# Of bars and of lines alike, so that a line does not tear a bar. It looks up sys.stderr at each use.
CONSOLE = Console(stderr=True)


class SecondsColumn(ProgressColumn):
    """Whole seconds since the task began."""

    def render(self, task: Task) -> Text:
        """The column's text."""
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
    # The stream is asked, and not rich alone: FORCE_COLOR makes a terminal of any pipe.
    return sys.stderr.isatty() and not CONSOLE.is_dumb_terminal


def make_progress(*parts: str, enabled: bool = True, keep: bool = False) -> Progress:
    """A progress display of rich; a context manager.

    Args:
        parts: from left to right, names of PARTS or formats of a task, such as `{task.description}`.
        enabled: whether to draw where that is possible (`can_draw`).
        keep: leave the last state, and write it where a bar cannot be drawn, too.
    """
    return Progress(
        *(PARTS[part]() if part in PARTS else TextColumn(part, markup=False) for part in parts),
        console=CONSOLE,
        transient=not keep,
        refresh_per_second=4,
        # Results go to standard output, which must not be led through a console on standard error.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not enabled or not (keep or can_draw()),
    )


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, and draw how many of `total` are done; without `total`, of their number if they have one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with make_progress("{task.description}", "bar", "{task.completed}/{task.total}", "rest") as progress:
        task = progress.add_task(show_unseen(what), total=total)
        for item in items:
            yield item
            progress.advance(task)


def say(message: str) -> None:
    """Write a line to standard error, above a running bar."""
    CONSOLE.out(show_unseen(message), highlight=False)
