"""The package from Python: train on faces, read records, draw a frontier, compare, embed. `ffem_jax` has these names.

Each function does what a command does, through the same code: a setting is called as it is typed, a trial that is
recorded is not trained again, and an error for the user is an `FfemError` of one line.
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
    """A network that was not trained. The message is one line and says why."""


@dataclass(frozen=True)
class Network:
    """A trained network that makes vectors of faces; `load_network` makes one.

    folder: of the trial, or of the exported model.
    """

    folder: Path
    embedder: Embedder

    @property
    def resolution(self) -> int:
        """The side in pixels of the faces that it takes."""
        return self.embedder.resolution

    @property
    def crop(self) -> float:
        """The share of each image that was kept for training; `embed` takes faces that are cut like that."""
        return self.embedder.crop

    @property
    def model_id(self) -> str:
        """The model's name: vectors of two models cannot be compared."""
        return self.embedder.model_id

    def embed(self, images: npt.ArrayLike) -> np.ndarray:
        """The vectors of faces, as `ffem embed` writes them: two faces are compared by the distance between theirs.

        Args:
            images: uint8 [N, R, R, 3] in RGB, 0 to 255, R the resolution, cut as the faces of the training were.

        Returns:
            float32 [N, D], each of unit length.

        Raises:
            EmbedError: images of another type or shape, or one of which the network makes nothing.
        """
        return self.embedder.compute(np.asarray(images))

    def embed_folder(self, folder: str | os.PathLike[str], crop: float = 1.0) -> EmbeddedFaces:
        """The vectors of a folder of people, with whose they are: what `ffem embed FOLDER` does.

        Args:
            folder: one folder per person in it.
            crop: the centred square that is kept of each image, as a share of its shorter side; 1 keeps faces that are
                already cut.

        Returns:
            vectors float32 [N, D] of unit length, names [N] (the people), and the faces themselves.

        Raises:
            DataError: a folder without people. EmbedError: no image of theirs can be read.
        """
        from ffem_jax.embed import embed_folder

        embedded = embed_folder(Path(folder), self.embedder, crop)
        _warn(embedded.faces.notes)
        return embedded


