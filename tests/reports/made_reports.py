"""Records that all reporting commands are held to (splits per seed, refusals, ties in rounding), and what they say."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
from made_records import build_record

from ffem_jax.cli import main
from ffem_jax.records.record import TrialRecord, append_record
from ffem_jax.reports.paper.published import NETWORKS, load_arch
from ffem_jax.specs.trial import to_plain

IMAGES, TESTED = 300, 160
KINDS = {"none": 0.70, "eca": 0.74, "se": 0.60}


def make_reported(people: int = 40, rates: dict[str, float] | None = None) -> list[TrialRecord]:
    """Three networks with three seeds, each seed with a split of its own, and one network over the cap."""
    records = []
    for seed in range(3):
        tested = sorted(random.Random(seed).sample(range(IMAGES), TESTED))
        for number, (kind, rate) in enumerate((rates or KINDS).items()):
            drawn = random.Random(10 * seed + number)
            hits = "".join("1" if drawn.random() < rate else "0" for _ in tested)
            records.append(
                build_record(
                    correct=hits.count("1"), tested=TESTED, params=500_000 + 15_625 * number, seed=seed,
                    attention={"kind": kind, "placement": "last"}, protocol={"split_seed": seed},
                    data={"name": "synthetic"}, data_fingerprint="abc", pictures_fingerprint="abc", people=people,
                    test_images=tested, hits=hits, hits_gallery=hits, device="a processor", cap_mb=2.185,
                    cap_precision="float32", started_at=f"2026-11-22T0{seed}:00:00+00:00",
                )
            )  # fmt: skip
    refused = build_record(
        status="over_cap", params=700_000, data={"name": "synthetic"}, arch={"width_multiplier": 1.4},
        attention={"kind": "se", "placement": "all"}, protocol={"split_seed": 0}, people=people, cap_mb=2.185,
        cap_precision="float32", error="2.80 MB is over the cap of 2.185 MB",
    )  # fmt: skip
    return [*records, refused]


def write_reported(folder: Path, **known: object) -> Path:
    """A records file with them."""
    path = folder / "records.jsonl"
    for record in make_reported(**known):  # type: ignore[arg-type]
        append_record(path, record)
    return path


def make_folds() -> list[TrialRecord]:
    """Two networks on the four folds of View 2, one of them without its last fold."""
    records = []
    for kind, folds in (("none", 4), ("eca", 3)):
        for fold in range(folds):
            drawn = random.Random(fold)
            same = [round(drawn.uniform(0.1, 0.5), 3) for _ in range(20)]
            different = [round(drawn.uniform(0.3, 0.8), 3) for _ in range(20)]
            records.append(
                build_record(
                    correct=30 + fold, tested=40, attention={"kind": kind}, data={"name": "lfw"},
                    protocol={"name": "view2", "folds": 4, "fold": fold},
                    verification={"threshold": 0.4, "distances_same": same, "distances_different": different},
                )
            )  # fmt: skip
    return records


def make_paper() -> list[TrialRecord]:
    """The paper's networks with one seed, each tested on the same hundred images."""
    records = []
    for number, network in enumerate(NETWORKS):
        drawn = random.Random(number)
        hits = "".join("1" if drawn.random() < 0.6 + 0.05 * number else "0" for _ in range(100))
        record = build_record(
            correct=hits.count("1"), tested=100, params=1_500_000 + 10_000 * number, data={"name": "synthetic"},
            data_fingerprint="abc", pictures_fingerprint="abc", people=25, test_images=list(range(100)), hits=hits,
        )  # fmt: skip
        spec = {**record.spec, "arch": to_plain(load_arch(network.name))}
        records.append(dataclasses.replace(record, spec=spec, arch=network.name, trial_key=f"{number:016x}"))
    return records


def run(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    """What a command says with --json."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def read_page(path: Path) -> dict:
    """The numbers that a report page holds."""
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])
