"""Divides images into training and test without overlap: `holdout` and `kfold`, drawn by `split_seed`; LFW's `view2`
and `open_set` (see `open_set.py`), where no person is on both sides either; and `bins` (see `bins.py`), which tests
other sets than the training set.

Images with equal content form a group and stay on one side. Content that appears under several people cannot be tested
fairly, since one of the labels is wrong: such images always train.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ffem_jax.data import DataError, Faces, load_faces
from ffem_jax.data.bins import Bins, load_bins
from ffem_jax.data.decode import select_people
from ffem_jax.data.open_set import draw_people_fold
from ffem_jax.data.pairs import Pairs, read_pairs
from ffem_jax.specs.data import DATA_SETS, DataSpec
from ffem_jax.specs.protocol import ProtocolSpec
from ffem_jax.specs.registry import resolve

# The indices of images with equal content.
Group = list[int]


@dataclass(frozen=True)
class Split:
    """Sorted indices of training and test images, without overlap.

    view2 and open_set leave some images out.

    Args:
        train: int [image].
        test: int [image].
        validation: images of training people, held out of training and never tested; may be empty.
        pairs: for view2, the pairs of all folds; `test` are the images in the tested fold's pairs.
        probes: for open_set, the query images in `test`; the others are of people with one image. None for other
            protocols.
        digest: hash of the training people, the pairs and the probes, 16 hexadecimal digits, if these do not follow
            from the faces and the protocol; else empty.
        bins: for the protocol of that name, the sets of pairs to test, with images of their own; `test` is empty.
        notes: one line for each thing the user should know about duplicates or training people.
    """

    train: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...] = ()
    validation: np.ndarray = field(default_factory=lambda: np.zeros(0, np.intp))
    pairs: Pairs | None = None
    digest: str = ""
    probes: np.ndarray | None = None
    bins: Bins | None = None

    @property
    def tests_strangers(self) -> bool:
        """Whether test people do not train, so that neither the classifier nor a training gallery knows them."""
        return self.pairs is not None or self.probes is not None or self.bins is not None

    @property
    def asked(self) -> np.ndarray:
        """The images that count as correct or incorrect individually; none if pairs do."""
        if self.pairs is not None:
            return np.zeros(0, np.intp)
        return self.test if self.probes is None else self.probes


def load_split(data: DataSpec, protocol: ProtocolSpec) -> tuple[Faces, Split]:
    """Load the faces of `data` and split them by `protocol`.

    view2 loads all people, and `data` then selects among those not tested.

    Raises:
        DataError: as `load_faces`, `read_pairs`, `make_split`, `make_view2_split` and `draw_people_fold` do.
    """
    if protocol.name == "view2":
        find_pairs = DATA_SETS[data.name].find_pairs
        if find_pairs is None:
            raise DataError(
                f"protocol=view2 tests pairs of Labeled Faces in the Wild, not data={data.name}; set data=lfw"
            )
        faces = load_faces(dataclasses.replace(data, people=0, min_images=1, max_images=0))
        return faces, make_view2_split(faces, read_pairs(resolve(find_pairs)(data), faces.names), data, protocol)
    faces = load_faces(data)
    if protocol.name == "open_set":
        return faces, make_open_set_split(faces, protocol, data.unlabelled)
    if protocol.name == "bins":
        return faces, make_bins_split(faces, load_bins(data, protocol), protocol)
    return faces, make_split(faces.labels, faces.content, protocol, faces.people)


def make_split(labels: np.ndarray, content: Sequence[str], protocol: ProtocolSpec, people: Sequence[str] = ()) -> Split:
    """Split images by `protocol`.

    holdout: `test_per_person` images of each person test, or of the `test_people` with the most images. kfold: fold
    `fold` tests; over all folds each image is tested once, a person's images differ by at most one between folds, and
    so do the folds (duplicates, which stay together, may add their number). `validation_per_person` images of each
    person are then taken from the training images, which does not change the test images.

    The draw depends on `split_seed`, each person's label and the order of the person's images; not on names and, for
    `holdout`, not on the number of people.

    Args:
        labels: int [image].
        content: a hash of each image; equal ones are duplicates.
        protocol: the protocol.
        people: names of the labels, for messages.

    Raises:
        DataError: a person has too few images; the message names the person.
    """
    if len(labels) != len(content):
        raise ValueError(f"{len(labels)} labels and {len(content)} content hashes")
    groups, notes = _group_images(labels, content)
    names = {label: people[label] if people else f"person {label}" for label in groups}
    if protocol.name == "holdout":
        chosen = _draw_holdout(groups, protocol, names)
    else:
        chosen = _draw_folds(groups, protocol, names)[protocol.fold]
    tests = np.zeros(len(labels), bool)
    tests[chosen] = True
    train, validation = _hold_out(np.flatnonzero(~tests), labels, content, protocol, names)
    return Split(train=train, test=np.flatnonzero(tests), notes=notes, validation=validation)


def make_view2_split(faces: Faces, pairs: Pairs, data: DataSpec, protocol: ProtocolSpec) -> Split:
    """The pairs of `protocol.fold` test; people in none of them train, with all their images.

    A test image does not train under another name either. The people of the other folds train although their pairs
    choose the threshold: it fits them better than strangers, which can lower accuracy on the tested fold but not
    inflate it.

    Args:
        faces: all people.
        pairs: View 2's pairs, all folds.
        data: selects the training people: those with `min_images`, of these the `people` with the most, and of each
            the first `max_images`.
        protocol: gives the test fold.

    Raises:
        DataError: the fold is not in `pairs`, fewer than two people are left to train, or as `make_split` does for the
            validation images.
    """
    if pairs.folds != protocol.folds:
        raise DataError(
            f"pairs.txt has {pairs.folds} folds; set protocol.folds={pairs.folds} instead of {protocol.folds}"
        )
    tested = pairs.fold == protocol.fold
    test = np.unique([pairs.first[tested], pairs.second[tested]])
    strangers = ~np.isin(faces.labels, faces.labels[test]) & ~np.isin(faces.content, [faces.content[i] for i in test])
    counts = Counter(faces.labels[strangers].tolist())
    chosen = set(select_people({faces.people[label]: count for label, count in counts.items()}, data))
    if len(chosen) < 2:
        raise DataError(
            f"{len(chosen)} people outside fold {protocol.fold} have data.min_images={data.min_images}; two are needed"
        )
    own: dict[int, list[int]] = defaultdict(list)
    for index in np.flatnonzero(strangers):
        if faces.people[faces.labels[index]] in chosen:
            own[int(faces.labels[index])].append(int(index))
    train = np.asarray(sorted(index for images in own.values() for index in images[: data.max_images or None]))
    digest = _hash_arrays(train, pairs.first, pairs.second, pairs.same, pairs.fold)
    note = (
        f"view2, fold {protocol.fold}: {len(train):,} images of {len(chosen):,} people train; the {tested.sum()} test "
        f"pairs are of {len(set(faces.labels[test].tolist())):,} other people"
    )
    names = {label: faces.people[label] for label in own}
    train, validation = _hold_out(train, faces.labels, faces.content, protocol, names)
    return Split(train, test, (note,), validation, pairs, digest)


def make_open_set_split(faces: Faces, protocol: ProtocolSpec, unlabelled: str = "") -> Split:
    """The people of fold `protocol.fold` test and the others train; see `draw_people_fold`, whose errors are raised."""
    fold = draw_people_fold(faces.labels, faces.content, faces.people, protocol, faces.names, unlabelled)
    # The test people also depend on names and contents, which are not part of a fingerprint of pixels.
    digest = _hash_arrays(fold.train, fold.test, fold.probes)
    return Split(fold.train, fold.test, fold.notes, digest=digest, probes=fold.probes)


def make_bins_split(faces: Faces, bins: Bins, protocol: ProtocolSpec) -> Split:
    """All people train, and the pairs of `bins` test; images in both are reported but not left out.

    Raises:
        DataError: as `make_split` does for the validation images.
    """
    everything = np.arange(len(faces.labels))
    train, validation = _hold_out(everything, faces.labels, faces.content, protocol, dict(enumerate(faces.people)))
    notes = [f"bins: {', '.join(f'{one.name} ({len(one.same):,} pairs)' for one in bins.sets)} test; all people train"]
    shared = len(set(bins.content) & set(faces.content))
    if shared:
        notes.append(f"bins: {shared:,} test images are also training images; rates on them are too high, remove them")
    return Split(train, np.zeros(0, np.intp), tuple(notes), validation, digest=bins.digest, bins=bins)


def _hash_arrays(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
    return digest.hexdigest()[:16]


def _group_images(labels: np.ndarray, content: Sequence[str]) -> tuple[dict[int, list[Group]], tuple[str, ...]]:
    """Return the testable groups per label, in order of their first image, and notes."""
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
            f"duplicate images: {len(repeated)} ({sum(map(len, repeated))} images); each stays on one side of the split"
        )
    if conflicting:
        notes.append(
            f"images of several people: {len(conflicting)} ({sum(map(len, conflicting))} images); "
            "they train and are never tested; remove the wrong ones"
        )
    return groups, tuple(notes)


def _shuffle(groups: list[Group], *stream: int) -> list[Group]:
    random = np.random.Generator(np.random.PCG64(stream))
    return [groups[position] for position in random.permutation(len(groups))]


def _draw(shuffled: list[Group], wanted: int) -> tuple[list[Group], list[Group]]:
    """Return groups with `wanted` images in total, or a few more if groups are large, and the remaining groups."""
    drawn: list[Group] = []
    # Take groups that fit; if only larger ones are left, take the smallest rather than too few images.
    rest = list(shuffled)
    while rest and (missing := wanted - sum(map(len, drawn))) > 0:
        fitting = [group for group in rest if len(group) <= missing]
        drawn.append(fitting[0] if fitting else min(rest, key=len))
        rest.remove(drawn[-1])
    return drawn, rest


def _hold_out(
    train: np.ndarray, labels: np.ndarray, content: Sequence[str], protocol: ProtocolSpec, names: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Split `validation_per_person` images of each person off the indices `train`."""
    wanted = protocol.validation_per_person
    if not wanted:
        return train, np.zeros(0, np.intp)
    groups, _ = _group_images(labels[train], [content[index] for index in train])
    held = np.zeros(len(train), bool)
    for label, own in groups.items():
        # Independent of the test images' stream, [split_seed, label], which NumPy treats as [split_seed, label, 0].
        drawn, rest = _draw(_shuffle(own, protocol.split_seed, label, 1), wanted)
        if not rest:
            raise DataError(
                f"{names[label]} has {len(own)} different training images; protocol.validation_per_person={wanted} "
                "leaves none: raise data.min_images or set a smaller protocol.validation_per_person"
            )
        held[[position for group in drawn for position in group]] = True
    return train[~held], train[held]


def _draw_holdout(groups: dict[int, list[Group]], protocol: ProtocolSpec, names: dict[int, str]) -> list[int]:
    wanted = protocol.test_per_person
    chosen: list[int] = []
    ranked = sorted(groups, key=lambda label: (-sum(map(len, groups[label])), label))
    for label in sorted(ranked[: protocol.test_people or None]):
        own = groups[label]
        drawn, rest = _draw(_shuffle(own, protocol.split_seed, label), wanted)
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
        # Largest groups first, each to the fold with the fewest images of this person, then of all people.
        for group in sorted(_shuffle(own, protocol.split_seed, label), key=len, reverse=True):
            fold = min(range(protocol.folds), key=lambda fold: (held[fold], len(folds[fold]), fold))
            folds[fold] += group
            held[fold] += len(group)
    return folds
