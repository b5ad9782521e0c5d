"""Accuracy per group with its interval, and a test of the largest gap. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ffem_jax.metrics.intervals import compute_clustered_interval

# Below either number no claim is made about a group.
FEWEST_IMAGES = 30
FEWEST_PEOPLE = 5
DRAWS = 10_000


@dataclass(frozen=True)
class GroupAccuracy:
    """One group. Rates are in 0 to 1.

    Args:
        low, high: the 95 % interval, for other people with the same number of images each.
        enough: whether the group has FEWEST_IMAGES and FEWEST_PEOPLE.
    """

    name: str
    images: int
    people: int
    accuracy: float
    low: float
    high: float
    enough: bool


@dataclass(frozen=True)
class Gap:
    """The largest gap between groups that are large enough: the accuracy of `best` minus that of `worst`.

    Args:
        drawn: what the test permutes: `people` if each person is in one group, else `images within people`.
    """

    best: str
    worst: str
    difference: float
    p_value: float
    drawn: str


def compute_group_accuracies(
    rates: npt.ArrayLike, groups: npt.ArrayLike, people: npt.ArrayLike
) -> tuple[GroupAccuracy, ...]:
    """Return the accuracy of each group, in order of name.

    Args:
        rates: [image], the share of an image's tests that were correct.
        groups: [image], group names.
        people: [image], the person on each image.

    Raises:
        ValueError: the shapes disagree.
    """
    rates, groups, people = _check(rates, groups, people)
    found = []
    for name in np.unique(groups):
        own = groups == name
        images, persons = int(own.sum()), len(np.unique(people[own]))
        accuracy = float(rates[own].mean())
        low, high = compute_clustered_interval(rates[own], people[own])
        enough = images >= FEWEST_IMAGES and persons >= FEWEST_PEOPLE
        found.append(GroupAccuracy(str(name), images, persons, accuracy, low, high, enough))
    return tuple(found)


def compute_largest_gap(
    rates: npt.ArrayLike, groups: npt.ArrayLike, people: npt.ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> Gap | None:
    """Return the largest gap among the groups that are large enough, tested by permutation; None with fewer than two.

    The images of one person tend to be correct or incorrect together, so images are not permuted freely. If each person
    is in one group (gender), people are permuted with all their images. If people are in several groups (glasses), each
    person's images are permuted among themselves: the gap is then the effect of the group within a person, and
    differences between people are subtracted first. The statistic is the largest gap, so selecting the largest needs no
    further correction.

    Args:
        rates, groups, people: as in `compute_group_accuracies`.
        draws: the number of permutations.
        seed: the seed of the draws.

    Raises:
        ValueError: the shapes disagree.
    """
    rates, groups, people = _check(rates, groups, people)
    large = [group.name for group in compute_group_accuracies(rates, groups, people) if group.enough]
    if len(large) < 2:
        return None
    kept = np.isin(groups, large)
    rates, groups, people = rates[kept], groups[kept], people[kept]
    member = np.searchsorted(np.asarray(large), groups)
    _, who = np.unique(people, return_inverse=True)
    order = np.argsort(who, kind="stable")
    rates, member, who = rates[order], member[order], who[order]
    starts = np.flatnonzero(np.diff(who, prepend=-1))
    constant = all(len(set(part)) == 1 for part in np.split(member, starts[1:]))
    random = np.random.default_rng(seed)
    dealt = np.empty((draws, len(large)))
    for draw in range(draws):
        # Sorting by person and then randomly permutes within each person.
        new = (
            random.permutation(member[starts])[who] if constant else member[np.lexsort((random.random(len(who)), who))]
        )
        dealt[draw] = _average(rates, new, len(large))
    observed = _average(rates, member, len(large))
    # The mean over permutations: 0 for people; for images, the differences between people.
    by_person = np.bincount(who, rates) / np.bincount(who)
    centre = 0.0 if constant else _average(by_person[who], member, len(large))
    gap = np.ptp(observed - centre)
    # The observed order is one of the permutations. Equal gaps may differ in the last digits.
    reached = int((np.ptp(dealt - centre, axis=1) >= gap - 1e-9).sum())
    best, worst = int(observed.argmax()), int(observed.argmin())
    return Gap(
        best=large[best],
        worst=large[worst],
        difference=float(observed[best] - observed[worst]),
        p_value=(1 + reached) / (1 + draws),
        drawn="people" if constant else "images within people",
    )


def _average(rates: np.ndarray, member: np.ndarray, groups: int) -> np.ndarray:
    return np.bincount(member, rates, groups) / np.bincount(member, minlength=groups)


def _check(*arrays: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rates, groups, people = map(np.asarray, arrays)
    if rates.ndim != 1 or not rates.shape == groups.shape == people.shape:
        raise ValueError(f"rates {rates.shape}, groups {groups.shape} and people {people.shape} must be [image] each")
    return rates, groups, people
