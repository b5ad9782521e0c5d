"""Trainings that never ran: some networks' answers on the same images, from pretrainings that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from made_records import build_record

from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.trial import DataSpec

IMAGES = 300
ONCE = "Each network was pretrained once: the intervals exclude variance between pretraining runs."
SPLIT = "All seeds share one split of the images: the intervals exclude variance between splits."


def start(seed: int) -> dict:
    return {"name": "rest", "data": DataSpec(name="lfw_rest", resolution=64), "seed": seed}


def make_trial(hits: np.ndarray, **settings) -> TrialRecord:
    fields = {"data_fingerprint": "f" * 16, "pictures_fingerprint": "p" * 16, "test_images": list(range(len(hits)))}
    word = "".join(map(str, hits.astype(int)))
    return build_record(correct=int(hits.sum()), tested=len(hits), **{**fields, "hits": word, **settings})


def draw_trials(
    random: np.random.Generator, pretrainings: Sequence[int | None], seeds: int = 3, effect: float = 0.05,
    kinds: Sequence[str] = ("none", "eca"),
) -> list[TrialRecord]:  # fmt: skip
    """Networks that are equally good but for what each pretraining happens to add, which deviates by `effect`."""
    hard = 0.2 * random.random(IMAGES) - 0.1
    records = []
    for kind in kinds:
        for first in pretrainings:
            rate = 0.6 + hard + effect * random.standard_normal()
            for seed in range(seeds):
                own = {} if first is None else {"pretrain": start(first)}
                hits = random.random(IMAGES) < rate
                records.append(make_trial(hits, attention={"kind": kind}, seed=seed, **own))
    return records
