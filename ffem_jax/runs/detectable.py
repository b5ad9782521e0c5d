"""What differences the trials of a sweep will be able to show, before they are trained.

`compare_records` itself lays out the rows, from records that say nothing but which images will be tested: so a plan has
the pairs, contexts and corrections that the comparison will have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ffem_jax.analysis.comparability import FrontierError
from ffem_jax.analysis.compare import compare_records
from ffem_jax.analysis.comparison import ComparisonRow
from ffem_jax.analysis.pairing import list_levels, shorten
from ffem_jax.analysis.power import Chance, find_smallest_difference, make_design
from ffem_jax.config.compose import place_faces
from ffem_jax.records.record import TrialRecord
from ffem_jax.records.view import FOLDED
from ffem_jax.runs.counting import FaceCount
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.protocol import ProtocolSpec
from ffem_jax.specs.trial import TrialSpec, to_plain, trial_key

Faces = Mapping[tuple[DataSpec, ProtocolSpec], FaceCount]


@dataclass(frozen=True)
class DetectableRow:
    """A row of the comparison: two levels in one context.

    difference: the smallest true one, in 0 to 1, that is found with 80 % power; None where none is.
    seeds, images, tests: as `ComparisonRow` has them.
    """

    first: str
    second: str
    context: str
    seeds: int
    images: int
    tests: int
    difference: float | None


@dataclass(frozen=True)
class DetectableFactor:
    """A factor that `ffem compare --factor` can compare; Holm's correction counts all its rows."""

    factor: str
    rows: tuple[DetectableRow, ...]

    @property
    def smallest(self) -> float | None:
        """Of the row that shows the least difference; None where no row shows any."""
        return min((row.difference for row in self.rows if row.difference is not None), default=None)

    @property
    def largest(self) -> float | None:
        """What every row shows; None where some row shows none."""
        differences = [row.difference for row in self.rows]
        known = [value for value in differences if value is not None]
        return max(known, default=None) if len(known) == len(differences) else None


def find_detectable(trials: Sequence[TrialSpec], faces: Faces, chance: Chance) -> list[DetectableFactor]:
    """The factors of `trials` that can be compared, with what each row of the comparison can show.

    Trials whose images were not counted are left out; so are those whose records do not say which test was right,
    since nothing they differ by is called significant.
    """
    records = [
        _foresee(trial, faces[trial.data, trial.protocol])
        for trial in trials
        if (trial.data, trial.protocol) in faces and faces[trial.data, trial.protocol].paired
    ]
    people = _list_people(list(faces.values()))
    folds = max((len({r.view.protocol.fold for r in records if r.view.protocol.name in FOLDED}), 1))
    found: list[DetectableFactor] = []
    known: dict[tuple[int, ...], float | None] = {}
    for factor in (name for name, levels in list_levels(records).items() if len(levels) > 1):
        try:
            rows = [row for row in compare_records(records, factor).rows if row.test]
        except FrontierError:
            continue  # no two trials differ in it alone
        made = [_look(row, len(rows), folds, people, chance, known) for row in rows]
        # A name, and the one setting that goes with it, are one factor.
        if made and not any(_is_same(made, other.rows) for other in found):
            found.append(DetectableFactor(shorten(factor), tuple(made)))
    return found


def _is_same(rows: Sequence[DetectableRow], others: Sequence[DetectableRow]) -> bool:
    return [(row.first, row.second, row.context) for row in rows] == [
        (row.first, row.second, row.context) for row in others
    ]


def _look(
    row: ComparisonRow,
    rows: int,
    folds: int,
    people: np.ndarray,
    chance: Chance,
    known: dict[tuple[int, ...], float | None],
) -> DetectableRow:
    few = row.pretrainings > 1
    units = row.pretrainings if few else row.seeds
    repeats = max(1, round(row.pairs / (units * folds)))
    shape = units, int(few), row.tests, row.images, repeats, rows
    if shape not in known:
        design = make_design(
            runs=units,
            tests=row.tests,
            images=row.images,
            folds=folds,
            repeats=repeats,
            people=people,
            rows=rows,
            clustered=row.people is not None,
            few=few,
        )
        known[shape] = find_smallest_difference(design, chance)
    return DetectableRow(row.first, row.second, row.context, row.seeds, row.images, row.tests, known[shape])


def _list_people(counts: Sequence[FaceCount]) -> np.ndarray:
    """Whose each image is that any split tests."""
    whose = {
        int(image): int(person) for count in counts for image, person in zip(count.test, count.people, strict=True)
    }
    return np.array([whose[image] for image in sorted(whose)], dtype=int)


def map_people(faces: Faces) -> dict[tuple[int, ...], np.ndarray]:
    """Test images -> whose they are: what `estimate_chance` asks for."""
    return {tuple(count.test.tolist()): count.people for count in faces.values()}


def _foresee(trial: TrialSpec, count: FaceCount) -> TrialRecord:
    """The record that `trial` will leave, as far as a comparison's rows depend on it: each test is right."""
    placed = place_faces(trial)
    data = dataclasses.replace(placed.data, cache_dir="")
    pictures = data if data.name == "synthetic" else dataclasses.replace(data, resolution=16, crop=1.0)
    tests = len(count.test)
    return TrialRecord(
        trial_key=trial_key(placed),
        spec=to_plain(placed),
        seed=trial.seed,
        status="done",
        arch=trial.arch.name,
        data=trial.data.name,
        protocol=trial.protocol.name,
        recipe=trial.recipe.name,
        resolution=trial.data.resolution,
        synthetic=trial.data.name == "synthetic",
        data_fingerprint=repr(data),
        pictures_fingerprint=repr(pictures),
        people=count.num_classes,
        accuracy=1.0,
        correct=tests,
        tested=tests,
        test_images=count.test.tolist(),
        test_identities=count.people.tolist() if count.names_people else [],
        hits="1" * tests,
    )
