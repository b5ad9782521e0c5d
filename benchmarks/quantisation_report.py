"""The page and the figure of benchmarks/quantisation.py, from its records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

Row = dict[str, Any]

PAGE, FIGURE = "quantisation.md", "quantisation.png"
# Format, dtype and whether it was fine-tuned for it.
Stored = tuple[str, str, bool]
REFERENCE: Stored = ("onnx", "float32", False)
# How each way of storing is called, and drawn: by marker, fill and colour (Okabe and Ito's).
NAMES = {
    ("onnx", "float32", False): ("float32", {"marker": "o", "color": "#404040", "fillstyle": "none"}),
    ("onnx", "float16", False): ("float16", {"marker": "D", "color": "#009E73", "fillstyle": "left"}),
    ("tfjs", "uint8", False): (
        "uint8, a scale a tensor (tfjs)",
        {"marker": "s", "color": "#0072B2", "fillstyle": "full"},
    ),
    ("onnx", "int8", False): ("int8, a scale a channel", {"marker": "^", "color": "#D55E00", "fillstyle": "bottom"}),
    ("onnx", "int8", True): ("int8, fine-tuned", {"marker": "P", "color": "#E69F00", "fillstyle": "full"}),
    ("onnx", "int8_activations_full_range", False): (
        "int8, maps too, full range",
        {"marker": "v", "color": "#CC79A7", "fillstyle": "none"},
    ),
    ("onnx", "int8_activations", False): ("int8, maps too", {"marker": "v", "color": "#CC79A7", "fillstyle": "full"}),
}
UNKNOWN = "not recorded"
HEAD = """\
# Accuracy in fewer bits

`python -m benchmarks.quantisation --report-only` writes this page and its figure again from records.jsonl; README.md
says what they mean. Each file was run on the test images of its own trial. Changes are in points of accuracy against
the same trained network in float32: it moves by whole images, {image:.2f} points each where {tested} are tested.

`int8, maps too` is what `ffem export --dtype int8_activations` writes. `full range` is what it wrote before: the same
with weights up to 127, which x86-64 without VNNI multiplies wrongly. The processor is the one that ran the files.
"""


def write_report(rows: Sequence[Row], folder: Path) -> None:
    """Write the page and the figure into `folder`; nothing where there are no rows."""
    if not rows:
        return
    groups = group_rows(rows)
    tested = min(row["tested"] for row in rows)
    parts = [HEAD.format(image=100 / tested, tested=tested), f"![Accuracy against bytes]({FIGURE})\n"]
    own = {title: [row for row in members if not row.get("emulated")] for title, members in groups.items()}
    for title, members in own.items():
        parts += [f"## {title}\n", *write_summary(members), "", *write_networks(members), ""]
        if any(row.get("emulated") for row in groups[title]):
            parts += ["Maps of 8 bits on other processors, the same trials and images:\n"]
            parts += [*write_processors(groups[title]), ""]
    runtimes = sorted({row["runtime"] for row in rows})
    parts.append(f"Run by {'; '.join(runtimes)}.")
    (folder / PAGE).write_text("\n".join(parts) + "\n")
    plot(own, folder / FIGURE)


def group_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that may share a table, by a title that says what they share."""
    groups = defaultdict(list)
    for row in rows:
        drawn = ", synthetic faces" if row["synthetic"] else ""
        # Rows of before epochs were recorded are of the recipe's own number.
        epochs = f", {row['epochs']} epochs" if row.get("epochs") else ""
        title = f"{row['data']}, {row['resolution']} pixels, {row['protocol']}, recipe {row['recipe']}{epochs}{drawn}"
        groups[title].append(row)
    return dict(groups)


def get_stored(row: Row) -> Stored:
    """How the row's file was stored."""
    return row["format"], row["dtype"], bool(row.get("finetune_epochs"))


def pair_rows(rows: Sequence[Row], stored: Stored) -> list[tuple[Row, Row]]:
    """Each trial's row in float32 beside its row in `stored`."""
    references = {row["trial_key"]: row for row in rows if get_stored(row) == REFERENCE}
    return [(references[row["trial_key"]], row) for row in rows if get_stored(row) == stored]


def compute_change(pairs: Sequence[tuple[Row, Row]]) -> tuple[float, float | None]:
    """Mean change over trials and its standard error, in points; no error of a single trial."""
    changes = [100 * (row["accuracy"] - reference["accuracy"]) for reference, row in pairs]
    return fmean(changes), stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else None


