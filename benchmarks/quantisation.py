"""What storing weights in fewer bits costs in accuracy: trained networks, exported, and run on their own test images.

    python -m benchmarks.quantisation outputs/placement-lfw52 outputs/paper-lfw52      into results/quantisation/
    python -m benchmarks.quantisation --report-only                                    the page and the figure again

Each finished trial below the folders is written in each way of STORED, and the file is run on the images that the
trial held out, one at a time: an ONNX file by ONNX Runtime. A TensorFlow.js file is read back as TensorFlow.js reads it
(value * scale + min, in float32), and these weights are run by ONNX Runtime; `--node` runs the file itself, in Node.
`--finetune-epochs 3` measures int8 after fine-tuning besides (minutes a trial), `--network mobilenetv2` those alone.
`--emulate Haswell` runs the files with maps of 8 bits on that processor too (benchmarks/emulated.py; a minute a file).
Started again, it goes on: what records.jsonl holds is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import emulated, harness
from benchmarks.harness import Row
from benchmarks.quantisation_report import write_report
from ffem_jax.data import Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.export import load_format, onnx, tfjs
from ffem_jax.export.calibrate import DTYPE, choose_images, select_training_faces, write_calibrated
from ffem_jax.export.finetune import LEARNING_RATE, finetune
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import Convolution, Depthwise, LayerList, compute_model_id
from ffem_jax.export.parity import compare_embeddings, compute_class_weights
from ffem_jax.machine.processor import describe_processor
from ffem_jax.training.weights import TrialFolderError, load_trial

# As DTYPE, with weights that go to 127 as they do in int8: wrong on x86-64 without VNNI, and what DTYPE's cost is held
# against.
FULL_RANGE = f"{DTYPE}_full_range"
# Format and dtype; the first is what the others are held against.
STORED = (
    ("onnx", "float32"), ("onnx", "float16"), ("tfjs", "uint8"), ("onnx", "int8"),
    ("onnx", FULL_RANGE), ("onnx", DTYPE),
)  # fmt: skip
# What is run on emulated processors: whose integers meet in kernels that differ by processor.
EMULATED = (("onnx", FULL_RANGE), ("onnx", DTYPE))
# What fine-tuning is measured in.
FINETUNED = ("onnx", "int8")


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, and write the page and the figure."""
    parser = harness.make_parser(__doc__, "quantisation")
    parser.add_argument("sweeps", nargs="*", type=Path, help="folders with trial folders in them")
    parser.add_argument("--node", action="store_true", help="run TensorFlow.js files in Node")
    parser.add_argument("--finetune-epochs", type=int, default=0, help="also int8 after so many epochs of fine-tuning")
    parser.add_argument("--emulate", action="append", default=[], choices=emulated.PROCESSORS, help="may be repeated")
    parser.add_argument("--network", action="append", help="measure the trials of this network alone; may be repeated")
    options = parser.parse_args(words)
    path = options.out / "records.jsonl"
    rows = harness.read_lines(path)
    if not options.report_only:
        if not (folders := list(find_trials(options.sweeps))):
            raise SystemExit("no trial folder is in the folders given; give folders that hold */trial.json")
        known = {(row["trial_key"], row.get("finetune_epochs", 0)) for row in rows}
        for folder in folders:
            for row in measure_trial(folder, known, options):
                harness.append_rows(path, row)
                rows.append(row)
                tuned = f" after {row['finetune_epochs']} epochs" if row["finetune_epochs"] else ""
                harness.tell(
                    f"{row['network']} seed {row['seed']} fold {row['fold']} {row['dtype']}{tuned}: "
                    f"{row['bytes']:,} bytes, {row['accuracy']:.2%} on {row['processor']}"
                )
    write_report(harness.demand_rows(rows), options.out)


def find_trials(sweeps: Sequence[Path]) -> Iterator[Path]:
    """The trial folders in the folders, by name."""
    for sweep in sweeps:
        yield from sorted(path.parent for path in sweep.glob("*/trial.json"))


