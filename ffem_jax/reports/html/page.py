"""`ffem report`: records to one HTML file. Jinja and vl-convert (the extra `report`) are imported on demand."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from ffem_jax import __version__
from ffem_jax.analysis.comparability import FrontierError, choose_faces, select_comparable
from ffem_jax.analysis.independence import describe_exclusions
from ffem_jax.analysis.labels import describe_data
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary
from ffem_jax.errors import FfemError, describe_install
from ffem_jax.records.costs import BYTES_PER_MB, COST_AXES
from ffem_jax.records.measures import MEASURES, compute_chance, find_measure
from ffem_jax.records.record import TrialRecord, latest_records
from ffem_jax.reports.frontier import ask_question
from ffem_jax.reports.html.effects import compare_factors, describe_levels, follow_hypervolume
from ffem_jax.reports.html.networks import (
    TRIAL_COLUMNS,
    Words,
    describe_curves,
    describe_networks,
    describe_trials,
    list_factors,
    name_factors,
)
from ffem_jax.reports.html.partition import split_comparable
from ffem_jax.reports.html.provenance import describe_provenance
from ffem_jax.reports.table import format_accuracy
from ffem_jax.reports.wording import explain_measure, judge_frontier
from ffem_jax.text.display import quote_code, split_code, write_text

SCRIPTS = ("data.js", "charts.js", "sections.js", "table.js", "main.js")


class ReportError(FfemError):
    """The page cannot be made. The message is one line and says what to do."""


def write_report(
    records: Sequence[TrialRecord],
    path: Path,
    *,
    title: str = "",
    question: str = "",
    cap_mb: float | None = None,
    precision: str | None = None,
    metric: str = "accuracy",
    mixed: bool = False,
    left_out: Sequence[str] = (),
    planned: int = 0,
    faces: str = "",
    among: Sequence[TrialRecord] = (),
) -> list[str]:
    """Write the page of `records` to `path`, atomically.

    Args:
        question: the question of the sweep; empty for the most accurate network under the cap.
        cap_mb, precision: the cap in MB of 10**6 bytes, and the precision it applies to; None for the recorded one.
        metric: one of `records.measures.MEASURES`.
        mixed: put records of several data sets or protocols on separate parts of the page, each with its own axes.
        left_out: notes on records that are not on the page.
        planned: the number of trials of a sweep that is still running, else 0.
        faces: the fingerprint to use if the records have several versions of the faces; empty for the newest.
        among: all recorded trials, if `records` is a subset; it determines the network labels.

    Returns:
        A note for each omission from the records.

    Raises:
        ReportError: there are no records, they cannot share a page, or a package is missing.
        FrontierError: an option has an invalid value.
        OSError: `path` cannot be written.
    """
    if missing := [name for name in ("jinja2", "vl_convert") if importlib.util.find_spec(name) is None]:
        raise ReportError(f"the page needs {' and '.join(missing)}: {describe_install('report')}")
    records = latest_records(records)
    if not records:
        raise ReportError("there are no records; run `ffem sweep` or `ffem train` first")
    among = [*among, *records]
    notes: list[str] = []
    if not mixed:
        try:
            records, notes = select_comparable(records, faces=faces)
        except FrontierError as error:
            raise ReportError(
                f"{str(error).removesuffix('; use them separately')}; use them separately, or add --mixed"
            ) from None
    elif faces:
        records, notes = choose_faces(records, faces)
    groups = split_comparable(records) if mixed else [list(records)]
    asked, several = ask_question(records, cap_mb, precision, metric=metric)
    # Trials that share no axes may have different limits.
    questions = [ask_question(group, cap_mb, precision, metric=metric)[0] for group in groups]
    payload = {
        "groups": [_describe_group(*both, among) for both in zip(groups, questions, strict=True)],
        "costs": {name: dataclasses.asdict(axis) for name, axis in COST_AXES.items()},
        "columns": TRIAL_COLUMNS,
        "left_out": [*left_out, *notes],
        "version": __version__,
    }
    page = _render(payload, title=title, question=question, asked=asked, planned=planned)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A reader may open the page while a sweep writes it.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_text(unfinished, page)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return [*notes, *several]


def _describe_group(
    records: Sequence[TrialRecord], question: FrontierQuestion, among: Sequence[TrialRecord]
) -> dict[str, Any]:
    """Return everything that the page shows about records with shared axes, ready for JSON."""
    factors, words = list_factors(records), Words()
    networks, summaries = describe_networks(records, factors, words, question.metric, among)
    described = {
        "title": describe_data(records, (n.resolution for n in summaries), (n.tested for n in summaries)),
        "synthetic": any(record.synthetic or record.data == "synthetic" for record in records),
        "cap_mb": question.cap_mb,
        "precision": question.precision,
        "metric": question.metric,
        "measure": "verification" if question.pairs else question.metric,
        "measured": question.measure.noun,
        "interval": question.measure.interval,
        "measures": {name: _describe_measure(name, question, records) for name in MEASURES},
        "chance": next((s.chance for s in summaries if s.chance is not None), None),
        "answer": [*answer(summaries, question), *describe_exclusions([r for r in records if r.status == "done"])],
        "counts": dict(Counter(record.status for record in records)),
        "factors": name_factors(factors),
        "networks": networks,
        "trials": describe_trials(records, summaries, words),
        "curves": describe_curves(records),
        "validated": all(record.validated for record in records if record.validation_accuracy),
        "levels": describe_levels(networks, factors, question.metric),
        "comparisons": compare_factors(records, factors, question),
        "hypervolume": follow_hypervolume(records, summaries, question),
        "provenance": describe_provenance(records),
    }
    return described | {"words": list(words.texts)}


def _describe_measure(name: str, question: FrontierQuestion, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Describe a measure for the page; under View 2 and open_set, `accuracy` is not a classifier's."""
    measure = find_measure(name, question.protocol)
    chance = next((c for r in records if r.status == "done" and (c := compute_chance(r, name)) is not None), None)
    words = {"title": measure.title, "word": measure.word, "axis": measure.axis, "best": measure.best}
    told = [f"Shown: {measure.noun}. {explain_measure(measure)}"]
    if chance is not None:
        told.append(f"A network that guesses scores {100 * chance:.1f} %: the chance level.")
    return words | {"told": " ".join(told), "lower": measure.lower_is_better, "chance": chance}


