"""ROC curves as a figure, PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from ffem_jax.figures.canvas import list_files, save_figure, shorten_name
from ffem_jax.reports.view2.combine import View2Result

# Okabe and Ito's colours, which colour-blind readers can distinguish. Line styles differ too, for print.
COLOURS = ("#0072B2", "#D55E00", "#404040", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
LINES = ("-", "--", ":", "-.")


def plot_roc(results: Sequence[View2Result], path: Path, title: str, synthetic: bool = False) -> list[Path]:
    """Draw each result's pooled ROC to `path` with the suffixes .png and .svg, and return the two paths.

    False accepts are on a logarithmic axis that starts near one false accept among all different pairs, because these
    pairs carry no information about lower rates.

    Raises:
        OSError: the folder cannot be written.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    least = 1 / max(result.different_pairs for result in results)
    with save_figure(path, (7.2, 5.2), layout="constrained") as figure:
        axes = figure.add_subplot()
        curves, names = [], []
        for result, colour, line in zip(results, cycle(COLOURS), cycle(LINES)):
            # A rate holds from one point to the next, starting at the last point without a false accept.
            seen = result.pooled.far >= least / 2
            first = result.pooled.tar[~seen].max()
            curves += axes.step(
                [least / 2, *result.pooled.far[seen]],
                [first, *result.pooled.tar[seen]],
                where="post",
                color=colour,
                linestyle=line,
                linewidth=1.4,
            )
            names.append(f"{shorten_name(result.label)}: {describe_accuracy(result)}")
        for far in (1e-3, 1e-2):
            axes.axvline(far, color="#808080", linewidth=0.7, linestyle=(0, (1, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(least / 2, 1)
        axes.set_ylim(0, 1.005)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("false accepts: share of different pairs")
        axes.set_ylabel("true accepts: share of same pairs")
        axes.set_title(title + (" (synthetic faces)" if synthetic else ""), loc="left", fontsize=10)
        axes.grid(color="#e4e4e4", linewidth=0.5)
        legend = axes.legend(
            curves,
            ["."] * len(curves),
            loc="lower right",
            fontsize=8,
            title="at View 2's threshold: mean over folds ± standard error",
            title_fontsize=8,
        )
        # Matplotlib omits legend entries whose name begins with an underscore.
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(name)
    return list_files(path)


def describe_accuracy(result: View2Result) -> str:
    """Return the mean in percent with its standard error, and the number of folds if some are missing."""
    of = f" ({len(result.folds)} of {len(result.folds) + len(result.missing)} folds)" if result.missing else ""
    return describe_rate(result.accuracy, result.standard_error) + of


def describe_rate(rate: float | None, error: float | None) -> str:
    """Return a rate in percent with its standard error, if known."""
    return "-" if rate is None else f"{100 * rate:.1f}" + ("" if error is None else f" ± {100 * error:.1f}") + " %"
