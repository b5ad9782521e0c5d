"""The Python API: train on faces, read records, plot a frontier, compare, embed. `ffem_jax` exports these names.

Each function runs the code of a command: settings have their command-line names, a recorded trial is not trained again,
and an error for the user is an `FfemError` with a one-line message.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ffem_jax.analysis.comparison import Comparison
from ffem_jax.data import Faces, load_faces
from ffem_jax.data.arrays import MIN_IMAGES, faces_from_arrays
from ffem_jax.data.folder import list_pictures
from ffem_jax.errors import FfemError
from ffem_jax.records.record import TrialRecord
from ffem_jax.specs.data import FITS, DataSpec

if TYPE_CHECKING:
    from ffem_jax.embed import EmbeddedFaces
    from ffem_jax.export.embedder import Embedder
    from ffem_jax.reports.frontier import FrontierResult

__all__ = [
    "Comparison",
    "DataSpec",
    "Faces",
    "FfemError",
    "Network",
    "TrainedTrial",
    "TrainingError",
    "TrialRecord",
    "compare_records",
    "describe_comparison",
    "draw_frontier",
    "faces_from_arrays",
    "faces_from_folder",
    "load_faces",
    "load_network",
    "read_records",
    "train_network",
]


class TrainingError(FfemError):
    """A network was not trained. The message is one line with the reason."""


@dataclass(frozen=True)
class Network:
    """A trained network that turns faces into vectors; see `load_network`.

    folder: that of the trial or of the exported model.
    """

    folder: Path
    embedder: Embedder

    @property
    def resolution(self) -> int:
        """Side length of the input faces in pixels."""
        return self.embedder.resolution

    @property
    def crop(self) -> float:
        """The share of each image kept in training; `embed` expects faces cropped that way."""
        return self.embedder.crop

    @property
    def model_id(self) -> str:
        """The model's id. Vectors of different models are not comparable."""
        return self.embedder.model_id

    def embed(self, images: npt.ArrayLike) -> np.ndarray:
        """Embed faces, as `ffem embed` does. Compare two faces by the distance between their vectors.

        Args:
            images: uint8 [N, R, R, 3] in RGB, 0 to 255, with R the resolution, cropped like the training faces.

        Returns:
            float32 [N, D], each of unit length.

        Raises:
            EmbedError: wrong type or shape, or an image without a valid vector.
        """
        return self.embedder.compute(np.asarray(images))

    def embed_folder(self, folder: str | os.PathLike[str], crop: float = 1.0) -> EmbeddedFaces:
        """Embed a folder of people, as `ffem embed FOLDER` does.

        Args:
            folder: one folder per person in it.
            crop: the centred square to keep of each image, as a share of its shorter side; 1 for faces that are already
                cropped.

        Returns:
            vectors float32 [N, D] of unit length, names [N] of the people, and the faces.

        Raises:
            DataError: a folder without people. EmbedError: no readable image.
        """
        from ffem_jax.embed import embed_folder

        embedded = embed_folder(Path(folder), self.embedder, crop)
        _warn(embedded.faces.notes)
        return embedded


@dataclass(frozen=True)
class TrainedTrial:
    """The result of `train_network`.

    records: one per seed. folder: the trial's folder, with its weights. records_path: the records file.
    """

    records: tuple[TrialRecord, ...]
    folder: Path
    records_path: Path

    @property
    def record(self) -> TrialRecord:
        """The record. Raises TrainingError if there are several, one per seed in run.seeds."""
        if len(self.records) != 1:
            raise TrainingError(f"{len(self.records)} seeds were trained at once; take one of .records")
        return self.records[0]

    @functools.cached_property
    def network(self) -> Network:
        """The trained network.

        Raises:
            TrainingError: training did not finish (over the cap, or stopped), or several seeds were trained at once;
                then use `load_network(folder, seed)`.
        """
        record = self.record
        if record.status != "done":
            raise TrainingError(f"{record.arch} is not trained: {record.status}{record.error and f', {record.error}'}")
        return load_network(self.folder, record.seed)


