"""The design of a recorded sweep: numbers of images, people, runs, folds and pretrainings, and missing trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ffem_jax.analysis.comparability import Run, identify, identify_network, identify_teacher
from ffem_jax.analysis.independence import count_pretrainings
from ffem_jax.analysis.pooling import names_people
from ffem_jax.analysis.summary import count_images, label_networks
from ffem_jax.records.measures import read_rate
from ffem_jax.records.record import TrialRecord

NAMED_AT_MOST = 6


@dataclass(frozen=True)
class SweepDesign:
    """The amount of data behind a sweep's answer.

    Args:
        trials, networks: their numbers.
        seeds: runs of the network with the most runs; a run is a training seed, a split and a pretraining.
        fewest: runs of the network with the fewest runs.
        folds: folds of the protocol; 1 if a trial tests everything.
        images: distinct test images.
        people: people on these images; None if the records do not name them.
        pretrainings: pretrainings of the pretrained network with the fewest; None if no network was pretrained.
        teachers: distinct teachers.
        nested: whether several runs share one of several pretrainings, so that pretrainings are resampled, not runs.
        tested_folds: folds that at least one trial tests.
    """

    trials: int
    networks: int
    seeds: int
    fewest: int
    folds: int
    images: int
    people: int | None
    pretrainings: int | None
    teachers: int
    nested: bool = False
    tested_folds: int = 1


def measure_design(done: Sequence[TrialRecord]) -> SweepDesign:
    """Return the design of `done`: at least one comparable record of a finished trial."""
    runs: dict[str, set[Run]] = {}
    for record in done:
        identity = identify(record)
        runs.setdefault(identity.network, set()).add(identity.run._replace(fold=0))
    firsts = count_pretrainings(done)
    named = all(map(names_people, done))
    counts = [len(own) for own in runs.values()]
    return SweepDesign(
        trials=len(done),
        networks=len(runs),
        seeds=max(counts),
        fewest=min(counts),
        folds=done[0].view.folds,
        images=count_images(done),
        people=len({person for record in done for person in record.test_identities}) if named else None,
        pretrainings=min(firsts.values()) if firsts else None,
        teachers=len({identify_teacher(record) for record in done} - {""}),
        nested=any(1 < count < len(runs[network]) for network, count in firsts.items()),
        tested_folds=len({record.view.protocol.fold for record in done}) if done[0].view.folds > 1 else 1,
    )


def describe_gaps(
    latest: Sequence[TrialRecord], done: Sequence[TrialRecord], metric: str, among: Sequence[TrialRecord] = ()
) -> list[str]:
    """Return a line for each gap of the sweep: unfinished trials, and seeds and folds that some network lacks.

    Args:
        among: the records that make network labels unique, see `label_networks`.
    """
    notes = []
    rest = [record for record in latest if record.status != "done" or read_rate(record, metric) is None]
    words = {"failed": "failed", "over_cap": "over the cap", "pruned": "stopped early"}
    for status, count in Counter(record.status for record in rest).items():
        errors = [r.error.splitlines()[0] for r in rest if r.status == status == "failed" and r.error]
        why = f", the first with: {errors[0]}" if errors else ""
        notes.append(f"not in the answer: {count} {words.get(status, f'without {metric}')}{why}")
    labels = label_networks([*among, *done])
    runs: dict[str, set[Run]] = {}
    for record in done:
        runs.setdefault(identify_network(record), set()).add(identify(record).run)
    # Every fold of every run that any network has. Networks without a pretraining have no pretraining seed.
    plain = {run._replace(pretraining_seed=0) for own in runs.values() for run in own}
    folds = range(done[0].view.folds) if done[0].view.folds > 1 else range(1)
    wanted = {run._replace(fold=fold) for run in plain for fold in folds} | plain
    lacking = []
    for network, own in runs.items():
        missing = sorted(wanted - {run._replace(pretraining_seed=0) for run in own})
        if missing:
            first = missing[0]
            where = f"seed {first.seed}" + (f" fold {first.fold}" if len(folds) > 1 else "")
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            lacking.append(f"{labels[network]} ({where}{more})")
    if lacking:
        shown = "; ".join(lacking[:NAMED_AT_MOST])
        rest_of = f"; and {len(lacking) - NAMED_AT_MOST} more networks" if len(lacking) > NAMED_AT_MOST else ""
        notes.append(f"seeds that other networks have, or folds of the protocol, are missing for: {shown}{rest_of}")
    return notes
