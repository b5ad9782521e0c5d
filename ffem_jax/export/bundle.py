"""The folder that an export leaves: the model's files, `export.json`, which says what they are and take, the model card
and, where the trial tests strangers, their thresholds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffem_jax.analysis.groups import cut_columns
from ffem_jax.data import DataError
from ffem_jax.data.preprocessing import describe_crop
from ffem_jax.export import Format, NotRunError, calibrate, load_format
from ffem_jax.export.calibrate import choose_images, load_training_faces
from ffem_jax.export.card import CALIBRATION_FILE, CARD_FILE, write_card
from ffem_jax.export.finetune import finetune
from ffem_jax.export.fold import fold_network
from ffem_jax.export.layers import (
    INPUT_NAME,
    INPUT_OFFSET,
    INPUT_SCALE,
    OUTPUT_NAME,
    ExportError,
    LayerList,
    compute_model_id,
)
from ffem_jax.records.record import find_nearest_records
from ffem_jax.training.weights import FinishedTrial, load_trained_faces, load_trial

if TYPE_CHECKING:
    from ffem_jax.export.strangers import Strangers

MANIFEST_FILE = "export.json"
MANIFEST_VERSION = 1


def export_trial(
    folder: Path,
    name: str,
    dtype: str,
    out: Path,
    cap_mb: float = 10.0,
    seed: int | None = None,
    finetune_epochs: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
    data_root: str = "",
    by: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the finished trial in `folder` to `out` in the format `name`, run what was written, and return export.json.

    finetune_epochs: first train it further for its kernels to bear rounding to `dtype` (finetune.py, on_epoch too); it
    is then another model, with another model_id. data_root: where the trial's faces lie now, where that is not where
    they were. by: which attributes of strangers make groups (`analysis.groups.cut_columns`).

    Raises ExportError, TrialFolderError where the format, the dtype, the network or a folder does not allow it, or
    where faces are needed and are not those that the trial was trained on; FrontierError for an attribute that is not
    there.
    """
    module = load_format(name, dtype)
    finished = load_trial(folder, seed)
    trial = finished.trial
    network = fold_network(finished.classifier.network, trial.data.resolution)
    own_id = compute_model_id(network)
    # First what may be refused: an export that was refused leaves no folder.
    needed = finetune_epochs or dtype == calibrate.DTYPE
    images = load_training_faces(finished, data_root) if needed else np.zeros(0)
    if by:
        cut_columns(load_trained_faces(finished, data_root)[0].attributes, by)
    if finetune_epochs:
        network = finetune(network, dtype, images, finetune_epochs, trial.seed, on_epoch)
    clear_folder(out)
    if dtype == calibrate.DTYPE:
        paths = calibrate.write_calibrated(network, choose_images(images), out)
    else:
        paths = module.write(network, dtype, out)
    manifest = make_manifest(finished, network, name, dtype, module.LAYOUT, paths, cap_mb)
    if finetune_epochs:
        manifest["finetuned"] = {"from_model_id": own_id, "for_dtype": dtype, "epochs": finetune_epochs}
    tuned = network if finetune_epochs else None
    found, strangers = measure(finished, module, out, manifest["model_id"], data_root, by, tuned)
    manifest.update(found)
    beside = {}
    if strangers:
        manifest["strangers"] = strangers.to_dict()
        beside[CALIBRATION_FILE] = json.dumps(strangers.calibration.to_dict(), indent=1) + "\n"
    record = next(iter(find_nearest_records(finished.folder, [finished.key])), None)
    beside[CARD_FILE] = write_card(trial, manifest, record, strangers)
    manifest["beside"] = list(beside)
    beside[MANIFEST_FILE] = json.dumps(manifest, indent=1) + "\n"
    for file, text in beside.items():
        (out / file).write_text(text, encoding="utf-8")
    return manifest


