"""Folds of people for `protocol=open_set`: no person and no image is in both training and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.listing import list_names
from ffem_jax.metrics.duplicates import find_duplicates
from ffem_jax.specs.protocol import ProtocolSpec
from ffem_jax.text.names import fold_name


@dataclass(frozen=True)
class PeopleFold:
    """Sorted indices of images. train: the people of the other folds. test: the people of this fold, each image once.

    probes: the images in `test` whose person has another one there; the others are distractors. notes: one line for
    each thing the user should know.
    """

    train: np.ndarray
    test: np.ndarray
    probes: np.ndarray
    notes: tuple[str, ...]


def draw_people_fold(
    labels: np.ndarray,
    content: Sequence[str],
    people: Sequence[str],
    protocol: ProtocolSpec,
    names: Sequence[str] = (),
    unlabelled: str = "",
) -> PeopleFold:
    """Divide the people into `protocol.folds` folds of about equally many images; fold `protocol.fold` tests.

    People whose names may belong to one person (`text.names.fold_name`) stay in one fold. A duplicate image of one
    person
    is tested once: its copy would be its own nearest neighbour. An image of several people trains if all of them do; if
    one of them is tested it is left out, since it may show that person and its label is unreliable.

    Args:
        labels: int [image], an index into `people`.
        content: [image], a hash of each image's source.
        people: the names.
        names: [image], for the notes; by default, image numbers.
        unlabelled: the entry of `people` without identity. Its images always train, except those that also appear under
            a person who does not train; it does not change the folds of the others.

    Raises:
        DataError: fewer people than folds, fewer than two training people, or a fold without two people or without a
            person with two images.
    """
    if unlabelled:
        return _add_unlabelled(labels, content, people, protocol, names, unlabelled)
    duplicates = find_duplicates(labels, content)
    kept = duplicates.select(len(labels))
    sizes = np.bincount(labels[kept], minlength=len(people))
    tested_people = _deal(_group_people(people), sizes, protocol) == protocol.fold
    tested = tested_people[labels]
    doubtful = np.zeros(len(labels), bool)
    crossing = [group for group in duplicates.contested if tested[list(group)].any()]
    doubtful[[index for group in crossing for index in group]] = True
    train, test = np.flatnonzero(~tested & ~doubtful), np.flatnonzero(tested & kept)
    probes = test[np.bincount(labels[test], minlength=len(people))[labels[test]] > 1]
    _check_fold(labels, train, test, probes, protocol)
    repeated = [group for group in duplicates.repeated if tested[group[0]]]
    notes = _describe_duplicates(repeated, crossing, names or [f"image {index}" for index in range(len(labels))])
    return PeopleFold(train, test, probes, (_describe_fold(labels, train, test, probes, protocol), *notes))


def _add_unlabelled(
    labels: np.ndarray,
    content: Sequence[str],
    people: Sequence[str],
    protocol: ProtocolSpec,
    names: Sequence[str],
    unlabelled: str,
) -> PeopleFold:
    """Return the fold of all people except `unlabelled`, whose images are added to training."""
    nobody = people.index(unlabelled)
    own = np.flatnonzero(labels != nobody)
    fold = draw_people_fold(
        labels[own] - (labels[own] > nobody),
        [content[index] for index in own.tolist()],
        [name for name in people if name != unlabelled],
        protocol,
        [names[index] for index in own.tolist()] if names else (),
    )
    train, test, probes = own[fold.train], own[fold.test], own[fold.probes]
    others = {content[index] for index in np.setdiff1d(own, train).tolist()}
    images = np.flatnonzero(labels == nobody).tolist()
    taught = np.array([index for index in images if content[index] not in others], np.intp)
    note = (
        f"data.unlabelled={unlabelled}: {len(taught):,} images are used for teaching; whether they show "
        "tested people is unknown"
    )
    if len(taught) < len(images):
        note += f"; {len(images) - len(taught):,} more are images of tested people, and are left out"
    return PeopleFold(np.sort(np.append(train, taught)), test, probes, (*fold.notes, note))


def check_strangers(faces: Faces, test: np.ndarray, other: Faces, train: np.ndarray, where: str) -> None:
    """Raise DataError if a person in the `test` images of `faces` is in the `train` images of `other`.

    Compares images and names, but not the names of synthetic faces, which are numbers.

    Args:
        where: the setting that chooses `other` for training.
    """
    same = {faces.content[index] for index in test} & {other.content[index] for index in train}
    names = {fold_name(other.people[label]) for label in np.unique(other.labels[train])}
    tested = [faces.people[label] for label in np.unique(faces.labels[test])]
    known = [] if faces.synthetic and other.synthetic else [name for name in tested if fold_name(name) in names]
    if same or known:
        what = f"{len(same)} of the tested images and {len(known)} of the {len(tested)} tested people are"
        raise DataError(
            f"protocol=open_set tests people not used in training, but {what} in {where}; choose other faces there, "
            "or set pretrain=none"
        )


def _group_people(people: Sequence[str]) -> list[list[int]]:
    """Group labels whose names may belong to one person."""
    groups: dict[str, list[int]] = defaultdict(list)
    for label, name in enumerate(people):
        groups[fold_name(name)].append(label)
    return list(groups.values())


def _deal(groups: Sequence[Sequence[int]], sizes: np.ndarray, protocol: ProtocolSpec) -> np.ndarray:
    """Assign a fold to each person, int [person]. sizes: int [person], the testable images.

    Assigns the largest groups first, each to the fold with the fewest images; ties are random.
    """
    folds = protocol.folds
    if len(groups) < folds:
        raise DataError(f"{len(groups)} people are fewer than protocol.folds={folds}; set fewer protocol.folds")
    random = np.random.Generator(np.random.PCG64([protocol.split_seed, folds]))
    totals = np.array([sizes[group].sum() for group in map(list, groups)])
    shuffled = random.permutation(len(groups))
    order, preferred = shuffled[np.argsort(-totals[shuffled], kind="stable")], random.permutation(folds)
    images, members = np.zeros(folds, int), np.zeros(folds, int)
    fold_of = np.empty(len(sizes), int)
    for group in order:
        fold = preferred[np.lexsort((members[preferred], images[preferred]))[0]]
        fold_of[list(groups[group])] = fold
        images[fold] += totals[group]
        members[fold] += 1
    return fold_of


def _check_fold(
    labels: np.ndarray, train: np.ndarray, test: np.ndarray, probes: np.ndarray, protocol: ProtocolSpec
) -> None:
    trained = len(np.unique(labels[train]))
    if trained < 2:
        raise DataError(
            f"{trained} people outside fold {protocol.fold} of protocol=open_set have training images; two are "
            "needed: set a smaller data.min_images or more folds"
        )
    if not len(probes) or len(np.unique(labels[test])) < 2:
        raise DataError(
            f"fold {protocol.fold} of protocol=open_set has {len(np.unique(labels[test]))} people with test images, "
            f"{len(np.unique(labels[probes]))} of them with two different images; it needs two people, one with two "
            f"images: set data.min_images=2 or protocol.folds below {protocol.folds}"
        )


def _describe_fold(
    labels: np.ndarray, train: np.ndarray, test: np.ndarray, probes: np.ndarray, protocol: ProtocolSpec
) -> str:
    trained, tested, asked = (len(np.unique(labels[images])) for images in (train, test, probes))
    return (
        f"open_set, fold {protocol.fold}: {len(train):,} images of {trained:,} people train; {len(test):,} images of "
        f"{tested:,} other people test, {len(probes):,} of them of {asked:,} people with two or more"
    )


def _describe_duplicates(
    repeated: Sequence[Sequence[int]], crossing: Sequence[Sequence[int]], names: Sequence[str]
) -> list[str]:
    def list_groups(groups: Sequence[Sequence[int]]) -> str:
        return list_names([" is ".join(names[index] for index in group) for group in groups])

    notes = []
    if repeated:
        notes.append(
            f"duplicate images of one tested person: {len(repeated)} "
            f"({sum(map(len, repeated))} images): {list_groups(repeated)}; each is tested once"
        )
    if crossing:
        notes.append(
            f"images of several people, one of whom is tested: {len(crossing)} "
            f"({sum(map(len, crossing))} images): {list_groups(crossing)}; they neither train nor test; remove the "
            "wrong ones"
        )
    return notes
