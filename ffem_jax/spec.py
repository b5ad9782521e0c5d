"""What decides a trial: frozen specs, checked when they are made, and the key they hash to.

The same dataclasses are Hydra's structured configs (see `conf/`), so an unknown key or a
wrong type is refused by OmegaConf and a value outside its choices by `__post_init__` here.
No JAX, no Hydra, no file is touched.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
from dataclasses import dataclass, field
from typing import Any

# Raised by one whenever the same spec would train to a different result, so that old
# records are not mistaken for today's.
KEY_VERSION = 1

ATTENTION_KINDS = ("none", "eca", "se")
PLACEMENTS = ("first", "last", "first_last", "all")
ATTENTION_POSITIONS = ("depthwise", "projection")
FUSIONS = ("scale", "residual")
ECA_KERNELS = ("adaptive", "fixed", "mobilenetv2")
POOLINGS = ("average", "global_depthwise")
ACTIVATIONS = ("relu6", "prelu", "hard_swish")
DATA_SETS = ("lfw52", "lfw", "folder", "synthetic")
PROTOCOLS = ("holdout", "kfold")
OPTIMIZERS = ("sgd", "adamw")
LOSSES = ("softmax", "normalized_softmax")
SCHEDULES = ("exponential", "one_cycle", "constant")
PRECISIONS = ("float32", "float16", "int8")


class SpecError(ValueError):
    """A value that no spec may have. The message is one line and names the valid choices."""


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise SpecError unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(f"{name}={value!r} is not known; choose one of: {', '.join(choices)}")


def check_range(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise SpecError unless low <= value <= high (NaN is refused)."""
    if not low <= value <= high:
        wanted = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise SpecError(f"{name}={value} must be {wanted}")


# ------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class StageSpec:
    """A row of the stage table: `repeats` bottlenecks, the first of them with `stride`."""

    expansion: int = 6
    channels: int = 16
    repeats: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        check_range("arch.stages.expansion", self.expansion, 1)
        check_range("arch.stages.channels", self.channels, 1)
        check_range("arch.stages.repeats", self.repeats, 1)
        if self.stride not in (1, 2):
            raise SpecError(f"arch.stages.stride={self.stride} must be 1 or 2")


@dataclass(frozen=True)
class AttentionSpec:
    """Which channel attention, in which bottlenecks, and where inside them.

    kind: none, eca (Wang et al., CVPR 2020) or se (Hu et al., CVPR 2018).
    placement: first, last, first_last, all, or a list of bottleneck indices from 0
        (negative ones count from the end).
    position: after the `depthwise` (the paper's Fig. 4) or after the `projection`
        (the ECA authors' MobileNetV2).
    fusion: `scale` x * a, or `residual` x + x * a.
    kernel: ECA's kernel size by `adaptive` (gamma, b), `fixed` (kernel_size), or
        `mobilenetv2`: the ECA authors' released MobileNetV2, 1 below 96 channels, else 3.
    reduction: SE's bottleneck, channels // reduction.
    """

    kind: str = "none"
    placement: Any = "first_last"
    position: str = "depthwise"
    fusion: str = "scale"
    kernel: str = "adaptive"
    gamma: float = 2.0
    b: float = 1.0
    kernel_size: int = 3
    reduction: int = 16

    def __post_init__(self) -> None:
        check_choice("arch.attention.kind", self.kind, ATTENTION_KINDS)
        check_choice("arch.attention.position", self.position, ATTENTION_POSITIONS)
        check_choice("arch.attention.fusion", self.fusion, FUSIONS)
        check_choice("arch.attention.kernel", self.kernel, ECA_KERNELS)
        if self.gamma == 0 or not math.isfinite(self.gamma):
            raise SpecError(f"arch.attention.gamma={self.gamma} must be finite and not 0")
        if not math.isfinite(self.b):
            raise SpecError(f"arch.attention.b={self.b} must be finite")
        check_range("arch.attention.kernel_size", self.kernel_size, 1)
        if self.kernel_size % 2 == 0:
            raise SpecError(f"arch.attention.kernel_size={self.kernel_size} must be odd")
        check_range("arch.attention.reduction", self.reduction, 1)
        if isinstance(self.placement, str):
            check_choice("arch.attention.placement", self.placement, PLACEMENTS)
        else:
            try:
                indices = tuple(operator.index(index) for index in self.placement)
            except TypeError:
                raise SpecError(
                    f"arch.attention.placement={self.placement!r} is not known; choose one of: "
                    f"{', '.join(PLACEMENTS)}, or a list of bottleneck indices such as [0,13]"
                ) from None
            object.__setattr__(self, "placement", indices)

    def indices(self, blocks: int) -> tuple[int, ...]:
        """The sorted bottleneck indices this placement means in a network of `blocks` bottlenecks.

        Raises SpecError for an index outside the network.
        """
        if self.kind == "none":
            return ()
        if isinstance(self.placement, str):
            named = {"first": {0}, "last": {blocks - 1}, "first_last": {0, blocks - 1}, "all": set(range(blocks))}
            return tuple(sorted(named[self.placement]))
        outside = [index for index in self.placement if not -blocks <= index < blocks]
        if outside:
            raise SpecError(
                f"arch.attention.placement={list(self.placement)} names bottleneck {outside[0]}; "
                f"this network has {blocks}: 0 to {blocks - 1}"
            )
        return tuple(sorted({index % blocks for index in self.placement}))


