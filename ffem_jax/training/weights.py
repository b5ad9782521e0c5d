"""The weights of a finished trial: save them as a safetensors file in its folder, and load the trained network.

A checkpoint holds the loop's complete state, about three times as large because of the optimiser. The weights file is
what is deployed, compared and exported: the network (averaged if the recipe averages weights) and the classifier over
the identities. Its metadata identify the trial. Trials of older versions have an .npz file instead, still supported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from ffem_jax.data import DataError, Faces
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.data.recorded import (
    UNKNOWN_FACES,
    FacesChangedError,
    KnownFaces,
    describe_change,
    identify_faces,
    load_known_split,
)
from ffem_jax.errors import FfemError
from ffem_jax.models.draws import plan_draws
from ffem_jax.records.view import read_trial
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.trial import TrialSpec, trial_key
from ffem_jax.training.classifier import FaceClassifier

# The metadata entry (in an .npz: the array) that identifies the trial, in JSON.
_FACTS = "trial"
_OLD_SUFFIX = ".npz"
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, safetensors.SafetensorError)


class TrialFolderError(FfemError):
    """A folder does not contain a finished trial. The message is one line and says what to do."""


@dataclass(frozen=True)
class FinishedTrial:
    """A trial and its trained network, in evaluation mode.

    folder: where it was found. key: its trial_key. faces, pretraining_faces: those it was trained on, if its folder
    records them.
    """

    folder: Path
    key: str
    trial: TrialSpec
    classifier: FaceClassifier
    faces: KnownFaces = UNKNOWN_FACES
    pretraining_faces: KnownFaces = UNKNOWN_FACES


def find_weights(folder: Path, key: str) -> Path:
    """Return the path of the weights file of trial `key` in its folder; the .npz if there is only that."""
    path = folder / f"weights-{key}.safetensors"
    old = path.with_suffix(_OLD_SUFFIX)
    return old if old.exists() and not path.exists() else path


def save_weights(
    folder: Path,
    key: str,
    spec: dict[str, Any],
    params: Any,
    statistics: Any,
    known: Sequence[KnownFaces] = (),
) -> None:
    """Write the weights of a trial as one file in `folder`, atomically.

    Args:
        key: its trial_key.
        spec: its spec, from `to_plain`.
        params, statistics: pytrees of float32; leaves are named by their paths, joined by slashes.
        known: its faces, and those of its pretraining.

    Raises:
        OSError: the folder is not writable.
    """
    facts = {"key": key, "spec": spec, "faces": [faces.to_dict() for faces in known]}
    arrays = {
        name: np.asarray(leaf) for name, leaf in name_leaves({"params": params, "statistics": statistics}).items()
    }
    path = folder / f"weights-{key}.safetensors"
    beside = path.with_suffix(".partial")
    with open(beside, "wb") as file:
        file.write(safetensors.numpy.save(arrays, {_FACTS: json.dumps(facts)}))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    path.with_suffix(_OLD_SUFFIX).unlink(missing_ok=True)  # the same trial, trained by an older version


def load_trial(folder: Path, seed: int | None = None) -> FinishedTrial:
    """Load the finished trial in `folder`, with its trained network.

    The weights come from the weights file or, for a trial older than weights files, from the checkpoint.

    Args:
        seed: selects one of several seeds that were trained at once; None if the folder contains one.

    Raises:
        TrialFolderError: the folder contains no trial, `seed` is not one of its seeds or is needed to choose, or the
            weights are missing.
    """
    current = _read_trial_file(folder)
    kept, known = _read_weights_files(folder)
    trials = {**current, **kept}
    chosen = {key: trial for key, trial in trials.items() if seed is None or trial.seed == seed}
    if len(chosen) > 1:
        # If several trials used the folder one after another, take the last.
        chosen = {key: trial for key, trial in chosen.items() if key in current}
    if len(chosen) != 1:
        seeds = ", ".join(map(str, sorted({trial.seed for trial in trials.values()})))
        raise TrialFolderError(f"{folder} holds the seeds {seeds}; choose one of them with --seed")
    ((key, trial),) = chosen.items()
    arrays = _read_arrays(folder, key, trial, list(current))
    identities = arrays["params/classifier/kernel"].shape[-1]
    return FinishedTrial(folder, key, trial, _merge(trial, identities, arrays), *known.get(key, ()))


def load_trained_faces(finished: FinishedTrial, data_root: str = "") -> tuple[Faces, Split]:
    """Load exactly the faces that the trial was trained on, and its split of them.

    If the folder of an older trial does not record its faces, the trial key checks them, which also needs the faces of
    its pretraining.

    Args:
        data_root: where the faces are now, if they have moved.

    Raises:
        FacesChangedError: the faces found there differ.
        DataError: there are no faces.
    """
    trial, known = finished.trial, finished.faces
    if not known.fingerprint:
        data = dataclasses.replace(trial.data, root=data_root) if data_root else trial.data
        faces, split = load_split(data, trial.protocol)
        first = trial.pretraining
        first_fingerprint = identify_faces(*load_split(first.data, first.protocol)) if first else ""
        if trial_key(trial, identify_faces(faces, split), first_fingerprint) != finished.key:
            whose = "trained the network" + (", or those of its pretraining are not" if first else "")
            raise FacesChangedError(describe_change(data, faces, known, whose))
        return faces, split
    return load_known_split(trial.data, trial.protocol, known, "trained the network", data_root)


def load_pretraining_faces(finished: FinishedTrial) -> tuple[Faces, Split]:
    """Load exactly the faces of the trial's pretraining.

    Raises:
        FacesChangedError, DataError: as in `load_trained_faces`.
        DataError: also if the trial's folder does not record them.
    """
    first = finished.trial.pretraining
    if first is None or not finished.pretraining_faces.fingerprint:
        raise DataError("the faces of the pretraining are not recorded")
    return load_known_split(first.data, first.protocol, finished.pretraining_faces, "pretrained the network")


def _read_trial_file(folder: Path) -> dict[str, TrialSpec]:
    """Return the trials that were last trained in `folder`, by key."""
    path = folder / "trial.json"
    try:
        facts = json.loads(path.read_text())
        return {key: read_trial(spec) for key, spec in zip(facts["keys"], facts["specs"], strict=True)}
    except (FileNotFoundError, NotADirectoryError):
        raise TrialFolderError(
            f"{folder} holds no trial.json; give the folder of one trial, as printed by `ffem train`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrialFolderError(f"{path} cannot be read as a trial: {error}") from error


def _read_weights_files(folder: Path) -> tuple[dict[str, TrialSpec], dict[str, list[KnownFaces]]]:
    """Return the trials by key and, if recorded, their faces and those of their pretraining by key."""
    trials, known = {}, {}
    # If a trial has both files, the newer format comes last and wins.
    for path in [*sorted(folder.glob(f"weights-*{_OLD_SUFFIX}")), *sorted(folder.glob("weights-*.safetensors"))]:
        try:
            facts = _read_facts(path)
            trials[facts["key"]] = read_trial(facts["spec"])
            known[facts["key"]] = [KnownFaces(**row) for row in facts.get("faces", ())]
        except _UNREADABLE as error:
            raise TrialFolderError(f"{path} cannot be read: {error}") from error
    return trials, known


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the trial's metadata in a weights file, without reading the arrays."""
    if path.suffix == _OLD_SUFFIX:
        with np.load(path) as file:
            return dict(json.loads(str(file[_FACTS])))
    with safetensors.safe_open(path, "np") as opened:
        return dict(json.loads((opened.metadata() or {})[_FACTS]))


