"""Photographs of people to vectors of a trained network: what a gallery is filled with, and calibrated on.

The vectors are those that the exported network gives on a phone: one look at the face as it is, no mirror image. They
are computed by the trial's network, or by the exported file itself where that is another model (fine-tuned).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.folder import load_people
from ffem_jax.data.protocols import load_split
from ffem_jax.export import NotRunError, load_format
from ffem_jax.export.bundle import read_manifest
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


@dataclass(frozen=True)
class Embedder:
    """What makes the vectors. resolution, crop: of the faces it was trained on, crop as the share of each picture that
    was kept; compute: vectors [N, D] of uint8 faces [N, R, R, 3]."""

    model_id: str
    resolution: int
    crop: float
    compute: Callable[[np.ndarray], np.ndarray]


def make_embedder(finished: FinishedTrial) -> Embedder:
    """The trained network of `finished`."""
    data = finished.trial.data
    model_id = compute_model_id(fold_network(finished.classifier.network, data.resolution))
    return Embedder(model_id, data.resolution, data.crop, lambda images: embed(finished, images))


def load_exported(folder: Path) -> Embedder:
    """The model in `folder` that `ffem export` wrote, run as it is by the runtime of its format.

    Raises ExportError where the folder holds none whole; compute raises EmbedError where the runtime is not here.
    """
    manifest = read_manifest(folder)
    module = load_format(manifest["format"], manifest["dtype"])
    scale, offset = (np.float32(manifest["input"][name]) for name in ("scale", "offset"))

    def compute(images: np.ndarray) -> np.ndarray:
        try:
            return module.run(folder, images.astype(np.float32) * scale + offset)[0]
        except NotRunError as error:
            raise EmbedError(f"{folder} is a model for {manifest['format']}, and {error}") from error

    resolution, crop = manifest["crop"]["resolution"], manifest["crop"]["fraction"]
    return Embedder(manifest["model_id"], resolution, crop, compute)


def check_same_trial(folder: Path, finished: FinishedTrial) -> None:
    """Raise EmbedError unless the model that `ffem export` wrote into `folder` is of the trial `finished`."""
    if read_manifest(folder)["trial_key"] != finished.key:
        raise EmbedError(f"{folder} was exported from another trial than {finished.folder}; name the trial it is of")


def embed_folder(folder: Path, embedder: Embedder, crop: float = 1.0, cache_dir: str = "") -> EmbeddedFaces:
    """The vectors of the people in `folder`, one folder a person.

    crop: the centred square that is kept of each picture, as a share of its shorter side; 1 keeps faces that are
    already cut as training's are. Raises DataError for a folder without people, and EmbedError where no picture of
    theirs can be read or the network makes nothing of one.
    """
    spec = DataSpec(
        name="folder",
        root=str(folder),
        resolution=embedder.resolution,
        min_images=1,
        crop=crop,
        cache_dir=cache_dir,
    )
    faces = load_people(spec)
    if not len(faces.images):
        raise EmbedError(f"{folder}: no picture can be read ({faces.notes[0] if faces.notes else 'there is none'})")
    found = embedder.compute(faces.images)
    try:
        vectors = normalize_embeddings(found).astype(np.float32)
    except ValueError as error:
        raise EmbedError(f"the network gives no vector for some picture: {error}") from None
    return EmbeddedFaces(embedder.model_id, vectors, faces)


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
