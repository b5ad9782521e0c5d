"""The page README.md, written from results only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ffem_jax.analysis.comparability import Run
from ffem_jax.analysis.comparison import Comparison
from ffem_jax.analysis.groups import NetworkGroups
from ffem_jax.metrics.intervals import compute_wilson_interval
from ffem_jax.metrics.subgroups import GroupAccuracy
from ffem_jax.reports.comparison import describe_method, write_sentence, write_table
from ffem_jax.reports.groups import write_gap
from ffem_jax.reports.paper.answer import SUBJECT, lacks_trials, write_answer
from ffem_jax.reports.paper.published import GROUP_ACCURACIES, GROUP_NAMES, NETWORKS, TESTED, TITLES, PaperNetwork
from ffem_jax.reports.paper.results import PaperResult, SettingResult
from ffem_jax.reports.paper.tables import NetworkRow, OrderedPair
from ffem_jax.reports.table import format_accuracy, format_trials
from ffem_jax.text.display import escape, escape_sentence, make_markdown_table
from ffem_jax.text.numbers import format_p, format_points

FLAT_AFTER = 25  # epochs: the paper's Fig. 7
# Wordings in the table, and in the counts below it, that differ from the values in paper.json.
VERDICTS, COUNTED = {"not told apart": "no significant difference"}, {"not told apart": "not significant"}

SOURCE = (
    "Xiao et al., *Attention-Mechanism-Based Face Feature Extraction Model for WeChat Applet on Mobile Devices*, "
    "Electronics 2024, 13, 201"
)

OPEN = """\
## What the paper leaves open

- **Its 6.5 MB** (Table 4). Table 1 as printed, with a vector of 128 numbers, has 2,200,448 parameters: 8.80 MB in
  float32. Its trunk alone (up to the last bottleneck, 1,624,320 parameters) takes 6.50 MB, without the convolution to
  1,280 channels and the vector. Sizes here are those of the complete network as deployed.
- **How attention is applied** (section 2.3): the features are scaled by their weights, as in ECA's own figure, or the
  scaled features are added to the features. This page uses `scale`; `arch.attention.fusion=residual` trains the other.
- **Which normalisation is used** (equations 6 and 7): distances are accepted up to a normalised 0.5. Here vectors are
  L2-normalised and a distance is halved. No accuracy on this page depends on it.
- **The length of the vector** is not given. Here it is 128.
- **Its glasses** (Table 3): 97.2 % with and 97.0 % without cannot be the two parts of a set with 98.1 % correct.
- **Its photographs** are not public. This page answers the same questions on other faces. An order confirmed here is
  confirmed for these faces, and one that is not significant here may still hold for the paper's."""


def write_page(result: PaperResult, figures: Sequence[str]) -> str:
    """Return the page. figures: the name of each setting's figure without its suffix, empty if it has none."""
    lines = [
        "<!-- Written by `ffem paper` from records: run it again instead of editing this file. -->",
        f"# The paper's tables: {escape(result.title)}",
        "",
    ]
    if result.synthetic:
        lines += ["**Synthetic faces: drawn, not photographed. The numbers say nothing about real ones.**", ""]
    for one in result.settings:
        lines += [write_answer(one), ""]
    lines += [f"*A generated page: `ffem paper` writes it from records.* {_describe_runs(result)}", ""]
    lines += [f"The paper: {SOURCE}. Its accuracies are from {TESTED} photographs, two of each of 52 people.", ""]
    for one, figure in zip(result.settings, figures, strict=True):
        lines += _write_setting(one, figure)
    return "\n".join([*lines, OPEN, "", *_describe_reading(result)]) + "\n"


def _describe_runs(result: PaperResult) -> str:
    devices = ", ".join(f"{escape(device)} ({count})" for device, count in result.devices.items())
    trials = sum(row.summary.trials for one in result.settings for row in one.rows)
    other = f" Left out: {_count(result.left_out, 'trial')} of other networks." if result.left_out else ""
    return f"{_count(trials, 'trial')}{f', on {devices}' if devices else ''}.{other}"


def _write_setting(result: SettingResult, figure: str) -> list[str]:
    label = escape(result.setting.label)
    lines = [f"## Recipe {label}", "", "### Table 2: accuracy and size", "", *_write_networks(result), ""]
    lines += [*_write_missing(result), *_write_order(result)]
    lines += ["### Attention: none, ECA, SE", "", *_write_comparison(result.attention)]
    lines += ["### Network against network", "", *_write_comparison(result.networks)]
    lines += ["### Table 3: groups of images", "", *_write_groups(result), ""]
    lines += ["### Fig. 7: training", "", *_write_curves(result, figure), ""]
    return lines


# ------------------------------------------------------------------------------------ Table 2


