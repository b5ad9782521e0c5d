"""Photographs of people to vectors of a trained network: what a gallery is filled with, and calibrated on.

The vectors are those that the exported network gives on a phone: one look at the face as it is, no mirror image. They
are computed by the trial's network, or by the exported file itself where that is another model (fine-tuned).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.folder import ENDINGS as PICTURE_ENDINGS
from ffem_jax.data.folder import list_pictures, load_people
from ffem_jax.data.protocols import load_split
from ffem_jax.export.bundle import read_manifest
from ffem_jax.export.embedder import Embedder, EmbedError
from ffem_jax.metrics.calibration import Calibration, compute_calibration
from ffem_jax.metrics.duplicates import find_duplicates, group_same_vectors
from ffem_jax.serve.names import MAX_NAME, NameRefusedError, normalize_name
from ffem_jax.specs.trial import DataSpec
from ffem_jax.text.names import decode_file_name, tidy_name
from ffem_jax.training.weights import FinishedTrial, load_pretraining_faces, load_trained_faces

if TYPE_CHECKING:
    from ffem_jax.serve.changes import Candidate

ENDINGS = (".npz", ".jsonl")
# Of pictures or people that a line is about.
SHOWN = 5


@dataclass(frozen=True)
class EmbeddedFaces:
    """Vectors of a folder's faces. vectors: float32 [image, length], of unit length; faces: whose and of which file."""

    model_id: str
    vectors: np.ndarray
    faces: Faces

    @property
    def names(self) -> list[str]:
        """The person [image]."""
        return [self.faces.people[label] for label in self.faces.labels]


def check_same_trial(folder: Path, finished: FinishedTrial) -> None:
    """Raise EmbedError unless the model that `ffem export` wrote into `folder` is of the trial `finished`."""
    if read_manifest(folder)["trial_key"] != finished.key:
        raise EmbedError(f"{folder} was exported from another trial than {finished.folder}; name the trial it is of")


def embed_folder(folder: Path, embedder: Embedder, crop: float = 1.0, cache_dir: str = "") -> EmbeddedFaces:
    """The vectors of the people in `folder`, one folder per person.

    crop: the centred square that is kept of each picture, as a share of its shorter side; 1 keeps faces that are
    already cut as training's are. Pictures that are not square become so as those of the training did (data.fit).

    Raises DataError for a folder without people, and EmbedError where no picture of theirs can be read or the network
    makes nothing of one.
    """
    spec = DataSpec(
        name="folder",
        root=str(folder),
        resolution=embedder.resolution,
        min_images=1,
        crop=crop,
        fit=embedder.fit,
        cache_dir=cache_dir,
    )
    faces = load_people(spec)
    if not len(faces.images):
        raise EmbedError(f"{folder}: no picture can be read ({faces.notes[0] if faces.notes else 'there is none'})")
    return EmbeddedFaces(embedder.model_id, embedder.compute(faces.images), faces)


def move_faces(finished: FinishedTrial, data_root: str) -> FinishedTrial:
    """`finished` with its faces, and those of its pretraining where they lay in the same folder, looked for in
    `data_root`; as it is where that is empty."""
    if not data_root:
        return finished
    trial, pretrain = finished.trial, finished.trial.pretrain
    if pretrain.data.root == trial.data.root:
        pretrain = dataclasses.replace(pretrain, data=dataclasses.replace(pretrain.data, root=data_root))
    data = dataclasses.replace(trial.data, root=data_root)
    return dataclasses.replace(finished, trial=dataclasses.replace(trial, data=data, pretrain=pretrain))


def calibrate(embedded: EmbeddedFaces, finished: FinishedTrial) -> tuple[Calibration, list[str]]:
    """The calibration on these faces, and what to be wary of.

    A picture under two people is left out. Raises EmbedError where a picture trained the network, and CalibrationError
    for too few people.
    """
    notes = check_new_people(embedded.faces, finished)
    # What the network sees: a file saved anew without loss is the same picture, and two that it cannot tell apart are
    # two.
    pixels = [hashlib.sha256(image.tobytes()).digest() for image in embedded.faces.images]
    labels, names = embedded.faces.labels, embedded.faces.names
    duplicates = find_duplicates(labels, pixels)
    if duplicates.contested:
        count = sum(map(len, duplicates.contested))
        notes.append(
            f"pictures under more than one person: {len(duplicates.contested)} ({count} images), left out of the "
            f"calibration: {_show([' and '.join(names[one] for one in group) for group in duplicates.contested])}; "
            "remove the wrong ones"
        )
    if duplicates.repeated:
        notes.append(
            f"pictures that are there more than once under one person: {len(duplicates.repeated)}, each counted once: "
            f"{_show([' and '.join(names[one] for one in group) for group in duplicates.repeated])}"
        )
    calibration = compute_calibration(embedded.vectors, labels, embedded.model_id, content=pixels)
    blurred = [
        " and ".join(names[one] for one in group)
        for group in find_duplicates(labels, group_same_vectors(embedded.vectors).tolist()).contested
        if group not in duplicates.contested
    ]
    if blurred:
        notes.append(
            f"different pictures of different people to which the network gives one vector: {len(blurred)} times; they "
            f"count: {_show(blurred)}; where they are copies of one picture, remove the wrong ones"
        )
    return calibration, notes


