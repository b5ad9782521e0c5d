"""Fig. 7 from records: loss and validation accuracy per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.figures.canvas import list_files, mark_synthetic, save_figure
from ffem_jax.figures.styles import MORE_STYLES, STYLES
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.paper.published import NETWORKS, PaperNetwork
from ffem_jax.reports.paper.settings import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, line and mark each identify a network on their own.
LOOKS: dict[str, dict[str, Any]] = {
    "ffem": STYLES["none"] | {"linestyle": "--"},
    "ffem_am": STYLES["eca"] | {"linestyle": "-"},
    "ffem_se": STYLES["se"] | {"linestyle": "-."},
    "mobilenetv2": MORE_STYLES[0] | {"linestyle": ":"},
    "shufflenetv2": MORE_STYLES[1] | {"linestyle": (0, (6, 2, 1, 2, 1, 2))},
}
MARKS = 6  # per line


@dataclass(frozen=True)
class Curve:
    """A network's training, over its finished trials (seeds and folds).

    Args:
        loss: the mean by epoch.
        loss_deviation: the sample standard deviation over trials, by epoch; empty for a single trial.
        validation: the mean validation accuracy by epoch, in 0 to 1; empty if no trial measured it.
        validation_deviation: as `loss_deviation`.
    """

    network: PaperNetwork
    trials: int
    loss: tuple[float, ...]
    loss_deviation: tuple[float, ...]
    validation: tuple[float, ...]
    validation_deviation: tuple[float, ...]


def make_curves(setting: Setting) -> list[Curve]:
    """Return a curve for each network with a finished trial that recorded its losses."""
    curves = []
    for network in NETWORKS:
        kept = [record for record in setting.get_done(network.name) if len(record.loss) == record.epochs > 0]
        if kept:
            loss = _average([record.loss for record in kept])
            measured = [r.validation_accuracy for r in kept if len(r.validation_accuracy) == r.epochs]
            validation = _average(measured) if measured else ((), ())
            curves.append(Curve(network, len(kept), *loss, *validation))
    return curves


def _average(histories: Sequence[Sequence[float | None]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and sample deviation by epoch; NaN if a trial's number was not finite."""
    values = np.array(histories, dtype=np.float64)  # a record has None for NaN, which becomes NaN again
    deviation = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(0)
    return tuple(values.mean(axis=0).tolist()), tuple(deviation.tolist())


def describe_validation(records: Sequence[TrialRecord]) -> str:
    """Return which images the accuracy after each epoch is measured on."""
    counts = sorted({record.validated for record in records})
    if counts == [0]:
        return "the test images"
    if counts[0] == 0:
        return "held-out images or, if a trial held none out, the test images"
    number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    return f"{number} images per trial, held out of training and never tested"


def plot_curves(curves: Sequence[Curve], path: Path, title: str, images: str, *, synthetic: bool) -> list[Path]:
    """Draw the training curves of a setting. The files are byte-identical for the same input and Matplotlib version.

    Args:
        curves: one per network.
        path: path of the figure; its suffix is replaced by .png and .svg.
        title: title of the figure.
        images: the images that validation uses.
        synthetic: whether the faces are synthetic, which the figure then shows.

    Returns:
        The two paths.

    Raises:
        OSError: the folder cannot be written.
    """
    with save_figure(path, (9.0, 4.3)) as figure:
        _draw(figure, curves, title, images, synthetic)
    return list_files(path)


def _draw(figure: Figure, curves: Sequence[Curve], title: str, images: str, synthetic: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    left = figure.add_axes((0.07, 0.16, 0.41, 0.67))
    right = figure.add_axes((0.57, 0.16, 0.41, 0.67))
    for number, curve in enumerate(curves):
        look = {**LOOKS[curve.network.name], "label": f"{curve.network.title} ({curve.trials})"}
        # Overlapping curves show their marks in turn.
        spacing = max(1, len(curve.loss) // MARKS)
        look["markevery"] = (number % spacing, spacing)
        _draw_line(left, np.array(curve.loss), np.array(curve.loss_deviation), look)
        if curve.validation:
            _draw_line(right, 100 * np.array(curve.validation), 100 * np.array(curve.validation_deviation), look)
    for axes in (left, right):
        axes.set_xlabel("epoch", color="#202020")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    left.set_ylabel("training loss", color="#202020")
    left.set_ylim(bottom=0)
    right.set_ylabel("validation accuracy (%)", color="#202020")
    right.set_title(f"on {images}", loc="left", fontsize=8, color="#404040")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.06, 0.945),
        ncols=len(labels),
        frameon=False,
        fontsize=8.5,
        columnspacing=1.4,
        handlelength=3.2,
    )
    figure.text(0.07, 0.955, title, size=11.5, weight="bold", color="#202020")
    note = "line: mean over trials (seeds and folds; number in brackets); band: one standard deviation either way"
    figure.text(0.07, 0.025, note, size=7.5, color="#606060")
    if synthetic:
        mark_synthetic(figure, 0.972, 0.955, size=10)


def _draw_line(axes: Axes, mean: np.ndarray, deviation: np.ndarray, look: dict[str, Any]) -> None:
    epochs = np.arange(1, len(mean) + 1)
    line: dict[str, Any] = {"linewidth": 1.5, "markersize": 5, "markeredgewidth": 1.1, "markerfacecoloralt": "white"}
    axes.plot(epochs, mean, **look, **line)
    if len(deviation):
        axes.fill_between(epochs, mean - deviation, mean + deviation, color=look["color"], alpha=0.12, linewidth=0)
