"""The page's first paragraph: what the numbers show about FFEM-AM, and no more."""

from __future__ import annotations

from ffem_jax.analysis.comparison import Comparison, ComparisonRow
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.reports.comparison import write_sentence
from ffem_jax.reports.paper.published import NETWORKS, TITLES
from ffem_jax.reports.paper.results import SettingResult
from ffem_jax.reports.paper.tables import find_row
from ffem_jax.text.display import escape, escape_sentence
from ffem_jax.text.numbers import format_p, format_points

SUBJECT = "ffem_am"


def write_answer(result: SettingResult) -> str:
    """Return whether ECA in the first and last bottleneck helps, with what certainty, and FFEM-AM's frontier status."""
    sentences = [_answer_attention(result), _answer_frontier(result)]
    compared = [one for one in (result.attention, result.networks) if isinstance(one, Comparison)]
    if {row.seeds for comparison in compared for row in comparison.rows} == {1}:
        sentences.append("All results are from one seed: the intervals exclude variance between seeds.")
    if result.setting.pretrained_once:
        sentences.append(
            "Each network was pretrained once: the intervals exclude variance between pretraining runs, which alone "
            "may cause a difference."
        )
    if lacks_trials(result):
        sentences.append("Networks, folds or seeds are missing, as listed below: this covers the recorded trials.")
    return f"Recipe {escape(result.setting.label)}: " + " ".join(sentences)


def lacks_trials(result: SettingResult) -> bool:
    """Whether a network of the paper has no record, or lacks trials of the full set."""
    return len(result.rows) < len(NETWORKS) or any(row.missing for row in result.rows)


def describe_difference(row: ComparisonRow) -> str:
    """Return points, interval and corrected p of a row."""
    if row.p_corrected is None:
        test = "no paired test: the records do not list the correctly classified images"
    else:
        p = format_p(row.p_corrected)
        test = f"p {p if p.startswith('<') else f'= {p}'} after Holm's correction"
    return (
        f"{format_points(row.difference)} points, 95 % interval {format_points(row.low)} to {format_points(row.high)}, "
        f"{test}"
    )


def _answer_attention(result: SettingResult) -> str:
    comparison = result.attention
    row = find_row(comparison, "none", "eca") if isinstance(comparison, Comparison) else None
    if row is None or isinstance(comparison, str):
        return (
            "it is not known whether ECA in the first and last bottleneck helps, because there are no finished trials "
            "of FFEM and FFEM-AM with the same seed and split."
        )
    verdict = "has no significant effect"
    if row.significant:
        verdict = "helps" if row.difference > 0 else "costs accuracy"
        verdict += ", with one pretraining of each network" if result.setting.pretrained_once else ""
    count = f"{row.pairs} pair{'' if row.pairs == 1 else 's'} of trials, {row.images:,} images, {row.seeds} seed"
    count += "" if row.seeds == 1 else "s"
    sentence = (
        f"**ECA in the first and last bottleneck {verdict}**: the difference from FFEM to FFEM-AM is "
        f"{describe_difference(row)}"
    )
    sentence += f" ({count})."
    # If it is not significant, the interval is the result.
    return sentence if row.significant else f"{sentence} {escape_sentence(write_sentence(row, comparison))}"


def _answer_frontier(result: SettingResult) -> str:
    frontier = result.frontier
    if frontier is None or SUBJECT not in frontier.summaries:
        return (
            "It is not known whether FFEM-AM is on the frontier of accuracy against bytes, because it shares no "
            "finished trials with the others."
        )
    if len(frontier.summaries) == 1:
        return "FFEM-AM is the only network with finished trials, and one network is not a frontier."
    place = "on the frontier of accuracy against bytes"
    unless = "" if frontier.whole else " Only the trials that all networks have are counted."
    size = frontier.summaries[SUBJECT].bytes_float32 or 0
    dominators = frontier.find_dominators(SUBJECT)
    if dominators:
        rows = {name: _find_lead(result, name) for name in dominators}
        shown = [name for name, row in rows.items() if row and row.significant and row.difference > 0]
        each = "; ".join(
            f"{TITLES[name]} ({_format_size(result, name)} against {size / BYTES_PER_MB:.2f} MB; "
            f"{describe_difference(row) if row else 'not compared in pairs'})"
            for name, row in rows.items()
        )
        if shown:
            more = f"; significantly more accurate: {_join(shown)}" if len(shown) < len(dominators) else ""
            return f"**FFEM-AM is not {place}**. No larger and no less accurate: {each}{more}.{unless}"
        return (
            f"By measured accuracy, **FFEM-AM is not {place}, but no network beats it significantly**. No larger "
            f"and no less accurate: {each}.{unless}"
        )
    smaller = frontier.find_smaller(SUBJECT)
    if not smaller:
        return f"**FFEM-AM is {place}**: it is the smallest of the {len(frontier.summaries)} networks.{unless}"
    rivals = [name for name in smaller if not _is_shown_worse(_find_lead(result, name))]
    if not rivals:
        return (
            f"**FFEM-AM is {place}**: every smaller network is significantly less accurate ({_join(smaller)}).{unless}"
        )
    return (
        f"By measured accuracy, **FFEM-AM is {place}, but not beyond chance**. Smaller and not "
        f"significantly less accurate: {_join(rivals)}.{unless}"
    )


def _find_lead(result: SettingResult, name: str) -> ComparisonRow | None:
    """Return the row of the network `name` minus FFEM-AM."""
    return find_row(result.networks, SUBJECT, name) if isinstance(result.networks, Comparison) else None


def _is_shown_worse(row: ComparisonRow | None) -> bool:
    return row is not None and row.significant and row.difference < 0


def _format_size(result: SettingResult, name: str) -> str:
    size = result.frontier.summaries[name].bytes_float32 if result.frontier else None
    return "?" if size is None else f"{size / BYTES_PER_MB:.2f}"


def _join(names: list[str]) -> str:
    titles = [TITLES[name] for name in names]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