def _write_networks(result: SettingResult) -> list[str]:
    head = ["network", "accuracy, % [95 %]", "trials", "parameters", "MACs", "bytes float32", "on the frontier"]
    head.append(f"the paper, % [95 % of {TESTED}]")
    rows = [_write_network(row, result) for row in result.rows]
    over = [TITLES[row.network.name] for row in result.rows if row.over_seeds]
    trained = [row for row in result.rows if row.summary.accuracy is not None]
    if over and len(over) == len(trained):
        note = "The intervals cover images and seeds."
    elif over:
        note = f"The intervals cover images, and for {', '.join(over)} also seeds."
    else:
        note = "The intervals cover images only: they exclude variance between seeds."
    if result.frontier and not result.frontier.whole:
        note += " The frontier uses the trials that all networks have."
    return [*make_markdown_table(head, rows), "", " ".join([note, *result.setting.describe_exclusions(bool(over))])]


def _write_network(row: NetworkRow, result: SettingResult) -> list[str]:
    summary, frontier = row.summary, result.frontier
    numbers = ("?" if n is None else f"{n:,}" for n in (summary.params, summary.macs, summary.bytes_float32))
    known = frontier is not None and row.network.name in frontier.summaries
    marked = "-" if not known else "yes" if frontier and row.network.name in frontier.names else "no"
    return [
        row.network.title,
        format_accuracy(summary),
        format_trials(summary),
        *numbers,
        marked,
        _write_published(row.network),
    ]


def _write_published(network: PaperNetwork) -> str:
    if network.correct is None or network.accuracy is None:
        return "-"
    low, high = compute_wilson_interval(network.correct, TESTED)
    return f"{100 * network.accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _write_missing(result: SettingResult) -> list[str]:
    lacking, pruned = lacks_trials(result), any(row.summary.pruned_trials for row in result.rows)
    if not lacking and not pruned and not any(row.summary.failed_trials for row in result.rows):
        return []
    there = {row.network.name for row in result.rows}
    lines = [f"- {network.title} has no trial." for network in NETWORKS if network.name not in there]
    for row in result.rows:
        if row.summary.status == "over_cap":
            lines.append(f"- {row.network.title} is over the cap and was not trained.")
        elif row.missing:
            lines.append(f"- {row.network.title} lacks {_list_runs(row.missing, result.setting.folds)}.")
        if row.summary.pruned_trials:
            lines.append(f"- {row.network.title}, {_count(row.summary.pruned_trials, 'trial')} pruned before the end.")
        for error in row.summary.errors:
            lines.append(f"- {row.network.title}, {_count(row.summary.failed_trials, 'trial')} failed: {escape(error)}")
    unfinished = "**Trials that did not reach the end.**" if pruned else "**Failed trials.**"
    head = "**The set is incomplete: the numbers cover the recorded trials.**" if lacking else unfinished
    return [head, "", *lines, ""]


def _list_runs(missing: Sequence[Run], folds: int) -> str:
    runs: dict[Run, list[int]] = {}
    for run in missing:
        runs.setdefault(run._replace(fold=0), []).append(run.fold)
    words = []
    for run, own in runs.items():
        name = f"seed {run.seed}" + (f" on split {run.split_seed}" if run.split_seed else "")
        name += f" from pretraining {run.pretraining_seed}" if run.pretraining_seed else ""
        some = f"fold{'' if len(own) == 1 else 's'} {', '.join(map(str, own))} of "
        words.append(name if len(own) == folds else some + name)
    return "; ".join(words)


def _write_order(result: SettingResult) -> list[str]:
    head = ["the paper's order", "its points [95 %]", "points here [95 %]", "p, Holm", "here"]
    rows = [_write_pair(pair) for pair in result.order]
    own = sum(pair.claimed_low > 0 for pair in result.order)
    verdicts = [pair.verdict for pair in result.order]
    counts = ", ".join(f"{verdicts.count(v)} {COUNTED.get(v, v)}" for v in dict.fromkeys(verdicts))
    told = (
        f"Of the {len(result.order)} orders: {counts}. On the paper's own {TESTED} images, {own} of them "
        f"{'is' if own == 1 else 'are'} significant. The paper does not report which images were correct, so the "
        "images of two networks are treated as different."
    )
    return ["### The paper's order, and what is confirmed", "", *make_markdown_table(head, rows), "", told, ""]


def _write_pair(pair: OrderedPair) -> list[str]:
    here = "-" if pair.difference is None else _format_interval(pair.difference, pair.low or 0.0, pair.high or 0.0)
    return [
        f"{pair.higher.title} above {pair.lower.title}",
        _format_interval(pair.claimed, pair.claimed_low, pair.claimed_high),
        here,
        format_p(pair.p_corrected),
        VERDICTS.get(pair.verdict, pair.verdict),
    ]


