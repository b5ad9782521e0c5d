"""How often one network leads another by some points by chance alone, from small tests resampled from records.

A resample is a few images of each person in one fold, tested by two trainings on that fold. In the exchanged case the
two trainings are drawn regardless of network, so that a lead carries no information about the networks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ffem_jax.analysis.comparability import FrontierError, identify, select_comparable
from ffem_jax.analysis.independence import describe_exclusions
from ffem_jax.analysis.pooling import read_hits
from ffem_jax.records.record import TrialRecord

DRAWS = 20_000


@dataclass(frozen=True)
class ChanceLeads:
    """Leads of the second network in resampled tests.

    Args:
        exchanged: float [draw], in -1 to 1, for two trainings regardless of network. trained: for one training of each
            network. between: for two trainings of one network; empty if none has two.
        images, people: numbers per resample; trainings, places: numbers of trainings and folds drawn from.
        rate_first, rate_second: accuracy of each network over all its tests, in 0 to 1. exclusions: a sentence for
            each shared part of the trainings.
    """

    first: str
    second: str
    exchanged: np.ndarray
    trained: np.ndarray
    between: np.ndarray
    images: int
    people: int
    trainings: int
    places: int
    resolution: int
    recipe: str
    data: str
    rate_first: float
    rate_second: float
    synthetic: bool = False
    exclusions: tuple[str, ...] = ()

    def share(self, leads: np.ndarray, points: float) -> float:
        """Return how often `leads`, rounded to one decimal, reach `points`."""
        return float((np.round(100 * leads, 1) >= points).mean())


def resample_leads(
    records: Sequence[TrialRecord],
    first: str,
    second: str,
    people: Mapping[tuple[int, ...], np.ndarray],
    *,
    per_person: int = 2,
    draws: int = DRAWS,
    seed: int = 0,
) -> ChanceLeads:
    """Compute the leads of the network `second` over `first` on small tests drawn from `records`.

    Args:
        people: test images -> their people, int [image], for the tests of all records of both networks.
        per_person: test images per person; a person with fewer in a fold is left out there.
        draws: number of resamples. seed: random seed.

    Raises:
        FrontierError: a network without finished trials that record which images were correct, several networks with
            one name, no common test fold, or fewer than one image per person.
    """
    if per_person < 1 or draws < 1:
        raise FrontierError(f"--per-person {per_person}: a resample needs at least one image per person")
    if first == second:
        raise FrontierError(f"--chance {first} {second}: give two different networks")
    chosen, _ = select_comparable(
        [r for r in records if r.status == "done" and r.arch in (first, second) and len(read_hits(r, "accuracy"))]
    )
    by_name = {name: [record for record in chosen if record.arch == name] for name in (first, second)}
    known = sorted({record.arch for record in records if record.status == "done" and record.hits})
    for name, own in by_name.items():
        if not own:
            raise FrontierError(
                f"--chance: no finished trial of {name} records which images were classified correctly; choose two of: "
                f"{', '.join(known) or 'none here'}"
            )
        if len({identify(record).network for record in own}) > 1:
            raise FrontierError(
                f"--chance: several networks are named {name} here; add --where, such as recipe.name={own[0].recipe}"
            )
    places = _find_places(by_name, people)
    if not places:
        raise FrontierError(f"--chance: {first} and {second} were never tested on the same fold")
    return _draw(by_name, places, per_person, draws, seed)


@dataclass(frozen=True)
class _Place:
    hits: np.ndarray  # [training, image]
    second: np.ndarray  # bool [training]: whether it is of the second network
    whose: np.ndarray  # [image]


def _find_places(
    by_name: Mapping[str, Sequence[TrialRecord]], people: Mapping[tuple[int, ...], np.ndarray]
) -> list[_Place]:
    """Return the folds on which both networks were tested."""
    groups: dict[tuple[object, ...], list[tuple[bool, TrialRecord]]] = defaultdict(list)
    for number, own in enumerate(by_name.values()):
        for record in own:
            groups[record.data_fingerprint, tuple(record.test_images)].append((bool(number), record))
    places = []
    for (_, images), members in groups.items():
        second = np.array([is_second for is_second, _ in members])
        if second.any() and not second.all():
            hits = np.stack([read_hits(record, "accuracy").astype(np.int8) for _, record in members])
            places.append(_Place(hits, second, np.asarray(people[images])))  # type: ignore[index]
    return places


def _draw(
    by_name: Mapping[str, Sequence[TrialRecord]], places: Sequence[_Place], per_person: int, draws: int, seed: int
) -> ChanceLeads:
    random = np.random.default_rng(seed)
    leads: dict[str, list[np.ndarray]] = {"exchanged": [], "trained": [], "between": []}
    sizes = set()
    for number, place in enumerate(places):
        own = draws * (number + 1) // len(places) - draws * number // len(places)
        chosen = _choose_images(place.whose, per_person, own, random)
        if not chosen.size:
            raise FrontierError(f"--per-person {per_person}: no person has that many test images in a fold")
        sizes.add(chosen.shape[1])
        rates = place.hits[:, chosen].mean(axis=2)  # [training, draw]
        ones, twos = np.flatnonzero(~place.second), np.flatnonzero(place.second)
        every = np.arange(len(place.second))
        a = random.integers(len(every), size=own)
        b = (a + 1 + random.integers(len(every) - 1, size=own)) % len(every)
        column = np.arange(own)
        leads["exchanged"].append(rates[b, column] - rates[a, column])
        same = place.second[a] == place.second[b]
        leads["between"].append((rates[b, column] - rates[a, column])[same])
        leads["trained"].append(rates[random.choice(twos, own), column] - rates[random.choice(ones, own), column])
    (first, second), sample = by_name, next(iter(by_name.values()))[0]
    joined = {name: np.concatenate(parts) for name, parts in leads.items()}
    return ChanceLeads(
        first=first,
        second=second,
        **joined,
        images=max(sizes),
        people=max(sizes) // per_person,
        trainings=sum(len(place.second) for place in places),
        places=len(places),
        resolution=sample.resolution,
        recipe=sample.recipe,
        data=sample.data,
        rate_first=float(np.concatenate([place.hits[~place.second].ravel() for place in places]).mean()),
        rate_second=float(np.concatenate([place.hits[place.second].ravel() for place in places]).mean()),
        synthetic=sample.synthetic,
        exclusions=tuple(describe_exclusions([r for own in by_name.values() for r in own], noun="the leads")),
    )


def _choose_images(whose: np.ndarray, per_person: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """Draw image indices, int [draw, image]: `per_person` for each person with that many, without replacement."""
    _, numbers, counts = np.unique(whose, return_inverse=True, return_counts=True)
    # After sorting by person, and randomly within a person, the first of each form a draw.
    order = np.argsort(numbers + random.random((draws, len(whose))), axis=1)
    starts = np.cumsum(counts) - counts
    kept = [start + step for start, count in zip(starts, counts, strict=True) for step in range(per_person)
            if count >= per_person]  # fmt: skip
    return order[:, kept]
