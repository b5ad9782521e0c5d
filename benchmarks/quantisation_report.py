"""The page and the figure of `benchmarks.quantisation`, from its records alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from benchmarks import report
from benchmarks.harness import Row
from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.figures.canvas import SETTINGS, apply_look, make_figure

# Format, dtype and whether it was fine-tuned for it.
Stored = tuple[str, str, bool]
Pairs = Sequence[tuple[Row, Row]]
REFERENCE: Stored = ("onnx", "float32", False)
# How each way of storing is called, and drawn: by marker, fill and colour (Okabe and Ito's).
NAMES: dict[Stored, tuple[str, tuple[str, str, str]]] = {
    REFERENCE: ("float32", ("o", "none", "#404040")),
    ("onnx", "float16", False): ("float16", ("D", "left", "#009E73")),
    ("tfjs", "uint8", False): ("uint8, one scale per tensor (tfjs)", ("s", "full", "#0072B2")),
    ("onnx", "int8", False): ("int8, one scale per channel", ("^", "bottom", "#D55E00")),
    ("onnx", "int8", True): ("int8, fine-tuned", ("P", "full", "#E69F00")),
    ("onnx", "int8_activations_full_range", False): ("int8, maps too, full range", ("v", "none", "#CC79A7")),
    ("onnx", "int8_activations", False): ("int8, maps too", ("v", "full", "#CC79A7")),
}
UNKNOWN = "not recorded"
OTHERS = "Maps of 8 bits on other processors, the same trials and images:"
ANSWERS = [
    *("change, points ± standard error", "worst, best", "images lost, gained", "cosine, mean and lowest", "trials"),
    "processor",
]


def write_report(rows: Sequence[Row], folder: Path) -> None:
    """Write quantisation.md and quantisation.png into `folder`."""
    tested, parts, groups = min(row["tested"] for row in rows), [], {}
    for title, members in group_rows(rows).items():
        own = groups[title] = [row for row in members if not row.get("emulated")]
        parts += [f"## {title}", "\n".join(write_summary(own)), write_networks(own)]
        if len(own) < len(members):
            parts += [OTHERS, "\n".join(write_processors(members))]
    report.fill_page(
        folder / "quantisation.md",
        "quantisation",
        image=100 / tested,
        tested=tested,
        groups="\n\n".join(parts),
        runtimes="; ".join(sorted({row["runtime"] for row in rows})),
    )
    plot(groups, folder / "quantisation.png")


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


def compute_changes(pairs: Pairs) -> list[float]:
    """The change of each trial, in points."""
    return [100 * (row["accuracy"] - reference["accuracy"]) for reference, row in pairs]


def describe_answers(pairs: Pairs, of_reference: bool = False) -> list[str]:
    """The cells that say how accurate the rows are beside their references, and what ran them."""
    changes = compute_changes(pairs)
    error = f" ± {stdev(changes) / len(changes) ** 0.5:.2f}" if len(changes) > 1 else ""
    lost, gained, tested = (sum(row[name] for _, row in pairs) for name in ("lost", "gained", "tested"))
    cosines = f"{fmean(r['cosine_mean'] for _, r in pairs):.5f}, {min(r['cosine_lowest'] for _, r in pairs):.4f}"
    change = [f"{fmean(changes):+.2f}{error}", f"{min(changes):+.2f}, {max(changes):+.2f}"]
    processors = "; ".join(sorted({row.get("processor") or UNKNOWN for _, row in pairs}))
    told = ["", ""] if of_reference else change
    return [*told, f"{lost}, {gained} of {tested}", cosines, str(len(pairs)), processors]


def write_summary(rows: Sequence[Row]) -> list[str]:
    """The lines of a table: a row for each way of storing, over all trials of a group."""
    table = []
    for stored, (name, _) in NAMES.items():
        if pairs := pair_rows(rows, stored):
            share = fmean(row["bytes"] / reference["bytes"] for reference, row in pairs)
            table.append([name, f"{share:.3f}", *describe_answers(pairs, stored == REFERENCE)])
    return report.write_table(["stored as", "bytes, share of float32", *ANSWERS], table, left=9).splitlines()


def write_processors(rows: Sequence[Row]) -> list[str]:
    """The lines of a table: a row for each way of storing and processor, of the trials that every processor ran."""
    emulated = {get_stored(row) for row in rows if row.get("emulated")}
    runs: dict[tuple[Stored, str], list[tuple[Row, Row]]] = defaultdict(list)
    for stored in [stored for stored in NAMES if stored in emulated]:
        for reference, row in pair_rows(rows, stored):
            runs[stored, row["processor"]].append((reference, row))
    everywhere = set.intersection(*({row["trial_key"] for _, row in pairs} for pairs in runs.values()))
    table = []
    for (stored, _), pairs in runs.items():
        if shared := [pair for pair in pairs if pair[1]["trial_key"] in everywhere]:
            table.append([NAMES[stored][0], *describe_answers(shared)])
    return report.write_table(["stored as", *ANSWERS], table, left=9).splitlines()


def write_networks(rows: Sequence[Row]) -> str:
    """A row for each network: its accuracy in float32, then the change and the MB of each way of storing."""
    columns = [stored for stored in NAMES if stored != REFERENCE and pair_rows(rows, stored)]
    table = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        references = [row for row, _ in pair_rows(own, REFERENCE)]
        accuracy = 100 * fmean(row["accuracy"] for row in references)
        cells = [network, str(len(references)), f"{accuracy:.1f} %, {get_megabytes(references):.2f}"]
        for stored in columns:
            pairs = pair_rows(own, stored)
            megabytes = get_megabytes([row for _, row in pairs]) if pairs else 0
            cells.append(f"{fmean(compute_changes(pairs)):+.2f}, {megabytes:.2f}" if pairs else "not measured")
        table.append(cells)
    heads = [f"{NAMES[stored][0]}: change, MB" for stored in columns]
    return report.write_table(["network", "trials", "float32: accuracy, MB", *heads], table, left=3 + len(heads))


def get_megabytes(rows: Sequence[Row]) -> float:
    """The mean size of the rows' files."""
    return fmean(row["bytes"] for row in rows) / 1e6