def _format_interval(value: float, low: float, high: float) -> str:
    return f"{format_points(value)} [{format_points(low)}, {format_points(high)}]"


def _write_comparison(comparison: Comparison | str) -> list[str]:
    if isinstance(comparison, str):
        return [f"Not compared: {escape_sentence(comparison)}.", ""]
    sentences = (escape_sentence(write_sentence(row, comparison)) for row in comparison.rows)
    notes = (f"{escape_sentence(note)}." for note in comparison.notes)
    return [*write_table(comparison), "", *(f"- {told}" for told in (*sentences, *notes)), ""]


# ---------------------------------------------------------------------------- Table 3 and Fig. 7


def _write_groups(result: SettingResult) -> list[str]:
    if isinstance(result.groups, str):
        return [f"Left out: {escape(result.groups)}."]
    networks = list(dict.fromkeys(one.network for one in result.groups))
    found: dict[tuple[str, str], dict[str, GroupAccuracy]] = {}
    for one in result.groups:
        for group in one.groups:
            found.setdefault((one.column, group.name), {})[one.network] = group
    head = ["group", "images", "people", *(f"{TITLES[name]}, %" for name in networks), "the paper's FFEM-AM, %"]
    rows = []
    for (column, name), by_network in found.items():
        largest = max(by_network.values(), key=lambda group: group.images)
        few = "" if largest.enough else " (too few to tell)"
        rates = (_write_rate(by_network.get(network)) for network in networks)
        published = GROUP_ACCURACIES.get((column, name))
        paper = "-" if published is None else f"{100 * published:.1f}"
        title = GROUP_NAMES.get((column, name), f"{column}: {name}")
        rows.append([escape(title) + few, str(largest.images), str(largest.people), *rates, paper])
    gaps = [one for one in result.groups if one.network != SUBJECT and one.p_corrected is not None]
    chance = sum((one.p_corrected or 0.0) < 0.05 for one in gaps)
    lines = [*make_markdown_table(head, rows), "", *_write_gaps(result.groups)]
    if gaps:
        verb = "is" if chance == 1 else "are"
        lines.append(f"- Of {_count(len(gaps), 'gap')} of the other networks, {chance} {verb} significant.")
    note = (
        "The intervals resample people, each with the same number of images. The paper does not give the size of its "
        "groups, so its numbers have none."
    )
    if any(column == "eyeglasses_probability" for column, _ in found):
        note += " Glasses are estimated by a model: with above 0.5, without at 0.1 or less."
    return [*lines, "", note]


def _write_rate(group: GroupAccuracy | None) -> str:
    if group is None:
        return "-"
    return f"{100 * group.accuracy:.1f} [{100 * group.low:.1f}, {100 * group.high:.1f}]"


def _write_gaps(groups: Sequence[NetworkGroups]) -> list[str]:
    own = [dataclasses.replace(one, network=TITLES[SUBJECT]) for one in groups if one.network == SUBJECT]
    return [f"- {escape(write_gap(one))}" for one in own]


def _write_curves(result: SettingResult, figure: str) -> list[str]:
    if not figure:
        return ["No finished trial kept its losses."]
    lines = [f"![Loss and validation accuracy per epoch]({figure}.svg)", ""]
    lines += [f"Mean and standard deviation over seeds and folds; validation is on {result.validation}."]
    changes = [
        f"{format_points(c.validation[-1] - c.validation[FLAT_AFTER - 1])} ({c.network.title})"
        for c in result.curves
        if len(c.validation) > FLAT_AFTER
    ]
    if changes:
        last = max(len(c.validation) for c in result.curves)
        lines += [
            f"The paper's curves are flat after epoch {FLAT_AFTER}. Here the mean accuracy changed by these points "
            f"from there to epoch {last}: {', '.join(changes)}."
        ]
    return lines


# ------------------------------------------------------------------------------------ reading


def _describe_reading(result: PaperResult) -> list[str]:
    compared = [one.networks for one in result.settings if isinstance(one.networks, Comparison)]
    lines = [
        "## How to read it",
        "",
        "Accuracy is closed-set accuracy of the classifier, as the mean over all tests. Its interval resamples images "
        "and seeds if there are several seeds, and is Wilson's by image otherwise. Sizes are those of the deployed "
        "model: BatchNorm folded, classifier dropped, topology file included. The frontier is accuracy against these "
        "bytes, over the networks of this page only. Recipes are never pooled, and each table's p is corrected over "
        "its own rows; the p of the order is that of network against network.",
    ]
    return [*lines, "", *describe_method(compared[0])] if compared else lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
