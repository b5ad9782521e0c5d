"""The styles of attention kinds in a figure: shape, fill and colour each distinguish them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffem_jax.specs.attention import get_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can distinguish.
STYLES: dict[str, dict[str, Any]] = {
    "none": {"marker": "o", "fillstyle": "none", "color": "#404040"},
    "eca": {"marker": "s", "fillstyle": "full", "color": "#0072B2"},
    "se": {"marker": "^", "fillstyle": "bottom", "color": "#D55E00"},
    "cbam": {"marker": "D", "fillstyle": "left", "color": "#009E73"},
    "coordinate": {"marker": "v", "fillstyle": "right", "color": "#CC79A7"},
}
MORE_STYLES: tuple[dict[str, Any], ...] = (
    {"marker": "P", "fillstyle": "none", "color": "#56B4E9"},
    {"marker": "*", "fillstyle": "full", "color": "#E69F00"},
)


def get_style(kind: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Return marker, fill and colour of an attention kind; kinds without their own style share the spare ones."""
    if kind in STYLES:
        return STYLES[kind]
    spare = sorted({other for other in kinds if other not in STYLES})
    return MORE_STYLES[spare.index(kind) % len(MORE_STYLES)]


def draw_legend(figure: Figure, kinds: Sequence[str], trained: bool, left: float) -> None:
    """Draw a line of marks under the title: the kinds in use and, if any network is trained, frontier and interval."""
    from matplotlib.lines import Line2D

    order = [kind for kind in STYLES if kind in kinds] + sorted({k for k in kinds if k not in STYLES})
    names = {"none": "no attention"}
    marks = [
        Line2D(
            [],
            [],
            **get_style(k, kinds),
            linestyle="none",
            markersize=7,
            markerfacecoloralt="white",
            markeredgewidth=1.4,
        )
        for k in order
    ]
    texts = [names.get(kind, get_title(kind)) for kind in order]
    if trained:
        marks += [
            Line2D([], [], color="#202020", linewidth=1.1),
            Line2D([], [], color="#808080", marker="|", markersize=11),
        ]
        marks[-1].set_linestyle("none")
        texts += ["frontier (named in bold)", "95 % interval"]
    if marks:
        figure.legend(
            marks,
            texts,
            loc="upper left",
            bbox_to_anchor=(left - 0.006, 0.943),
            borderpad=0,
            ncols=len(marks),
            frameon=False,
            handletextpad=0.4,
            columnspacing=1.6,
            fontsize=8.5,
        )
