"""The report of a sweep's answer: sentences that claim no more than the intervals, a table, a page and its figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ffem_jax.analysis.answer import INTERACTION, PAIR, TREND, Answer, Effect
from ffem_jax.analysis.comparison import SIGNIFICANT
from ffem_jax.analysis.factors import LONGEST_LEVEL
from ffem_jax.analysis.summary import summarize_records
from ffem_jax.figures.forest import plot_comparison
from ffem_jax.figures.frontier import plot_frontier
from ffem_jax.reports.comparison import FEW_SEEDS, name_draws, name_level, write_sentence
from ffem_jax.reports.frontier import ask_question
from ffem_jax.text.display import escape, escape_sentence, make_markdown_table, quote_code, write_text
from ffem_jax.text.numbers import format_p, format_points
from ffem_jax.text.tables import Column, Table, make_table

HEADS = ("factor", "what", "points", "95 %", "p, Holm", "detectable", "p", "images", "runs")
# Columns that a narrow terminal drops, the highest rank first.
RANKS = {"runs": 8, "images": 7, "p": 6, "p, Holm": 3, "detectable": 2}
RESOLUTION = "data.resolution"


def write_answer(answer: Answer, out: Path) -> list[Path]:
    """Write answer.md, answer.json and the figures to the folder `out`, and return their paths.

    Raises:
        OSError: `out` cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    figures = _plot(answer, out)
    write_text(out / "answer.md", write_page(answer, [path.name for path in figures if path.suffix == ".svg"]))
    write_text(out / "answer.json", json.dumps(answer_to_dict(answer), indent=2) + "\n")
    return [out / "answer.md", out / "answer.json", *figures]


def _plot(answer: Answer, out: Path) -> list[Path]:
    figures = []
    for factor, comparison in answer.comparisons.items():
        if comparison.rows:
            rows = [
                dataclasses.replace(row, first=shorten_level(row.first), second=shorten_level(row.second))
                for row in comparison.rows
            ]
            slug = factor.replace(".", "_")
            figures += plot_comparison(dataclasses.replace(comparison, rows=tuple(rows)), out / f"answer_{slug}")
    if RESOLUTION in answer.comparisons:
        records = list(answer.records)
        question, _ = ask_question(records, None, None, "macs", answer.metric)
        networks = summarize_records(records, answer.metric, answer.among)
        path, synthetic = out / "answer_macs", answer.synthetic
        figures += plot_frontier(networks, path, question, title=answer.title, synthetic=synthetic)
    return figures


def answer_to_dict(answer: Answer) -> dict[str, Any]:
    """Return the answer as nested dicts and lists, ready for JSON; rates in 0 to 1."""
    effects = [
        {**dataclasses.asdict(effect), "shown": effect.row.significant, "sentence": write_effect(effect, answer)}
        for effect in answer.effects
    ]
    return json.loads(
        json.dumps(
            {
                "title": answer.title,
                "metric": answer.metric,
                "protocol": answer.protocol,
                "synthetic": answer.synthetic,
                "design": dataclasses.asdict(answer.design),
                "exclusions": answer.exclusions,
                "chance": dataclasses.asdict(answer.chance) if answer.chance else None,
                "sentence": write_summary(answer),
                "effects": effects,
                "notes": answer.notes,
            }
        )
    )


def write_page(answer: Answer, figures: list[str]) -> str:
    """Return the answer in Markdown. figures: names of files beside the page."""
    lines = [f"# The answer: {escape(answer.title)}", ""]
    if answer.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    lines += [f"**{escape_sentence(write_summary(answer))}**", "", f"Measured: {answer.measure.noun}.", ""]
    lines += ["## The design", "", *(f"- {escape_sentence(line)}" for line in describe_design(answer)), ""]
    lines += ["## The table", ""]
    rows = _make_cells(answer)
    lines += make_markdown_table(HEADS, [[*map(escape, row[:2]), *row[2:]] for row in rows])
    for name in figures:
        lines += ["", f"![{escape(name.removesuffix('.svg').replace('_', ' '))}]({name})"]
    lines += ["", "## What it says", ""]
    lines += [f"- {escape_sentence(sentence)}" for sentence in list_sentences(answer)]
    if answer.notes:
        lines += ["", "## What is missing", "", *(f"- {escape_sentence(note)}." for note in answer.notes)]
    return "\n".join([*lines, "", "## How to read it", "", *describe_method(answer)]) + "\n"


