"""The report of leads by chance: one page with a histogram."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.analysis.chance import ChanceLeads
from ffem_jax.figures.histogram import plot_leads
from ffem_jax.text.display import escape, escape_sentence, make_markdown_table, quote_code, write_text


def write_chance(leads: ChanceLeads, points: float, out: Path) -> list[Path]:
    """Write chance.md, chance.png and chance.svg to the folder `out`, and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    figures = plot_leads(leads, out / "chance", points)
    write_text(out / "chance.md", write_page(leads, points))
    return [out / "chance.md", *figures]


def leads_to_dict(leads: ChanceLeads, points: float) -> dict[str, Any]:
    """Return shares, means and deviations as a dict, ready for JSON; rates in 0 to 1."""
    return {
        "first": leads.first,
        "second": leads.second,
        "points": points,
        "images": leads.images,
        "people": leads.people,
        "trainings": leads.trainings,
        "folds": leads.places,
        "resolution": leads.resolution,
        "recipe": leads.recipe,
        "draws": len(leads.exchanged),
        "exclusions": list(leads.exclusions),
        **{
            name: {
                "share": leads.share(values, points),
                "either_way": leads.share(np.abs(values), points),
                "mean": float(values.mean()),
                "deviation": float(values.std()),
            }
            for name, values in list_kinds(leads)
        },
    }


def list_kinds(leads: ChanceLeads) -> list[tuple[str, np.ndarray]]:
    """Return the kinds of leads that have draws, by name."""
    kinds = [("exchanged", leads.exchanged), ("trained", leads.trained), ("between", leads.between)]
    return [(name, values) for name, values in kinds if len(values)]


def write_sentence(leads: ChanceLeads, points: float) -> str:
    """Return the answer in one sentence."""
    share, both = leads.share(leads.exchanged, points), leads.share(np.abs(leads.exchanged), points)
    return (
        f"On {leads.images} test images of {leads.people} people {quote_code(leads.second)} leads "
        f"{quote_code(leads.first)} by {points:g} points or more in {100 * share:.1f} % of tests by chance alone, and "
        f"either of them leads the other in {100 * both:.1f} %."
    )


def write_page(leads: ChanceLeads, points: float) -> str:
    """Return the page in Markdown."""
    words = {
        "exchanged": "any two trainings, regardless of network: chance alone",
        "trained": f"a training of {escape(leads.second)} against one of {escape(leads.first)}",
        "between": "two trainings of one network",
    }
    rows = [
        [
            words[name],
            f"{100 * leads.share(values, points):.1f}",
            f"{100 * leads.share(np.abs(values), points):.1f}",
            f"{100 * values.mean():+.1f}",
            f"{100 * values.std():.1f}",
        ]
        for name, values in list_kinds(leads)
    ]
    lines = [f"# {points:g} points by chance?", ""]
    if leads.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    head = ["compared", f"ahead by {points:g} points or more, %", "either way, %", "mean lead, points", "deviation"]
    lines += [
        f"**{escape_sentence(write_sentence(leads, points))}**",
        "",
        "![How often each lead occurs](chance.svg)",
        "",
        *make_markdown_table(head, rows),
        "",
        "## Method",
        "",
        f"This resamples recorded results and trains nothing: {leads.trainings} trainings of the two networks on "
        f"{leads.places} fold{'s' if leads.places > 1 else ''} of {escape(leads.data)}, at {leads.resolution} x "
        f"{leads.resolution} pixels with the recipe {escape(leads.recipe)}. Each of {len(leads.exchanged):,} resamples "
        f"takes one fold, {leads.images // leads.people} of its test images per person of {leads.people} people, "
        "without replacement, and two trainings that were tested on that fold. Leads are rounded to one decimal before "
        f"the comparison with {points:g}.",
        "",
        "## What it does not say",
        "",
        f"These networks classify {100 * leads.rate_first:.1f} and {100 * leads.rate_second:.1f} % of the images "
        "correctly. More accurate networks disagree on fewer images, so chance has less effect on them; its effect is "
        "largest at an accuracy of about one half. Few trainings show only part of the variance between seeds, so the "
        "effect of chance may be larger than this.",
        *(f"\n{sentence}" for sentence in leads.exclusions),
    ]
    return "\n".join(lines) + "\n"
