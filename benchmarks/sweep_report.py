"""The page and the figure of `benchmarks.sweep`, from its measurements."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import BUSY_CORES, tell
from benchmarks.sweep_records import FIRST, NAMES, PEER, Measurements


def summarize(measurements: Measurements) -> Iterator[dict[str, Any]]:
    """One row a contestant and cache: the median over rounds, the range, and the ratio to the peer."""
    selected = measurements.select()
    peer = selected.get((PEER, ""))
    for (contestant, cache), rows in selected.items():
        seconds = [row["seconds"] for row in rows]
        compiling = [row["compile_seconds"] for row in rows if "compile_seconds" in row]
        middle = statistics.median(seconds)
        yield {
            "name": NAMES[contestant] + (f", {cache}" if cache else ""),
            "contestant": contestant,
            "cache": cache,
            "seconds": middle,
            "range": (min(seconds), max(seconds)),
            "rounds": len(rows),
            "trials_an_hour": 3600 * len(rows[0]["accuracies"]) / middle,
            "ratio": statistics.median(row["seconds"] for row in peer) / middle if peer else None,
            "accuracy": statistics.mean(value for row in rows for value in row["accuracies"]),
            "compile_seconds": statistics.median(compiling) if compiling else None,
        }


def write_page(measurements: Measurements, attentions: Sequence[str], command: str) -> None:
    """Write sweep.md and sweep.png beside sweep.jsonl; `command` makes them, `attentions` are what was swept."""
    summary, settings = list(summarize(measurements)), measurements.settings
    folder = measurements.path.parent
    if not summary:
        raise SystemExit(f"{measurements.path} has no measurement with these settings; run without --report-only")
    latest = measurements.rows[-1]
    several = any(row["rounds"] > 1 for row in summary)
    busy = max(row["busy_cores"] for rows in measurements.select().values() for row in rows)
    trials = settings["networks"] * settings["seeds"]
    counts = sorted({str(row["threads"]) for row in measurements.select().get((PEER, ""), [])})
    threads = f" ({', '.join(counts)})" if counts else ""
    lines = [
        "# How long does a sweep take?",
        "",
        f"{settings['networks']} networks with {settings['seeds']} seeds, {trials} trials of {settings['epochs']} "
        f"epochs, on `data={settings['data']}` at {settings['resolution']} x {settings['resolution']} pixels: "
        "`ffem sweep` against the plain way, Optuna and PyTorch.",
        "",
        "```",
        command,
        "```",
        "",
        f"Machine: {latest['processor']}, {latest['cores']} cores. Versions: "
        f"{', '.join(f'{name} {number}' for name, number in latest['versions'].items())}. "
        f"Measured {latest['date']}"
        + (
            ", median of the rounds with their range."
            if several
            else ", once each: differences of some percent mean nothing."
        )
        + f" Meanwhile other work took at most {busy:.2f} cores."
        + (" **That is too much: these numbers are no benchmark.**" if busy > BUSY_CORES else ""),
        "",
        "![Wall time of the sweep](sweep.png)",
        "",
        "| | wall seconds | trials an hour | times as fast as the peer | mean accuracy, % | seconds compiling |",
        "|---|---:|---:|---:|---:|---:|",
        *(describe_row(row) for row in summary),
        "",
        *EXPLANATION.format(
            jobs=latest["cores"],
            threads=threads,
            attentions="\n".join(f"- `{line}`" for line in attentions),
        ).splitlines(),
    ]
    (folder / "sweep.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw_figure(summary, folder / "sweep.png", trials)
    tell(f"{folder / 'sweep.md'}")


EXPLANATION = """\
## What is compared
FFEM in two depths (`arch.depth_multiplier` 0.5 and 1.0), each with
{attentions}

Both sides train the networks that this package resolves these to, on the same training images, with `recipe=modern`
(batch 32, SGD with Nesterov momentum and weight decay, one cycle, softmax of scaled cosines, label smoothing, mirror),
and test the same images after every epoch. Chance differs (initial weights, order, mirroring), so accuracies agree on
average and not trial by trial; so few epochs leave them low. Accuracy is the mean of all trials' last epochs.

- **Optuna + PyTorch**: a grid study in SQLite, one trial after another in one process, as many threads as PyTorch takes
  by itself{threads}, channels last, the faces in memory as one tensor of bytes, a fused optimiser; no `torch.compile`.
  Its clock runs from the import of PyTorch and Optuna, in a process where Python, the faces and the list of networks
  are ready.
- **ffem**: the command `ffem sweep` from the start of its process to its end. Python's start, imports, reading the
  faces, planning, a checkpoint an epoch, embeddings of all images for gallery accuracy, records and frontier are
  included; of these the peer does none. `one after another` is `launcher=local seed=0,1,...`; `a process a core` is
  `launcher=joblib launcher.jobs={jobs}`; `seeds in one program` is `launcher=local run.seeds=[0,1,...]`.
- **First sweep**: nothing is compiled beforehand. **Second sweep**: the same with the compiled programs of the first in
  the cache and no records. Seconds compiling are those in the records, tracing and reading the cache included, added up
  over processes that run side by side.
- Photographs are decoded before either clock starts (drawn faces are drawn while ours is timed, and not the peer).
"""


def describe_row(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["range"]
    seconds = f"{row['seconds']:.0f}" + (f" ({low:.0f} to {high:.0f})" if row["rounds"] > 1 else "")
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    compiling = "" if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f}"
    accuracy = f"{100 * row['accuracy']:.1f}"
    return f"| {row['name']} | {seconds} | {row['trials_an_hour']:.0f} | {ratio} | {accuracy} | {compiling} |"


def draw_figure(summary: Sequence[dict[str, Any]], path: Path, trials: int) -> None:
    """Horizontal bars of wall time, the peer grey; a whisker spans the rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colours = {PEER: "#8a8a8a"}
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.45 * len(summary)), layout="constrained")
    for position, row in enumerate(summary):
        low, high = row["range"]
        minutes = row["seconds"] / 60
        whisker = [[minutes - low / 60], [high / 60 - minutes]] if row["rounds"] > 1 else None
        colour = colours.get(row["contestant"], "#1f6fb4" if row["cache"] == FIRST else "#8fbbe0")
        axes.barh(position, minutes, color=colour, xerr=whisker, height=0.7)
        ratio = f", {row['ratio']:.2f} x" if row["ratio"] is not None and row["contestant"] != PEER else ""
        axes.annotate(
            f"{minutes:.1f} min{ratio}", (high / 60, position), (5, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(summary)), [row["name"] for row in summary])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"wall time of {trials} trials, minutes (x: times as fast as Optuna + PyTorch)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