def render_answer(answer: Answer) -> Table:
    """Return a table with one line per effect, for the terminal; significant effects are bold."""
    heads = [
        Column(head, right=number > 1, fold=number < 2, whole=number > 1, rank=RANKS.get(head, 0))
        for number, head in enumerate(HEADS)
    ]
    mark = "SYNTHETIC FACES: " if answer.synthetic else ""
    bold = [effect.row.significant for effect in answer.effects]
    return make_table(heads, _make_cells(answer), title=f"{mark}the answer: {answer.title}", bold=bold)


def _make_cells(answer: Answer) -> list[list[str]]:
    return [
        [
            effect.factor,
            describe_effect(effect),
            format_points(effect.row.difference),
            f"[{format_points(effect.row.low)}, {format_points(effect.row.high)}]",
            format_p(effect.row.p_corrected),
            "-" if effect.smallest is None else f"{100 * effect.smallest:.1f}",
            format_p(effect.row.p_value),
            f"{effect.row.images:,}",
            str(effect.row.seeds),
        ]
        for effect in answer.effects
    ]


def describe_effect(effect: Effect) -> str:
    """Return the levels of the effect and its unit."""
    first, second = shorten_level(effect.row.first), shorten_level(effect.row.second)
    if effect.kind == TREND:
        return f"{first} to {second}, per {effect.unit}"
    if effect.kind == INTERACTION:
        levels = " to ".join((effect.other_levels[0], effect.other_levels[-1]))
        return f"{second} - {first}, by {effect.other} {levels}{f', per {effect.unit}' if effect.unit else ''}"
    return f"{second} - {first}"


def shorten_level(level: str) -> str:
    """Return the level, shortened to fit a line; answer.json has the full one."""
    return level if len(level) <= LONGEST_LEVEL else f"{level[: LONGEST_LEVEL - 1]}\N{HORIZONTAL ELLIPSIS}"


# ----------------------------------------------------------------------------------------- sentences


def write_summary(answer: Answer) -> str:
    """Return the answer in a few sentences: what is significant, else what the design can detect."""
    main = answer.list_effects(PAIR, TREND)
    shown = [effect for effect in main if effect.row.significant]
    parts = [write_effect(effect, answer) for effect in shown[:3]]
    if (more := len(shown) - 3) > 0:
        verb = "is" if more == 1 else "are"
        parts.append(f"{more} more of {len(main)} main effects and trends {verb} significant; the table lists all.")
    for factor in answer.comparisons:
        if not any(effect.factor == factor for effect in shown):
            parts.append(_summarize_factor(factor, [effect for effect in main if effect.factor == factor]))
    parts += [write_effect(effect, answer) for effect in answer.list_effects(INTERACTION) if effect.row.significant]
    return " ".join(parts)


def _summarize_factor(factor: str, effects: list[Effect]) -> str:
    widest = max(abs(end) for effect in effects if effect.kind == PAIR for end in (effect.row.low, effect.row.high))
    could = [effect.smallest for effect in effects if effect.kind == PAIR]
    known = [value for value in could if value is not None]
    pairs = sum(effect.kind == PAIR for effect in effects)
    what = "between its two levels" if pairs == 1 else f"within any of {pairs} pairs of levels"
    sentence = (
        f"{quote_code(factor)}: no significant difference {what}; the intervals extend to {100 * widest:.1f} points"
    )
    if not known:
        return f"{sentence}, and this design detects no difference, however large."
    return f"{sentence}, and this design detects {100 * max(known):.1f} points or more with 80 % power."


