"""The smallest difference between two placements that a design detects, in points, from the records of results/paper.

FFEM_LFW_ROOT=lfw python -m benchmarks.questions        trains nothing; prints the table of results/questions
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ffem_jax.analysis.power import estimate_chance, find_smallest_difference, make_design
from ffem_jax.cli.answer_chance import find_people
from ffem_jax.records.record import read_records
from ffem_jax.runs.counting import count_faces
from ffem_jax.specs.trial import DataSpec, ProtocolSpec

PLACEMENTS = 4  # each compared with no attention: corrected for as many tests


def main() -> None:
    """Print the table."""
    records = [r for r in read_records("results/paper/records.jsonl") if r.arch in ("ffem", "ffem_am", "ffem_se")]
    whose = find_people(records)
    print("chance: recipe, discordance, by image, by person, deviation between trainings (points)")
    chances = {}
    for recipe in ("paper", "fine_tuning"):
        chances[recipe] = estimate_chance([record for record in records if record.recipe == recipe], whose)
        row = chances[recipe]
        print(f"{recipe}: {row.discordance:.3f} {row.by_image:.3f} {row.by_person:.3f} {100 * row.run_sd:.1f}")
    designs = {
        "closed set, lfw52": (DataSpec(name="lfw52"), "kfold", (2, 3, 5, 10, 20)),
        "open set, lfw": (DataSpec(name="lfw", min_images=1), "open_set", (2, 3, 5, 10)),
    }
    for name, (data, protocol, runs) in designs.items():
        folds = [count_faces(data, ProtocolSpec(name=protocol, fold=fold)).people for fold in range(5)]
        people = np.concatenate(folds)
        print(f"{name}: {len(people):,} test images; smallest difference with", ", ".join(map(str, runs)), "seeds")
        for recipe, chance in chances.items():
            for deviation in dict.fromkeys((chance.run_sd, 0.0)):
                found = []
                for count in runs:
                    design = make_design(
                        runs=count, tests=count * len(people), images=len(people), folds=5, people=people,
                        rows=PLACEMENTS, clustered=protocol == "open_set",
                    )  # fmt: skip
                    supposed = dataclasses.replace(chance, run_sd=deviation)
                    smallest = find_smallest_difference(design, supposed, draws=100)
                    found.append("-" if smallest is None else f"{100 * smallest:.1f}")
                print(f"  {recipe}, deviation between trainings {100 * deviation:.1f}: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