def measure_trial(folder: Path, known: set[tuple[str, int]], options: argparse.Namespace) -> Iterator[Row]:
    """A row for each way of storing the trial's weights; none where it is not finished, or is among `known`."""
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
    trial = finished.trial
    faces, split = load_split(trial.data, trial.protocol)
    network = fold_network(finished.classifier.network, trial.data.resolution)
    tested = Tested(compute_class_weights(finished), faces, split, options.node)
    reference = tested.embed(network, *STORED[0])[0]
    for each in epochs:
        deployed, ways = network, STORED
        started = time.process_time()
        if each:
            deployed = finetune(network, FINETUNED[1], select_training_faces(faces, split), each, trial.seed)
            ways = (FINETUNED,)
        facts = {
            "trial_key": finished.key,
            "network": describe_network(trial.arch),
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
        for name, dtype in ways:
            yield {**facts, **tested.measure(deployed, name, dtype, reference)}
        for processor in [] if each else options.emulate:
            for name, dtype in EMULATED:
                yield {**facts, **tested.measure(deployed, name, dtype, reference, processor)}


def describe_network(arch: Any) -> str:
    """The network's name, with its attention where it has one."""
    attention = arch.attention
    return arch.name if attention.kind == "none" else f"{arch.name}, {attention.kind} {attention.placement}"


class Tested:
    """The test images of a trial, and what a stored network answers on them.

    weights: of the classifier, kernel and bias; node: run TensorFlow.js files in Node.
    """

    def __init__(self, weights: tuple[np.ndarray, np.ndarray], faces: Faces, split: Split, node: bool):
        self.weights, self.node = weights, node
        self.pixels = faces.images[split.test].astype(np.float32) / 127.5 - 1
        self.own, self.people = faces.labels[split.test], np.unique(faces.labels[split.train])
        self.calibration = choose_images(select_training_faces(faces, split))

    def embed(
        self, network: LayerList, name: str, dtype: str, processor: str | None = None
    ) -> tuple[np.ndarray, int, str, float]:
        """Embeddings by the file of `network`, its bytes, what ran it, and the processor's seconds.

        processor: one of emulated.PROCESSORS instead of this machine's.
        """
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if dtype in (DTYPE, FULL_RANGE):
                module = load_format(name, DTYPE)
                paths = write_calibrated(network, self.calibration, folder, full_range=dtype == FULL_RANGE)
            else:
                module = load_format(name, dtype)
                paths = module.write(network, dtype, folder)
            size = sum(path.stat().st_size for path in paths)
            restored = name == "tfjs" and not self.node
            if restored:
                onnx.write(restore_weights(network, folder), "float32", folder)
                module = onnx
            started = time.process_time()
            if processor:
                embeddings, runtime = emulated.run(folder, self.pixels, processor)
            else:
                embeddings, runtime = module.run(folder, self.pixels)
            seconds = time.process_time() - started
        return embeddings, size, runtime + (", of the restored weights" if restored else ""), seconds

    def find_hits(self, embeddings: np.ndarray) -> np.ndarray:
        """Which images are answered rightly."""
        return self.people[(embeddings @ self.weights[0] + self.weights[1]).argmax(axis=1)] == self.own

    def measure(
        self, network: LayerList, name: str, dtype: str, reference: np.ndarray, processor: str | None = None
    ) -> Row:
        """What a way of storing `network` takes and answers, held against the embeddings `reference`.

        processor: one of emulated.PROCESSORS instead of this machine's.
        """
        embeddings, size, runtime, seconds = self.embed(network, name, dtype, processor)
        found, hits = self.find_hits(embeddings), self.find_hits(reference)
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
            "runtime": runtime,
            "processor": emulated.PROCESSORS[processor] if processor else describe_processor(),
            "emulated": processor is not None,
        }


def restore_weights(network: LayerList, folder: Path) -> LayerList:
    """`network` with the kernels that TensorFlow.js reads from the files in `folder`."""
    manifest = json.loads((folder / tfjs.MODEL_FILE).read_text())["weightsManifest"][0]["weights"]
    data, place, tensors = (folder / tfjs.WEIGHTS_FILE).read_bytes(), 0, {}
    for entry in manifest:
        how = entry.get("quantization", {"dtype": entry["dtype"]})
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, how["dtype"], count, place)
        place += values.nbytes
        if "scale" in how:
            values = values.astype(np.float32) * np.float32(how["scale"]) + np.float32(how["min"])
        tensors[entry["name"]] = values.reshape(entry["shape"])
    layers = []
    for index, layer in enumerate(network.layers):
        if isinstance(layer, Convolution | Depthwise):
            name = f"n{index}k"
            kernel = tensors[name] if name in tensors else tensors[f"{name}q"] * tensors[f"{name}c"]
            layer = dataclasses.replace(layer, kernel=kernel.reshape(layer.kernel.shape))
        layers.append(layer)
    return LayerList(network.resolution, tuple(layers))


if __name__ == "__main__":
    main()
