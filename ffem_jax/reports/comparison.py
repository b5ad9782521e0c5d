"""The report of a comparison: page, files, table, and for each row the sentence that the numbers allow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ffem_jax.analysis.comparison import SIGNIFICANT, Comparison, ComparisonRow
from ffem_jax.figures.forest import plot_comparison
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.specs.trial import PRECISIONS
from ffem_jax.text.display import escape, escape_sentence, make_markdown_table, quote_code
from ffem_jax.text.numbers import format_p, format_points
from ffem_jax.text.tables import Column, Table, make_table

FEW_SEEDS = 5  # with fewer, the variance between seeds is only a rough estimate


# Columns that a narrow terminal drops, the highest rank first. Levels and differences are always kept.
RANKS = {"pairs": 9, "seeds": 8, "images": 7, "p": 5, "accuracy, %": 4, "p, Holm": 2} | {
    f"MB {precision}": 6 for precision in PRECISIONS
}


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write compare.md, compare.json, compare.png and compare.svg to the folder `out`, and return their paths.

    Raises:
        OSError: `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(write_page(comparison), encoding="utf-8")
    (out / "compare.json").write_text(json.dumps(comparison_to_dict(comparison), indent=2) + "\n", encoding="utf-8")
    return [out / "compare.md", out / "compare.json", *plot_comparison(comparison, out / "compare")]


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as nested dicts and lists, ready for JSON, each row with its sentence."""
    rows = [
        {**dataclasses.asdict(row), "shown": row.significant, "sentence": write_sentence(row, comparison)}
        for row in comparison.rows
    ]
    fields = {f.name: getattr(comparison, f.name) for f in dataclasses.fields(comparison) if f.name != "rows"}
    return json.loads(json.dumps({**fields, "rows": rows}))


def write_page(comparison: Comparison) -> str:
    """Return the comparison in Markdown."""
    lines = [f"# What {quote_code(comparison.factor)} changes: {escape(comparison.title)}", ""]
    if comparison.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    lines += [f"Measured: {comparison.measure.noun}.", "", "![The differences](compare.svg)", ""]
    lines += [
        *write_table(comparison),
        "",
        "## What it says",
        "",
        *(f"- {escape_sentence(sentence)}" for sentence in list_sentences(comparison)),
        "",
    ]
    if comparison.notes:
        lines += ["## What is missing", "", *(f"- {escape_sentence(note)}." for note in comparison.notes), ""]
    return "\n".join([*lines, "## How to read it", "", *describe_method(comparison)]) + "\n"


def write_table(comparison: Comparison) -> list[str]:
    """Return the rows as lines of a Markdown table."""
    titles, rows = _make_cells(comparison)
    # The first two columns contain names chosen by users.
    return make_markdown_table(titles, [[*map(escape, row[:2]), *row[2:]] for row in rows])


def render_comparison(comparison: Comparison) -> Table:
    """Return a table with one line per row, for the terminal; significant differences are bold."""
    mark = "SYNTHETIC FACES: " if comparison.synthetic else ""
    titles, rows = _make_cells(comparison)
    ranks = RANKS | {f"{comparison.measure.word}, %": RANKS["accuracy, %"]}
    heads = [
        Column(title, right=number > 1, fold=number < 2, whole=number > 1, rank=ranks.get(title, 0))
        for number, title in enumerate(titles)
    ]
    title = f"{mark}what {comparison.factor} changes: {comparison.title}"
    return make_table(heads, rows, title=title, bold=[row.significant for row in comparison.rows])


def describe_method(comparison: Comparison) -> list[str]:
    """Return the method, as paragraphs."""
    paired = [row for row in comparison.rows if row.test]
    if not paired and not comparison.measure.hits:
        return [
            "A pair is two trials that differ only in the factor: same faces, split, seed and all other settings. The "
            f"{comparison.measure.word} is not a share of tests, so the interval is Newcombe's, from the intervals of "
            "the two levels as if they were tested on different people: wider than a paired one, and without a test."
        ]
    if not paired:
        return [
            "A pair is two trials that differ only in the factor: same faces, split, seed and all other settings. The "
            "records do not list the correctly classified images, so the interval is Newcombe's for two different sets "
            "of images."
        ]
    drawn, by_people = _describe_draws(paired), all(row.people is not None for row in paired)
    sample = (
        "The tested people are treated as independent, and the training people as fixed."
        if by_people
        else "Images are treated as independent and the people as fixed: the test does not generalise to other people."
    )
    tests = []
    if any(row.test == "sign flip of people" for row in paired):
        tests.append(
            "exact, by people: a person's differences are summed over images, seeds and contexts, and all ways to flip "
            "their signs are counted"
        )
    if any(row.test == "mcnemar" for row in paired):
        tests.append("McNemar's exact test where each image was tested once (folds together)")
    if any(row.test == "sign flip" for row in paired):
        tests.append(
            "where an image was tested several times, its exact counterpart: an image's differences are summed over "
            "seeds and contexts, and all ways to flip their signs are counted"
        )
    return [
        "A pair is two trials that differ only in the factor: same faces, split, seed and all other settings. The "
        f"difference is the mean over all tests of the pairs. {drawn}",
        "",
        f"The test: {'; '.join(tests)}. It applies to these trained networks on other such "
        f"{'people' if by_people else 'images'}; only the interval includes other seeds. p is corrected by Holm over "
        f"the {len(paired)} rows of the table. A difference is significant if the corrected p is below "
        f"{SIGNIFICANT} and the interval excludes 0. A difference that is not significant may still exist: the "
        f"interval shows how large it can be. {sample}",
    ]


