"""Does a search find a better frontier than chance where networks are really trained? On drawn faces, no replay.

    python -m benchmarks.search_trained                    2 samplers by 3 seeds, 30 networks each: an hour on 2 cores
    python -m benchmarks.search_trained --report-only      the page again, from the searches at hand: those of the page
                                                           with --searches results/search_quality/trained

Each search is the command that a user would type, in a folder of its own; started again, it goes on. The space is that
of `sweeps/search.yaml` with one block a stage, on small pictures: a training takes half a minute of a core. A search is
scored by the hypervolume of what it trained: the share of the rectangle of cap and perfect accuracy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.sweep import make_environment
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.figures.canvas import mark_synthetic, save_figure
from ffem_jax.records.record import TrialRecord, read_records

CAP_MB = 1.0
OVERRIDES = (
    "data=synthetic",
    "data.people=20",
    "data.images_per_person=60",
    "data.resolution=32",
    "protocol.test_per_person=20",
    "recipe.epochs=8",
    f"run.cap_mb={CAP_MB}",
    *(f"arch.stages.{stage}.repeats=1" for stage in range(1, 6)),
)
LOOKS = {"random": ("#606060", (0, (4, 2))), "surrogate": ("#D55E00", "-")}
MARKS = (10, 16, 20, 25, 30, 40, 50)

# What each search had after each of its trainings, [seed, training], by sampler.
Curves = Mapping[str, np.ndarray]


def make_words(sampler: str, seed: int, networks: int) -> list[str]:
    """The words after `ffem` that search, but for where and on how many cores."""
    return [
        *("sweep", "search", *OVERRIDES),
        *(f"hydra.sweeper.sampler={sampler}", f"hydra.sweeper.seed={seed}", f"hydra.sweeper.n_trials={networks}"),
    ]


def search(sampler: str, seed: int, options: argparse.Namespace) -> None:
    """Run or finish one search. Raises SystemExit where it fails."""
    words = make_words(sampler, seed, options.networks)
    words += ["launcher=joblib", f"launcher.jobs={options.jobs}"]
    words += [f"hydra.sweep.dir={find_folder(sampler, seed, options)}"]
    done = subprocess.run([sys.executable, "-m", "ffem_jax.cli", *words], env=make_environment())
    if done.returncode:
        raise SystemExit(f"ffem {' '.join(words)} ended with {done.returncode}")


def find_folder(sampler: str, seed: int, options: argparse.Namespace) -> Path:
    """Where a search keeps its records."""
    return Path(options.searches) / f"{sampler}-{seed}"


def follow(records: Sequence[TrialRecord]) -> list[float]:
    """The hypervolume after each training, in the order in which they ended."""
    costs = [float(record.bytes_float32 or 0) for record in records]
    values = [record.accuracy or 0.0 for record in records]
    cap = CAP_MB * 1e6
    return [compute_hypervolume(costs[:n], values[:n], cap, 0.0) / cap for n in range(1, len(records) + 1)]


def read_curves(options: argparse.Namespace) -> Curves:
    """All searches' curves. Raises SystemExit where one has fewer networks than asked for."""
    curves = {}
    for sampler in LOOKS:
        rows = []
        for seed in range(options.seeds):
            path = find_folder(sampler, seed, options) / "records.jsonl"
            done = [record for record in read_records(path) if record.status == "done"] if path.exists() else []
            if len(done) < options.networks:
                raise SystemExit(f"{sampler}, seed {seed}: {len(done)} of {options.networks} networks are trained")
            rows.append(follow(done[: options.networks]))
        curves[sampler] = np.array(rows)
    return curves


def write_page(curves: Curves, networks: int, out: Path, command: str) -> Path:
    """Write trained.md, .png and .svg into `out`; returns the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    draw_figure(curves, out / "trained")
    marks = [mark for mark in MARKS if mark < networks] + [networks]
    lines = [
        "# Searches with real trainings, on synthetic faces",
        "",
        f"`{command}`",
        "",
        "![Hypervolume against trainings, synthetic faces](trained.svg)",
        "",
        "Hypervolume after so many trainings: the share of the rectangle of cap and perfect accuracy that the networks "
        f"trained so far dominate, in %. The cap is {CAP_MB:g} MB in float32. One training of each network, "
        "one test set of **drawn faces**: nothing here says anything about real ones. The surrogate's first 16 "
        "networks are random ones too.",
        "",
        f"| sampler | seed | {' | '.join(map(str, marks))} | trainings to random's end |",
        f"|---|---:|{'---:|' * (len(marks) + 1)}",
    ]
    for sampler, rows in curves.items():
        for seed, row in enumerate(rows):
            reached = np.flatnonzero(row >= curves["random"][seed, -1])
            needed = str(reached[0] + 1) if len(reached) else f"over {networks}"
            values = " | ".join(f"{100 * row[mark - 1]:.1f}" for mark in marks)
            lines.append(f"| {sampler} | {seed} | {values} | {needed} |")
    ahead = 100 * (curves["surrogate"][:, -1] - curves["random"][:, -1])
    told = ", ".join(f"{points:+.1f}" for points in ahead)
    lines += [
        "",
        f"After {networks} trainings the surrogate has the larger hypervolume with {int((ahead > 0).sum())} of "
        f"{len(ahead)} seeds: {told} points above random's.",
        "",
        f"Each is `ffem {' '.join(make_words('SAMPLER', 0, networks))} launcher=joblib`, with its sampler and seed.",
    ]
    page = out / "trained.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def draw_figure(curves: Curves, path: Path) -> None:
    """All searches, a line each, PNG and SVG."""
    with save_figure(path, (7.6, 4.4), layout="constrained") as figure:
        axes = figure.add_subplot()
        for sampler, rows in curves.items():
            color, dashes = LOOKS[sampler]
            trainings = np.arange(1, rows.shape[1] + 1)
            for number, row in enumerate(rows):
                label = f"{sampler}, {len(rows)} seeds" if number == 0 else None
                axes.step(trainings, 100 * row, where="post", color=color, linestyle=dashes, linewidth=1.6, label=label)
        bottom = min(100 * float(rows[:, min(4, rows.shape[1] - 1)].min()) for rows in curves.values())
        axes.set_ylim(bottom=bottom)
        axes.set_xlim(1, rows.shape[1])
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("trainings spent")
        axes.set_ylabel("hypervolume of the frontier, %")
        axes.legend(loc="lower right", fontsize=9)
        axes.set_title("Searches with real trainings", loc="left", size=11.5, weight="bold", color="#202020")
        mark_synthetic(figure, 0.985, 0.955, size=9)


def main() -> None:
    """Run what is missing, all samplers with one seed after another, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=30, help="trainings of each search (30)")
    parser.add_argument("--seeds", type=int, default=3, help="searches with each sampler (3)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each (2)")
    parser.add_argument("--searches", type=Path, default=Path("outputs/search-trained"), help="where searches are kept")
    parser.add_argument("--out", type=Path, default=Path("results/search_quality"))
    parser.add_argument("--report-only", action="store_true", help="write the page from the searches at hand")
    options = parser.parse_args()
    if min(options.networks, options.seeds, options.jobs) < 1:
        raise SystemExit("--networks, --seeds and --jobs must be at least 1")
    if not options.report_only:
        for seed in range(options.seeds):
            for sampler in LOOKS:
                search(sampler, seed, options)
    command = f"python -m benchmarks.search_trained --networks {options.networks} --seeds {options.seeds}"
    page = write_page(read_curves(options), options.networks, options.out, command)
    print(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