def faces_from_folder(
    folder: str | os.PathLike[str],
    *,
    resolution: int = 96,
    crop: float = 1.0,
    fit: str = FITS[0],
    people: int = 0,
    min_images: int = MIN_IMAGES,
    max_images: int = 0,
) -> DataSpec:
    """Use the faces in a folder, one folder per person: FOLDER/person/*.jpg (or jpeg, png, pgm, webp), cropped.

    Args:
        folder: the folder. Its path is recorded, for commands that read the trial's faces again.
        resolution: side length of the network input in pixels, 16 to 512.
        crop: the centred square to keep of each image, as a share of its shorter side.
        fit: how to make images square: `crop`, `pad` or `stretch`.
        people: number of people to keep, those with the most images; 0 keeps all.
        min_images: people with fewer images are left out, with a warning when training begins.
        max_images: number of images to keep per person, the first by file name; 0 keeps all.

    Returns:
        The data set, for `train_network`; `load_faces` reads it.

    Raises:
        DataError: the folder is missing or contains no people. SpecError: a number out of bounds.
    """
    place = Path(os.path.expanduser(folder)).absolute()
    list_pictures(place, str(place))
    return DataSpec(
        name="folder",
        root=str(place),
        resolution=resolution,
        crop=crop,
        fit=fit,
        people=people,
        min_images=min_images,
        max_images=max_images,
    )


def train_network(
    data: DataSpec,
    *settings: str,
    out: str | os.PathLike[str] = "outputs/python",
    config_dir: str | os.PathLike[str] | None = None,
) -> TrainedTrial:
    """Train and evaluate one network on `data`, as `ffem train` does, and record it.

    A trial recorded as done in `out` is not trained again, and an interrupted one resumes.

    Args:
        data: the faces: `faces_from_folder`, `faces_from_arrays`, or any DataSpec.
        settings: overrides as for `ffem train`: "arch=ffem", "recipe.epochs=5", "seed=1". `ffem settings` lists
            them. `data` replaces those of the data.
        out: the folder for the records (records.jsonl) and the trials; use the same one for all trials to be
            compared.
        config_dir: a folder with your own networks, recipes and Python files, like --config-dir.

    Returns:
        The record, its folder and the network. A network over the size limit is recorded as `over_cap` and not trained.

    Raises:
        ConfigError, SpecError: an unknown setting or an invalid value.
        DataError: faces that cannot be used. TrainingError: training failed.
    """
    from ffem_jax.cli.trials import find_folders
    from ffem_jax.config.compose import check_writable, open_composer, place_faces
    from ffem_jax.config.overrides import ConfigError, quote_value
    from ffem_jax.runs.interrupts import answer_interrupts
    from ffem_jax.runs.sweep import check_data, make_job
    from ffem_jax.runs.trial import run_trials

    if not isinstance(data, DataSpec):
        raise ConfigError(f"data is {type(data).__name__}; give faces_from_folder(...) or faces_from_arrays(...)")
    for word in settings:
        if re.match(_PLACED, word):
            raise ConfigError(
                f"{word} is not allowed here: `data` chooses the faces, `out` the folder; nothing is launched"
            )
    root = Path(os.path.expanduser(out)).absolute()
    records_path = root / "records.jsonl"
    words = [*settings, *_write_data(data), f"run.records={quote_value(records_path)}"]
    # Composed with Hydra but run without it: Hydra would replace the script's logging.
    with open_composer(Path(os.path.expanduser(config_dir)) if config_dir else None) as composer:
        composer.parse(words)
        job = make_job(composer, words)
    folder = root / job.folder
    check_writable(folder, "out=DIR")
    _warn(check_data(job.trials)[0])
    with answer_interrupts():
        records = run_trials(place_faces(job.trial), job.run, folder, records_path)
    failed = [record for record in records if record.status == "failed"]
    if failed:
        raise TrainingError(f"{failed[0].arch} seed {failed[0].seed} failed: {failed[0].error}")
    # The same faces in another folder are the same trial: it stays where it was trained.
    return TrainedTrial(tuple(records), find_folders(root).get(records[0].trial_key, folder), records_path)


# Overrides replaced by `data` and `out`, and those that control launching.
_PLACED = r"[+~]*(data|hydra|launcher|sweep|run\.records)([./=]|$)"


