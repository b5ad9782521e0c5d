"""Which images train and which test, with no image on both sides: `holdout` and `kfold`, drawn by `split_seed`; LFW's
`view2` and `open_set` (see `open_set.py`), where no person is on both sides either; and `bins` (see `bins.py`), which
tests other sets than the one that trains.

Images of the same content are one group and stay on one side. Content that stands under several people cannot be
tested fairly, since one of the labels is wrong: such images always train.
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

# The images of one content, by index.
Group = list[int]


@dataclass(frozen=True)
class Split:
    """Sorted indices of the images that train and that test; no image is on two sides.

    view2 and open_set leave some images out.

    Args:
        train: int [image].
        test: int [image].
        validation: images of people who train, held out of training and never tested; empty where none were asked for.
        pairs: view2's, of all folds; `test` are the images in those of the tested fold.
        probes: open_set's, the images of `test` that are asked about; the others are of people with one image. None
            under the other protocols.
        digest: 16 hexadecimal digits over who trains, the pairs and the probes, where these follow from neither the
            faces nor the protocol; else empty.
        bins: the sets of pairs that are tested under the protocol of that name, of no image of the faces; `test` is
            empty.
        notes: one line for each thing the user should know about duplicates, or about who trains.
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
        """Whether nobody who is tested trains: neither the classifier nor a gallery of those who do knows them."""
        return self.pairs is not None or self.probes is not None or self.bins is not None

    @property
    def asked(self) -> np.ndarray:
        """The images that are right or wrong, each by itself; none where pairs are."""
        if self.pairs is not None:
            return np.zeros(0, np.intp)
        return self.test if self.probes is None else self.probes


def load_split(data: DataSpec, protocol: ProtocolSpec) -> tuple[Faces, Split]:
    """The faces of `data` and how `protocol` splits them.

    view2 loads everybody, and `data` then selects among the people who are not tested.

    Raises:
        DataError: as `load_faces`, `read_pairs`, `make_split`, `make_view2_split` and `draw_people_fold` do.
    """
    if protocol.name == "view2":
        find_pairs = DATA_SETS[data.name].find_pairs
        if find_pairs is None:
            raise DataError(
                f"protocol=view2 tests pairs of Labeled Faces in the Wild and not data={data.name}; set data=lfw"
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

    holdout: `test_per_person` images of each person test, or of the `test_people` who have the most. kfold: fold `fold`
    tests; over all folds each image is tested once, a person's images differ by at most one between folds, and so do
    the folds (duplicates, which move whole, may add their number). `validation_per_person` images of each person are
    then taken from those that train, which changes no test.

    The draw depends on `split_seed`, on each person's label and on the order of the person's images; not on names and
    not on how many people there are in `holdout`.

    Args:
        labels: int [image].
        content: a hash of each image; equal ones are duplicates.
        protocol: which images test.
        people: names of the labels, for messages.

    Raises:
        DataError: naming the person, where somebody has too few images.
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

    An image that is tested trains under no other name. The people of the other folds train, though it is their pairs
    that choose the threshold: it suits them better than strangers, which can cost accuracy on the tested fold and
    cannot flatter it.

    Args:
        faces: of everybody.
        pairs: View 2's, of all folds.
        data: selects among the people who train: those with `min_images`, of these the `people` with the most, and of
            each the first `max_images`.
        protocol: which fold tests.

    Raises:
        DataError: the fold is not in `pairs`, fewer than two people are left to train, or as `make_split` does for the
            validation images.
    """
    if pairs.folds != protocol.folds:
        raise DataError(f"pairs.txt has {pairs.folds} folds; set protocol.folds={pairs.folds}, not {protocol.folds}")
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
        f"view2, fold {protocol.fold}: {len(train):,} images of {len(chosen):,} people train; the {tested.sum()} pairs "
        f"that test are of {len(set(faces.labels[test].tolist())):,} other people"
    )
    names = {label: faces.people[label] for label in own}
    train, validation = _hold_out(train, faces.labels, faces.content, protocol, names)
    return Split(train, test, (note,), validation, pairs, digest)


def make_open_set_split(faces: Faces, protocol: ProtocolSpec, unlabelled: str = "") -> Split:
    """The people of fold `protocol.fold` test and the others train; see `draw_people_fold`, whose errors are raised."""
    fold = draw_people_fold(faces.labels, faces.content, faces.people, protocol, faces.names, unlabelled)
    # Who is tested also follows from names and contents, which a fingerprint of pixels does not have.
    digest = _hash_arrays(fold.train, fold.test, fold.probes)
    return Split(fold.train, fold.test, fold.notes, digest=digest, probes=fold.probes)


def make_bins_split(faces: Faces, bins: Bins, protocol: ProtocolSpec) -> Split:
    """Everybody trains, and the pairs of `bins` test; images of one content in both are said and not left out.

    Raises:
        DataError: as `make_split` does for the validation images.
    """
    everything = np.arange(len(faces.labels))
    train, validation = _hold_out(everything, faces.labels, faces.content, protocol, dict(enumerate(faces.people)))
    notes = [f"bins: {', '.join(f'{one.name} ({len(one.same):,} pairs)' for one in bins.sets)} test; everybody trains"]
    shared = len(set(bins.content) & set(faces.content))
    if shared:
        notes.append(
            f"bins: {shared:,} pictures that test are among those that train; rates on them are too high, take them out"
        )
    return Split(train, np.zeros(0, np.intp), tuple(notes), validation, digest=bins.digest, bins=bins)


def _hash_arrays(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
    return digest.hexdigest()[:16]


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


def _shuffle(groups: list[Group], *stream: int) -> list[Group]:
    random = np.random.Generator(np.random.PCG64(stream))
    return [groups[position] for position in random.permutation(len(groups))]


def _draw(shuffled: list[Group], wanted: int) -> tuple[list[Group], list[Group]]:
    """Groups of `wanted` images in all, or a few more where groups are large, and the groups that are left."""
    drawn: list[Group] = []
    # The groups that fit; where only larger ones are left, the smallest of them rather than too few images.
    rest = list(shuffled)
    while rest and (missing := wanted - sum(map(len, drawn))) > 0:
        fitting = [group for group in rest if len(group) <= missing]
        drawn.append(fitting[0] if fitting else min(rest, key=len))
        rest.remove(drawn[-1])
    return drawn, rest


def _hold_out(
    train: np.ndarray, labels: np.ndarray, content: Sequence[str], protocol: ProtocolSpec, names: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """The indices `train` without, and those of, `validation_per_person` images of each person."""
    wanted = protocol.validation_per_person
    if not wanted:
        return train, np.zeros(0, np.intp)
    groups, _ = _group_images(labels[train], [content[index] for index in train])
    held = np.zeros(len(train), bool)
    for label, own in groups.items():
        # A stream apart from the test images' own, [split_seed, label], which NumPy takes for [split_seed, label, 0].
        drawn, rest = _draw(_shuffle(own, protocol.split_seed, label, 1), wanted)
        if not rest:
            raise DataError(
                f"{names[label]} has {len(own)} different images to train on; protocol.validation_per_person={wanted} "
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
        # The largest groups first, each to the fold that has the fewest of this person and then of everybody.
        for group in sorted(_shuffle(own, protocol.split_seed, label), key=len, reverse=True):
            fold = min(range(protocol.folds), key=lambda fold: (held[fold], len(folds[fold]), fold))
            folds[fold] += group
            held[fold] += len(group)
    return folds
