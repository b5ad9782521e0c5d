"""`ffem frontier`: from records to figures, a table, JSON and a short report that does not rank within noise."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ffem_jax.analysis.agreement import OrderAgreement, measure_agreement
from ffem_jax.analysis.cap import choose_cap
from ffem_jax.analysis.comparability import FrontierError, select_comparable
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.analysis.independence import describe_exclusions
from ffem_jax.analysis.labels import describe_data
from ffem_jax.analysis.question import FrontierQuestion
from ffem_jax.analysis.summary import NetworkSummary, summarize_records
from ffem_jax.figures.frontier import plot_frontier
from ffem_jax.figures.paper_figure import plot_column
from ffem_jax.records.costs import BYTES_PER_MB
from ffem_jax.records.record import TrialRecord
from ffem_jax.reports.table import print_table, render_table
from ffem_jax.reports.wording import describe_agreement, write_reading
from ffem_jax.text.tables import Table


@dataclass(frozen=True)
class FrontierResult:
    """The result of `compute_frontier`, and the files that `write_frontier` wrote.

    Args:
        networks: every network of the records, by cost.
        on_frontier: for each network, whether it is on the frontier.
        title: data, resolution, protocol and number of test images.
        hypervolume: the share, in 0 to 1, of the rectangle of cap and perfect accuracy that the frontier dominates,
            against bytes; None against another cost.
        latency: how milliseconds were measured, if they are the cost.
        agreement: how reliably the records rank networks.
        notes: a line for each omission from the records.
        warnings: a line for each caveat that omits nothing.
        exclusions: a sentence for each thing that the trainings share, which the intervals exclude.
    """

    question: FrontierQuestion
    networks: tuple[NetworkSummary, ...]
    on_frontier: tuple[bool, ...]
    title: str
    synthetic: bool
    devices: dict[str, int]
    hypervolume: float | None
    latency: str = ""
    agreement: OrderAgreement = field(default_factory=OrderAgreement)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exclusions: tuple[str, ...] = ()
    files: tuple[Path, ...] = field(default=())

    @property
    def table(self) -> Table:
        """The networks as a table; `print_table` also formats it well without a terminal."""
        return render_table(self.networks, self.on_frontier, self.question, self.title)

    def print_table(self, file: TextIO | None = None) -> None:
        """Write the table: coloured to a terminal, else plain and at full width."""
        print_table(self.table, sys.stdout if file is None else file)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as nested dicts and lists, ready for JSON; files by name, without their folder."""
        networks = [
            {**dataclasses.asdict(network), "fits_cap": self.question.fits(network), "on_frontier": marked}
            for network, marked in zip(self.networks, self.on_frontier, strict=True)
        ]
        status = Counter(network.status for network in self.networks)
        return {
            **dataclasses.asdict(self.question),
            "title": self.title,
            "synthetic": self.synthetic,
            "devices": self.devices,
            "trained": status["done"],
            "pruned": status["pruned"],
            "over_cap": status["over_cap"],
            "failed": status["failed"],
            "pruned_trials": sum(network.pruned_trials for network in self.networks),
            "failed_trials": sum(network.failed_trials for network in self.networks),
            "frontier": [n.label for n, marked in zip(self.networks, self.on_frontier, strict=True) if marked],
            "hypervolume": self.hypervolume,
            "agreement": self.agreement.to_dict(),
            "notes": list(self.notes),
            "exclusions": list(self.exclusions),
            "networks": json.loads(json.dumps(networks)),
            "files": [path.name for path in self.files],
        }


def compute_frontier(
    records: Sequence[TrialRecord],
    *,
    cap_mb: float | None = None,
    precision: str | None = None,
    against: str = "bytes",
    metric: str = "accuracy",
    faces: str = "",
    among: Sequence[TrialRecord] = (),
) -> FrontierResult:
    """Summarise `records` and find the frontier, without writing files.

    Args:
        cap_mb, precision: the size limit in MB of 10**6 bytes, and the precision (float32, float16, int8) that it
            applies to. None takes the recorded value, else 10 MB and float32.
        against: an axis of `records.costs.COST_AXES`; `ffem latency` measures latencies.
        metric: one of `records.measures.MEASURES`.
        faces: the fingerprint to use if the records have several versions of the faces; empty for the newest.
        among: all recorded trials, if `records` is a subset; it determines the network labels.

    Raises:
        FrontierError: a value is not one of its choices, the records cannot share an axis, or nothing was trained.
    """
    among = [*among, *records]
    records, notes = select_comparable(records, faces=faces)
    question, several = ask_question(records, cap_mb, precision, against, metric)
    networks = sorted(summarize_records(records, metric, among), key=_by_cost(question))
    _check_trained(networks, metric)
    return FrontierResult(
        question=question,
        networks=tuple(networks),
        on_frontier=tuple(question.mark_frontier(networks)),
        title=describe_data(records, (n.resolution for n in networks), (n.tested for n in networks)),
        synthetic=any(record.synthetic or record.data == "synthetic" for record in records),
        devices=dict(Counter(record.device for record in records if record.status == "done" and record.device)),
        hypervolume=_compute_share(networks, question),
        latency=_describe_latency(records) if question.axis.measured_by else "",
        agreement=measure_agreement(records, metric),
        notes=tuple(notes),
        warnings=tuple(several),
        exclusions=tuple(describe_exclusions([record for record in records if record.status == "done"])),
    )