def _describe_draws(paired: list[ComparisonRow]) -> str:
    what, one = ("people", "a person") if all(row.people is not None for row in paired) else ("images", "an image")
    seeds = {row.seeds for row in paired}
    if seeds == {1}:
        together = ", with all their images" if what == "people" else ""
        drawn = f"{what.title()} are resampled for the interval{together}"
        return f"{drawn}; with one seed, **it excludes variance between seeds**."
    nested = [row for row in paired if row.pretrainings > 1]
    units = "seeds" if not nested else "pretrainings" if len(nested) == len(paired) else "pretrainings (or seeds)"
    whole = ", each with its seeds," if nested else ""
    few = " With so few seeds, the variance between seeds is only a rough estimate." if min(seeds) < FEW_SEEDS else ""
    if nested:
        few = " There are few pretrainings, so the error of their mean follows Student's t."
    return (
        f"For the interval {what} and {units}{whole} are resampled; {one} that several seeds tested counts as one "
        f"{one.split()[1]}, resampled with all {'their images and' if what == 'people' else 'its'} tests.{few}"
    )


def format_interval(row: ComparisonRow) -> str:
    """Return the difference and its interval in points, in one format for page, table and figure."""
    return f"{format_points(row.difference)} [{format_points(row.low)}, {format_points(row.high)}]"


def _make_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    size = f"MB {comparison.precision}"
    titles = [
        "second - first",
        "where",
        "points",
        "95 %",
        "p",
        "p, Holm",
        f"{comparison.measure.word}, %",
        size,
        "pairs",
    ]
    titles += ["images", "seeds"]
    rows = []
    for row in comparison.rows:
        accuracies = f"{100 * row.accuracy_first:.1f}, {100 * row.accuracy_second:.1f}"
        sizes = f"{_format_size(row.bytes_first)}, {_format_size(row.bytes_second)}"
        rows.append(
            [
                f"{row.second} - {row.first}",
                row.context or "-",
                format_points(row.difference),
                f"[{format_points(row.low)}, {format_points(row.high)}]",
                format_p(row.p_value),
                format_p(row.p_corrected),
                accuracies,
                sizes,
                str(row.pairs),
                f"{row.images:,}",
                str(row.seeds),
            ]
        )
    return titles, rows


def _format_size(sizes: tuple[int, int] | None) -> str:
    if sizes is None:
        return "?"
    low, high = (f"{size / BYTES_PER_MB:.2f}" for size in sizes)
    return low if low == high else f"{low} to {high}"


def list_sentences(comparison: Comparison) -> list[str]:
    """Return what may be claimed: a sentence per row, and one for each thing that the trainings share."""
    return [*(write_sentence(row, comparison) for row in comparison.rows), *comparison.exclusions]


def write_sentence(row: ComparisonRow, comparison: Comparison) -> str:
    """Return one sentence about the row that names the factor and claims no more than the interval allows."""
    place = f"over {row.context} contexts: " if row.overall else f"{row.context}: " if row.context else ""
    sentence = place + _judge(row, comparison, sum(other.p_value is not None for other in comparison.rows))
    return sentence[0].upper() + sentence[1:]


def name_level(factor: str, level: str) -> str:
    """Return a level with its factor, such as "attention kind `se`"."""
    group, _, setting = factor.rpartition(".")
    words = {"arch.name": "network", "recipe.name": "recipe", "pretrain.name": "pretraining"}.get(factor, "")
    if not words:
        words = f"{group.split('.')[-1]} {setting}" if setting in ("kind", "name") else setting
    return f"{words.replace('_', ' ')} {quote_code(level)}"


def name_draws(row: ComparisonRow) -> str:
    """Return what the interval of the row resamples besides images."""
    return "pretrainings" if row.pretrainings > 1 else "seeds"


def _judge(row: ComparisonRow, comparison: Comparison, tests: int) -> str:
    first, second = (name_level(comparison.factor, level) for level in (row.first, row.second))
    interval = f"95 % CI {format_points(row.low)} to {format_points(row.high)}"
    by = f"{100 * abs(row.difference):.1f} points {'better' if comparison.is_better(row) else 'worse'}"
    if row.significant:
        return f"{second} is {by} than {first} ({interval}; {_say_p(row.p_corrected)} after Holm's correction)."
    if row.low <= 0 <= row.high:
        if row.p_corrected is not None and row.p_corrected < SIGNIFICANT:
            return (
                f"{second} and {first} differ in the networks trained here ({format_points(row.difference)} points, "
                f"{_say_p(row.p_corrected)} after Holm's correction), but {name_draws(row)} vary too much to "
                f"generalise ({interval})."
            )
        return (
            f"{second} is statistically indistinguishable from {first} ({format_points(row.difference)} points, "
            f"{interval})."
        )
    if row.p_value is None:
        return f"{second} came out {by} than {first} ({interval}), by an unpaired interval without a test: a hint."
    if tests == 1 or row.p_value >= SIGNIFICANT:
        return (
            f"{second} came out {by} than {first} ({interval}), but the exact test does not support it "
            f"({_say_p(row.p_value)}): a hint, not a finding."
        )
    return (
        f"{second} came out {by} than {first} ({interval}), but this does not survive the correction for {tests} "
        f"comparisons ({_say_p(row.p_corrected)}): a hint, not a finding."
    )


def _say_p(p_value: float | None) -> str:
    text = format_p(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
