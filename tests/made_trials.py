"""A small network, a trial of it that takes seconds, and its run."""

import dataclasses

from ffem_jax.runs.trial import run_trials
from ffem_jax.specs.architecture import ArchSpec, StageSpec
from ffem_jax.specs.trial import DataSpec, ProtocolSpec, RecipeSpec, RunSpec, TrialSpec

SMALL = ArchSpec(
    name="small",
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2)),
    head_channels=0,
    embedding_dim=8,
)
TRIAL = TrialSpec(
    arch=SMALL,
    data=DataSpec(name="synthetic", people=3, images_per_person=8, resolution=16),
    protocol=ProtocolSpec(test_per_person=2),
    recipe=RecipeSpec(epochs=3, batch_size=6),
)
RUN = RunSpec(progress=False)


def run(folder, trial=TRIAL, name="trial", **changes):
    return run_trials(trial, dataclasses.replace(RUN, **changes), folder / name, folder / "records.jsonl")
