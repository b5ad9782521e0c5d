"""Turns photographs of people into vectors of a trained network, to fill a gallery or to calibrate thresholds.

The vectors are those of the exported network on a phone: from the image alone, without its mirror image. They are
computed by the trial's network, or by the exported file itself if that is a different (fine-tuned) model.
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
# Number of images or people that a message lists.
SHOWN = 5


@dataclass(frozen=True)
class EmbeddedFaces:
    """Vectors of a folder's faces. vectors: float32 [image, length], of unit length; faces: their people and files."""

    model_id: str
    vectors: np.ndarray
    faces: Faces

    @property
    def names(self) -> list[str]:
        """The person of each image, [image]."""
        return [self.faces.people[label] for label in self.faces.labels]


def check_same_trial(folder: Path, finished: FinishedTrial) -> None:
    """Raise EmbedError unless the model exported to `folder` comes from the trial `finished`."""
    if read_manifest(folder)["trial_key"] != finished.key:
        raise EmbedError(f"{folder} was not exported from {finished.folder}; give the trial that it came from")


def embed_folder(folder: Path, embedder: Embedder, crop: float = 1.0, cache_dir: str = "") -> EmbeddedFaces:
    """Embed the people in `folder`, one folder per person.

    crop: the centred square to keep of each image, as a share of its shorter side; 1 for faces that are already cropped
    like those in training. Images are made square as in training (data.fit).

    Raises DataError for a folder without people, and EmbedError if no image is readable or a vector is invalid.
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
        raise EmbedError(f"{folder}: no image can be read ({faces.notes[0] if faces.notes else 'there is none'})")
    return EmbeddedFaces(embedder.model_id, embedder.compute(faces.images), faces)


def move_faces(finished: FinishedTrial, data_root: str) -> FinishedTrial:
    """Return `finished` with its faces, and those of its pretraining if from the same folder, in `data_root`; unchanged
    if that is empty."""
    if not data_root:
        return finished
    trial, pretrain = finished.trial, finished.trial.pretrain
    if pretrain.data.root == trial.data.root:
        pretrain = dataclasses.replace(pretrain, data=dataclasses.replace(pretrain.data, root=data_root))
    data = dataclasses.replace(trial.data, root=data_root)
    return dataclasses.replace(finished, trial=dataclasses.replace(trial, data=data, pretrain=pretrain))


def calibrate(embedded: EmbeddedFaces, finished: FinishedTrial) -> tuple[Calibration, list[str]]:
    """Calibrate on these faces; return the calibration and its caveats.

    An image that belongs to two people is left out. Raises EmbedError for an image used in training, and
    CalibrationError for too few people.
    """
    notes = check_new_people(embedded.faces, finished)
    # Compare pixels: a file saved again without loss is the same image. Different images with equal vectors stay
    # separate.
    pixels = [hashlib.sha256(image.tobytes()).digest() for image in embedded.faces.images]
    labels, names = embedded.faces.labels, embedded.faces.names
    duplicates = find_duplicates(labels, pixels)
    if duplicates.contested:
        count = sum(map(len, duplicates.contested))
        notes.append(
            f"images under more than one person: {len(duplicates.contested)} ({count} images), left out of the "
            f"calibration: {_show([' and '.join(names[one] for one in group) for group in duplicates.contested])}; "
            "remove the wrong ones"
        )
    if duplicates.repeated:
        notes.append(
            f"duplicate images of one person: {len(duplicates.repeated)}, each counted once: "
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
            f"different images of different people with the same vector: {len(blurred)}; they "
            f"count: {_show(blurred)}; if they are copies of one image, remove the wrong ones"
        )
    return calibration, notes


def _show(items: Sequence[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def check_names(folder: Path) -> None:
    """Raise EmbedError, which lists the folders, if people in `folder` have names that are not valid for enrolment."""
    if not folder.is_dir():
        return  # the loader has a better message
    refused = []
    for person in dict.fromkeys(picture.person for picture in list_pictures(folder, str(folder)).pictures):
        try:
            normalize_name(person)
        except NameRefusedError:
            refused.append(repr(person))
    if refused:
        raise EmbedError(
            f"{folder}: the names of these folders are not valid for enrolment ({len(refused)}): {_show(refused)}; "
            f"rename them: a name has 1 to {MAX_NAME} characters, at least one visible and no control characters"
        )


def list_candidates(embedded: EmbeddedFaces) -> list[Candidate]:
    """Return every image in the gallery's format. Raises NameRefusedError for a name that `check_names` rejects."""
    from ffem_jax.serve.changes import STORED, Candidate

    names = [normalize_name(name) for name in embedded.faces.people]
    rows = zip(embedded.faces.labels, embedded.vectors.astype(STORED), embedded.faces.names, strict=True)
    return [Candidate(names[label], vector, image) for label, vector, image in rows]


def find_unread(folder: Path, faces: Faces) -> dict[str, list[str]]:
    """Find possible images in `folder` that are not among its `faces`, by person: unreadable files, broken links,
    sub-folders, and people's folders without a readable image."""
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
    """Return evidence that people of `faces` were used in training or pretraining.

    Raises EmbedError for a training image: a threshold calibrated on training people accepts too many strangers.
    """
    notes = []
    for trial, load in ((finished.trial, load_trained_faces), (finished.trial.pretraining, load_pretraining_faces)):
        if trial is None:
            continue
        try:
            trained, split = load(finished)
            images = split.train
        except (DataError, OSError) as error:
            mend = "" if "--data-root" in str(error) else "; give their location with --data-root DIR"
            notes.append(f"the training faces are not available as recorded ({error}), so it was not "
                         f"checked that these are different people{mend}")  # fmt: skip
            try:
                trained, _ = load_split(trial.data, trial.protocol)
            except (DataError, OSError):
                continue
            # Any of those now present may have been used in training.
            images = np.arange(len(trained.images))
        same = set(faces.content) & {trained.content[image] for image in images}
        if same:
            raise EmbedError(
                f"{len(same)} of {len(faces.content)} images were used in training; a calibration needs people that "
                "the network has never seen"
            )
        known = {trained.people[label] for label in np.unique(trained.labels[images])} & set(faces.people)
        if known:
            notes.append(
                f"{len(known)} of {len(faces.people)} people have names of people used in training; if they are the "
                "same people, the thresholds accept too many strangers"
            )
    return notes


def write_vectors(path: Path, embedded: EmbeddedFaces) -> None:
    """Write the vectors to `path`, in the format of its extension.

    .npz: arrays vectors, names, images and model_id. .jsonl: for each image an enrolment request (model_id, name,
    vector) and the image. Raises EmbedError for another extension.
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
