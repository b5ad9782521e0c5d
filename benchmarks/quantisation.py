"""The accuracy cost of storing weights in fewer bits: trained networks, exported and run on their own test images.

    python -m benchmarks.quantisation outputs/placement-lfw52 outputs/paper-lfw52      into results/quantisation/
    python -m benchmarks.quantisation --report-only                                    only the page and the figure

Each finished trial in the folders is written in each way of NAMES, and the file is run on the trial's held-out images,
one at a time: ONNX files by ONNX Runtime. TensorFlow.js files are read back as TensorFlow.js reads them (in float32,
value * scale + min), and ONNX Runtime runs these weights; `--node` runs the file itself in Node. `--finetune-epochs 3`
also measures int8 after fine-tuning (minutes per trial); `--network mobilenetv2` measures only that network's trials.
`--emulate Haswell` also runs the files with 8-bit maps on that processor (benchmarks/emulated.py; a minute per file).
A restarted run resumes: what records.jsonl holds is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from benchmarks import emulated, harness, report
from benchmarks.harness import Row
from ffem_jax.analysis.pareto import find_pareto
from ffem_jax.data import Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.export import load_format, onnx, tfjs
from ffem_jax.export.calibrate import DTYPE, choose_images, select_training_faces, write_calibrated
from ffem_jax.export.finetune import LEARNING_RATE, finetune
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import Convolution, Depthwise, LayerList, compute_model_id
from ffem_jax.export.parity import compare_embeddings, compute_class_weights
from ffem_jax.figures.canvas import SETTINGS, apply_look, make_figure
from ffem_jax.machine.processor import describe_processor
from ffem_jax.training.weights import TrialFolderError, load_trial

# DTYPE with weights up to 127 as in int8: incorrect on x86-64 without VNNI, and the baseline for DTYPE's cost.
FULL_RANGE = f"{DTYPE}_full_range"
# Name, marker, fill and colour (Okabe and Ito's) of each way of storing weights. A way is a format, a dtype, and
# whether the network was fine-tuned for it; the first is the reference for the others.
Stored = tuple[str, str, bool]
NAMES: dict[Stored, tuple[str, tuple[str, str, str]]] = {
    ("onnx", "float32", False): ("float32", ("o", "none", "#404040")),
    ("onnx", "float16", False): ("float16", ("D", "left", "#009E73")),
    ("tfjs", "uint8", False): ("uint8, one scale per tensor (tfjs)", ("s", "full", "#0072B2")),
    ("onnx", "int8", False): ("int8, one scale per channel", ("^", "bottom", "#D55E00")),
    ("onnx", "int8", True): ("int8, fine-tuned", ("P", "full", "#E69F00")),
    ("onnx", FULL_RANGE, False): ("int8, maps too, full range", ("v", "none", "#CC79A7")),
    ("onnx", DTYPE, False): ("int8, maps too", ("v", "full", "#CC79A7")),
}
REFERENCE = next(iter(NAMES))
UNKNOWN = "not recorded"
OTHERS = "8-bit maps on other processors, with the same trials and images:"
ANSWERS = [
    *("change, points ± standard error", "worst, best", "images lost, gained", "cosine, mean and lowest", "trials"),
    "processor",
]

# ------------------------------------------------------------------- measuring


def measure_trial(folder: Path, known: set[tuple[str, int]], options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each way of storing the trial's weights; none if it is unfinished or among `known`."""
    row = json.loads((folder / "trial.json").read_text())
    if options.network and row["specs"][0]["arch"]["name"] not in options.network:
        return
    epochs = [e for e in dict.fromkeys((0, options.finetune_epochs)) if not {(k, e) for k in row["keys"]} <= known]
    if not epochs:
        return
    try:
        finished = load_trial(folder)
    except TrialFolderError as error:
        harness.tell(f"left out: {error}")
        return
    trial, attention = finished.trial, finished.trial.arch.attention
    faces, split = load_split(trial.data, trial.protocol)
    network = fold_network(finished.classifier.network, trial.data.resolution)
    tested = Tested(compute_class_weights(finished), faces, split, options.node)
    tested.measure(network, *REFERENCE[:2])
    for each in epochs:
        ways: list[tuple[str, ...]] = [stored[:2] for stored in NAMES if stored[2] == bool(each)]
        if not each:  # emulated: files with integer kernels, which differ by processor
            ways += [("onnx", dtype, name) for name in options.emulate for dtype in (FULL_RANGE, DTYPE)]
        deployed, started = network, time.process_time()
        if each:
            deployed = finetune(network, ways[0][1], select_training_faces(faces, split), each, trial.seed)
        facts = {
            "trial_key": finished.key,
            "network": trial.arch.name + (f", {attention.kind} {attention.placement}" * (attention.kind != "none")),
            "data": trial.data.name,
            "resolution": trial.data.resolution,
            "recipe": trial.recipe.name,
            "epochs": trial.recipe.epochs,
            "protocol": trial.protocol.name,
            "fold": trial.protocol.fold if trial.protocol.name == "kfold" else None,
            "seed": trial.seed,
            "synthetic": faces.synthetic,
            "model_id": compute_model_id(deployed),
            "finetune_epochs": each,
            "finetune_rate": LEARNING_RATE if each else None,
            "finetune_cpu_seconds": round(time.process_time() - started, 1) if each else None,
        }
        for way in ways:
            yield {**facts, **tested.measure(deployed, *way)}


