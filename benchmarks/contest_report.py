"""What a contest of speed came to: tables in Markdown and a figure, drawn from its records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.contest import BUSY_CORES
from ffem_jax.figures.canvas import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.contest import Contest

Record = dict[str, Any]

NETWORK_NAMES = {"ffem_am": "FFEM-AM", "ffem": "FFEM", "ffem_se": "FFEM-SE", "mobilenetv2": "MobileNetV2"}
# Okabe and Ito's colours, which the colour-blind tell apart; a shape each besides.
STYLES = {
    "torch": {"color": "#0072B2", "marker": "o"},
    "torch_compile": {"color": "#D55E00", "marker": "s"},
    "keras": {"color": "#009E73", "marker": "^"},
    "onnx": {"color": "#CC79A7", "marker": "D"},
}


def compute_speeds(record: Record, name: str) -> list[float]:
    """Images per second of each round; empty where the contestant took no part."""
    turns = record["contestants"].get(name, {}).get("turns", [])
    return [images / seconds for images, seconds in turns]


def compute_ratios(record: Record, peer: str) -> list[float]:
    """Our images per second over the peer's, round by round."""
    theirs = compute_speeds(record, peer)
    return [a / b for a, b in zip(compute_speeds(record, "ours"), theirs, strict=True)] if theirs else []


