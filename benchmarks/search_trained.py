"""Does a search with real trainings find a better frontier than random search? On drawn faces, without replay.

    python -m benchmarks.search_trained                    2 samplers by 3 seeds, 30 networks each: an hour on 2 cores
    python -m benchmarks.search_trained --report-only      only the page, from existing searches; for the committed page
                                                           add --searches results/search_quality/trained

Each search is the command that a user would type, in its own folder; a restarted run resumes. The space is that of
`sweeps/search.yaml` with one block per stage, on small images: a training takes half a minute of one core. A search is
scored by the hypervolume of what it trained: the share of the rectangle up to the cap and perfect accuracy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import harness, report
from ffem_jax.analysis.hypervolume import compute_hypervolume
from ffem_jax.records.record import TrialRecord, read_records

CAP_MB = 1.0
OVERRIDES = (
    *("data=synthetic", "data.people=20", "data.images_per_person=60", "data.resolution=32"),
    *("protocol.test_per_person=20", "recipe.epochs=8", f"run.cap_mb={CAP_MB}"),
    *(f"arch.stages.{stage}.repeats=1" for stage in range(1, 6)),
)
SAMPLERS = ("random", "surrogate")
MARKS = (10, 16, 20, 25, 30, 40, 50)

# By sampler, the hypervolume after each training, [seed, training].
Curves = Mapping[str, np.ndarray]


def make_words(sampler: str, seed: int, networks: int) -> list[str]:
    """Return the arguments of `ffem` for a search, without folder and cores."""
    sweeper = {"sampler": sampler, "seed": seed, "n_trials": networks}
    return ["sweep", "search", *OVERRIDES, *(f"hydra.sweeper.{name}={value}" for name, value in sweeper.items())]


def search(sampler: str, seed: int, options: argparse.Namespace) -> None:
    """Run or finish one search. Raises SystemExit if it fails."""
    words = [*make_words(sampler, seed, options.networks), "launcher=joblib", f"launcher.jobs={options.jobs}"]
    words += [f"hydra.sweep.dir={options.searches}/{sampler}-{seed}"]
    done = subprocess.run([sys.executable, "-m", "ffem_jax.cli", *words], env=harness.make_environment())
    if done.returncode:
        raise SystemExit(f"ffem {' '.join(words)} exited with status {done.returncode}")


def follow(records: Sequence[TrialRecord]) -> list[float]:
    """Return the hypervolume after each training, in the order in which they ended."""
    costs = [float(record.bytes_float32 or 0) for record in records]
    values = [record.accuracy or 0.0 for record in records]
    cap = CAP_MB * 1e6
    return [compute_hypervolume(costs[:n], values[:n], cap, 0.0) / cap for n in range(1, len(records) + 1)]


def read_curves(options: argparse.Namespace) -> Curves:
    """Read all searches' curves. Raises SystemExit if one has fewer networks than requested."""
    curves: dict[str, list[list[float]]] = {sampler: [] for sampler in SAMPLERS}
    for sampler, rows in curves.items():
        for seed in range(options.seeds):
            path = options.searches / f"{sampler}-{seed}" / "records.jsonl"
            done = [record for record in read_records(path) if record.status == "done"] if path.exists() else []
            if len(done) < options.networks:
                raise SystemExit(f"{sampler}, seed {seed}: {len(done)} of {options.networks} networks are trained")
            rows.append(follow(done[: options.networks]))
    return {sampler: np.array(rows) for sampler, rows in curves.items()}


def write_report(curves: Curves, networks: int, folder: Path) -> str:
    """Write trained.md, .png and .svg into `folder`, and return the page."""
    spreads = {
        f"{sampler}, {len(rows)} seeds": 100 * np.quantile(rows, (0, 0.5, 1), axis=0)
        for sampler, rows in curves.items()
    }
    title = "Searches with real trainings: median, lowest and highest"
    report.draw_curves(folder / "trained", spreads, title, "hypervolume of the frontier, %", note="SYNTHETIC FACES")
    marks = [mark for mark in MARKS if mark < networks] + [networks]
    table = []
    for sampler, rows in curves.items():
        for seed, (row, random) in enumerate(zip(rows, curves["random"], strict=True)):
            reached = np.flatnonzero(row >= random[-1])
            needed = str(reached[0] + 1) if len(reached) else f"over {networks}"
            table.append([sampler, str(seed), *(f"{100 * row[mark - 1]:.1f}" for mark in marks), needed])
    ahead = 100 * (curves["surrogate"][:, -1] - curves["random"][:, -1])
    return report.fill_page(
        folder / "trained.md",
        "search_trained",
        networks=networks,
        seeds=len(ahead),
        cap=CAP_MB,
        rows=report.write_table(["sampler", "seed", *map(str, marks), "trainings to random's end"], table),
        ahead=int((ahead > 0).sum()),
        points=", ".join(f"{points:+.1f}" for points in ahead),
        example=" ".join(make_words("SAMPLER", 0, networks)),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, seed by seed with all samplers, then write the page."""
    parser = harness.make_parser(__doc__, "search_quality")
    harness.add_numbers(
        parser,
        networks=(30, "trainings per search"),
        seeds=(3, "searches per sampler"),
        jobs=(2, "trainings at a time, one core each"),
    )
    parser.add_argument("--searches", type=Path, default=Path("outputs/search-trained"), help="where searches are kept")
    options = parser.parse_args(words)
    harness.check_positive(options, "networks", "seeds", "jobs")
    if not options.report_only:
        for seed in range(options.seeds):
            for sampler in SAMPLERS:
                search(sampler, seed, options)
    print(write_report(read_curves(options), options.networks, options.out))


if __name__ == "__main__":
    main()