class Tested:
    """The test images of a trial, and the answers of stored networks on them.

    The first measured network is the reference for the others.
    """

    def __init__(self, weights: tuple[np.ndarray, np.ndarray], faces: Faces, split: Split, node: bool):
        self.weights, self.node = weights, node
        self.pixels = faces.images[split.test].astype(np.float32) / 127.5 - 1
        self.own, self.people = faces.labels[split.test], np.unique(faces.labels[split.train])
        self.calibration = choose_images(select_training_faces(faces, split))
        self.first: tuple[np.ndarray, np.ndarray] | None = None

    def write(self, network: LayerList, name: str, dtype: str, folder: Path) -> tuple[int, Any, str]:
        """Write the file of `network` into `folder`; return its bytes, the module that runs it, and a note on how."""
        module: Any = load_format(name, dtype.removesuffix("_full_range"))
        if dtype in (DTYPE, FULL_RANGE):
            paths = write_calibrated(network, self.calibration, folder, full_range=dtype == FULL_RANGE)
        else:
            paths = module.write(network, dtype, folder)
        size = sum(path.stat().st_size for path in paths)
        if name != "tfjs" or self.node:
            return size, module, ""
        onnx.write(restore_weights(network, folder), "float32", folder)
        return size, onnx, ", of the restored weights"

    def measure(self, network: LayerList, name: str, dtype: str, processor: str | None = None) -> Row:
        """Measure one way of storing `network`: bytes and answers, on this processor or an emulated one."""
        with tempfile.TemporaryDirectory() as scratch:
            size, module, note = self.write(network, name, dtype, Path(scratch))
            run = partial(emulated.run, processor=processor) if processor else module.run
            started = time.process_time()
            embeddings, runtime = run(Path(scratch), self.pixels)
            seconds = time.process_time() - started
        found = self.people[(embeddings @ self.weights[0] + self.weights[1]).argmax(axis=1)] == self.own
        self.first = reference, hits = self.first or (embeddings, found)
        return {
            "format": name,
            "dtype": dtype,
            "bytes": size,
            "accuracy": float(found.mean()),
            "correct": int(found.sum()),
            "tested": len(found),
            "gained": int((found & ~hits).sum()),
            "lost": int((hits & ~found).sum()),
            **compare_embeddings(reference, embeddings),
            "cpu_ms_per_image": None if name == "tfjs" or processor else round(1000 * seconds / len(self.pixels), 3),
            "runtime": runtime + note,
            "processor": emulated.PROCESSORS[processor] if processor else describe_processor(),
            "emulated": processor is not None,
        }


def restore_weights(network: LayerList, folder: Path) -> LayerList:
    """Return `network` with the kernels that TensorFlow.js reads from the files in `folder`."""
    manifest = json.loads((folder / tfjs.MODEL_FILE).read_text())["weightsManifest"][0]["weights"]
    data, place, tensors = (folder / tfjs.WEIGHTS_FILE).read_bytes(), 0, {}
    for entry in manifest:
        how = entry.get("quantization", entry)
        values = np.frombuffer(data, how["dtype"], math.prod(entry["shape"]), place)
        place += values.nbytes
        if "scale" in how:
            values = values.astype(np.float32) * np.float32(how["scale"]) + np.float32(how["min"])
        tensors[entry["name"]] = values.reshape(entry["shape"])
    layers = list(network.layers)
    for index, layer in enumerate(layers):
        if isinstance(layer, Convolution | Depthwise):
            name = f"n{index}k"
            kernel = tensors[name] if name in tensors else tensors[f"{name}q"] * tensors[f"{name}c"]
            layers[index] = dataclasses.replace(layer, kernel=kernel.reshape(layer.kernel.shape))
    return LayerList(network.resolution, tuple(layers))