def _show(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def check_names(folder: Path) -> None:
    """Raise EmbedError, naming the folders, where people in `folder` have names that nobody can be enrolled under."""
    if not folder.is_dir():
        return  # which the loader says better
    refused = []
    for person in dict.fromkeys(picture.person for picture in list_pictures(folder, str(folder)).pictures):
        try:
            normalize_name(person)
        except NameRefusedError:
            refused.append(repr(person))
    if refused:
        raise EmbedError(
            f"{folder}: nobody can be enrolled under the names of these folders ({len(refused)}): {_show(refused)}; "
            f"rename them: a name has 1 to {MAX_NAME} characters, something to see and no control characters"
        )


def list_candidates(embedded: EmbeddedFaces) -> list[Candidate]:
    """Every picture as a gallery takes it. Raises NameRefusedError where `check_names` would have said which name."""
    from ffem_jax.serve.changes import STORED, Candidate

    names = [normalize_name(name) for name in embedded.faces.people]
    rows = zip(embedded.faces.labels, embedded.vectors.astype(STORED), embedded.faces.names, strict=True)
    return [Candidate(names[label], vector, image) for label, vector, image in rows]


def find_unread(folder: Path, faces: Faces) -> dict[str, list[str]]:
    """What lies in `folder` and may be pictures that are not among its `faces`, by person: files that cannot be read,
    links to what is not there, sub-folders, and people's folders without any picture that can be read."""
    read, people = set(faces.names), set(faces.people)
    unread: dict[str, list[str]] = defaultdict(list)
    for place in sorted(folder.iterdir()):
        called = decode_file_name(place.name)
        person = tidy_name(called)
        if called.startswith(".") or not (place.is_dir() or place.is_symlink()):
            continue
        try:
            files = sorted(file for file in place.iterdir() if not file.name.startswith("."))
            others = [file for file in files if f"{called}/{decode_file_name(file.name)}" not in read]
            unread[person] += [f"{called}/{decode_file_name(file.name)}" for file in others if _may_be_picture(file)]
        except OSError:
            unread[person].append(called)
        if person not in people:
            unread[person].append(called)
    return {person: places for person, places in unread.items() if places}


def _may_be_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_ENDINGS or not path.is_file()


def check_new_people(faces: Faces, finished: FinishedTrial) -> list[str]:
    """What speaks against the people of `faces` being new to the network; the pretraining's people included.

    Raises EmbedError for a picture of the training's: a threshold from people who trained accepts too many strangers.
    """
    notes = []
    for trial, load in ((finished.trial, load_trained_faces), (finished.trial.pretraining, load_pretraining_faces)):
        if trial is None:
            continue
        try:
            trained, split = load(finished)
            images = split.train
        except (DataError, OSError) as error:
            mend = "" if "--data-root" in str(error) else "; --data-root DIR says where they are now"
            notes.append(f"the faces that trained the network are not at hand as they were ({error}), so it was not "
                         f"checked that these people are others{mend}")  # fmt: skip
            try:
                trained, _ = load_split(trial.data, trial.protocol)
            except (DataError, OSError):
                continue
            # Of those that are there now, any may have trained.
            images = np.arange(len(trained.images))
        same = set(faces.content) & {trained.content[image] for image in images}
        if same:
            raise EmbedError(
                f"{len(same)} of {len(faces.content)} pictures trained the network; a calibration takes people that it "
                "has never seen"
            )
        known = {trained.people[label] for label in np.unique(trained.labels[images])} & set(faces.people)
        if known:
            notes.append(
                f"{len(known)} of {len(faces.people)} people bear names of people who trained the network; where they "
                "are the same people, the thresholds accept too many strangers"
            )
    return notes


def write_vectors(path: Path, embedded: EmbeddedFaces) -> None:
    """Write the vectors to `path`, as its ending says.

    .npz: arrays vectors, names, images and model_id. .jsonl: for each image what an enrolment sends (model_id, name,
    vector), and image. Raises EmbedError for another ending.
    """
    names, images = embedded.names, embedded.faces.names
    if path.suffix == ".npz":
        with open(path, "wb") as file:
            np.savez(
                file,
                vectors=embedded.vectors,
                names=np.array(names),
                images=np.array(images),
                model_id=np.array(embedded.model_id),
            )
    elif path.suffix == ".jsonl":
        with open(path, "w", encoding="utf-8") as file:
            for name, image, vector in zip(names, images, embedded.vectors, strict=True):
                row = {"model_id": embedded.model_id, "name": name, "image": image, "vector": vector.tolist()}
                file.write(json.dumps(row) + "\n")
    else:
        raise EmbedError(f"--out {path}: the file ends in {' or '.join(ENDINGS)}")