def write_summary(rows: Sequence[Row]) -> list[str]:
    """A row for each way of storing, over all trials of a group."""
    lines = [
        "| stored as | bytes, share of float32 | change, points ± standard error | worst, best | images lost, gained "
        "| cosine, mean and lowest | trials | processor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stored, (name, _) in NAMES.items():
        pairs = pair_rows(rows, stored)
        if pairs:
            share = fmean(row["bytes"] / reference["bytes"] for reference, row in pairs)
            lines.append(f"| {name} | {share:.3f} | {describe_answers(pairs, stored == REFERENCE)} |")
    return lines


def describe_answers(pairs: Sequence[tuple[Row, Row]], of_reference: bool = False) -> str:
    """The cells of a row of a table that say how accurate the rows are beside their references, and what ran them."""
    mean_cosine, lowest = fmean(r["cosine_mean"] for _, r in pairs), min(r["cosine_lowest"] for _, r in pairs)
    mean, error = compute_change(pairs)
    changes = [100 * (row["accuracy"] - reference["accuracy"]) for reference, row in pairs]
    around = "" if error is None else f" ± {error:.2f}"
    lost, gained = (sum(row[name] for _, row in pairs) for name in ("lost", "gained"))
    change = " | " if of_reference else f"{mean:+.2f}{around} | {min(changes):+.2f}, {max(changes):+.2f}"
    processors = sorted({row.get("processor") or UNKNOWN for _, row in pairs})
    return (
        f"{change} | {lost}, {gained} of {sum(r['tested'] for _, r in pairs)} "
        f"| {mean_cosine:.5f}, {lowest:.4f} | {len(pairs)} | {'; '.join(processors)}"
    )


def write_processors(rows: Sequence[Row]) -> list[str]:
    """A row for each way of storing and processor, of the trials that were run on every processor."""
    runs: dict[tuple[Stored, str], list[tuple[Row, Row]]] = defaultdict(list)
    emulated = {get_stored(row) for row in rows if row.get("emulated")}
    for stored in NAMES:
        for reference, row in pair_rows(rows, stored) if stored in emulated else []:
            runs[stored, row["processor"]].append((reference, row))
    everywhere = set.intersection(*({row["trial_key"] for _, row in pairs} for pairs in runs.values()))
    lines = [
        "| stored as | change, points ± standard error | worst, best | images lost, gained | cosine, mean and lowest "
        "| trials | processor |",
        "|---|---|---|---|---|---|---|",
    ]
    for (stored, _), pairs in runs.items():
        shared = [pair for pair in pairs if pair[1]["trial_key"] in everywhere]
        if shared:
            lines.append(f"| {NAMES[stored][0]} | {describe_answers(shared)} |")
    return lines


def write_networks(rows: Sequence[Row]) -> list[str]:
    """A row for each network: its accuracy in float32, then the change and the MB of each way of storing."""
    columns = [stored for stored in NAMES if stored != REFERENCE and pair_rows(rows, stored)]
    lines = [
        f"| network | trials | float32: accuracy, MB | {' | '.join(f'{NAMES[c][0]}: change, MB' for c in columns)} |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        references = [row for row, _ in pair_rows(own, REFERENCE)]
        cells = [f"{100 * fmean(row['accuracy'] for row in references):.1f} %, {_get_megabytes(references):.2f}"]
        for stored in columns:
            pairs = pair_rows(own, stored)
            megabytes = f", {_get_megabytes([row for _, row in pairs]):.2f}" if pairs else ""
            cells.append(f"{compute_change(pairs)[0]:+.2f}{megabytes}" if pairs else "not measured")
        lines.append(f"| {network} | {len(references)} | {' | '.join(cells)} |")
    return lines


def _get_megabytes(rows: Sequence[Row]) -> float:
    return fmean(row["bytes"] for row in rows) / 1e6


def find_frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (bytes, accuracy) those that no smaller or equal one beats, by size."""
    best: list[tuple[float, float]] = []
    for size, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((size, accuracy))
    return best


def plot(groups: dict[str, list[Row]], path: Path) -> None:
    """Accuracy against bytes: a panel a group, a mark a network (its trials' mean), a frontier a way of storing."""
    from matplotlib import rc_context, style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter, ScalarFormatter

    settings = {"font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(), style.context(["default", settings]):
        figure = Figure(figsize=(7.2, 0.9 + 3.6 * len(groups)), layout="constrained")
        FigureCanvasAgg(figure)
        every = figure.subplots(len(groups), squeeze=False)[:, 0]
        for axes, (title, rows) in zip(every, groups.items(), strict=True):
            for stored, (name, look) in NAMES.items():
                networks = defaultdict(list)
                for _, row in pair_rows(rows, stored):
                    networks[row["network"]].append(row)
                # Of some of its trials alone a network's mean would say more about these trials than about the bits.
                trials = defaultdict(int)
                for row in rows:
                    trials[row["network"]] += get_stored(row) == REFERENCE
                networks = {network: own for network, own in networks.items() if len(own) == trials[network]}
                if not networks:
                    continue
                points = [(_get_megabytes(own), fmean(r["accuracy"] for r in own)) for own in networks.values()]
                frontier = find_frontier(points)
                axes.step(*zip(*frontier, strict=True), where="post", color=look["color"], linewidth=1.1)
                marks = {"linestyle": "none", "markersize": 6.5, "markerfacecoloralt": "white"}
                axes.plot(*zip(*points, strict=True), **look, **marks, label=name)
            axes.set_xscale("log")
            axes.set_xticks([t for t in (0.25, 0.5, 1, 2, 3, 5, 8) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]])
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter("")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
            axes.set_xlabel("MB of the files (10⁶ bytes)")
            axes.set_ylabel("accuracy on held-out images")
            axes.set_title(title, loc="left", fontsize=9.5)
            axes.grid(color="#e4e4e4", linewidth=0.5)
        marks = {name: mark for axes in every for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=160)