def ask_question(
    records: Sequence[TrialRecord],
    cap_mb: float | None = None,
    precision: str | None = None,
    against: str = "bytes",
    metric: str = "accuracy",
) -> tuple[FrontierQuestion, list[str]]:
    """Return the question of `compute_frontier`, and a note if the records have several limits and none is given.

    Raises:
        FrontierError: a value is not one of its choices.
    """
    cap, notes = choose_cap(records, cap_mb, precision)
    pairs = any(record.view.tests_pairs for record in records)
    protocol = records[0].view.protocol.name if records else ""
    return FrontierQuestion(*cap, against, metric, pairs, protocol), notes


def write_frontier(
    records: Sequence[TrialRecord],
    out: Path,
    *,
    cap_mb: float | None = None,
    precision: str | None = None,
    against: str = "bytes",
    metric: str = "accuracy",
    style: str = "screen",
    faces: str = "",
) -> FrontierResult:
    """Compute the frontier of `records` with `compute_frontier` and write it to the folder `out`.

    Writes frontier.png and .svg (against the requested cost), frontier_params.png and .svg (against parameters, unless
    they are the cost), frontier.json and frontier.md.

    Args:
        style: `paper` also writes frontier_paper.svg and .pdf, one column wide.

    Raises:
        FrontierError: see `compute_frontier`.
        OSError: `out` cannot be written.
    """
    found = compute_frontier(records, cap_mb=cap_mb, precision=precision, against=against, metric=metric, faces=faces)
    return write_result(found, out, style)


def write_result(found: FrontierResult, out: Path, style: str = "screen") -> FrontierResult:
    """Write `found` to the folder `out` like `write_frontier`, and return it with its files."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    question, networks = found.question, found.networks
    known: dict[str, Any] = {"title": found.title, "synthetic": found.synthetic}
    files = plot_frontier(networks, out / "frontier", question, **known)
    if question.against != "params":
        by_params = dataclasses.replace(question, against="params")
        files += plot_frontier(networks, out / "frontier_params", by_params, **known)
    if style == "paper":
        files += plot_column(networks, out / "frontier_paper", question, synthetic=found.synthetic)
    files += [out / "frontier.json", out / "frontier.md"]
    result = dataclasses.replace(found, files=tuple(files))
    (out / "frontier.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    reading = write_reading(
        networks,
        found.on_frontier,
        question,
        found.title,
        synthetic=found.synthetic,
        devices=found.devices,
        latency=found.latency,
        agreement=describe_agreement(found.agreement),
        notes=found.notes,
        exclusions=found.exclusions,
    )
    (out / "frontier.md").write_text(reading, encoding="utf-8")
    return result


def _by_cost(question: FrontierQuestion) -> Any:
    def key(summary: NetworkSummary) -> tuple[bool, float, str]:
        cost = question.get_cost(summary)
        unknown = math.isnan(cost)
        return unknown, 0.0 if unknown else cost, summary.label

    return key


def _check_trained(networks: Sequence[NetworkSummary], metric: str) -> None:
    """Raise FrontierError if no network has an accuracy."""
    if any(network.accuracy is not None for network in networks):
        return
    if not networks:
        raise FrontierError("there are no records; run `ffem sweep` or `ffem train` first")
    status = Counter(network.status for network in networks)
    errors = [error for network in networks for error in network.errors]
    first = f"; the first error: {errors[0].splitlines()[0]}" if errors and errors[0] else ""
    if status["pruned"]:
        raise FrontierError(
            f"no network is trained to its end: {status['pruned']} pruned, {status['over_cap']} over the cap, "
            f"{status['failed']} failed{first}; the same command without run.stop_epoch continues the pruned ones"
        )
    raise FrontierError(
        f"no network has an {metric}: {status['over_cap']} over the cap, {status['failed']} failed{first}; "
        "fix the cause, or raise run.cap_mb, and sweep again"
    )


def _describe_latency(records: Sequence[TrialRecord]) -> str:
    """Return how the records' latencies were measured.

    Raises:
        FrontierError: there are none, or they are from several runtimes or processors, so that their milliseconds
            cannot share an axis.
    """
    measured = [r.latency_wasm for r in records if r.status == "done" and r.latency_ms_wasm is not None]
    if not measured:
        raise FrontierError("no record has latency_ms_wasm; `ffem latency RECORDS` measures it")
    settings = {f"{row.get('runtime', '?')} on {row.get('processor', '?')}" for row in measured}
    if len(settings) > 1:
        raise FrontierError(
            f"the records mix latencies of {'; '.join(sorted(settings))}; measure all in one go: "
            "`ffem latency RECORDS --again`"
        )
    busy = max(float(row.get("busy_cores", 0.0)) for row in measured)
    calls = min(int(row.get("calls", 0)) for row in measured)
    return f"Milliseconds: medians of at least {calls} calls, {settings.pop()}; other processes used {busy:.2f} cores."


def _compute_share(networks: Sequence[NetworkSummary], question: FrontierQuestion) -> float | None:
    if question.against != "bytes":
        return None
    cap = question.cap_mb * BYTES_PER_MB
    costs = [question.get_bytes(network) for network in networks]
    values = [math.nan if n.accuracy is None else question.measure.score(n.accuracy) for n in networks]
    return compute_hypervolume(costs, values, cap, 0.0) / cap
