"""`ffem paper`: from records to the page, its figures and its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.paper.curves import plot_curves
from ffem_jax.reports.paper.page import write_page
from ffem_jax.reports.paper.results import ImageGroups, PaperResult, compute_paper


def write_paper(
    records: Sequence[TrialRecord], out: Path, groups: ImageGroups | str = "no attributes of the images were given"
) -> tuple[PaperResult, list[Path]]:
    """Write README.md, paper.json and a figure for each setting into a folder.

    Args:
        records: trials of the paper's networks; others are only counted.
        out: the folder.
        groups: the image groups of Table 3, or why it is left out.

    Returns:
        The results, and the paths written.

    Raises:
        FrontierError: the records have none of the paper's networks, or mix data sets or protocols.
        OSError: `out` cannot be written.
    """
    result = compute_paper(records, groups)
    out.mkdir(parents=True, exist_ok=True)
    figures, files = [], []
    for number, one in enumerate(result.settings, 1):
        name = f"figure7_{number}" if len(result.settings) > 1 else "figure7"
        figures.append(name if one.curves else "")
        if one.curves:
            title = f"Training, recipe {one.setting.label}"
            files += plot_curves(one.curves, out / name, title, one.validation, synthetic=result.synthetic)
    page, values = out / "README.md", out / "paper.json"
    page.write_text(write_page(result, figures), encoding="utf-8")
    values.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    return result, [page, values, *files]
