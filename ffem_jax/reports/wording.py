"""The short report beside a frontier, written from the numbers only."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from ffem_jax.analysis.agreement import OrderAgreement
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary, describe_chance
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.records.measures import Measure
from ffem_jax.reports.table import format_accuracy, format_trials
from ffem_jax.text.display import escape, escape_sentence, quote_code

LISTED = 8  # maximum number of networks over the cap listed individually


def write_reading(
    networks: Sequence[NetworkSummary],
    on_frontier: Sequence[bool],
    question: FrontierQuestion,
    title: str,
    *,
    synthetic: bool,
    devices: Mapping[str, int],
    latency: str = "",
    agreement: str = "",
    notes: Sequence[str] = (),
    exclusions: Sequence[str] = (),
) -> str:
    """Return the report in Markdown: what ran, the frontier, its interpretation, what is missing.

    Args:
        latency: how the milliseconds were measured, if they are the cost.
        agreement: how reliably the records rank networks.
        exclusions: a sentence for each thing that the trainings share.
    """
    front = [n for n, marked in zip(networks, on_frontier, strict=True) if marked]
    word = question.measure.word
    lines = [f"# {word[0].upper()}{word[1:]} against {question.axis.noun}: {escape(title)}", ""]
    if synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    lines += ["![The frontier](frontier.svg)", "", _describe_runs(networks, question, devices), ""]
    lines += [escape_sentence(latency), ""] if latency else []
    lines += [f"## The frontier under {question.cap_mb:g} MB", ""]
    if front:
        lines += [*_tabulate(front, question), "", *map(escape_sentence, judge_frontier(networks, front, question))]
        lines += [agreement] if agreement else []
    else:
        lines += [_describe_none_fits(networks, question)]
    lines += ["", *_describe_gaps(networks, question, notes), *_describe_method(networks, question, exclusions)]
    return "\n".join(lines) + "\n"


def describe_agreement(agreement: OrderAgreement) -> str:
    """Return the taus in one sentence; empty if there are none."""
    parts = []
    if agreement.seeds or agreement.macs:
        seeds = f"{agreement.seeds}" if agreement.seeds else "not known (one seed per network)"
        same = " after the same pretraining" if agreement.seeds and agreement.one_pretraining else ""
        parts.append(f"one seed against another{same} {seeds}")
    if agreement.macs:
        parts.append(f"MACs alone against accuracy {agreement.macs}")
    if agreement.epoch:
        early = f"after {agreement.rung_epoch} of {agreement.epochs} epochs"
        parts.append(f"accuracy {early} against accuracy at the end {agreement.epoch}")
    if not parts:
        return ""
    count = max(part.count for part in (agreement.seeds, agreement.macs, agreement.epoch) if part)
    return f"How reliably {count} networks are ranked, Kendall's tau [95 %]: {'; '.join(parts)}."


def _describe_runs(networks: Sequence[NetworkSummary], question: FrontierQuestion, devices: Mapping[str, int]) -> str:
    status = Counter(network.status for network in networks)
    trials = sum(network.trials for network in networks)
    failures = sum(network.failed_trials for network in networks)
    ran_on = ", ".join(f"{escape(device)} ({count})" for device, count in devices.items())
    in_all = f" In all, {_count(failures, 'trial')} failed." if failures else ""
    pruned = f"{status['pruned']} pruned before the end, " if status["pruned"] else ""
    return (
        f"{_count(len(networks), 'network')}: {status['done']} trained ({_count(trials, 'trial')}"
        f"{f'; on {ran_on}' if ran_on else ''}), {pruned}{status['over_cap']} over the cap and not trained, "
        f"{status['failed']} failed.{in_all} "
        f"Measured: {question.measure.noun}; size: deployed {question.precision}."
    )


def _tabulate(networks: Sequence[NetworkSummary], question: FrontierQuestion) -> list[str]:
    other = question.against not in ("bytes", "params")
    head = f" {question.axis.head} |" if other else ""
    rows = [
        f"| network | parameters | MB {question.precision} |{head} {question.measure.word}, % [95 %] | trials |",
        f"|---|---|---|{'---|' if other else ''}---|---|",
    ]
    for n in networks:
        params = "?" if n.params is None else f"{n.params:,}"
        size = f"{question.get_bytes(n) / BYTES_PER_MB:.3f}"
        cost = f" {question.show_cost(n)} |" if other else ""
        rows.append(f"| {escape(n.label)} | {params} | {size} |{cost} {format_accuracy(n)} | {format_trials(n)} |")
    return rows


def judge_frontier(
    networks: Sequence[NetworkSummary], front: Sequence[NetworkSummary], question: FrontierQuestion
) -> list[str]:
    """Return what the intervals allow to be said about the frontier and all trained networks, in lines."""
    fitting = [n for n in networks if n.accuracy is not None and question.fits(n)]
    if chance := describe_chance(fitting):
        return [chance]
    if not front:
        return [_describe_none_fits(networks, question)]
    measure = question.measure
    best = max(front, key=lambda n: measure.score(n.accuracy or 0.0))
    rivals = [n for n in fitting if n is not best and _overlap(n, best)]
    lines = []
    if len(fitting) == 1:
        lines.append("A single network is a point, not a trade-off.")
    elif rivals:
        # A network with unknown cost cannot be the cheapest.
        smallest = min([n for n in (*rivals, best) if question.get_cost(n) >= 0], key=question.get_cost)
        lines.append(
            f"The {measure.best} {measure.word} is that of {_quote(best)}, but it is not established as the best: the "
            f"intervals of {len(rivals)} of the {len(fitting) - 1} others that fit overlap its own, so these data do "
            f"not rank them. The {measure.best} of many noisy numbers is also partly luck."
        )
        if smallest is not best:
            lines.append(f"The cheapest network with an overlapping interval is {_quote(smallest)}.")
    else:
        side = "below" if measure.lower_is_better else "above"
        lines.append(f"The interval of {_quote(best)} lies {side} those of all the others that fit.")
    apart = [(a, b) for a, b in itertools.pairwise(front) if not _overlap(a, b)]
    if len(front) > 1:
        steps = "; ".join(f"{_quote(a)} to {_quote(b)}" for a, b in apart) or "none"
        lines.append(
            f"Steps of the frontier whose two intervals do not overlap ({len(apart)} of {len(front) - 1}): {steps}."
        )
    return lines


def _describe_none_fits(networks: Sequence[NetworkSummary], question: FrontierQuestion) -> str:
    trained = [question.get_bytes(n) / BYTES_PER_MB for n in networks if n.accuracy is not None]
    least = f"; the smallest has {min(trained):.2f} MB" if trained else ""
    return f"No trained network fits {question.cap_mb:g} MB at {question.precision}{least}."


def _describe_gaps(networks: Sequence[NetworkSummary], question: FrontierQuestion, notes: Sequence[str]) -> list[str]:
    lines = [f"- Left out: {note}." for note in notes]
    partial = [n for n in networks if n.status == "done" and not n.complete]
    plans = {(n.seeds, n.folds) for n in networks if n.status == "done"}
    refused = [n for n in networks if n.status == "over_cap"]
    failed = [n for n in networks if n.failed_trials]
    pruned = [n for n in networks if n.pruned_trials]
    unknown = [n for n in networks if n.status == "done" and question.get_cost(n) != question.get_cost(n)]
    if unknown:
        names = ", ".join(_quote(n) for n in unknown)
        how = f" (`{question.axis.measured_by}` measures it)" if question.axis.measured_by else ""
        lines.append(f"- Not on the frontier, because the records have no {question.axis.noun}{how}: {names}.")
    if partial:
        names = ", ".join(f"{_quote(n)} ({_count(n.trials, 'trial')})" for n in partial)
        lines.append(f"- Seeds or folds are missing, so these numbers are from other test images or seeds: {names}.")
    elif len(plans) > 1:
        lines.append("- Not all networks have the same seeds and folds; compare those that do.")
    if len(refused) > LISTED:
        sizes = sorted(question.get_bytes(n) / BYTES_PER_MB for n in refused)
        lines.append(
            f"- Not trained, over the cap: {len(refused)} networks of {sizes[0]:.2f} to {sizes[-1]:.2f} MB, listed in "
            "frontier.json."
        )
        refused = []
    for n in refused:
        now = " (it would fit this cap: train it to place it)" if question.fits(n) else ""
        lines.append(f"- Not trained, over the cap: {_quote(n)}, {question.get_bytes(n) / BYTES_PER_MB:.2f} MB{now}.")
    if pruned:
        names = ", ".join(f"{_quote(n)} ({_count(n.pruned_trials, 'trial')})" for n in pruned[:LISTED])
        others = f" and {len(pruned) - LISTED} others, listed in frontier.json" if len(pruned) > LISTED else ""
        lines.append(f"- Stopped early (pruned), so no accuracy is shown: {names}{others}.")
    for n in failed:
        error = escape(n.errors[0].splitlines()[0]) if n.errors and n.errors[0] else "no message"
        lines.append(f"- Failed: {_quote(n)}, {_count(n.failed_trials, 'trial')}: {error}")
    return ["## What is missing", "", *lines, ""] if lines else []


def _describe_method(
    networks: Sequence[NetworkSummary], question: FrontierQuestion, exclusions: Sequence[str]
) -> list[str]:
    spreads = [n.seed_deviation for n in networks if n.seed_deviation is not None]
    seeds = (
        f"Between seeds the {question.measure.word} has a standard deviation of {100 * min(spreads):.1f} to "
        f"{100 * max(spreads):.1f} points, which the intervals do not include."
        if spreads
        else "Each network was trained with one seed: the intervals exclude variance between seeds."
    )
    return [
        "## How to read it",
        "",
        explain_measure(question.measure),
        "",
        f"The {question.measure.word} is the mean over seeds, pooled over folds. {question.measure.interval} {seeds} "
        "Networks are tested on the same images, so a paired comparison can find differences that overlapping "
        "intervals hide. Intervals that do not overlap are no proof either if many pairs are examined.",
        *(f"\n{sentence}" for sentence in exclusions),
    ]


def explain_measure(measure: Measure) -> str:
    """Return a sentence that explains the measure and begins with its word, not with the option's name."""
    explained = f"{measure.word}{measure.meaning.removeprefix(measure.name)}"
    return f"{explained[0].upper()}{explained[1:]}"


def _quote(network: NetworkSummary) -> str:
    return quote_code(network.label)


def _overlap(a: NetworkSummary, b: NetworkSummary) -> bool:
    lows, highs = (a.accuracy_low, b.accuracy_low), (a.accuracy_high, b.accuracy_high)
    return max(x for x in lows if x is not None) <= min(x for x in highs if x is not None)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