def list_sentences(answer: Answer) -> list[str]:
    """Return a sentence per main effect, trend and significant interaction, and one for all other interactions."""
    sentences = [write_effect(effect, answer) for effect in answer.list_effects(PAIR, TREND)]
    interactions = answer.list_effects(INTERACTION)
    sentences += [write_effect(effect, answer) for effect in interactions if effect.row.significant]
    others = [effect for effect in interactions if not effect.row.significant]
    if others:
        units = {effect.unit for effect in others}
        finds = [effect.smallest for effect in others if effect.smallest is not None]
        size = f"{100 * min(finds):.1f} to {100 * max(finds):.1f} points" if len(finds) > 1 else (
            f"{100 * finds[0]:.1f} points" if finds else "none"
        )  # fmt: skip
        per = f" per {units.pop()}" if len(units) == 1 and "" not in units else ""
        which = "none is significant" if len(others) == len(interactions) else "none of the others is significant"
        tested = f"{len(interactions)} interaction{'s were' if len(interactions) > 1 else ' was'} tested"
        sentences.append(f"{tested}, and {which}; this design detects those of {size}{per} or more with 80 % power.")
    return sentences


def write_effect(effect: Effect, answer: Answer) -> str:
    """Return what may be claimed about the effect; if it is not significant, also what the design can detect."""
    if effect.kind == PAIR:
        comparison = answer.comparisons[effect.factor]
        family = tuple(other.row for other in answer.list_effects(PAIR, TREND))
        row = dataclasses.replace(
            effect.row, first=shorten_level(effect.row.first), second=shorten_level(effect.row.second)
        )
        # The correction covers the rows of all factors.
        sentence = write_sentence(row, dataclasses.replace(comparison, rows=family))
    else:
        sentence = _judge_slope(effect, answer)
    return sentence + _qualify(effect, answer)


def _qualify(effect: Effect, answer: Answer) -> str:
    if effect.row.significant:
        if effect.row.seeds > 1:
            return ""
        return (
            " With one run per level this holds for these trained networks only: the interval excludes variance "
            "between seeds."
        )
    if not any(other.row.test for other in answer.effects):
        return ""  # the description of the design says so for all effects
    if effect.row.p_value is None:
        return " The records do not list the correctly classified images, so there is no test of significance."
    if effect.smallest is None:
        return " This design detects no difference, however large."
    per = f" per {effect.unit}" if effect.unit else ""
    return f" This design detects {100 * effect.smallest:.1f} points{per} or more with 80 % power."


def _judge_slope(effect: Effect, answer: Answer) -> str:
    row, word = effect.row, answer.measure.word
    word = f"{word[0].upper()}{word[1:]}"
    per = f" per {effect.unit}" if effect.unit else ""
    interval = f"95 % CI {format_points(row.low)} to {format_points(row.high)}"
    points = f"{format_points(row.difference)} points{per}"
    p = format_p(row.p_corrected)
    corrected = f"p {p if p.startswith('<') else f'= {p}'} after Holm's correction"
    if effect.kind == TREND:
        claim = (
            f"{word} {'rises' if row.difference > 0 else 'falls'} by {100 * abs(row.difference):.1f} points{per} along "
            f"{quote_code(effect.factor)}, {row.first} to {row.second}"
        )
        what = f"a trend along {quote_code(effect.factor)}"
    else:
        first, second = (name_level(effect.factor, shorten_level(level)) for level in (row.first, row.second))
        steps = " to ".join((effect.other_levels[0], effect.other_levels[-1]))
        claim = f"The effect of {second} against {first} depends on {quote_code(effect.other)}, {steps}: {points}"
        what = (
            f"an interaction of {quote_code(effect.factor)} ({row.second} - {row.first}) and {quote_code(effect.other)}"
        )
    if row.significant:
        return f"{claim} ({interval}; {corrected})."
    if row.low <= 0 <= row.high and row.p_corrected is not None and row.p_corrected < SIGNIFICANT:
        return (
            f"{what[0].upper()}{what[1:]} holds for the networks trained here ({points}, {corrected}), but "
            f"{name_draws(row)} vary too much to generalise ({interval})."
        )
    if row.low <= 0 <= row.high:
        return f"There is no significant{what.removeprefix('an').removeprefix('a')} ({points}, {interval})."
    return f"There is a hint of {what}, but no finding ({points}, {interval}; {corrected})."


