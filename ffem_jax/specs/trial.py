"""What decides a trial: frozen specs, checked when they are made, and the key they hash to.

The same dataclasses are Hydra's structured configs (see `conf/`), so an unknown key or a
wrong type is refused by OmegaConf and a value outside its choices by `__post_init__` here.
No JAX, no Hydra, no file is touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.specs.architecture import ArchSpec, SpecError, added, check_choice, check_range, resolve_network

# Raised by one whenever the same spec would train to a different result, so that old
# records are not mistaken for today's.
KEY_VERSION = 1

DATA_SETS = ("lfw52", "lfw", "lfw_rest", "folder", "synthetic")
PROTOCOLS = ("holdout", "kfold", "view2")
OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("softmax", "normalized_softmax", "arcface", "cosface")
MARGIN_LOSSES = ("arcface", "cosface")
SCHEDULES = ("exponential", "one_cycle", "constant")
PRECISIONS = ("float32", "float16", "int8")
LOGGERS = ("none", "tensorboard", "mlflow")


# ------------------------------------------------------------------- data, protocol and recipe


@dataclass(frozen=True)
class DataSpec:
    """Which faces, at which size.

    root: the folder that holds them; empty asks the environment (FFEM_LFW_ROOT for lfw) and then downloads.
    resolution: pixels a side, square.
    people: keep the people with the most images, ties by name; 0 keeps all.
    min_images, max_images: images a person must have, and how many are kept (the first by
        file name; 0 keeps all).
    crop: the square that is kept, as fractions of the frame's side, centred: lfw's face is the middle 140 of 250
        pixels. 1 keeps the whole picture.
    images_per_person, difficulty, seed: synthetic faces only; `seed` draws the people.
    cache_dir: where decoded arrays and compiled programs are kept; empty is the user's cache folder. Decides nothing.
    """

    name: str = "lfw52"
    root: str = ""
    resolution: int = 96
    people: int = 0
    min_images: int = 2
    max_images: int = 0
    crop: float = 1.0
    images_per_person: int = 20
    difficulty: float = 1.0
    seed: int = 0
    cache_dir: str = ""

    def __post_init__(self) -> None:
        check_choice("data.name", self.name, DATA_SETS)
        check_range("data.resolution", self.resolution, 16, 512)
        check_range("data.people", self.people, 0)
        check_range("data.min_images", self.min_images, 1)
        check_range("data.max_images", self.max_images, 0)
        check_range("data.crop", self.crop, 0.05, 1.0)
        check_range("data.images_per_person", self.images_per_person, 2)
        check_range("data.difficulty", self.difficulty, 0.0, 4.0)


@dataclass(frozen=True)
class ProtocolSpec:
    """Which images train and which test.

    holdout: `test_per_person` images of each person, drawn by `split_seed`, test; the rest train. With `test_people`
        only so many people are tested, those with the most images, ties by name.
    kfold: `folds` stratified folds drawn by `split_seed`; fold number `fold` tests, the others train.
    view2: of the `folds` folds of pairs in LFW's pairs.txt, fold number `fold` tests; nobody in it trains.
    validation_per_person: images of each person who trains that are held out of training, drawn by `split_seed`, for
        the accuracy after each epoch; 0 holds none out, and that accuracy is then of the test images (view2: there
        is none). What is tested in the end is the same either way.
    sigma: Eq. 7's threshold on unit-vector distance / 2, in 0 to 1.
    far_target: the false-accept rate the calibrated threshold aims at, on training images only.
    """

    name: str = "holdout"
    test_per_person: int = 2
    folds: int = 5
    fold: int = 0
    split_seed: int = 0
    sigma: float = 0.5
    far_target: float = 0.01
    validation_per_person: int = added(0)
    test_people: int = added(0)

    def __post_init__(self) -> None:
        check_choice("protocol.name", self.name, PROTOCOLS)
        check_range("protocol.test_per_person", self.test_per_person, 1)
        check_range("protocol.test_people", self.test_people, 0)
        check_range("protocol.folds", self.folds, 2)
        check_range("protocol.fold", self.fold, 0, self.folds - 1)
        check_range("protocol.sigma", self.sigma, 0.0, 1.0)
        check_range("protocol.far_target", self.far_target, 0.0, 1.0)
        check_range("protocol.validation_per_person", self.validation_per_person, 0)


def _has_margin(recipe: RecipeSpec) -> bool:
    return recipe.loss in MARGIN_LOSSES


@dataclass(frozen=True)
class RecipeSpec:
    """How a network is trained. Rates are per step unless said otherwise.

    schedule: `exponential` (learning_rate * decay ** epoch), `one_cycle` (up over
        warmup_fraction, cosine down to nothing) or `constant`.
    loss: `softmax` over a dense layer of the embedding, or `normalized_softmax`: of scale * the cosine between
        embedding and each person's weight vector (NormFace), which is what matching by distance then compares.
        `arcface` and `cosface` are that with a margin between an image and its own person: on the angle, in radians
        (ArcFace), or on the cosine (CosFace).
    margin: of those two; their papers' 0.5 and 0.35 are for millions of images. It is 0 for the first margin_warmup
        of the epochs and rises in a straight line over the next margin_rise: from the start it fails on small data.
    clip_norm: the gradient's norm over all parameters is cut to this; 0 leaves it.
    crop_padding: the random crop's reach, as a fraction of the side (1/48 is 2 pixels at 96).
    flip: mirror every second image at random. brightness, contrast: largest relative change.
    erase: the largest erased square's side, as a fraction of the image's side.
    rotation: the largest turn either way, in degrees. zoom: the largest relative change of scale.
    weight_averaging: evaluate a moving average of weights and BatchNorm statistics, of this decay a step; 0 is off.
    flip_test: average the embeddings of an image and its mirror when evaluating.
    """

    name: str = "modern"
    epochs: int = 30
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    schedule: str = "one_cycle"
    decay: float = 0.96
    warmup_fraction: float = 0.1
    weight_decay: float = 5e-4
    clip_norm: float = 0.0
    loss: str = "normalized_softmax"
    scale: float = 16.0
    label_smoothing: float = 0.1
    crop_padding: float = 0.0
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0
    flip_test: bool = False
    margin: float = added(0.2, used=_has_margin)
    margin_warmup: float = added(0.3, used=_has_margin)
    margin_rise: float = added(0.3, used=_has_margin)
    rotation: float = added(0.0)
    zoom: float = added(0.0)
    weight_averaging: float = added(0.0)

    def __post_init__(self) -> None:
        check_range("recipe.epochs", self.epochs, 1)
        check_range("recipe.batch_size", self.batch_size, 2)
        check_choice("recipe.optimizer", self.optimizer, OPTIMIZERS)
        check_choice("recipe.loss", self.loss, LOSSES)
        check_range("recipe.scale", self.scale, 0.1)
        check_choice("recipe.schedule", self.schedule, SCHEDULES)
        check_range("recipe.learning_rate", self.learning_rate, 0.0)
        check_range("recipe.momentum", self.momentum, 0.0, 0.9999)
        check_range("recipe.decay", self.decay, 0.0, 1.0)
        check_range("recipe.warmup_fraction", self.warmup_fraction, 0.0, 0.9)
        check_range("recipe.weight_decay", self.weight_decay, 0.0)
        check_range("recipe.clip_norm", self.clip_norm, 0.0)
        check_range("recipe.label_smoothing", self.label_smoothing, 0.0, 0.9)
        check_range("recipe.crop_padding", self.crop_padding, 0.0, 0.5)
        for name in ("brightness", "contrast", "erase", "zoom"):
            check_range(f"recipe.{name}", getattr(self, name), 0.0, 0.9)
        for name in ("margin", "margin_warmup", "margin_rise"):
            check_range(f"recipe.{name}", getattr(self, name), 0.0, 1.0)
        check_range("recipe.rotation", self.rotation, 0.0, 180.0)
        check_range("recipe.weight_averaging", self.weight_averaging, 0.0, 0.99999)


@dataclass(frozen=True)
class PretrainSpec:
    """What a network is trained on before the trial itself, which then starts from its weights.

    It is a trial of the same network, with its own record and key; its classifier and the state of its optimiser are
    left behind. name: a label; `none` pretrains nothing, whatever the rest says.
    """

    name: str = "none"
    data: DataSpec = field(default_factory=DataSpec)
    protocol: ProtocolSpec = field(default_factory=ProtocolSpec)
    recipe: RecipeSpec = field(default_factory=RecipeSpec)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("pretrain.seed", self.seed, 0, 2**31 - 1)


@dataclass(frozen=True)
class TrialSpec:
    """Everything that decides a trial's result, but for the faces themselves."""

    arch: ArchSpec = field(default_factory=ArchSpec)
    data: DataSpec = field(default_factory=DataSpec)
    protocol: ProtocolSpec = field(default_factory=ProtocolSpec)
    recipe: RecipeSpec = field(default_factory=RecipeSpec)
    seed: int = 0
    pretrain: PretrainSpec = field(
        default_factory=PretrainSpec, metadata={"added": lambda trial: trial.pretraining is not None}
    )

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)
        if self.pretraining and self.pretrain.data.resolution != self.data.resolution:
            raise SpecError(
                f"pretrain.data.resolution={self.pretrain.data.resolution} is not data.resolution="
                f"{self.data.resolution}; weights are learnt at one resolution, set both alike"
            )
        stride = resolve_network(self.arch).total_stride
        if self.data.resolution < stride:
            raise SpecError(
                f"data.resolution={self.data.resolution} is too small for this network's total stride of {stride}; "
                f"take at least {stride}, or arch.stem_stride=1"
            )

    @property
    def pretraining(self) -> TrialSpec | None:
        """The trial whose weights this one starts from, or None."""
        first = self.pretrain
        if first.name == "none":
            return None
        return TrialSpec(self.arch, first.data, first.protocol, first.recipe, first.seed)

    def with_seeds(self, seeds: Sequence[int]) -> list[TrialSpec]:
        """This trial with each of `seeds`, or as it is where there are none: see `RunSpec.seeds`."""
        return [dataclasses.replace(self, seed=seed) for seed in seeds or (self.seed,)]