def answer(networks: Sequence[NetworkSummary], question: FrontierQuestion) -> list[str]:
    """Return the answer in sentences, the main one first; it claims no more than the intervals allow."""
    marks = question.mark_frontier(networks)
    front = [network for network, marked in zip(networks, marks, strict=True) if marked]
    front.sort(key=question.get_cost)
    if front:
        judged = judge_frontier(networks, front, question)
        fitting = [network for network in networks if network.accuracy is not None and question.fits(network)]
        if len(fitting) > 1 or not fitting[0].above_chance:
            return judged
        (only,) = fitting
        size = question.get_bytes(only) / BYTES_PER_MB
        lead = f"{quote_code(only.label)} is the only trained network that fits"
        return [f"{lead}: {format_accuracy(only)} %, {size:.2f} MB.", *judged]
    status = Counter(network.status for network in networks)
    reasons = ", ".join(f"{status[name]} {text}" for name, text in _STATUS_TEXTS.items() if status[name])
    return [f"No trained network fits {question.cap_mb:g} MB at {question.precision} ({reasons})."]


_STATUS_TEXTS = {"done": "trained", "over_cap": "over the cap", "failed": "failed", "pruned": "stopped early"}


def _render(payload: dict[str, Any], **known: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ffem_jax.reports.html", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _mark_code
    template = resources.files("ffem_jax.reports.html") / "template"
    scripts = "\n".join((template / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return environment.get_template("page.html").render(
        **known,
        groups=payload["groups"],
        recorded=sum(len(group["trials"]) for group in payload["groups"]),
        left_out=payload["left_out"],
        version=payload["version"],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((template / "page.css").read_text(encoding="utf-8")),
        vega=Markup(_bundle_vega()),
        script=Markup(scripts),
        payload=Markup(quote_json(payload)),
    )


def _mark_code(text: str) -> Any:
    """Return escaped `text` with its quoted code in <code>."""
    from markupsafe import Markup, escape

    pieces = (Markup("<code>{}</code>").format(piece) if code else escape(piece) for piece, code in split_code(text))
    return Markup("").join(pieces)


def quote_json(value: Any) -> str:
    """Return JSON that is safe inside a <script>: no text in it can close the element or open another."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


@functools.cache
def _bundle_vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, bundled with vl-convert: nothing is downloaded."""
    import vl_convert

    library: Any = vl_convert  # its type stub requires an argument that is optional
    return library.javascript_bundle().replace("</script", "<\\/script")
