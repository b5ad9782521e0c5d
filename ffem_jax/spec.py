"""What decides a trial: frozen specs, checked when they are made, and the key they hash to.

The same dataclasses are Hydra's structured configs (see `conf/`), so an unknown key or a
wrong type is refused by OmegaConf and a value outside its choices by `__post_init__` here.
No JAX, no Hydra, no file is touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.arch import ArchSpec, SpecError, check_choice, check_range, resolve_network

# Raised by one whenever the same spec would train to a different result, so that old
# records are not mistaken for today's.
KEY_VERSION = 1

DATA_SETS = ("lfw52", "lfw", "folder", "synthetic")
PROTOCOLS = ("holdout", "kfold", "view2")
OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("softmax", "normalized_softmax")
SCHEDULES = ("exponential", "one_cycle", "constant")
PRECISIONS = ("float32", "float16", "int8")


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

    holdout: `test_per_person` images of each person, drawn by `split_seed`, test; the rest train.
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
    validation_per_person: int = 0

    def __post_init__(self) -> None:
        check_choice("protocol.name", self.name, PROTOCOLS)
        check_range("protocol.test_per_person", self.test_per_person, 1)
        check_range("protocol.folds", self.folds, 2)
        check_range("protocol.fold", self.fold, 0, self.folds - 1)
        check_range("protocol.sigma", self.sigma, 0.0, 1.0)
        check_range("protocol.far_target", self.far_target, 0.0, 1.0)
        check_range("protocol.validation_per_person", self.validation_per_person, 0)


@dataclass(frozen=True)
class RecipeSpec:
    """How a network is trained. Rates are per step unless said otherwise.

    schedule: `exponential` (learning_rate * decay ** epoch), `one_cycle` (up over
        warmup_fraction, cosine down to nothing) or `constant`.
    loss: `softmax` over a dense layer of the embedding, or `normalized_softmax`: of scale * the cosine between
        embedding and each person's weight vector (NormFace), which is what matching by distance then compares.
    clip_norm: the gradient's norm over all parameters is cut to this; 0 leaves it.
    crop_padding: the random crop's reach, as a fraction of the side (1/48 is 2 pixels at 96).
    flip: mirror every second image at random. brightness, contrast: largest relative change.
    erase: the largest erased square's side, as a fraction of the image's side.
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
        for name in ("brightness", "contrast", "erase"):
            check_range(f"recipe.{name}", getattr(self, name), 0.0, 0.9)


@dataclass(frozen=True)
class TrialSpec:
    """Everything that decides a trial's result, but for the faces themselves."""

    arch: ArchSpec = field(default_factory=ArchSpec)
    data: DataSpec = field(default_factory=DataSpec)
    protocol: ProtocolSpec = field(default_factory=ProtocolSpec)
    recipe: RecipeSpec = field(default_factory=RecipeSpec)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("seed", self.seed, 0, 2**31 - 1)
        stride = resolve_network(self.arch).total_stride
        if self.data.resolution < stride:
            raise SpecError(
                f"data.resolution={self.data.resolution} is too small for this network's total stride of {stride}; "
                f"take at least {stride}, or arch.stem_stride=1"
            )


@dataclass(frozen=True)
class RunSpec:
    """What a run needs to know and a result does not depend on.

    records: the JSON-lines file; empty puts records.jsonl in the run's (or the sweep's) folder.
    cap_mb, cap_precision: the size limit in MB of 10**6 bytes, and the precision it is checked at.
    train_over_cap: train a network over the cap all the same.
    retrain: train even if the records already hold this trial as done.
    seeds: train these seeds of one network as one program (vmap); empty trains `seed` alone.
    checkpoint: keep an Orbax checkpoint after every epoch, and go on from it.
    progress: draw progress bars (drawn only on a terminal).
    cores: CPU cores that the trial's batches are split over, where JAX has not started yet; 0 for all.
    """

    records: str = ""
    cap_mb: float = 10.0
    cap_precision: str = "float32"
    train_over_cap: bool = False
    retrain: bool = False
    seeds: tuple[int, ...] = ()
    checkpoint: bool = True
    progress: bool = True
    cores: int = 0

    def __post_init__(self) -> None:
        check_range("run.cores", self.cores, 0)
        check_range("run.cap_mb", self.cap_mb, 0.0)
        check_choice("run.cap_precision", self.cap_precision, PRECISIONS)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for seed in self.seeds:
            check_range("run.seeds", seed, 0, 2**31 - 1)
        if len(set(self.seeds)) != len(self.seeds):
            raise SpecError(f"run.seeds={list(self.seeds)} names a seed twice")


# ----------------------------------------------------------------------------------- the key


def to_plain(spec: Any) -> dict[str, Any]:
    """A spec as nested dicts, lists and numbers, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(spec)))


def trial_key(trial: TrialSpec, data_fingerprint: str = "") -> str:
    """A 16-digit hexadecimal hash of all that decides a result.

    The network enters as it is built and not as it is named, so a kernel rule that yields
    the same kernels, or a placement spelt another way, is the same trial. `data_fingerprint`
    (`data.Faces.fingerprint`, and `Split.digest` after it where the split has one) stands for the
    faces: their pixels, labels and order. Without it the key covers the data spec instead, good
    enough to name a folder.
    """
    if data_fingerprint:
        data: Any = data_fingerprint
    else:
        data = {k: v for k, v in dataclasses.asdict(trial.data).items() if k != "cache_dir"}
    decides = {
        "version": KEY_VERSION,
        "network": select_decisive(resolve_network(trial.arch)),
        "resolution": trial.data.resolution,
        "data": data,
        "protocol": _select_effective_protocol(trial.protocol),
        "recipe": select_effective(trial.recipe),
        "seed": trial.seed,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _select_effective_protocol(protocol: ProtocolSpec) -> dict[str, Any]:
    """The protocol's values that its kind of split and test read."""
    unused = {
        "holdout": {"folds", "fold"},
        "kfold": {"test_per_person"},
        "view2": {"test_per_person", "folds", "sigma", "far_target"},
    }[protocol.name]
    if not protocol.validation_per_person:
        unused.add("validation_per_person")
        if protocol.name == "view2":
            unused.add("split_seed")
    return {name: value for name, value in dataclasses.asdict(protocol).items() if name not in unused}


def select_decisive(spec: Any) -> Any:
    """A network as plain values, without the fields that have their default: one that is added later, with a default
    that means what was before, leaves the keys of recorded trials as they are."""
    if isinstance(spec, tuple):
        return [select_decisive(item) for item in spec]
    if not dataclasses.is_dataclass(spec):
        return spec
    values = [(f, getattr(spec, f.name)) for f in dataclasses.fields(spec)]
    return {f.name: select_decisive(value) for f, value in values if value != f.default}


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
    values = {f.name: (getattr(recipe, f.name), f.type) for f in dataclasses.fields(recipe)}
    return {name: float(v) if kind == "float" else v for name, (v, kind) in values.items() if name not in unused}