@dataclass(frozen=True)
class RunSpec:
    """What a run needs to know and a result does not depend on.

    records: the JSON-lines file; empty puts records.jsonl in the run's (or the sweep's) folder.
    cap_mb, cap_precision: the size limit in MB of 10**6 bytes, and the precision it is checked at.
    cap_mmacs: the limit of multiply-accumulates for one face, in millions; 0 is none.
    train_over_cap: train a network over a limit all the same.
    retrain: train even if the records already hold this trial as done.
    seeds: train these seeds of one network as one program (vmap); empty trains `seed` alone.
    stop_epoch: stop after so many epochs of the recipe's schedule, evaluate, and record the trial as pruned; the same
        trial asked for again, without this or with a later epoch, goes on from its checkpoint and ends as if it had
        never stopped. 0, or recipe.epochs and more, trains to the end.
    checkpoint: keep an Orbax checkpoint after every epoch, and go on from it.
    keep_weights: keep the trained network in the trial's folder (its parameters in float32): what `ffem export` reads.
    progress: draw progress bars (drawn only on a terminal).
    logger: where each epoch is written besides, one of LOGGERS; see `loggers.py`.
    cores: CPU cores that the trial's batches are split over, where JAX has not started yet; 0 for all.
    """

    records: str = ""
    cap_mb: float = 10.0
    cap_precision: str = "float32"
    cap_mmacs: float = 0.0
    train_over_cap: bool = False
    retrain: bool = False
    seeds: tuple[int, ...] = ()
    stop_epoch: int = 0
    checkpoint: bool = True
    keep_weights: bool = True
    progress: bool = True
    logger: str = "none"
    cores: int = 0

    def __post_init__(self) -> None:
        check_range("run.cores", self.cores, 0)
        check_range("run.cap_mb", self.cap_mb, 0.0)
        check_range("run.cap_mmacs", self.cap_mmacs, 0.0)
        check_range("run.stop_epoch", self.stop_epoch, 0)
        if self.stop_epoch and not self.checkpoint:
            raise SpecError(
                f"run.stop_epoch={self.stop_epoch} leaves a checkpoint to go on from; take run.checkpoint=true"
            )
        check_choice("run.cap_precision", self.cap_precision, PRECISIONS)
        check_choice("run.logger", self.logger, LOGGERS)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for seed in self.seeds:
            check_range("run.seeds", seed, 0, 2**31 - 1)
        if len(set(self.seeds)) != len(self.seeds):
            raise SpecError(f"run.seeds={list(self.seeds)} names a seed twice")

    def measure_excess(self, size: float, macs: float) -> tuple[float, str]:
        """How far a network is over the nearer of the two limits, as a fraction of it, and that limit in words.

        size: bytes at `cap_precision`. macs: of one face. At most 0 is within both, and then nothing is said.
        """
        limits = [(size, self.cap_mb * 1e6, f"{size / 1e6:.2f} MB is over the cap of {self.cap_mb:g} MB")]
        if self.cap_mmacs:
            text = f"{macs / 1e6:.1f} M MACs is over the cap of {self.cap_mmacs:g} M MACs"
            limits.append((macs, self.cap_mmacs * 1e6, text))
        excess, text = max((cost / limit - 1 if limit else 1.0, text) for cost, limit, text in limits)
        return excess, text if excess > 0 else ""


