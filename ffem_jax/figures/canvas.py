"""What all figures share: their look, how text of users is drawn, and how they are saved. Matplotlib is imported when
a figure is drawn, and its global state is left as it was."""

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

# Of every figure, also of those with a look of their own.
COMMON = {
    "svg.hashsalt": "ffem",  # ids that do not change from run to run
    "text.parse_math": False,  # a network's name may hold dollars, and is no formula
    "axes.formatter.useoffset": False,  # a tick says its whole number
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
# For letters that Matplotlib's own font lacks, such as Chinese: the first of these that a machine has.
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("Arial Unicode MS", "Malgun Gothic", "Noto Sans"),
)
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # that turn the direction of what follows
LONGEST_NAME = 52  # letters
# Of differences: Okabe and Ito's blue, and grey; filled and hollow marks say the same.
SIGNIFICANT_COLOR, OTHER_COLOR = "#0072B2", "#606060"


_told = set[str]()  # letters that were named: a command draws several figures of the same networks


@contextmanager
def apply_look(settings: dict[str, Any]) -> Iterator[None]:
    """Matplotlib with its defaults, COMMON and `settings`, and as it was afterwards.

    Letters that no font here has are drawn as boxes, with one warning that lists them.
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
        text = f"no font here has {letters}: boxes stand for them; install Noto Sans CJK"
        warnings.warn_explicit(text, UserWarning, "figures", 1)


@contextmanager
def save_figure(path: Path, inches: tuple[float, float], **options: Any) -> Iterator[Figure]:
    """A figure to draw into, which is then written to `path` with the suffixes .png and .svg.

    options: Matplotlib's for a figure. Byte for byte the same for the same drawing and Matplotlib. Raises OSError
    where the folder cannot be written.
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
    """An empty figure whose pixels are points, which is what layout.py counts in; `options` are Matplotlib's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=72, **options)
    FigureCanvasAgg(figure)
    return figure


def clean_texts(figure: Figure) -> None:
    """Make every text of the figure one that an SVG can hold, whoever named what it names."""
    from matplotlib.text import Text

    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if (text := artist.get_text()) != (clean := clean_text(text)):
            artist.set_text(clean)


def clean_text(text: str) -> str:
    """`text` on one line, composed (NFC), with U+FFFD for what is no letter: control, direction and half characters.

    XML has no place for most of these, and the rest would break a line or turn it round.
    """
    return "".join(map(_clean_letter, unicodedata.normalize("NFC", text)))


def _clean_letter(letter: str) -> str:
    if letter.isspace():
        return letter if letter == "\N{NO-BREAK SPACE}" else " "
    unfit = letter in TURNS or letter in "\ufffe\uffff" or unicodedata.category(letter) in ("Cc", "Cs")
    return "\N{REPLACEMENT CHARACTER}" if unfit else letter


def shorten_name(name: str) -> str:
    """`name`, cut off where it is longer than a line has room for; the table beside the figure has it in full."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def mark_synthetic(figure: Figure, x: float, y: float, size: float) -> None:
    """Say in a corner of the figure, whose right end is `x`, that its faces are drawn."""
    box = {"boxstyle": "square,pad=0.4", "facecolor": "#202020", "edgecolor": "none"}
    figure.text(x, y, "SYNTHETIC FACES", size=size, weight="bold", color="white", ha="right", bbox=box)


def list_files(path: Path) -> list[Path]:
    """The files that `save_figure` writes."""
    return [path.with_suffix(".png"), path.with_suffix(".svg")]