@dataclass(frozen=True)
class TrainedTrial:
    """What `train_network` did.

    records: one per seed. folder: of the trial, with its weights. records_path: the file that the records stand in.
    """

    records: tuple[TrialRecord, ...]
    folder: Path
    records_path: Path

    @property
    def record(self) -> TrialRecord:
        """The record. Raises TrainingError where there are several, one per seed of run.seeds."""
        if len(self.records) != 1:
            raise TrainingError(f"{len(self.records)} seeds were trained at once; take one of .records")
        return self.records[0]

    @functools.cached_property
    def network(self) -> Network:
        """The trained network.

        Raises:
            TrainingError: it was not trained to its end (over the cap, or stopped before), or several seeds were
                trained at once: `load_network(folder, seed)` then takes one.
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
    """The faces in a folder, one folder per person: FOLDER/person/*.jpg (or jpeg, png, pgm, webp), cut to the face.

    Args:
        folder: the folder. It is kept, since whatever reads the trial's faces again looks there.
        resolution: the side in pixels that networks see, 16 to 512.
        crop: the centred square that is kept of each image, as a share of its shorter side.
        fit: how images that are not square become so: `crop`, `pad` or `stretch`.
        people: how many people are kept, those with the most images; 0 keeps all.
        min_images: people with fewer images are left out, with a warning when training begins.
        max_images: how many images per person are kept, the first by file name; 0 keeps all.

    Returns:
        The data set, for `train_network`; `load_faces` reads it.

    Raises:
        DataError: there is no such folder, or nobody in it. SpecError: a number outside its bounds.
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

    A trial that `out` holds as done is not trained again, and one that was stopped goes on.

    Args:
        data: the faces: `faces_from_folder`, `faces_from_arrays`, or any DataSpec.
        settings: words as `ffem train` takes them: "arch=ffem", "recipe.epochs=5", "seed=1". `ffem settings` lists
            them. Those of `data` stand in `data`.
        out: the folder of the records (records.jsonl) and of a folder per trial; give one for all trials that are to be
            compared.
        config_dir: a folder with your own networks, recipes and Python files, as --config-dir.

    Returns:
        The record, its folder and the network. A network over the size limit is recorded as `over_cap` and not trained.

    Raises:
        ConfigError, SpecError: a setting that there is not, or a value outside its choices.
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
                f"{word} is no setting here: `data` chooses the faces, `out` the folder; nothing is launched"
            )
    root = Path(os.path.expanduser(out)).absolute()
    records_path = root / "records.jsonl"
    words = [*settings, *_write_data(data), f"run.records={quote_value(records_path)}"]
    # Composed with Hydra and run without it: it would put its own logging in the place of the script's.
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
    # The same faces in another folder are the same trial: it lies where it was trained.
    return TrainedTrial(tuple(records), find_folders(root).get(records[0].trial_key, folder), records_path)


# Words that choose what `data` and `out` do, or how a sweep is launched.
_PLACED = r"[+~]*(data|hydra|launcher|sweep|run\.records)([./=]|$)"


def _write_data(data: DataSpec) -> list[str]:
    """`data` as overrides of any data set's config."""
    from ffem_jax.config.compose import list_groups
    from ffem_jax.config.overrides import quote_value

    group = data.name if data.name in list_groups()["data"] else "folder"
    values = dataclasses.asdict(data)
    return [f"data={group}"] + [
        f"data.{name}={quote_value(value) if isinstance(value, str) else value}" for name, value in values.items()
    ]


def load_network(folder: str | os.PathLike[str], seed: int | None = None) -> Network:
    """The trained network in a trial's folder, or the exported one in a folder that `ffem export` wrote.

    Args:
        folder: as `TrainedTrial.folder`, `ffem train` or `ffem list` name it.
        seed: which of several seeds that were trained at once; None where the folder holds one.

    Raises:
        TrialFolderError, ExportError: the folder holds no finished trial, no whole export, or several seeds.
    """
    from ffem_jax.export.bundle import MANIFEST_FILE
    from ffem_jax.export.embedder import load_exported, make_embedder
    from ffem_jax.training.weights import load_trial

    place = Path(os.path.expanduser(folder))
    if (place / MANIFEST_FILE).exists() and not (place / "trial.json").exists():
        return Network(place, load_exported(place))
    return Network(place, make_embedder(load_trial(place, seed)))


def read_records(*paths: str | os.PathLike[str]) -> list[TrialRecord]:
    """The latest record of every trial.

    Args:
        paths: records files, or folders, which are searched for records.jsonl.

    Raises:
        UsageError: a path that is not there or holds no records.
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
    """Which of the recorded networks no other beats: accuracy against cost, as `ffem frontier` finds it.

    Args:
        out: a folder for frontier.png, .svg, .json and .md; files of an earlier frontier there are replaced. None
            writes nothing.
        cap_mb: the size limit in MB of 10**6 bytes. None takes the one that the records were made under, or else 10.
        precision: of the bytes: float32, float16 or int8. None takes the records' own, or else float32.
        against: the cost: bytes, params, macs, peak_activation_bytes, or latency_ms_wasm that `ffem latency` measured.
        metric: accuracy or accuracy_gallery.

    Returns:
        networks, on_frontier (one mark for each), files; `print_table()` prints the table.

    Raises:
        FrontierError: records that cannot share an axis, nothing that was trained, or a value outside its choices.
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
    """What one setting changes, from pairs of trials equal in all else, as `ffem compare` finds it.

    Args:
        factor: the setting, such as "attention.kind", "arch.width_multiplier" or "recipe.loss".
        against: compare every other level with this one alone; empty compares all pairs.
        metric: accuracy or accuracy_gallery.

    Returns:
        A row per pair of levels: difference, its 95 % interval (low, high), p values, `significant`.
        `describe_comparison` puts them into sentences.

    Raises:
        FrontierError: a factor that does not vary, records of several data sets, or no two trials equal in all else.
    """
    from ffem_jax.analysis.compare import compare_records

    found = compare_records(records, factor, against=against, metric=metric)
    _warn(found.notes)
    return found


def describe_comparison(comparison: Comparison) -> list[str]:
    """For each row of a comparison the sentence that its numbers allow."""
    from ffem_jax.reports.comparison import write_sentence

    return [write_sentence(row, comparison) for row in comparison.rows]


def _warn(notes: Iterable[str]) -> None:
    """Say what was left out, or is to be known, where a script's author sees it."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
