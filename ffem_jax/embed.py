"""Photographs of people to vectors of a trained network: what a gallery is filled with, and calibrated on.

The vectors are those that the exported network gives on a phone: one look at the face as it is, no mirror image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.folder import load_people
from ffem_jax.data.protocols import load_split
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import compute_model_id
from ffem_jax.export.parity import embed
from ffem_jax.metrics.calibration import Calibration, compute_calibration
from ffem_jax.metrics.identification import normalize_embeddings
from ffem_jax.spec import DataSpec, TrialSpec
from ffem_jax.weights import FinishedTrial

ENDINGS = (".npz", ".jsonl")


class EmbedError(ValueError):
    """Faces that cannot be embedded, or be used as asked. The message is one line."""


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


def embed_folder(folder: Path, finished: FinishedTrial, crop: float = 1.0) -> EmbeddedFaces:
    """The vectors of the people in `folder`, one folder a person, by the network of `finished`.

    crop: the centred square that is kept of each picture, as a share of its shorter side; 1 keeps faces that are
    already cut as training's are. Raises DataError for a folder without people, and EmbedError where no picture of
    theirs can be read or the network makes nothing of one.
    """
    trial = finished.trial
    spec = DataSpec(
        name="folder",
        root=str(folder),
        resolution=trial.data.resolution,
        min_images=1,
        crop=crop,
        cache_dir=trial.data.cache_dir,
    )
    faces = load_people(spec)
    if not len(faces.images):
        raise EmbedError(f"{folder}: no picture can be read ({faces.notes[0] if faces.notes else 'there is none'})")
    model_id = compute_model_id(fold_network(finished.classifier.network, trial.data.resolution))
    try:
        vectors = normalize_embeddings(embed(finished, faces.images)).astype(np.float32)
    except ValueError as error:
        raise EmbedError(f"the network gives no vector for some picture: {error}") from None
    return EmbeddedFaces(model_id, vectors, faces)


def calibrate(embedded: EmbeddedFaces, trial: TrialSpec) -> tuple[Calibration, list[str]]:
    """The calibration on these faces, and what to be wary of.

    Raises EmbedError where a picture trained the network, and CalibrationError for too few people.
    """
    notes = check_new_people(embedded.faces, trial)
    return compute_calibration(embedded.vectors, embedded.faces.labels, embedded.model_id), notes


def check_new_people(faces: Faces, trial: TrialSpec) -> list[str]:
    """What speaks against the people of `faces` being new to the network; the pretraining's people included.

    Raises EmbedError for a picture of the training's: a threshold from people who trained accepts too many strangers.
    """
    notes = []
    for one in filter(None, (trial, trial.pretraining)):
        try:
            trained, split = load_split(one.data, one.protocol)
        except (DataError, OSError) as error:
            notes.append(f"the faces of data={one.data.name} that trained the network are not at hand ({error}), so it "
                         "was not checked that these people are others")  # fmt: skip
            continue
        same = set(faces.content) & {trained.content[image] for image in split.train}
        if same:
            raise EmbedError(
                f"{len(same)} of {len(faces.content)} pictures trained the network; a calibration takes people that it "
                "has never seen"
            )
        known = {trained.people[label] for label in np.unique(trained.labels[split.train])} & set(faces.people)
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
