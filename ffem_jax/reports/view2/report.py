"""`ffem verify`: from records to a table, the ROC, JSON and a short report."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffem_jax.analysis.independence import describe_exclusions
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.view2.combine import View2Result, combine_folds
from ffem_jax.reports.view2.plots import describe_rate, plot_roc
from ffem_jax.text.display import escape, make_markdown_table, quote_code, write_text
from ffem_jax.text.tables import Column, Table, make_table

METHOD = """\
Each fold's network is trained on people who are in none of the fold's pairs, and tested on these pairs at the threshold
that is best for the pairs of the other folds. The network was trained on the people of those other folds, so their
pairs are closer than pairs of strangers and the threshold may not suit strangers. This can lower the accuracy but not
raise it. The mean is over folds, and the standard error is the folds' sample deviation over the square root of their
number.

"At strangers' threshold" is the same with another threshold: the best one for the other folds' pairs at the distances
from these folds' own networks, which were not trained on either person of a pair.

ROC, area (AUC), equal error rate (EER) and the true accept rate (TAR) at a false accept rate (FAR) are computed from
the pairs of all folds, each at the distance from its own fold's network, so they need no threshold. They are rates that
some threshold attains, without interpolation: the TAR at a FAR is the largest at that FAR or less, the EER the smallest
rate that neither kind of error exceeds. A FAR of 1e-3 is {accepts} false accepts in {different:,} pairs."""


@dataclass(frozen=True)
class View2Report:
    """The results and files of `write_view2`. exclusions: a sentence for each thing that the trainings share."""

    results: tuple[View2Result, ...]
    title: str
    synthetic: bool
    files: tuple[Path, ...]
    exclusions: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """The networks as a table."""
        head, *rows = tabulate(self.results)
        ends = (head[0], head[-1])
        # Columns that a narrow terminal drops, the highest rank first.
        ranks = dict(zip(head, (0, 7, 0, 5, 2, 6, 4, 8, 1), strict=True))
        columns = [Column(name, right=name not in ends, fold=name in ends, rank=ranks[name]) for name in head]
        return make_table(columns, rows, title=self.title)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as nested dicts and lists, ready for JSON; files by name, without the ROC."""
        fields = [f.name for f in dataclasses.fields(View2Result) if f.name != "pooled"]
        return {
            "title": self.title,
            "synthetic": self.synthetic,
            "networks": json.loads(json.dumps([{n: getattr(result, n) for n in fields} for result in self.results])),
            "exclusions": list(self.exclusions),
            "files": [path.name for path in self.files],
        }


def tabulate(results: Sequence[View2Result]) -> list[list[str]]:
    """Return the header and a row for each result, with rates in percent."""
    head = [
        "network",
        "params",
        "accuracy ± s.e.",
        "at strangers' threshold",
        "EER",
        "AUC",
        "TAR at FAR 1e-2",
        "at 1e-3",
        "missing folds",
    ]
    rows = [
        [
            result.label,
            "?" if result.params is None else f"{result.params:,}",
            describe_rate(result.accuracy, result.standard_error),
            describe_rate(result.accuracy_strangers, result.standard_error_strangers),
            *(f"{100 * rate:.1f}" for rate in (result.eer, result.auc, result.tar_at_far_1e2, result.tar_at_far_1e3)),
            ", ".join(map(str, result.missing)) or "none",
        ]
        for result in results
    ]
    return [head, *rows]


def write_view2(records: Sequence[TrialRecord], out: Path, among: Sequence[TrialRecord] = ()) -> View2Report:
    """Combine the folds of `records` and write roc.png, roc.svg, verification.json and verification.md to `out`.

    Args:
        among: see `combine_folds`.

    Raises:
        View2Error, FrontierError: see `combine_folds`.
        OSError: `out` cannot be written.
    """
    results = combine_folds(records, among)
    used = [record for record in records if record.protocol == "view2"]
    variant = next((record.data_variant for record in used if record.data_variant), "")
    pixels = sorted({record.resolution for record in used})
    title = f"LFW View 2{f' ({variant})' if variant else ''}, {' and '.join(map(str, pixels))} pixels"
    synthetic = any(record.synthetic for record in used)
    out.mkdir(parents=True, exist_ok=True)
    files = [*plot_roc(results, out / "roc", title, synthetic), out / "verification.json", out / "verification.md"]
    done = [record for record in used if record.status == "done"]
    exclusions = describe_exclusions(done, noun="the standard errors")
    report = View2Report(tuple(results), title, synthetic, tuple(files), tuple(exclusions))
    write_text(out / "verification.json", json.dumps(report.to_dict(), indent=2) + "\n")
    write_text(out / "verification.md", _write_reading(report))
    return report


def _write_reading(report: View2Report) -> str:
    lines = [f"# Verification of pairs: {escape(report.title)}", ""]
    if report.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    head, *rows = tabulate(report.results)
    lines += make_markdown_table(head, [[escape(name), *numbers] for name, *numbers in rows])
    lines += ["", "![ROC](roc.svg)", ""]
    for result in report.results:
        by_fold = zip(result.folds, result.accuracies, strict=True)
        each = ", ".join(f"{fold}: {100 * accuracy:.1f}" for fold, accuracy in by_fold)
        lines += [f"{quote_code(result.label)}, by fold, in percent: {each}."]
        if result.missing:
            folds = ",".join(map(str, result.missing))
            lines += [f"**Not View 2's result yet: missing folds {folds} (`protocol.fold={folds}`).**"]
        lines += [f"A trial failed: {escape(error)}" for error in result.errors]
    different = min(result.different_pairs for result in report.results)
    method = METHOD.format(accepts=different // 1000, different=different)
    return "\n".join([*lines, "", method, *(f"\n{sentence}" for sentence in report.exclusions)]) + "\n"
