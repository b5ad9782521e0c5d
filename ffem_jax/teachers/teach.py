"""From a TeacherSpec to what each image of a data set is taught."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ffem_jax.data import DataError, Faces
from ffem_jax.data.cache import find_cache_folder, make_cache_folder, stat_files
from ffem_jax.data.protocols import Split, load_split
from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.metrics.open_set import find_rank1_hits
from ffem_jax.metrics.verification import compute_fold_hits, compute_pair_distances
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.teacher import TeacherSpec
from ffem_jax.specs.trial import TrialSpec
from ffem_jax.teachers import Teaching, make_teaching
from ffem_jax.teachers.vectors import join_vectors, read_vectors

# Below this, in 0 to 1, a teacher is warned about: its vectors may be of another alignment.
WEAK = 0.8
_MEASURED = {
    "view2": "of the tested fold's pairs are right",
    "rank1": "of the test images find their person among each other",
    "accuracy_gallery": "of the test images find their person among those that train",
}
# What is recorded of a teacher where all of a file's vectors are of other versions of the images.
COPIES = "other copies of the images"
# Teachings that this process keeps: those of a sweep's folds.
RECENT = 10
_recent: OrderedDict[tuple[Any, ...], Teaching] = OrderedDict()


def load_teaching(trial: TrialSpec, faces: Faces, split: Split) -> Teaching | None:
    """What the images of a trial are taught, centred by those that train; None without a teacher.

    Args:
        trial: whose teacher it is.
        faces, split: as `load_split` gives them for it.

    Raises:
        TeacherError: the teacher cannot be read or run, misses images, or gives no direction.
        DataError: the faces cannot be loaded at the teacher's size.
    """
    spec = trial.teacher
    if spec.name == "none":
        return None
    state = spec, tuple(_look_at(Path(spec.path).expanduser())), faces.fingerprint, split.train.tobytes()
    if state not in _recent:
        vectors, about = ask_teacher(spec, trial.data, faces, lambda data: load_split(data, trial.protocol)[0])
        measured = measure_teacher(vectors, faces, split, trial)
        # The same for every fold, and whether a network or its file of vectors was asked.
        said = hashlib.sha256(repr(vectors.shape).encode() + np.ascontiguousarray(vectors, np.float32).tobytes())
        about = {**about, "vectors": said.hexdigest()[:16], "measured": measured}
        _recent[state] = make_teaching(vectors, faces.names, split.train, about)
        while len(_recent) > RECENT:
            _recent.popitem(last=False)
    return _recent[state]


def _look_at(path: Path) -> list[tuple[str, int, int, int, int]]:
    """What tells one state of the file, or of the files of the folder, from another."""
    return stat_files(sorted(path.rglob("*")) if path.is_dir() else [path, *sorted(path.parent.glob(f"{path.name}*"))])


def ask_teacher(
    spec: TeacherSpec, data: DataSpec, faces: Faces, load: Callable[[DataSpec], Faces]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The teacher's vectors [image, feature] of `faces`, in their order, and who it is.

    Args:
        data: what `faces` are.
        load: gives the same faces at another size and crop.

    Raises:
        TeacherError, DataError: as `load_teaching` does.
    """
    if spec.name == "vectors":
        found = read_vectors(Path(spec.path).expanduser())
        vectors, copies = join_vectors(found, faces.names, faces.content)
        return vectors, {**found.about, **({"saw": COPIES} if copies else {})}
    if spec.name == "onnx":
        from ffem_jax.teachers.onnx_network import describe_settings, open_network

        run, digest = open_network(spec)
        shown = dataclasses.replace(data, resolution=spec.size, crop=spec.crop)
        about = {"name": Path(spec.path).stem, "sha256": digest}
        return _embed(run, faces, load(shown), shown, [digest, describe_settings(spec)]), about
    from ffem_jax.export.bundle import MANIFEST_FILE
    from ffem_jax.export.embedder import load_exported, make_embedder
    from ffem_jax.training.weights import load_trial

    folder = Path(spec.path).expanduser()
    if (folder / MANIFEST_FILE).exists():
        name, network = folder.name, load_exported(folder)
    else:
        finished = load_trial(folder, None if spec.seed < 0 else spec.seed)
        name, network = finished.trial.arch.name, make_embedder(finished)
    shown = dataclasses.replace(data, resolution=network.resolution, crop=network.crop, fit=network.fit)
    about = {"name": name, "model_id": network.model_id}
    return _embed(network.run, faces, load(shown), shown, [network.model_id]), about


def _embed(
    run: Callable[[np.ndarray], np.ndarray], faces: Faces, seen: Faces, shown: DataSpec, identity: list[str]
) -> np.ndarray:
    """What `run` gives for `seen`, the images of `faces` as the data set `shown`; from the cache where it is there."""
    if seen.names != faces.names or seen.content != faces.content:
        raise DataError("the faces changed while the teacher looked at them; start again when they are at rest")
    digest = hashlib.sha256("\n".join([*identity, seen.fingerprint]).encode()).hexdigest()[:16]
    path = find_cache_folder(shown) / f"teacher-{digest}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        vectors = run(seen.images)
    try:
        make_cache_folder(shown)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.save(file, vectors)
        os.replace(file.name, path)
    except OSError:
        pass  # without a cache the teacher is asked again next time
    return vectors


def measure_teacher(vectors: np.ndarray, faces: Faces, split: Split, trial: TrialSpec) -> dict[str, float]:
    """How well the teacher itself does on the images that test: a measure's name -> a rate in 0 to 1.

    As a network is measured: under view2 the accuracy on the fold's pairs, under open_set rank-1 identification among
    the test images, else the accuracy by the nearest training image. Empty where a vector has no direction, and under
    bins, whose images are none of `faces`.
    """
    if split.bins is not None:
        return {}
    try:
        centred = vectors - vectors[split.train].mean(axis=0)
        if (pairs := split.pairs) is not None:
            distances = compute_pair_distances(centred[pairs.first], centred[pairs.second])
            return {"view2": float(compute_fold_hits(distances, pairs.same, pairs.fold, trial.protocol.fold)[0].mean())}
        tests, gallery = (centred[side] for side in (split.test, split.train))
        if trial.protocol.name == "open_set":
            return {"rank1": float(find_rank1_hits(tests, faces.labels[split.test])[1].mean())}
        hits = compute_closed_set_hits(tests, faces.labels[split.test], gallery, faces.labels[split.train])
        return {"accuracy_gallery": float(hits.mean())}
    except ValueError:
        return {}


def describe_teacher(teaching: Teaching) -> list[str]:
    """What a user should know before anything trains: who teaches, how good it is, that it saw other data."""
    about, measured = teaching.about, dict(teaching.about.get("measured", {}))
    rates = ", ".join(f"{100 * rate:.1f} % {_MEASURED[name]}" for name, rate in measured.items())
    lines = [
        f"the teacher, {about.get('name', '?')} ({teaching.targets.shape[1]} numbers per image), by itself: "
        f"{rates or 'not measured'}; it saw other data, and possibly these people"
    ]
    if about.get("saw") == COPIES:
        lines.append(
            "the teacher saw other copies of these images (another size or crop?); their names alone say whose vectors "
            "they are"
        )
    if measured and min(measured.values()) < WEAK:
        lines.append(
            f"the teacher is right less often than {100 * WEAK:.0f} %: are its vectors of these images, and its crop, "
            "colours and scale those it was trained with?"
        )
    return lines