def describe_design(answer: Answer) -> list[str]:
    """Return the design and its power, in lines."""
    design = answer.design
    people = f" of {design.people:,} people" if design.people else ""
    runs = f"{design.seeds} run{'s' if design.seeds > 1 else ''}"
    if design.fewest < design.seeds:
        runs = f"{design.fewest} to {runs}"
    part = f"{design.tested_folds} of " if design.tested_folds < design.folds else ""
    folds = f", {part}{design.folds} folds" if design.folds > 1 else ""
    lines = [
        f"{design.trials:,} trials of {design.networks:,} networks, {design.images:,} distinct test images{people}, "
        f"{runs} per network (training seed, split, pretraining){folds}."
    ]
    if design.seeds == 1:
        lines.append("One run per network: the intervals exclude variance between seeds.")
    elif not any(effect.row.test for effect in answer.effects):
        lines.append("The intervals are unpaired and exclude variance between seeds.")
    elif design.fewest < FEW_SEEDS:
        lines.append("With so few runs, the variance between seeds is only a rough estimate.")
    return [*lines, *answer.exclusions, describe_power(answer)]


def describe_power(answer: Answer) -> str:
    """Return a sentence on the smallest difference between two levels that the design detects."""
    found = [effect for effect in answer.list_effects(PAIR) if effect.smallest is not None]
    if answer.chance is None or not found:
        return "The records do not list the correctly classified images, so no difference is called significant."
    points = sorted({round(100 * (effect.smallest or 0), 1) for effect in found})
    span = f"{points[0]:.1f}" if len(points) == 1 else f"{points[0]:.1f} to {points[-1]:.1f}"
    return (
        f"With 80 % power the design detects a difference of {span} points or more between two levels, corrected for "
        f"{found[0].family} test{'s' if found[0].family > 1 else ''} ({answer.chance.source})."
    )


def describe_method(answer: Answer) -> list[str]:
    """Return the method, as paragraphs."""
    people = answer.design.people is not None
    sample = "people, with all their images," if people else "images"
    given = (
        ""
        if people
        else " Images are treated as independent and the people as fixed: the tests do not generalise to other people."
    )
    units = "people" if people else "images"
    return [
        "A pair is two trials that differ only in the factor and test the same images. A main effect is the mean over "
        f"all pairs of its two levels, in all contexts. The intervals resample {sample} and runs. Tests and intervals "
        f"are those of `ffem compare`. An effect is significant if the corrected p is below {SIGNIFICANT} and the "
        "interval excludes 0. An effect that is not significant may still exist: the interval shows how large it can "
        f"be.{given}",
        "",
        "A trend is the slope of a straight line through ordered levels, from runs that have all of them. It does not "
        "imply that accuracy follows a straight line. An interaction is the change of a difference along another "
        f"factor, or between its levels. Both are tested by permuting levels within {units} (Mantel's test). Holm's "
        "correction covers the main effects and trends of all factors as one family, and the interactions as "
        "another.",
        "",
        "*detectable* is the smallest true effect, in points, that the design detects with 80 % power. For pairs it is "
        "simulated with the same tests; for trends and interactions it follows from the width of the interval.",
    ]