def _read_file(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a weights file, by name."""
    try:
        if path.suffix == _OLD_SUFFIX:
            with np.load(path) as file:
                return dict(file)
        return safetensors.numpy.load_file(path)
    except _UNREADABLE as error:
        raise TrialFolderError(f"{path} cannot be read: {error}") from error


def name_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree in its order, keyed by their paths, joined by slashes."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _read_arrays(folder: Path, key: str, trial: TrialSpec, keys: list[str]) -> dict[str, np.ndarray]:
    path = find_weights(folder, key)
    if path.exists():
        return _read_file(path)
    if not (folder / "checkpoint").is_dir():
        raise TrialFolderError(
            f"{folder} holds no weights of trial {key}; train it again with run.retrain=true, which saves them"
        )
    return read_last_checkpoint(folder / "checkpoint", key, trial, keys)


def read_last_checkpoint(folder: Path, key: str, trial: TrialSpec, keys: list[str]) -> dict[str, np.ndarray]:
    """Return params and batch statistics, by name, from the last epoch's checkpoint.

    Args:
        folder: the checkpoint's folder.
        key: the trial's key, one of `keys`, which were trained at once.

    Raises:
        TrialFolderError: there is no such checkpoint, or it belongs to another trial.
    """
    from ffem_jax.training.checkpoint import read_checkpoint

    found = read_checkpoint(folder)
    if found is None or found[1] != keys or found[0] != trial.recipe.epochs:
        raise TrialFolderError(
            f"{folder} is not from the last epoch of trial {key}; run the same ffem train command to finish it"
        )
    state = found[2]
    params, statistics = state.get("average") or (state["params"], state["statistics"])
    arrays = name_leaves({"params": params, "statistics": statistics})
    place = keys.index(key)
    return {name: np.asarray(leaf)[place] if len(keys) > 1 else np.asarray(leaf) for name, leaf in arrays.items()}


def _merge(trial: TrialSpec, identities: int, arrays: dict[str, np.ndarray]) -> FaceClassifier:
    network = resolve_network(trial.arch)
    projection = arrays.get("params/projection/kernel")
    teacher_features = 0 if projection is None else projection.shape[-1]

    def build(keys: Any) -> FaceClassifier:
        resolution, recipe = trial.data.resolution, trial.recipe
        return FaceClassifier(network, resolution, identities, recipe, teacher_features, rngs=keys)

    parts: Any = nnx.split(plan_draws(build)[0], nnx.Param, ...)
    graph, params, statistics = parts[0], nnx.as_pure(parts[1]), nnx.as_pure(parts[2])
    shapes = name_leaves({"params": params, "statistics": statistics})
    wrong = [name for name, leaf in shapes.items() if name not in arrays or arrays[name].shape != leaf.shape]
    if wrong:
        raise TrialFolderError(f"the weights do not fit this network: {wrong[0]} is missing or has another shape")

    def fill(prefix: str, tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            # Not jax.numpy.asarray, which compiles a program per shape.
            lambda path, _: jax.device_put(
                arrays[f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}"]
            ),
            tree,
        )

    model = nnx.merge(graph, fill("params", params), fill("statistics", statistics))
    model.eval()
    return model
