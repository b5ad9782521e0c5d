"""Which images train and which test: `holdout` and `kfold`, drawn by `split_seed`, with no image on both sides.

Images of the same content are one group and stay on one side. Content that stands under several people cannot be
tested fairly, since one of the labels is wrong: such images always train.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.spec import DataSpec, ProtocolSpec

# The images of one content, by index.
Group = list[int]


@dataclass(frozen=True)
class Split:
    """Sorted indices of the images that train and that test; each image is on exactly one side.

    notes: one line for each thing the user should know about duplicates.
    """

    train: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()


def load_split(data: DataSpec, protocol: ProtocolSpec) -> tuple[Faces, Split]:
    """The faces of `data` and how `protocol` splits them. Raises DataError as `load_faces` and `make_split` do.

    The trials of a sweep that share a process share the decoded faces.
    """
    faces = _load_once(data)
    return faces, make_split(faces.labels, faces.content, protocol, faces.people)


_load_once = lru_cache(maxsize=2)(load_faces)


def make_split(labels: np.ndarray, content: Sequence[str], protocol: ProtocolSpec, people: Sequence[str] = ()) -> Split:
    """Split images by `protocol`, knowing their `labels` (int [image]) and `content` hashes.

    The draw depends on `split_seed`, on each person's label and on the order of the person's images; not on names
    and not on how many people there are in `holdout`. holdout: `test_per_person` images of each person test, or of the
    `test_people` who have the most. kfold:
    fold `fold` tests; over all folds each image is tested once, a person's images differ by at most one between
    folds, and so do the folds (duplicates, which move whole, may add their number). `people` names the labels in
    messages. Raises DataError, naming the person, where somebody has too few images.
    """
    if len(labels) != len(content):
        raise ValueError(f"{len(labels)} labels and {len(content)} content hashes")
    if protocol.split_seed < 0:
        raise DataError(f"protocol.split_seed={protocol.split_seed} must be 0 or more")
    groups, notes = _group_images(labels, content)
    names = {label: people[label] if people else f"person {label}" for label in groups}
    if protocol.name == "holdout":
        chosen = _draw_holdout(groups, protocol, names)
    else:
        chosen = _draw_folds(groups, protocol, names)[protocol.fold]
    tests = np.zeros(len(labels), bool)
    tests[chosen] = True
    return Split(train=np.flatnonzero(~tests), test=np.flatnonzero(tests), notes=notes)


def _group_images(labels: np.ndarray, content: Sequence[str]) -> tuple[dict[int, list[Group]], tuple[str, ...]]:
    """For each label, in order, the groups that may be tested, in order of their first image; and notes."""
    same: dict[str, Group] = defaultdict(list)
    for index, digest in enumerate(content):
        same[digest].append(index)
    groups: dict[int, list[Group]] = {int(label): [] for label in np.unique(labels)}
    repeated: list[Group] = []
    conflicting: list[Group] = []
    for group in same.values():
        owners = {int(labels[index]) for index in group}
        if len(owners) > 1:
            conflicting.append(group)
            continue
        groups[owners.pop()].append(group)
        if len(group) > 1:
            repeated.append(group)
    notes = []
    if repeated:
        notes.append(
            f"pictures that are there more than once: {len(repeated)} ({sum(map(len, repeated))} images); "
            "each stays on one side of the split"
        )
    if conflicting:
        notes.append(
            f"pictures under more than one person: {len(conflicting)} ({sum(map(len, conflicting))} images); "
            "they train and are never tested, remove the wrong ones"
        )
    return groups, tuple(notes)


def _shuffle(groups: list[Group], protocol: ProtocolSpec, label: int) -> list[Group]:
    random = np.random.Generator(np.random.PCG64([protocol.split_seed, label]))
    return [groups[position] for position in random.permutation(len(groups))]


def _draw_holdout(groups: dict[int, list[Group]], protocol: ProtocolSpec, names: dict[int, str]) -> list[int]:
    wanted = protocol.test_per_person
    chosen: list[int] = []
    ranked = sorted(groups, key=lambda label: (-sum(map(len, groups[label])), label))
    for label in sorted(ranked[: protocol.test_people or None]):
        own = groups[label]
        drawn: list[Group] = []
        # The groups that fit; where only larger ones are left, the smallest of them rather than too few images.
        rest = _shuffle(own, protocol, label)
        while rest and (missing := wanted - sum(map(len, drawn))) > 0:
            fitting = [group for group in rest if len(group) <= missing]
            drawn.append(fitting[0] if fitting else min(rest, key=len))
            rest.remove(drawn[-1])
        if not rest:
            raise DataError(
                f"{names[label]} has {len(own)} different images that can be tested; protocol.test_per_person={wanted} "
                f"leaves none to train: set data.min_images={wanted + 1} or a smaller protocol.test_per_person"
            )
        chosen += [index for group in drawn for index in group]
    return chosen


def _draw_folds(groups: dict[int, list[Group]], protocol: ProtocolSpec, names: dict[int, str]) -> list[list[int]]:
    folds: list[list[int]] = [[] for _ in range(protocol.folds)]
    for label, own in groups.items():
        if len(own) < protocol.folds:
            raise DataError(
                f"{names[label]} has {len(own)} different images that can be tested, fewer than protocol.folds="
                f"{protocol.folds}: set data.min_images={protocol.folds} or fewer folds"
            )
        held = [0] * protocol.folds  # this person's images in each fold
        # The largest groups first, each to the fold that has the fewest of this person and then of everybody.
        for group in sorted(_shuffle(own, protocol, label), key=len, reverse=True):
            fold = min(range(protocol.folds), key=lambda fold: (held[fold], len(folds[fold]), fold))
            folds[fold] += group
            held[fold] += len(group)
    return folds
