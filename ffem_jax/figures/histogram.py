"""Histogram of leads by chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ffem_jax.analysis.chance import ChanceLeads
from ffem_jax.figures.canvas import OTHER_COLOR, SIGNIFICANT_COLOR, list_files, mark_synthetic, save_figure


def plot_leads(leads: ChanceLeads, path: Path, points: float) -> list[Path]:
    """Draw how often each lead occurs to `path` with the suffixes .png and .svg, and return the two paths.

    Bars are one image apart; bars at `points` or more have another colour.

    Raises:
        OSError: the folder cannot be written.
    """
    with save_figure(path, (9.0, 4.2)) as figure:
        axes = figure.add_axes((0.075, 0.145, 0.9, 0.66))
        step = 100 / leads.images
        values, counts = np.unique(np.round(leads.exchanged * leads.images).astype(int), return_counts=True)
        shares = 100 * counts / counts.sum()
        beyond = np.round(values * step, 1) >= points
        for chosen, color in ((~beyond, OTHER_COLOR), (beyond, SIGNIFICANT_COLOR)):
            axes.bar(values[chosen] * step, shares[chosen], width=0.86 * step, color=color)
        axes.axvline(points - step / 2, color="#202020", linewidth=1.1, linestyle=(0, (4, 3)))
        share = 100 * leads.share(leads.exchanged, points)
        axes.annotate(
            f"{points:g} points or more: {share:.1f} %", (points - step / 2, 0.93), xycoords=("data", "axes fraction"),
            xytext=(6, 0), textcoords="offset points", va="top", weight="bold", color=SIGNIFICANT_COLOR,
        )  # fmt: skip
        axes.set_ylabel("share of resamples (%)", color="#202020")
        axes.set_xlabel(
            f"lead on {leads.images} test images, points: any two trainings, regardless of network", color="#202020"
        )
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        title = f"How far apart chance alone puts {leads.second} and {leads.first}"
        figure.text(0.012, 0.93, title, size=11, weight="bold")
        about = (
            f"{len(leads.exchanged):,} resamples of {leads.data} at {leads.resolution} x {leads.resolution}, recipe "
            f"{leads.recipe}: {leads.trainings} recorded trainings, no new ones"
        )
        figure.text(0.012, 0.865, about, size=8.5, color="#606060")
        if leads.synthetic:
            mark_synthetic(figure, 0.985, 0.93, size=9)
    return list_files(path)