def write_report(contest: Contest, records: list[Record], folder: Path) -> str:
    """Write <name>.md and <name>.png into `folder`, and return what the first says in brief."""
    labels = {entry.name: entry.label for entry in contest.contestants}
    taking_part = [name for name in labels if any(compute_speeds(record, name) for record in records)]
    labels = {name: labels[name] for name in taking_part}
    peers = {name: label for name, label in labels.items() if name != "ours"}
    brief = "\n".join(_describe_peer(records, name, label) for name, label in peers.items())
    parts = [
        f"# Speed of {contest.work}: ffem_jax against other libraries",
        f"```\n{_write_command(contest, records)}\n```",
        "\n".join(f"- {line}" for line in _describe_machines(records)),
        brief,
        f"![Our speed over each library's]({contest.name}.png)" if peers else "",
        contest.notes + " Each contestant runs in a process of its own, warmed up, and all run in turn while the "
        f"others sleep: {_join(records, 'rounds')} rounds of about {_join(records, 'seconds')} s each. Ratios are "
        "taken round by round. Every value is the median over the rounds, with the lowest and the highest in brackets.",
        _describe_busy(records),
        _describe_difference(records, contest.tolerance),
        "## Images per second",
        _table(records, labels, lambda record, name: _write_range(compute_speeds(record, name))),
        "## Our speed over theirs",
        "Above 1, ffem_jax is faster.",
        _table(records, peers, lambda record, name: _write_range(compute_ratios(record, name))),
        f"## Milliseconds a {contest.step}",
        _table(records, labels, lambda record, name: _write_range(_compute_milliseconds(record, name))),
        f"## Seconds to the first {contest.step}",
        f"From the libraries imported to the end of the first {contest.step}: making the network, compiling it, and "
        f"one {contest.step}. Where a library keeps compiled programs on disk: cold / from its cache.",
        _table(records, labels, _write_start),
        "## Peak resident memory, MB",
        "Of the whole process / beyond what it had with its libraries imported. Where a library keeps compiled "
        "programs on disk, of the process that compiled; then of the one that found them there.",
        _table(records, labels, _write_memory),
        "\n".join(_describe_failures(records)),
    ]
    (folder / f"{contest.name}.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    if peers:
        plot_ratios(contest, records, peers, folder / f"{contest.name}.png")
    return brief


# ------------------------------------------------------------------- words


def _write_command(contest: Contest, records: list[Record]) -> str:
    """The command that makes these records on another machine."""
    options: dict[str, Iterable[object]] = {
        "networks": dict.fromkeys(record["network"] for record in records),
        "resolutions": dict.fromkeys(record["resolution"] for record in records),
        "batches": dict.fromkeys(record["batch"] for record in records),
        # Cells measured at other times may have had fewer; the most measures all at least as well.
        "rounds": [max(record["rounds"] for record in records)],
        "seconds": [f"{max(record['seconds'] for record in records):g}"],
    }
    words = " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in options.items())
    return f"python -m benchmarks.{contest.name} {words}"


def _join(records: list[Record], key: str) -> str:
    return " or ".join(dict.fromkeys(f"{record[key]:g}" for record in records))


def _describe_machines(records: list[Record]) -> list[str]:
    """Processor and versions, a line for each combination in the records."""
    lines: dict[str, list[str]] = {}
    for record in records:
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines.setdefault(f"{record['processor']}, {record['cores']} cores; {versions}", []).append(record["date"])
    return [f"{line}; {' to '.join(sorted({min(dates), max(dates)}))}" for line, dates in lines.items()]


def _describe_peer(records: list[Record], name: str, label: str) -> str:
    """One line: how our speed stands to this peer's over all cells."""
    cells = [ratios for record in records if (ratios := compute_ratios(record, name))]
    medians = [median(ratios) for ratios in cells]
    faster, slower = sum(min(ratios) > 1 for ratios in cells), sum(max(ratios) < 1 for ratios in cells)
    return (
        f"- Against {label}: {geometric_mean(medians):.2f} times its speed (geometric mean of {len(cells)} cells, "
        f"{min(medians):.2f} to {max(medians):.2f}); in every round faster in {faster} cells, slower in {slower}."
    )


def _describe_difference(records: list[Record], tolerance: float) -> str:
    differences = [record["difference"] for record in records if record["difference"] is not None]
    if not differences:
        return ""
    return (
        f"Before each cell all give the same embeddings: the largest difference, relative to the largest value, is "
        f"{max(differences):.0e} (allowed: {tolerance:.0e})."
    )


def _describe_busy(records: list[Record]) -> str:
    busy = max(record["busy_cores"] for record in records)
    judged = "" if busy <= BUSY_CORES else " **That is too much: these numbers are no benchmark.**"
    return f"While all contestants slept, other work took at most {busy:.2f} cores.{judged}"


def _describe_failures(records: list[Record]) -> list[str]:
    failures: dict[str, list[str]] = {}
    for record in records:
        for result in record["contestants"].values():
            if "failed" in result:
                failures.setdefault(f"{result['label']}: {result['failed']}", []).append(_write_place(record))
    return [f"Left out: {failure} ({'; '.join(places)})" for failure, places in failures.items()]


# ------------------------------------------------------------------- tables


def _write_place(record: Record) -> str:
    name = NETWORK_NAMES.get(record["network"], record["network"])
    return f"{name}, {record['resolution']} pixels, batch {record['batch']}"


def _table(records: list[Record], labels: dict[str, str], write: Callable[[Record, str], str]) -> str:
    """A row a cell, a column a contestant."""
    rows = [["network", "pixels", "batch", *labels.values()], ["---"] + ["---:"] * (2 + len(labels))]
    for record in records:
        name = NETWORK_NAMES.get(record["network"], record["network"])
        cells = [write(record, contestant) for contestant in labels]
        rows.append([name, str(record["resolution"]), str(record["batch"]), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _write_number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _write_range(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{_write_number(median(values))} [{_write_number(min(values))}, {_write_number(max(values))}]"


def _compute_milliseconds(record: Record, name: str) -> list[float]:
    return [1000 * record["batch"] / speed for speed in compute_speeds(record, name)]


def _write_start(record: Record, name: str) -> str:
    result = record["contestants"].get(name, {})
    if "turns" not in result:
        return "-"
    times = [result["first_seconds"], *([result["cached_first_seconds"]] if "cached_first_seconds" in result else [])]
    return " / ".join(f"{seconds:.1f}" for seconds in times)


def _write_memory(record: Record, name: str) -> str:
    result = record["contestants"].get(name, {})
    if "turns" not in result:
        return "-"
    peaks = [result[key] for key in ("peak_bytes", "cached_peak_bytes") if key in result]
    return "; ".join(f"{peak / 1e6:,.0f} / {(peak - result['imported_bytes']) / 1e6:,.0f}" for peak in peaks)


# ------------------------------------------------------------------- figure


def plot_ratios(contest: Contest, records: list[Record], peers: dict[str, str], path: Path) -> None:
    """Our speed over each peer's, median and range, one panel a network, to `path`."""
    import matplotlib
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(record["network"] for record in records))
    places = sorted({(record["resolution"], record["batch"]) for record in records})
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(max(7.6, 1.2 + len(networks) * (0.4 + 0.38 * len(places))), 4.2), dpi=160)
        panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for network, axes in zip(networks, panels, strict=True):
            chosen = {(r["resolution"], r["batch"]): r for r in records if r["network"] == network}
            _draw_panel(axes, chosen, places, peers)
            axes.set_title(NETWORK_NAMES.get(network, network), loc="left", fontsize=10)
        _scale(panels[0], [ratio for record in records for peer in peers for ratio in compute_ratios(record, peer)])
        panels[0].set_ylabel("above 1×, ffem_jax is faster")
        figure.suptitle(
            f"{contest.work.removeprefix('a ').capitalize()} on a CPU: ffem_jax's speed over each library's",
            x=0.012,
            ha="left",
            fontsize=11,
        )
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, names, loc="upper left", bbox_to_anchor=(0.005, 0.945), ncols=len(peers), frameon=False, fontsize=9
        )
        figure.supxlabel("pixels a side, and images a batch; bars: lowest to highest round", fontsize=9)
        figure.tight_layout(rect=(0, 0, 1, 0.93))
        figure.savefig(path, metadata={"Software": None})


def _draw_panel(
    axes: Axes, records: dict[tuple[int, int], Record], places: list[tuple[int, int]], peers: dict[str, str]
) -> None:
    axes.axhline(1, color="#404040", linewidth=0.9, zorder=1)
    for column in range(0, len(places), 2):
        axes.axvspan(column - 0.5, column + 0.5, color="#f4f4f4", zorder=0)
    for index, (peer, label) in enumerate(peers.items()):
        columns, middles, below, above = [], [], [], []
        for column, place in enumerate(places):
            ratios = compute_ratios(records[place], peer) if place in records else []
            if ratios:
                columns.append(column + 0.62 * ((index + 0.5) / len(peers) - 0.5))
                middles.append(median(ratios))
                below.append(median(ratios) - min(ratios))
                above.append(max(ratios) - median(ratios))
        axes.errorbar(
            columns, middles, (below, above), linestyle="none", markersize=5, linewidth=1.4, label=label, **STYLES[peer]
        )
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xticks(range(len(places)), [f"{resolution}\n×{batch}" for resolution, batch in places])
    axes.tick_params(axis="x", length=0)


def _scale(axes: Axes, ratios: list[float]) -> None:
    """A logarithmic axis around 1, marked at round ratios."""
    low, high = min(*ratios, 0.9) / 1.1, max(*ratios, 1.1) * 1.1
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    marks = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100]
    shown = [mark for mark in marks if low <= mark <= high]
    axes.set_yticks(shown, [f"{mark:g}×" for mark in shown])
    axes.set_yticks([], minor=True)