def clear_folder(out: Path) -> None:
    """Make `out`, or empty it of an earlier export's files. Raises ExportError where it holds anything else."""
    out.mkdir(parents=True, exist_ok=True)
    earlier = out / MANIFEST_FILE
    names = {path.name for path in out.iterdir()} - {MANIFEST_FILE}
    known: set[str] = set()
    if earlier.exists():
        try:
            held = json.loads(earlier.read_text())
            known = {file["name"] for file in held["files"]} | set(held.get("beside", ()))
        except (ValueError, KeyError, TypeError):
            raise ExportError(f"{earlier} is not an export's; choose another folder with --out") from None
    if names - known:
        raise ExportError(f"{out} holds {min(names - known)}; name a new folder with --out, or that of an export")
    for file in names:
        (out / file).unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """export.json in `folder`, once its files are found to be those that it names.

    Raises ExportError where they are not, or where the folder is no export's.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        checksums = {str(file["name"]): file["sha256"] for file in manifest["files"]}
        # What is read from it: a KeyError or a TypeError here is told, one later would be a traceback.
        for name in ("model_id", "trial_key", "format", "dtype"):
            str.strip(manifest[name])
        for part, name in (("crop", "resolution"), ("crop", "fraction"), ("input", "scale"), ("input", "offset")):
            float(manifest[part][name])
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(f"{folder} holds no {MANIFEST_FILE}; name a folder that `ffem export` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} is no {MANIFEST_FILE} of ffem export: {type(error).__name__} {error}") from None
    for name, checksum in checksums.items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise ExportError(f"{file} is missing or not the file that {MANIFEST_FILE} describes; export it again")
    return manifest


def make_manifest(
    finished: FinishedTrial,
    network: LayerList,
    name: str,
    dtype: str,
    layout: str,
    paths: list[Path],
    cap_mb: float,
) -> dict[str, Any]:
    """What export.json says of the files `paths` before they are run."""
    trial, side = finished.trial, network.resolution
    files = [
        {"name": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path in paths
        for content in [path.read_bytes()]
    ]
    size, cap = sum(path.stat().st_size for path in paths), round(cap_mb * 1e6)
    return {
        "version": MANIFEST_VERSION,
        "model_id": compute_model_id(network),
        "trial_key": finished.key,
        "network": trial.arch.name,
        "seed": trial.seed,
        "data": trial.data.name,
        "protocol": {name: getattr(trial.protocol, name) for name in ("name", "folds", "fold", "split_seed")},
        "format": name,
        "dtype": dtype,
        "files": files,
        "bytes": size,
        "cap_bytes": cap,
        "fits_cap": size <= cap,
        "input": {
            "name": INPUT_NAME,
            "shape": [1, side, side, 3] if layout == "NHWC" else [1, 3, side, side],
            "dtype": "float32",
            "scale": INPUT_SCALE,
            "offset": INPUT_OFFSET,
        },
        "crop": describe_crop(trial.data),
        "output": {
            "name": OUTPUT_NAME,
            "length": network.embedding_dim,
            "normalized": False,
            # Such a trial's record is of the mean of an image's vector and its mirror's: a phone may do the same.
            "average_with_mirror": trial.recipe.flip_test,
        },
    }


def measure(
    finished: FinishedTrial,
    module: Format,
    out: Path,
    model_id: str,
    data_root: str = "",
    by: Sequence[str] = (),
    tuned: LayerList | None = None,
) -> tuple[dict[str, Any], Strangers | None]:
    """The fields of export.json that the trial's own faces give: thresholds, parity, accuracy; and thresholds from
    strangers where the trial tests people who did not train it.

    Where the very faces are not at hand, or the format's runtime is not, the fields say so. tuned: the network that is
    written, where it was trained further: thresholds are its own, and parity is to the trial's.
    """
    from ffem_jax.export.parity import calibrate_thresholds, embed_again, embed_reference, measure_parity
    from ffem_jax.export.strangers import calibrate_on_strangers

    try:
        faces, split = load_trained_faces(finished, data_root)
        reference = embed_reference(finished, faces, split)
    except (DataError, OSError) as error:
        reason = f"the trial's faces: {error}"
        return {"thresholds": {}, "parity": {"ran": False, "reason": reason}, "accuracy": None}, None
    own = embed_again(reference, tuned) if tuned else reference
    found: dict[str, Any] = {"synthetic": faces.synthetic, "thresholds": calibrate_thresholds(own)}
    strangers = calibrate_on_strangers(own, model_id, by)
    try:
        return {**found, **measure_parity(reference, lambda pixels: module.run(out, pixels))}, strangers
    except NotRunError as error:
        return {**found, "parity": {"ran": False, "reason": str(error)}, "accuracy": None}, strangers
