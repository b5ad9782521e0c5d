"""How many images train and test, from lists of files: nothing is decoded or downloaded, as far as that is possible."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError
from ffem_jax.data.cache import find_cache_folder
from ffem_jax.data.decode import select_people
from ffem_jax.data.open_set import draw_people_fold
from ffem_jax.data.protocols import Split, load_split, make_split
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.protocol import ProtocolSpec

# Protocols whose split follows from labels, contents and names alone.
PLAIN_PROTOCOLS = ("holdout", "kfold", "open_set")
LFW_SETS = ("lfw", "lfw52", "lfw_rest")


class AbsentFacesError(DataError):
    """Faces that are not on this machine. The message is one line and says what to do."""


@dataclass(frozen=True)
class FaceCount:
    """The sizes of one split.

    Args:
        train: how many images. watched: those looked at after each epoch. embedded: those embedded at the end.
        test: indices of the images that test, in the data set's order. people: int [test image], whose they are.
        num_classes: identities of the classifier.
        paired: whether records will say for each test image whether it was right.
        names_people: whether records will say which test images are of one person.
        counted: whether files were counted; else the images were decoded, or are in the cache.
    """

    train: int
    watched: int
    embedded: int
    num_classes: int
    test: np.ndarray = field(repr=False)
    people: np.ndarray = field(repr=False)
    paired: bool = True
    names_people: bool = False
    counted: bool = False


def count_faces(data: DataSpec, protocol: ProtocolSpec) -> FaceCount:
    """The sizes of the split of `data` by `protocol`.

    Of a folder, of LFW as folders and of synthetic faces the files are counted, and compared by their bytes to find
    duplicates; files that are no readable picture count. Other data sets are loaded.

    Raises:
        AbsentFacesError: the faces are not on this machine, and would be downloaded.
        DataError: they cannot be split so.
    """
    listed = _list_faces(data) if protocol.name in PLAIN_PROTOCOLS else None
    if listed is None:
        check_present(data)
        faces, split = load_split(data, protocol)
        return _count(split, np.asarray(faces.labels), counted=False)
    labels, content, people, names = listed
    if protocol.name == "open_set":
        fold = draw_people_fold(labels, content, people, protocol, names, data.unlabelled)
        split = Split(fold.train, fold.test, probes=fold.probes)
    else:
        split = make_split(labels, content, protocol, people)
    return _count(split, labels, counted=True)


def _count(split: Split, labels: np.ndarray, counted: bool) -> FaceCount:
    asked = split.asked
    watched = len(split.validation) or (0 if split.tests_strangers else len(split.test))
    embedded = len(split.test) + (0 if split.tests_strangers else len(split.train))
    if split.bins is not None:  # each image and its mirror image
        embedded = 2 * sum(len(one.images) for one in split.bins.sets)
    return FaceCount(
        train=len(split.train),
        watched=watched,
        embedded=embedded,
        num_classes=len(np.unique(labels[split.train])),
        test=asked,
        people=labels[asked],
        paired=len(asked) > 0,
        names_people=split.probes is not None,
        counted=counted,
    )


def check_present(data: DataSpec) -> None:
    """Raise AbsentFacesError where loading `data` would begin with a download."""
    from ffem_jax.data.lfw import FUNNELED

    if data.name not in LFW_SETS or data.root or os.environ.get("FFEM_LFW_ROOT"):
        return
    if not (find_cache_folder(data) / FUNNELED.name).exists():
        raise AbsentFacesError(
            f"data={data.name} is not on this machine and a plan downloads nothing; set data.root or FFEM_LFW_ROOT"
        )


def _list_faces(data: DataSpec) -> tuple[np.ndarray, list[str], list[str], list[str]] | None:
    """Labels, a digest of each image's file, people, and the images' names; None where only loading tells."""
    if data.name == "synthetic":
        from ffem_jax.data.synthetic import DEFAULT_PEOPLE

        count = data.people or DEFAULT_PEOPLE
        each = min(data.images_per_person, data.max_images or data.images_per_person)
        people = [f"person_{person:05d}" for person in range(count)]
        names = [f"{person}/{index:05d}" for person in people for index in range(each)]
        return np.repeat(np.arange(count), each), names, people, names
    files = _list_folder(data) if data.name == "folder" else _list_lfw(data) if data.name in LFW_SETS else None
    if files is None:
        return None
    people = list(files)
    labels = np.repeat(np.arange(len(people)), [len(files[person]) for person in people])
    paths = [path for person in people for path in files[person]]
    return labels, list(map(_hash_file, paths)), people, [f"{path.parent.name}/{path.name}" for path in paths]


def _list_folder(data: DataSpec) -> dict[str, list[Path]]:
    from ffem_jax.data.folder import find_root, list_pictures

    root = find_root(data)
    files: dict[str, list[Path]] = {}
    for picture in list_pictures(root, f"data.root={root}").pictures:
        files.setdefault(picture.person, []).append(picture.path)
    kept = select_people({person: len(own) for person, own in files.items()}, data)
    if len(kept) < data.least_people:
        raise DataError(
            f"data.root={root} has {len(kept)} of the at least {data.least_people} people with "
            f"data.min_images={data.min_images} pictures"
        )
    return {person: files[person][: data.limit_images(person)] for person in kept}


def _list_lfw(data: DataSpec) -> dict[str, list[Path]] | None:
    from ffem_jax.data import lfw

    check_present(data)
    if data.name == "lfw52":
        data = dataclasses.replace(data, people=lfw.LFW52_PEOPLE, max_images=lfw.LFW52_MAX_IMAGES, min_images=1)
    source = lfw.find_source(data)
    if not source.path.is_dir():
        return None  # an archive: loading unpacks it once for all
    files: dict[str, list[Path]] = {}
    for name in lfw.select_names(lfw.list_names(source.path), data):
        files.setdefault(lfw.name_person(name), []).append(source.path / name)
    return files


def _hash_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return str(path)