def compute_eca_kernel_size(channels: int, attention: AttentionSpec) -> int:
    """ECA's 1-D kernel size for `channels`, an odd integer of at least 1.

    adaptive: t = int(|(log2(C) + b) / gamma|), K = t if t is odd else t + 1 (Wang et al. 2020,
    the authors' code; the paper's Eq. 3 up to its tie at even integers).
    """
    if attention.kernel == "fixed":
        return attention.kernel_size
    if attention.kernel == "mobilenetv2":
        return 1 if channels < 96 else 3
    size = int(abs((math.log2(channels) + attention.b) / attention.gamma))
    return size if size % 2 else size + 1


# expansion t, channels c, repeats n, first stride s: Table 1 of the paper.
FFEM_STAGES = (
    StageSpec(1, 16, 1, 1),
    StageSpec(6, 24, 2, 2),
    StageSpec(6, 32, 2, 2),
    StageSpec(6, 64, 3, 2),
    StageSpec(6, 96, 2, 1),
    StageSpec(6, 160, 3, 2),
    StageSpec(6, 320, 1, 1),
)


@dataclass(frozen=True)
class ArchSpec:
    """A network of the family: stem, bottlenecks by a stage table, head, pooling, embedding.

    name: a label for tables and figures; it decides nothing.
    width_multiplier: scales the channels, rounded to multiples of 8 (MobileNetV2); the head
        is widened by it but never narrowed, as in MobileNetV2.
    depth_multiplier: scales each stage's repeats, rounded up.
    head_channels: the 1x1 convolution before pooling; 0 for none.
    pooling: `average`, or `global_depthwise` (MobileFaceNet: a depthwise convolution over the
        whole map, with BatchNorm, no activation).
    """

    name: str = "ffem"
    stem_channels: int = 32
    stem_stride: int = 2
    stages: tuple[StageSpec, ...] = FFEM_STAGES
    width_multiplier: float = 1.0
    depth_multiplier: float = 1.0
    head_channels: int = 1280
    pooling: str = "average"
    activation: str = "relu6"
    embedding_dim: int = 128
    attention: AttentionSpec = field(default_factory=AttentionSpec)

    def __post_init__(self) -> None:
        check_range("arch.stem_channels", self.stem_channels, 1)
        if self.stem_stride not in (1, 2):
            raise SpecError(f"arch.stem_stride={self.stem_stride} must be 1 or 2")
        check_range("arch.width_multiplier", self.width_multiplier, 0.05, 8.0)
        check_range("arch.depth_multiplier", self.depth_multiplier, 0.05, 8.0)
        check_range("arch.head_channels", self.head_channels, 0)
        check_choice("arch.pooling", self.pooling, POOLINGS)
        check_choice("arch.activation", self.activation, ACTIVATIONS)
        check_range("arch.embedding_dim", self.embedding_dim, 1)
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise SpecError("arch.stages is empty; a network needs at least one stage")
        self.attention.indices(self.block_count)

    @property
    def block_count(self) -> int:
        """How many bottlenecks the network has, depth multiplier applied."""
        return sum(scale_repeats(stage.repeats, self.depth_multiplier) for stage in self.stages)


