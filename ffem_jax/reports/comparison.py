"""A comparison for people: its page and files, its table, and for each row the sentence that the numbers allow."""

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

FEW_SEEDS = 5  # fewer bound badly what another seed would change


# What a narrow terminal goes without, the highest first: never what is compared, nor the difference.
RANKS = {"pairs": 9, "seeds": 8, "images": 7, "p": 5, "accuracy, %": 4, "p, Holm": 2} | {
    f"MB {precision}": 6 for precision in PRECISIONS
}


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write compare.md, compare.json, compare.png and compare.svg into the folder `out`; their paths.

    Raises OSError where `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(write_page(comparison), encoding="utf-8")
    (out / "compare.json").write_text(json.dumps(comparison_to_dict(comparison), indent=2) + "\n", encoding="utf-8")
    return [out / "compare.md", out / "compare.json", *plot_comparison(comparison, out / "compare")]


def comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as nested dicts and lists, ready for JSON, each row with its sentence."""
    rows = [
        {**dataclasses.asdict(row), "shown": row.significant, "sentence": write_sentence(row, comparison)}
        for row in comparison.rows
    ]
    fields = {f.name: getattr(comparison, f.name) for f in dataclasses.fields(comparison) if f.name != "rows"}
    return json.loads(json.dumps({**fields, "rows": rows}))


def write_page(comparison: Comparison) -> str:
    """The comparison in Markdown."""
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
    """The rows as lines of a Markdown table."""
    titles, rows = _make_cells(comparison)
    # The first two name levels and contexts, which others chose.
    return make_markdown_table(titles, [[*map(escape, row[:2]), *row[2:]] for row in rows])


def render_comparison(comparison: Comparison) -> Table:
    """One line per row, for the terminal; bold where a difference is significant."""
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
    """How the numbers were made, as paragraphs."""
    paired = [row for row in comparison.rows if row.test]
    if not paired and not comparison.measure.hits:
        return [
            "A pair is two trials equal in all but the factor: same faces, split, seed and all other settings. The "
            f"{comparison.measure.word} is no share of tests, so the interval is Newcombe's, of the two levels' own "
            "intervals as if they had been tested on different people: wider than a paired one, and without a test."
        ]
    if not paired:
        return [
            "A pair is two trials equal in all but the factor: same faces, split, seed and all other settings. Which "
            "images were right is not in these records, so the interval is Newcombe's for two different sets of images."
        ]
    drawn, by_people = _describe_draws(paired), all(row.people is not None for row in paired)
    sample = (
        "People are taken as independent, and the people who trained as given."
        if by_people
        else "Images are taken as independent and the people as given: of other people this says nothing."
    )
    tests = []
    if any(row.test == "sign flip of people" for row in paired):
        tests.append(
            "exact, by people: a person's differences are summed over images, seeds and contexts, and all ways to turn "
            "their signs are counted"
        )
    if any(row.test == "mcnemar" for row in paired):
        tests.append("McNemar's exact test where each image was tested once (folds together)")
    if any(row.test == "sign flip" for row in paired):
        tests.append(
            "where an image was tested several times, its exact counterpart: an image's differences are summed over "
            "seeds and contexts, and all ways to turn their signs are counted"
        )
    return [
        "A pair is two trials equal in all but the factor: same faces, split, seed and all other settings. The "
        f"difference is the mean over all tests of the pairs. {drawn}",
        "",
        f"The test: {'; '.join(tests)}. It asks about these trained networks on other such "
        f"{'people' if by_people else 'images'}; other seeds are in the interval alone. p is corrected by Holm over "
        f"the {len(paired)} rows of the table. A difference is significant where the corrected p is under "
        f"{SIGNIFICANT} and the interval leaves out 0. Without significance there may still be a difference: the "
        f"interval says how large it can be. {sample}",
    ]


def _describe_draws(paired: list[ComparisonRow]) -> str:
    what, one = ("people", "a person") if all(row.people is not None for row in paired) else ("images", "an image")
    seeds = {row.seeds for row in paired}
    if seeds == {1}:
        together = ", with all their images" if what == "people" else ""
        drawn = f"{what.title()} are drawn anew for the interval{together}"
        return f"{drawn}; with one seed, **it excludes variance between seeds**."
    nested = [row for row in paired if row.pretrainings > 1]
    units = "seeds" if not nested else "pretrainings" if len(nested) == len(paired) else "pretrainings (or seeds)"
    whole = ", each with its seeds," if nested else ""
    few = " So few seeds bound the variance between seeds only roughly." if min(seeds) < FEW_SEEDS else ""
    if nested:
        few = " Pretrainings are few, so Student's t says how far their mean may be off."
    return (
        f"For the interval {what} and {units}{whole} are drawn anew; {one} that several seeds tested is one "
        f"{one.split()[1]}, drawn with all {'their images and' if what == 'people' else 'its'} tests.{few}"
    )


def format_interval(row: ComparisonRow) -> str:
    """The difference and its interval in points, the same on the page, in a table and in a figure."""
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
    """What may be said: a sentence per row, and one for each thing that the trainings share."""
    return [*(write_sentence(row, comparison) for row in comparison.rows), *comparison.exclusions]


def write_sentence(row: ComparisonRow, comparison: Comparison) -> str:
    """What may be said of the row, in one sentence that names the factor, and no more than the interval allows."""
    place = f"over {row.context} contexts: " if row.overall else f"{row.context}: " if row.context else ""
    sentence = place + _judge(row, comparison, sum(other.p_value is not None for other in comparison.rows))
    return sentence[0].upper() + sentence[1:]


def name_level(factor: str, level: str) -> str:
    """A level with what it is of, such as "attention kind `se`"."""
    group, _, setting = factor.rpartition(".")
    words = {"arch.name": "network", "recipe.name": "recipe", "pretrain.name": "pretraining"}.get(factor, "")
    if not words:
        words = f"{group.split('.')[-1]} {setting}" if setting in ("kind", "name") else setting
    return f"{words.replace('_', ' ')} {quote_code(level)}"


def name_draws(row: ComparisonRow) -> str:
    """What its interval draws beside images."""
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
                f"{second} and {first} differ as trained here ({format_points(row.difference)} points, "
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