def _write_data(data: DataSpec) -> list[str]:
    """Convert `data` to overrides, for any data set."""
    from ffem_jax.config.compose import list_groups
    from ffem_jax.config.overrides import quote_value

    group = data.name if data.name in list_groups()["data"] else "folder"
    values = dataclasses.asdict(data)
    return [f"data={group}"] + [
        f"data.{name}={quote_value(value) if isinstance(value, str) else value}" for name, value in values.items()
    ]


def load_network(folder: str | os.PathLike[str], seed: int | None = None) -> Network:
    """Load the trained network from a trial's folder, or the exported one from a folder written by `ffem export`.

    Args:
        folder: as given by `TrainedTrial.folder`, `ffem train` or `ffem list`.
        seed: the seed, if several were trained at once; None if the folder holds one.

    Raises:
        TrialFolderError, ExportError: no finished trial, an incomplete export, or several seeds.
    """
    from ffem_jax.export.bundle import MANIFEST_FILE
    from ffem_jax.export.embedder import load_exported, make_embedder
    from ffem_jax.training.weights import load_trial

    place = Path(os.path.expanduser(folder))
    if (place / MANIFEST_FILE).exists() and not (place / "trial.json").exists():
        return Network(place, load_exported(place))
    return Network(place, make_embedder(load_trial(place, seed)))


def read_records(*paths: str | os.PathLike[str]) -> list[TrialRecord]:
    """Read the latest record of every trial.

    Args:
        paths: records files, or folders, which are searched for records.jsonl.

    Raises:
        UsageError: a path is missing or contains no records.
    """
    from ffem_jax.cli.recorded import find_records, read_all

    return read_all(find_records([Path(os.path.expanduser(path)) for path in paths]))


def draw_frontier(
    records: Sequence[TrialRecord],
    out: str | os.PathLike[str] | None = None,
    *,
    cap_mb: float | None = None,
    precision: str | None = None,
    against: str = "bytes",
    metric: str = "accuracy",
) -> FrontierResult:
    """Find the recorded networks that no other beats in accuracy and cost, as `ffem frontier` does.

    Args:
        out: a folder for frontier.png, .svg, .json and .md; earlier files there are replaced. None writes nothing.
        cap_mb: the size limit in MB of 10**6 bytes. None uses the limit of the records, or else 10.
        precision: that of the bytes: float32, float16 or int8. None uses that of the records, or else float32.
        against: the cost: bytes, params, macs, peak_activation_bytes, or latency_ms_wasm from `ffem latency`.
        metric: accuracy or accuracy_gallery.

    Returns:
        networks, on_frontier (one flag per network), files; `print_table()` prints the table.

    Raises:
        FrontierError: records that are not comparable, no trained network, or an invalid value.
    """
    from ffem_jax.reports.frontier import compute_frontier, write_result

    found = compute_frontier(records, cap_mb=cap_mb, precision=precision, against=against, metric=metric)
    _warn((*found.notes, *found.warnings))
    return found if out is None else write_result(found, Path(out))


def compare_records(
    records: Sequence[TrialRecord],
    factor: str,
    *,
    against: str = "",
    metric: str = "accuracy",
) -> Comparison:
    """Measure the effect of one setting from pairs of trials that differ in nothing else, as `ffem compare` does.

    Args:
        factor: the setting, such as "attention.kind", "arch.width_multiplier" or "recipe.loss".
        against: compare every other level only with this one; empty compares all pairs.
        metric: accuracy or accuracy_gallery.

    Returns:
        One row per pair of levels: difference, 95 % interval (low, high), p-values, `significant`.
        `describe_comparison` turns them into sentences.

    Raises:
        FrontierError: a factor that does not vary, records of several data sets, or no two trials that differ in
            nothing else.
    """
    from ffem_jax.analysis.compare import compare_records

    found = compare_records(records, factor, against=against, metric=metric)
    _warn(found.notes)
    return found


def describe_comparison(comparison: Comparison) -> list[str]:
    """Return a sentence for each row of a comparison, no stronger than its numbers."""
    from ffem_jax.reports.comparison import write_sentence

    return [write_sentence(row, comparison) for row in comparison.rows]


def _warn(notes: Iterable[str]) -> None:
    """Issue notes as warnings, where the author of a script sees them."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