# ------------------------------------------------------------------- the page and the figure


def group_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows that may share a table, by a title of what they share.

    Each row also gets `stored`, the way it was stored, and, against its trial's float32 row, `change` in points and the
    `share` of bytes.
    """
    groups = defaultdict(list)
    for row in rows:
        drawn = ", synthetic faces" * row["synthetic"]
        # Rows older than the `epochs` field used the recipe's default.
        epochs = f", {row['epochs']} epochs" if row.get("epochs") else ""
        title = f"{row['data']}, {row['resolution']} pixels, {row['protocol']}, recipe {row['recipe']}{epochs}{drawn}"
        stored = row["format"], row["dtype"], bool(row.get("finetune_epochs"))
        groups[title].append({**row, "stored": stored, "processor": row["processor"] or UNKNOWN})
    for own in groups.values():
        references = {row["trial_key"]: row for row in select(own, REFERENCE)}
        for row in own:
            reference = references[row["trial_key"]]
            row["change"] = 100 * (row["accuracy"] - reference["accuracy"])
            row["share"] = row["bytes"] / reference["bytes"]
    return dict(groups)


def select(rows: Sequence[Row], stored: Stored) -> list[Row]:
    """Return the rows of one way of storing."""
    return [row for row in rows if row["stored"] == stored]


def split_networks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows by network."""
    return {name: [row for row in rows if row["network"] == name] for name in dict.fromkeys(r["network"] for r in rows)}


def average(rows: Sequence[Row], field: str) -> float:
    """Return the mean of a field."""
    return fmean(row[field] for row in rows)


def describe_answers(rows: Sequence[Row]) -> list[str]:
    """Return the table cells on accuracy relative to the references, and on the processor."""
    changes = [row["change"] for row in rows]
    error = f" ± {stdev(changes) / len(changes) ** 0.5:.2f}" if len(changes) > 1 else ""
    told = [f"{fmean(changes):+.2f}{error}", f"{min(changes):+.2f}, {max(changes):+.2f}"]
    lost, gained, tested = (sum(row[name] for row in rows) for name in ("lost", "gained", "tested"))
    cosines = f"{average(rows, 'cosine_mean'):.5f}, {min(row['cosine_lowest'] for row in rows):.4f}"
    processors = "; ".join(sorted({row["processor"] for row in rows}))
    if rows[0]["stored"] == REFERENCE:
        told = ["", ""]
    return [*told, f"{lost}, {gained} of {tested}", cosines, str(len(rows)), processors]


