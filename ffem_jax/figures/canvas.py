"""Shared parts of all figures: their look, safe drawing of user text, and saving. Matplotlib is imported when a figure
is drawn, and its global state is restored."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# For every figure, including those with their own look.
COMMON = {
    "svg.hashsalt": "ffem",  # keeps ids the same from run to run
    "text.parse_math": False,  # a network's name may contain dollar signs and is not a formula
    "axes.formatter.useoffset": False,  # ticks show complete numbers
    "axes.spines.top": False,
    "axes.spines.right": False,
}
SETTINGS = {
    "font.size": 9.0,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#606060",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
}
# For letters missing from Matplotlib's default font, such as Chinese: the first installed one is used.
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Arial Unicode MS", "Malgun Gothic", "Noto Sans"),
)
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # change the direction of the following text
LONGEST_NAME = 52  # letters
# For differences: Okabe and Ito's blue, and grey. Filled and hollow marks carry the same information.
SIGNIFICANT_COLOR, OTHER_COLOR = "#0072B2", "#606060"


_told = set[str]()  # letters already reported: a command draws several figures of the same networks


@contextmanager
def apply_look(settings: dict[str, Any]) -> Iterator[None]:
    """Use Matplotlib's defaults, COMMON and `settings`, then restore the previous state.

    Letters that no installed font has are drawn as boxes, with one warning that lists them.
    """
    import matplotlib
    from matplotlib import font_manager, style

    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = {"font.sans-serif": ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]}
    with warnings.catch_warnings(record=True) as caught, matplotlib.rc_context():
        warnings.simplefilter("always")
        with style.context(["default", {**COMMON, **fonts, **settings}]):
            yield
    lacking = set()
    for warning in caught:
        if found := re.match(r"Glyph (\d+) ", str(warning.message)):
            lacking.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    letters = " ".join(sorted(lacking))
    if letters and letters not in _told:
        _told.add(letters)
        text = f"no installed font has {letters}: they are drawn as boxes; install Noto Sans CJK"
        warnings.warn_explicit(text, UserWarning, "figures", 1)


@contextmanager
def save_figure(path: Path, inches: tuple[float, float], **options: Any) -> Iterator[Figure]:
    """Yield a figure to draw on, then save it to `path` with the suffixes .png and .svg.

    The files are byte-identical for the same drawing and Matplotlib version.

    Args:
        options: passed to Matplotlib's Figure.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with apply_look(SETTINGS):
        figure = make_figure(inches, **options)
        yield figure
        clean_texts(figure)
        png, svg = list_files(path)
        figure.savefig(png, dpi=160)
        figure.savefig(svg, metadata={"Date": None})


def make_figure(inches: tuple[float, float], **options: Any) -> Figure:
    """Return an empty figure with one pixel per point, the unit of layout.py; `options` are Matplotlib's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=72, **options)
    FigureCanvasAgg(figure)
    return figure


def clean_texts(figure: Figure) -> None:
    """Replace every text of the figure by one that an SVG can contain, since names come from users."""
    from matplotlib.text import Text

    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if (text := artist.get_text()) != (clean := clean_text(text)):
            artist.set_text(clean)


def clean_text(text: str) -> str:
    """Return `text` on one line in NFC, with U+FFFD for control, direction and surrogate characters.

    XML does not allow most of these, and the others would break or reverse a line.
    """
    return "".join(map(_clean_letter, unicodedata.normalize("NFC", text)))


def _clean_letter(letter: str) -> str:
    if letter.isspace():
        return letter if letter == "\N{NO-BREAK SPACE}" else " "
    unfit = letter in TURNS or letter in "\ufffe\uffff" or unicodedata.category(letter) in ("Cc", "Cs")
    return "\N{REPLACEMENT CHARACTER}" if unfit else letter


def shorten_name(name: str) -> str:
    """Return `name`, shortened to fit a line; the table beside the figure has the full name."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def mark_synthetic(figure: Figure, x: float, y: float, size: float) -> None:
    """Mark the figure as one of synthetic faces, in a corner whose right end is `x`."""
    box = {"boxstyle": "square,pad=0.4", "facecolor": "#202020", "edgecolor": "none"}
    figure.text(x, y, "SYNTHETIC FACES", size=size, weight="bold", color="white", ha="right", bbox=box)


def list_files(path: Path) -> list[Path]:
    """Return the files that `save_figure` writes."""
    return [path.with_suffix(".png"), path.with_suffix(".svg")]