def average_networks(rows: Sequence[Row], stored: Stored) -> list[tuple[float, float]]:
    """(MB, accuracy) of each network whose every trial is stored so.

    Of some of its trials alone a network's mean would say more about these trials than about the bits.
    """
    points = []
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        chosen = [row for row in own if get_stored(row) == stored]
        if chosen and len(chosen) == sum(get_stored(row) == REFERENCE for row in own):
            points.append((get_megabytes(chosen), fmean(row["accuracy"] for row in chosen)))
    return points


def plot(groups: dict[str, list[Row]], path: Path) -> None:
    """Accuracy against bytes: a panel per group, a mark per network (its trials' mean), a frontier per stored form."""
    from matplotlib.ticker import PercentFormatter, ScalarFormatter

    with apply_look(SETTINGS):
        figure = make_figure((7.2, 0.9 + 3.6 * len(groups)), layout="constrained")
        every = figure.subplots(len(groups), squeeze=False)[:, 0]
        marks = {}
        for axes, (title, rows) in zip(every, groups.items(), strict=True):
            for stored, (name, (marker, fill, colour)) in NAMES.items():
                points = average_networks(rows, stored)
                if not points:
                    continue
                best = sorted(set(itertools.compress(points, find_pareto(*zip(*points, strict=True)))))
                axes.step(*zip(*best, strict=True), where="post", color=colour, linewidth=1.1)
                look = {"linestyle": "none", "markersize": 6.5, "markerfacecoloralt": "white", "color": colour}
                (marks[name],) = axes.plot(*zip(*points, strict=True), marker=marker, fillstyle=fill, **look)
            axes.set_xscale("log")
            axes.set_xticks([t for t in (0.25, 0.5, 1, 2, 3, 5, 8) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]])
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter("")
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
            axes.set(xlabel="MB of the files (10⁶ bytes)", ylabel="accuracy, no interval drawn")
            axes.set_title(title, loc="left", fontsize=9.5)
            axes.grid(color="#e4e4e4", linewidth=0.5)
        figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=160)