def write_summary(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table: a row for each way of storing, over all trials of a group."""
    table = [
        [name, f"{average(own, 'share'):.3f}", *describe_answers(own)]
        for stored, (name, _) in NAMES.items()
        if (own := select(rows, stored))
    ]
    return report.write_table(["stored as", "bytes, share of float32", *ANSWERS], table, left=9).splitlines()


def write_processors(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table: a row per way and processor, over the trials that every processor ran."""
    runs: dict[tuple[Stored, str], list[Row]] = defaultdict(list)
    emulated_ways = {row["stored"] for row in rows if row["emulated"]}
    for row in itertools.chain(*(select(rows, stored) for stored in NAMES if stored in emulated_ways)):
        runs[row["stored"], row["processor"]].append(row)
    everywhere = set.intersection(*({row["trial_key"] for row in own} for own in runs.values()))
    table = [
        [NAMES[stored][0], *describe_answers(shared)]
        for (stored, _), own in runs.items()
        if (shared := [row for row in own if row["trial_key"] in everywhere])
    ]
    return report.write_table(["stored as", *ANSWERS], table, left=9).splitlines()


def write_networks(rows: Sequence[Row]) -> str:
    """Return a table with a row per network: float32 accuracy, then the change and the MB of each way of storing."""
    columns = [stored for stored in NAMES if stored != REFERENCE and select(rows, stored)]
    table = []
    for network, own in split_networks(rows).items():
        references = select(own, REFERENCE)
        accuracy, megabytes = 100 * average(references, "accuracy"), average(references, "bytes") / 1e6
        cells = [network, str(len(references)), f"{accuracy:.1f} %, {megabytes:.2f}"]
        for chosen in (select(own, stored) for stored in columns):
            if chosen:
                cells.append(f"{average(chosen, 'change'):+.2f}, {average(chosen, 'bytes') / 1e6:.2f}")
            else:
                cells.append("not measured")
        table.append(cells)
    heads = [f"{NAMES[stored][0]}: change, MB" for stored in columns]
    return report.write_table(["network", "trials", "float32: accuracy, MB", *heads], table, left=3 + len(heads))


def average_networks(rows: Sequence[Row], stored: Stored) -> list[tuple[float, float]]:
    """Return (MB, accuracy) of each network with all its trials stored in this way.

    The mean over only some of a network's trials would reflect these trials more than the bits.
    """
    pairs = ((select(own, stored), select(own, REFERENCE)) for own in split_networks(rows).values())
    return [
        (average(chosen, "bytes") / 1e6, average(chosen, "accuracy"))
        for chosen, references in pairs
        if chosen and len(chosen) == len(references)
    ]


def plot(groups: dict[str, list[Row]], path: Path) -> None:
    """Plot accuracy against bytes: a panel per group, a mark per network (mean of its trials), a frontier per way."""
    from matplotlib.ticker import PercentFormatter, ScalarFormatter

    with apply_look(SETTINGS):
        figure = make_figure((7.2, 0.9 + 3.6 * len(groups)), layout="constrained")
        every = figure.subplots(len(groups), squeeze=False)[:, 0]
        marks = {}
        for axes, (title, rows) in zip(every, groups.items(), strict=True):
            for stored, (name, (marker, fill, colour)) in NAMES.items():
                if points := average_networks(rows, stored):
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


def write_report(rows: Sequence[Row], folder: Path) -> None:
    """Write quantisation.md and quantisation.png into `folder`."""
    tested, parts, groups = min(row["tested"] for row in rows), [], {}
    for title, members in group_rows(rows).items():
        own = groups[title] = [row for row in members if not row["emulated"]]
        parts += [f"## {title}", "\n".join(write_summary(own)), write_networks(own)]
        if len(own) < len(members):
            parts += [OTHERS, "\n".join(write_processors(members))]
    runtimes = "; ".join(sorted({row["runtime"] for row in rows}))
    values = {"image": 100 / tested, "tested": tested, "groups": "\n\n".join(parts), "runtimes": runtimes}
    report.fill_page(folder / "quantisation.md", "quantisation", **values)
    plot(groups, folder / "quantisation.png")


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the page and the figure."""
    parser = harness.make_parser(__doc__, "quantisation")
    parser.add_argument("sweeps", nargs="*", type=Path, help="folders that contain trial folders")
    parser.add_argument("--node", action="store_true", help="run TensorFlow.js files in Node")
    parser.add_argument("--finetune-epochs", type=int, default=0, help="also int8 after N epochs of fine-tuning")
    parser.add_argument("--emulate", action="append", default=[], choices=emulated.PROCESSORS, help="may be repeated")
    parser.add_argument("--network", action="append", help="measure only the trials of this network; may be repeated")
    options = parser.parse_args(words)
    path = options.out / "records.jsonl"
    if not options.report_only:
        paths = [path for sweep in options.sweeps for path in sorted(sweep.glob("*/trial.json"))]
        if not paths:
            raise SystemExit("the given folders contain no trial folder; give folders that contain */trial.json")
        known = {(row["trial_key"], row.get("finetune_epochs", 0)) for row in harness.read_lines(path)}
        for row in itertools.chain(*(measure_trial(found.parent, known, options) for found in paths)):
            harness.append_rows(path, row)
            tuned = f" after {row['finetune_epochs']} epochs" if row["finetune_epochs"] else ""
            harness.tell(
                f"{row['network']} seed {row['seed']} fold {row['fold']} {row['dtype']}{tuned}: "
                f"{row['bytes']:,} bytes, {row['accuracy']:.2%} on {row['processor']}"
            )
    write_report(harness.demand_rows(harness.read_lines(path)), options.out)


if __name__ == "__main__":
    main()
