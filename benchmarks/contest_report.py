"""The page and the figure of a contest of speed, from its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import geometric_mean, median

from benchmarks import report
from benchmarks.contest import Contest
from benchmarks.harness import Row
from benchmarks.report import describe_versions, name_network, write_range


def compute_speeds(record: Row, name: str) -> list[float]:
    """Images per second of each round; empty where the contestant took no part."""
    turns = record["contestants"].get(name, {}).get("turns", [])
    return [images / seconds for images, seconds in turns]


def compute_ratios(record: Row, peer: str) -> list[float]:
    """Our images per second over the peer's, round by round."""
    theirs = compute_speeds(record, peer)
    return [a / b for a, b in zip(compute_speeds(record, "ours"), theirs, strict=True)] if theirs else []


def write_report(contest: Contest, records: Sequence[Row], folder: Path) -> str:
    """Write <name>.md and <name>.png into `folder`, and return what the first says in brief."""
    labels = {
        entry.name: entry.label
        for entry in contest.contestants
        if any(compute_speeds(record, entry.name) for record in records)
    }
    peers = {name: label for name, label in labels.items() if name != "ours"}
    brief = "\n".join(_describe_peer(records, name, label) for name, label in peers.items())
    busy = max(record["busy_cores"] for record in records)
    report.fill_page(
        folder / f"{contest.name}.md",
        "contest",
        **{name: getattr(contest, name) for name in ("work", "notes", "step")},
        command=_write_command(contest, records),
        machines="\n".join(f"- {line}" for line in _describe_machines(records)),
        brief=brief,
        figure=f"![Our speed over each library's]({contest.name}.png)" if peers else "",
        **{name: " or ".join(dict.fromkeys(f"{row[name]:g}" for row in records)) for name in ("rounds", "seconds")},
        busy=busy,
        judged=report.judge_busy(busy),
        difference=_describe_difference(records, contest.tolerance),
        speeds=_table(records, labels, lambda record, name: write_range(compute_speeds(record, name))),
        ratios=_table(records, peers, lambda record, name: write_range(compute_ratios(record, name))),
        milliseconds=_table(records, labels, _write_milliseconds),
        starts=_table(records, labels, _write_start),
        memory=_table(records, labels, _write_memory),
        failures="\n".join(_describe_failures(records)),
    )
    marks = []
    for name, label in peers.items():
        for record in sorted(records, key=lambda record: (record["resolution"], record["batch"])):
            if ratios := compute_ratios(record, name):
                row = f"{record['resolution']} x {record['batch']}"
                spread = (min(ratios), median(ratios), max(ratios))
                marks.append(report.Mark(name_network(record), row, label, *spread))
    if marks:
        title = f"{contest.work.removeprefix('a ').capitalize()} on a CPU: ffem_jax's speed over each library's"
        axis = "above 1, ffem_jax is faster; rows: pixels per side x images per batch; bars: lowest to highest round"
        report.draw_marks(folder / f"{contest.name}.png", marks, title, axis, one=True)
    return brief


def _write_command(contest: Contest, records: Sequence[Row]) -> str:
    """The command that makes these records on another machine."""
    fields = (("networks", "network"), ("resolutions", "resolution"), ("batches", "batch"))
    lists = [f"--{name} {' '.join(dict.fromkeys(str(row[field]) for row in records))}" for name, field in fields]
    # Cells measured at other times may have had fewer; the most measures all at least as well.
    most = [f"--{name} {max(row[name] for row in records):g}" for name in ("rounds", "seconds")]
    return " ".join([f"python -m benchmarks.{contest.name}", *lists, *most])


def _describe_machines(records: Sequence[Row]) -> list[str]:
    """Processor and versions, a line for each combination in the records."""
    lines: dict[str, list[str]] = {}
    for row in records:
        line = f"{row['processor']}, {row['cores']} cores; {describe_versions(row)}"
        lines.setdefault(line, []).append(row["date"])
    return [f"{line}; {' to '.join(sorted({min(dates), max(dates)}))}" for line, dates in lines.items()]


def _describe_peer(records: Sequence[Row], name: str, label: str) -> str:
    """One line: how our speed stands to this peer's over all cells."""
    cells = [ratios for record in records if (ratios := compute_ratios(record, name))]
    medians = [median(ratios) for ratios in cells]
    faster, slower = sum(min(ratios) > 1 for ratios in cells), sum(max(ratios) < 1 for ratios in cells)
    return (
        f"- Against {label}: {geometric_mean(medians):.2f} times its speed (geometric mean of {len(cells)} cells, "
        f"{min(medians):.2f} to {max(medians):.2f}); in every round faster in {faster} cells, slower in {slower}."
    )


def _describe_difference(records: Sequence[Row], tolerance: float) -> str:
    differences = [record["difference"] for record in records if record["difference"] is not None]
    if not differences:
        return ""
    return (
        f"Before each cell all give the same embeddings: the largest difference, relative to the largest value, is "
        f"{max(differences):.0e} (allowed: {tolerance:.0e})."
    )


def _describe_failures(records: Sequence[Row]) -> list[str]:
    failures: dict[str, list[str]] = {}
    for record in records:
        for result in record["contestants"].values():
            if "failed" in result:
                place = f"{name_network(record)}, {record['resolution']} pixels, batch {record['batch']}"
                failures.setdefault(f"{result['label']}: {result['failed']}", []).append(place)
    return [f"Left out: {failure} ({'; '.join(places)})" for failure, places in failures.items()]


def _table(records: Sequence[Row], labels: dict[str, str], write: Callable[[Row, str], str]) -> str:
    """A row per cell, a column per contestant."""
    columns: dict[str, Callable[[Row], object]] = {
        **{"network": name_network, "pixels": itemgetter("resolution"), "batch": itemgetter("batch")},
        **{label: lambda row, name=name: write(row, name) for name, label in labels.items()},
    }
    return report.tabulate(records, columns, spaced=True)


def _write_milliseconds(record: Row, name: str) -> str:
    return write_range([1000 * record["batch"] / speed for speed in compute_speeds(record, name)])


def _find_values(record: Row, name: str, field: str) -> list[float]:
    """A contestant's `field`, of the process that compiled and of the one that found its programs, where it raced."""
    result = record["contestants"].get(name, {})
    return [result[key] for key in (field, f"cached_{field}") if key in result and "turns" in result]


def _write_start(record: Row, name: str) -> str:
    return " / ".join(f"{seconds:.1f}" for seconds in _find_values(record, name, "first_seconds")) or "-"


def _write_memory(record: Row, name: str) -> str:
    imported = sum(_find_values(record, name, "imported_bytes"))
    peaks = _find_values(record, name, "peak_bytes")
    return "; ".join(f"{peak / 1e6:,.0f} / {(peak - imported) / 1e6:,.0f}" for peak in peaks) or "-"
