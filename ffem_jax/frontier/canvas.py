"""What all figures share: their look, and how they are saved. Matplotlib is imported when a figure is drawn, and its
global state is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = {
    "svg.hashsalt": "ffem",  # ids that do not change from run to run
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#606060",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
}
# Of differences: Okabe and Ito's blue, and grey; filled and hollow marks say the same.
SHOWN, NOT_SHOWN = "#0072B2", "#606060"


@contextmanager
def save_figure(path: Path, inches: tuple[float, float], **options: Any) -> Iterator[Figure]:
    """A figure to draw into, which is then written to `path` with the suffixes .png and .svg.

    options: Matplotlib's for a figure. Byte for byte the same for the same drawing and Matplotlib. Raises OSError
    where the folder cannot be written.
    """
    import matplotlib
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(), style.context(["default", SETTINGS]):
        # At 72 dots an inch a pixel is a point, which is what layout.py counts in.
        figure = Figure(figsize=inches, dpi=72, **options)
        FigureCanvasAgg(figure)
        yield figure
        png, svg = list_files(path)
        figure.savefig(png, dpi=160)
        figure.savefig(svg, metadata={"Date": None})


def mark_synthetic(figure: Figure, x: float, y: float, size: float) -> None:
    """Say in a corner of the figure, whose right end is `x`, that its faces are drawn."""
    box = {"boxstyle": "square,pad=0.4", "facecolor": "#202020", "edgecolor": "none"}
    figure.text(x, y, "SYNTHETIC FACES", size=size, weight="bold", color="white", ha="right", bbox=box)


def list_files(path: Path) -> list[Path]:
    """The files that `save_figure` writes."""
    return [path.with_suffix(".png"), path.with_suffix(".svg")]
