"""A network of this package as a teacher: a finished trial's folder, or one that `ffem export` wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffem_jax.teachers import TeacherError


@dataclass(frozen=True)
class OwnNetwork:
    """A network that teaches. embed: uint8 faces [image, R, R, 3] -> float32 [image, feature]; resolution, crop: of
    the faces that it was trained on."""

    name: str
    model_id: str
    resolution: int
    crop: float
    embed: Callable[[np.ndarray], np.ndarray]


def open_own_network(folder: Path, seed: int | None = None) -> OwnNetwork:
    """The network in `folder`.

    Args:
        folder: of a trial, or of an export, which is run as it is by the runtime of its format.
        seed: which of several that a trial's folder holds.

    Raises:
        TrialFolderError, ExportError: the folder holds neither whole.
        TeacherError: the runtime of an export is not here.
    """
    if (folder / "export.json").exists():
        return _open_export(folder)
    from ffem_jax.export.fold import fold_network
    from ffem_jax.export.layers import compute_model_id
    from ffem_jax.export.parity import embed
    from ffem_jax.training.weights import load_trial

    finished = load_trial(folder, seed)
    data = finished.trial.data
    model_id = compute_model_id(fold_network(finished.classifier.network, data.resolution))
    name = finished.trial.arch.name
    return OwnNetwork(name, model_id, data.resolution, data.crop, lambda images: embed(finished, images))


def _open_export(folder: Path) -> OwnNetwork:
    from ffem_jax.export import NotRunError, load_format
    from ffem_jax.export.bundle import read_manifest

    manifest = read_manifest(folder)
    module = load_format(manifest["format"], manifest["dtype"])
    scale, offset = (np.float32(manifest["input"][name]) for name in ("scale", "offset"))

    def run(images: np.ndarray) -> np.ndarray:
        try:
            return module.run(folder, images.astype(np.float32) * scale + offset)[0]
        except NotRunError as error:
            raise TeacherError(f"{folder} is a model for {manifest['format']}, and {error}") from None

    crop = manifest["crop"]
    return OwnNetwork(folder.name, manifest["model_id"], crop["resolution"], crop["fraction"], run)