# ----------------------------------------------------------------------------------- the key


def to_plain(spec: Any) -> dict[str, Any]:
    """A spec as nested dicts, lists and numbers, ready for JSON; `added` fields that it does not use are left out."""
    return json.loads(json.dumps(select_used(spec)))


def select_used(value: Any) -> Any:
    """A spec as nested dicts and lists, without the `added` fields that it does not use."""
    if not dataclasses.is_dataclass(value):
        return [select_used(item) for item in value] if isinstance(value, tuple) else value
    return {f.name: select_used(getattr(value, f.name)) for f in dataclasses.fields(value) if _is_used(value, f)}


def get_added_defaults(kind: type) -> dict[str, Any]:
    """What a record means that leaves out `added` fields: those that every spec of this kind reads, at their defaults.

    Fields that only some read (the margin of a loss that has one) are not among them.
    """
    fields = [f for f in dataclasses.fields(kind) if "added" in f.metadata and f.metadata["added"] is None]
    return {f.name: f.default for f in fields}


def _is_used(spec: Any, of: dataclasses.Field) -> bool:
    if "added" not in of.metadata:
        return True
    used = of.metadata["added"]
    return bool(used(spec)) if used else getattr(spec, of.name) != of.default


def trial_key(trial: TrialSpec, data_fingerprint: str = "", pretraining_fingerprint: str = "") -> str:
    """A 16-digit hexadecimal hash of all that decides a result: see `list_decisive`. A pretraining enters by its own
    key, `pretraining_fingerprint` standing for its faces."""
    decides = list_decisive(trial, data_fingerprint)
    if trial.pretraining:
        decides["pretraining"] = trial_key(trial.pretraining, pretraining_fingerprint)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def list_decisive(trial: TrialSpec, data_fingerprint: str = "") -> dict[str, Any]:
    """All that decides a trial's result but its pretraining, as the key hashes it.

    The network enters as it is built and not as it is named, so a kernel rule that yields
    the same kernels, or a placement spelt another way, is the same trial. `data_fingerprint`
    (`data.Faces.fingerprint`, and `Split.digest` after it where the split has one) stands for the
    faces: their pixels, labels and order. Without it the data spec does, good enough to name a folder.
    """
    return {
        "version": KEY_VERSION,
        "network": select_used(resolve_network(trial.arch)),
        "resolution": trial.data.resolution,
        "data": data_fingerprint or {k: v for k, v in select_used(trial.data).items() if k != "cache_dir"},
        "protocol": select_effective_protocol(trial.protocol),
        "recipe": select_effective(trial.recipe),
        "seed": trial.seed,
    }


def select_effective_protocol(protocol: ProtocolSpec) -> dict[str, Any]:
    """The protocol's values that its kind of split and test read."""
    unused = {
        "holdout": {"folds", "fold"},
        "kfold": {"test_per_person", "test_people"},
        "view2": {"test_per_person", "test_people", "folds", "sigma", "far_target"},
    }[protocol.name]
    if protocol.name == "view2" and not protocol.validation_per_person:
        unused.add("split_seed")
    return {name: value for name, value in select_used(protocol).items() if name not in unused}


def select_effective(recipe: RecipeSpec) -> dict[str, Any]:
    """The recipe's values that training reads, each of the type it is declared with: 1 and 1.0 are one rate."""
    unused = {"name"}
    if recipe.loss == "softmax":
        unused.add("scale")
    if recipe.schedule != "exponential":
        unused.add("decay")
    if recipe.schedule != "one_cycle":
        unused.add("warmup_fraction")
    if recipe.optimizer != "sgd" or not recipe.momentum:
        unused.add("nesterov")
    kinds = {f.name: f.type for f in dataclasses.fields(recipe)}
    used = select_used(recipe).items()
    return {name: float(v) if kinds[name] == "float" else v for name, v in used if name not in unused}
