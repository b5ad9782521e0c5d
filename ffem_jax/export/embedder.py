"""What makes vectors of faces: a trained network, or an exported file run as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.errors import FfemError
from ffem_jax.export import NotRunError, load_format
from ffem_jax.export.bundle import read_manifest
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import compute_model_id
from ffem_jax.export.parity import embed
from ffem_jax.metrics.identification import normalize_embeddings
from ffem_jax.specs.data import FITS
from ffem_jax.training.weights import FinishedTrial


class EmbedError(FfemError):
    """Faces that cannot be embedded, or be used as asked. The message is one line."""


@dataclass(frozen=True)
class Embedder:
    """What makes the vectors.

    resolution, crop, fit: of the faces it was trained on; crop is the share of each picture that was kept, fit how
    pictures that are not square became so.
    run: what the network gives [N, D] for uint8 faces [N, R, R, 3], of any length; `compute` has unit vectors.
    """

    model_id: str
    resolution: int
    crop: float
    fit: str
    run: Callable[[np.ndarray], np.ndarray]

    def compute(self, images: np.ndarray) -> np.ndarray:
        """The vectors that `ffem embed` writes: float32 [N, D], of unit length.

        Args:
            images: uint8 faces [N, R, R, 3] in RGB, R the resolution, cut as those of the training were.

        Raises:
            EmbedError: images of another type or shape, or one of which the network makes nothing.
        """
        images = np.asarray(images)
        wanted = (self.resolution, self.resolution, 3)
        if images.dtype != np.uint8 or images.shape[1:] != wanted or not len(images):
            raise EmbedError(
                f"the images are {images.dtype}{list(images.shape)}; the network takes uint8[N, "
                f"{', '.join(map(str, wanted))}]: RGB from 0 to 255, one image or more"
            )
        try:
            return normalize_embeddings(self.run(images)).astype(np.float32)
        except ValueError as error:
            if isinstance(error, FfemError):
                raise
            raise EmbedError(f"the network gives no vector for some picture: {error}") from None


def make_embedder(finished: FinishedTrial) -> Embedder:
    """The trained network of `finished`."""
    data = finished.trial.data
    model_id = compute_model_id(fold_network(finished.classifier.network, data.resolution))
    return Embedder(model_id, data.resolution, data.crop, data.fit, lambda images: embed(finished, images))


def load_exported(folder: Path) -> Embedder:
    """The model in `folder` that `ffem export` wrote, run as it is by the runtime of its format.

    Raises ExportError where the folder holds none whole; its `compute` raises EmbedError where the runtime is not here.
    """
    manifest = read_manifest(folder)
    module = load_format(manifest["format"], manifest["dtype"])
    scale, offset = (np.float32(manifest["input"][name]) for name in ("scale", "offset"))

    def run(images: np.ndarray) -> np.ndarray:
        try:
            return module.run(folder, images.astype(np.float32) * scale + offset)[0]
        except NotRunError as error:
            raise EmbedError(f"{folder} is a model for {manifest['format']}, and {error}") from error

    resolution, crop = manifest["crop"]["resolution"], manifest["crop"]["fraction"]
    fit = manifest["crop"].get("fit", FITS[0])  # older exports do not say: there was one
    return Embedder(manifest["model_id"], resolution, crop, fit, run)