@dataclass(frozen=True)
class BlockSpec:
    """One bottleneck, all multipliers and rules resolved. `attention` is kind, position, fusion, size;
    size is ECA's kernel or SE's hidden width. None where the bottleneck has no attention."""

    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int
    activation: str
    attention: tuple[str, str, str, int] | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """A network as it is built: what `models.build_model` reads and what a trial's key hashes."""

    stem_channels: int
    stem_stride: int
    blocks: tuple[BlockSpec, ...]
    head_channels: int
    pooling: str
    activation: str
    embedding_dim: int

    @property
    def total_stride(self) -> int:
        """Input pixels a side to one pixel of the last feature map."""
        return self.stem_stride * math.prod(block.stride for block in self.blocks)

    @property
    def trunk_channels(self) -> int:
        """Channels that reach the pooling."""
        return self.head_channels or self.blocks[-1].out_channels


def scale_channels(channels: int, multiplier: float) -> int:
    """`channels * multiplier` to the nearest multiple of 8, never under 90 % of it (MobileNetV2).

    A multiplier of 1 leaves the channels as they are written.
    """
    if multiplier == 1.0:
        return channels
    scaled = channels * multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scale_repeats(repeats: int, multiplier: float) -> int:
    """`repeats * multiplier`, rounded up (EfficientNet), so a stage never disappears."""
    return max(1, math.ceil(round(repeats * multiplier, 6)))


def resolve_network(arch: ArchSpec) -> NetworkSpec:
    """Apply the multipliers, the placement and the kernel rule: two specs that build the same
    network resolve to equal NetworkSpecs, which is how a sweep knows not to train it twice."""
    attended = set(arch.attention.indices(arch.block_count))
    channels = scale_channels(arch.stem_channels, arch.width_multiplier)
    stem_channels = channels
    blocks: list[BlockSpec] = []
    for stage in arch.stages:
        out_channels = scale_channels(stage.channels, arch.width_multiplier)
        for repeat in range(scale_repeats(stage.repeats, arch.depth_multiplier)):
            hidden = channels * stage.expansion
            attention = None
            if len(blocks) in attended:
                a = arch.attention
                seen = hidden if a.position == "depthwise" else out_channels
                size = compute_eca_kernel_size(seen, a) if a.kind == "eca" else max(1, seen // a.reduction)
                attention = (a.kind, a.position, a.fusion, size)
            stride = stage.stride if repeat == 0 else 1
            blocks.append(BlockSpec(channels, hidden, out_channels, stride, arch.activation, attention))
            channels = out_channels
    head = scale_channels(arch.head_channels, max(1.0, arch.width_multiplier)) if arch.head_channels else 0
    return NetworkSpec(
        stem_channels, arch.stem_stride, tuple(blocks), head, arch.pooling, arch.activation, arch.embedding_dim
    )


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
    cache_dir: where decoded arrays are kept; empty is the user's cache folder. Decides nothing.
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

    def __post_init__(self) -> None:
        check_choice("protocol.name", self.name, PROTOCOLS)
        check_range("protocol.test_per_person", self.test_per_person, 1)
        check_range("protocol.folds", self.folds, 2)
        check_range("protocol.fold", self.fold, 0, self.folds - 1)
        check_range("protocol.sigma", self.sigma, 0.0, 1.0)
        check_range("protocol.far_target", self.far_target, 0.0, 1.0)


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
    """

    records: str = ""
    cap_mb: float = 10.0
    cap_precision: str = "float32"
    train_over_cap: bool = False
    retrain: bool = False
    seeds: tuple[int, ...] = ()
    checkpoint: bool = True
    progress: bool = True

    def __post_init__(self) -> None:
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
    (`data.Faces.fingerprint`) stands for the faces: their pixels, labels and order. Without
    it the key covers the data spec instead, good enough to name a folder.
    """
    protocol = dataclasses.asdict(trial.protocol)
    unused = ("folds", "fold") if trial.protocol.name == "holdout" else ("test_per_person",)
    if data_fingerprint:
        data: Any = data_fingerprint
    else:
        data = {k: v for k, v in dataclasses.asdict(trial.data).items() if k != "cache_dir"}
    decides = {
        "version": KEY_VERSION,
        "network": dataclasses.asdict(resolve_network(trial.arch)),
        "resolution": trial.data.resolution,
        "data": data,
        "protocol": {k: v for k, v in protocol.items() if k not in unused},
        "recipe": _select_effective(trial.recipe),
        "seed": trial.seed,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _select_effective(recipe: RecipeSpec) -> dict[str, Any]:
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
