"""The settings of a training recipe, the registry of losses, and the settings that each loss reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ffem_jax.specs.fields import SpecError, check_fields, select_used, setting
from ffem_jax.specs.own_code import compute_code_digest
from ffem_jax.specs.registry import Reference, Registry, check_signature, find_module

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("exponential", "one_cycle", "constant")
PRECISIONS = ("float32", "bfloat16")

# The settings that a loss may read; a margin includes its schedule.
LOSS_SETTINGS = {
    "scale": ("scale",),
    "label_smoothing": ("label_smoothing",),
    "margin": ("margin", "margin_warmup", "margin_rise"),
}


@dataclass(frozen=True)
class Loss:
    """A loss that `recipe.loss` can choose.

    function: (logits [N, num_classes], labels [N], margin, recipe) -> a scalar, in nats. margin: the current
    value, a scalar. Under recipe.class_sampling the classes are those of the step, and labels index them. reads: a
    subset of LOSS_SETTINGS; others do not distinguish trials. A loss that reads `scale` gets recipe.scale times the
    cosine between an embedding and each class's weight vector; any other gets the logits of a dense layer with bias.
    source: the paper.
    """

    name: str
    function: Reference
    reads: tuple[str, ...]
    source: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The fields of RecipeSpec that it reads."""
        return tuple(name for group in self.reads for name in LOSS_SETTINGS[group])

    @property
    def own_code(self) -> str:
        """The digest of the user file that defines it; empty for built-in losses."""
        return compute_code_digest(find_module(self.function))

    @property
    def has_scale(self) -> bool:
        """Whether its logits are scaled cosines."""
        return "scale" in self.reads


LOSSES: Registry[Loss] = Registry("recipe.loss")

_HERE = "ffem_jax.training.losses"
LOSSES.register(Loss("softmax", f"{_HERE}:compute_softmax", ("label_smoothing",), "Szegedy et al., CVPR 2016"))
LOSSES.register(
    Loss(
        "normalized_softmax",
        f"{_HERE}:compute_softmax",
        ("scale", "label_smoothing"),
        "NormFace: Wang et al., ACM MM 2017",
    )
)
_MARGIN = ("scale", "label_smoothing", "margin")
LOSSES.register(Loss("arcface", f"{_HERE}:compute_arcface", _MARGIN, "ArcFace: Deng et al., CVPR 2019"))
LOSSES.register(Loss("cosface", f"{_HERE}:compute_cosface", _MARGIN, "CosFace: Wang et al., CVPR 2018"))


def register_loss(name: str, reads: tuple[str, ...] = (), source: str = "") -> Callable[[Function], Function]:
    """Decorator that registers a function (logits, labels, margin, recipe) -> scalar as the loss `recipe.loss=NAME`.

    Its file is part of a trial's key: after a change to it the trial is a different one.

    Args:
        name: letters, digits and _.
        reads: the settings it reads, out of `scale`, `label_smoothing` and `margin`; see `Loss`.
        source: the paper.

    Raises:
        SpecError: the name is taken, a setting is unknown, or the function has another signature.
    """
    # A string in place of a tuple would be read as letters.
    if not set(reads) <= set(LOSS_SETTINGS):
        raise SpecError(f"recipe.loss={name} reads {reads!r}; a loss reads some of ({', '.join(LOSS_SETTINGS)})")

    def register(function: Function) -> Function:
        check_signature(f"recipe.loss={name}", function, ("logits", "labels", "margin", "recipe"))
        LOSSES.register(Loss(name, function, tuple(reads), source))
        return function

    return register


def _has_margin(recipe: RecipeSpec) -> bool:
    return "margin" in LOSSES[recipe.loss].reads


@dataclass(frozen=True)
class RecipeSpec:
    """How a network is trained. Rates are per step unless said otherwise. `name` is a label without effect.

    schedule: `exponential` (learning_rate * decay ** epoch), `one_cycle` (up over warmup_fraction, cosine down to
    zero) or `constant`.
    loss: `softmax` over a dense layer of the embedding, or `normalized_softmax`: of scale * the cosine between
    embedding and each person's weight vector, which is what matching by distance compares. `arcface` and
    `cosface` add a margin for an image's own person: on the angle, in radians, or on the cosine.
    """

    name: str = setting("modern", "A label for tables; it does not affect results.")
    epochs: int = setting(30, "Number of passes over the training images.", low=1, unit="epochs")
    batch_size: int = setting(32, "The images per step.", low=2, unit="images")
    optimizer: str = setting(
        "sgd", "The optimiser.", choices=OPTIMIZERS, source="adamw: Loshchilov and Hutter, ICLR 2019; Optax"
    )
    learning_rate: float = setting(0.1, "The peak learning rate.", low=0.0)
    momentum: float = setting(0.9, "SGD's momentum, and Adam's decay of the first moment.", low=0.0, high=0.9999)
    nesterov: bool = setting(True, "Whether SGD uses Nesterov momentum.")
    schedule: str = setting(
        "one_cycle",
        "The learning-rate schedule.",
        choices=SCHEDULES,
        source="one_cycle: Smith and Topin, 2017; exponential: Xiao et al., Electronics 2024, 13, 201",
    )
    decay: float = setting(
        0.96, "For the exponential schedule: the learning rate's factor per epoch.", low=0.0, high=1.0
    )
    warmup_fraction: float = setting(
        0.1, "For one_cycle: the share of the steps in which the rate rises.", low=0.0, high=0.9
    )
    weight_decay: float = setting(5e-4, "Weight decay of kernels; biases, slopes and BatchNorm have none.", low=0.0)
    clip_norm: float = setting(0.0, "The limit of the gradient's global norm; 0 does not clip.", low=0.0)
    loss: str = setting("normalized_softmax", "The training loss.", choices=lambda: LOSSES.names)
    scale: float = setting(
        16.0, "The factor from cosines to logits.", low=0.1, source="NormFace: Wang et al., ACM MM 2017"
    )
    label_smoothing: float = setting(
        0.1, "The share of each target spread evenly over all classes.", low=0.0, high=0.9,
        source="Szegedy et al., CVPR 2016",
    )  # fmt: skip
    crop_padding: float = setting(
        0.0, "The largest shift of the random crop (1/48 is 2 pixels at 96).", low=0.0, high=0.5,
        unit="fraction of the side",
    )  # fmt: skip
    flip: bool = setting(True, "Whether images are mirrored at random, with probability 1/2.")
    brightness: float = setting(0.0, "The largest change of brightness.", low=0.0, high=0.9, unit="fraction of white")
    contrast: float = setting(0.0, "The largest change of contrast.", low=0.0, high=0.9, unit="fraction")
    erase: float = setting(
        0.0, "The side of the largest erased square.", low=0.0, high=0.9, unit="fraction of the side",
        source="Zhong et al., Random Erasing, AAAI 2020",
    )  # fmt: skip
    flip_test: bool = setting(False, "Whether testing averages the embeddings of an image and its mirror.")
    margin: float = setting(
        0.2,
        "For arcface (radians) and cosface (cosine): the margin for an image's own person; the papers' 0.5 and "
        "0.35 are for millions of images.",
        low=0.0,
        high=1.0,
        source="Deng et al., CVPR 2019; Wang et al., CVPR 2018",
        added=True,
        used=_has_margin,
    )
    margin_warmup: float = setting(
        0.3,
        "The share of the epochs with margin 0: a margin from the start fails on small data.",
        low=0.0,
        high=1.0,
        added=True,
        used=_has_margin,
    )
    margin_rise: float = setting(
        0.3,
        "The share of the epochs, after the warm-up, in which the margin rises linearly.",
        low=0.0,
        high=1.0,
        added=True,
        used=_has_margin,
    )
    rotation: float = setting(
        0.0, "The largest rotation in either direction.", low=0.0, high=180.0, unit="degrees", added=True
    )
    zoom: float = setting(0.0, "The largest change of scale.", low=0.0, high=0.9, unit="fraction", added=True)
    distill_cosine: float = setting(
        0.0,
        "The weight of 1 - the cosine between the student's vector and the teacher's.",
        low=0.0,
        added=True,
    )
    distill_relation: float = setting(
        0.0,
        "The weight of the mean squared difference of student's and teacher's cosines, over pairs in a batch.",
        low=0.0,
        source="Park et al., CVPR 2019; Tung and Mori, ICCV 2019",
        added=True,
    )
    distill_centres: float = setting(
        0.0,
        "The weight of the cross-entropy of a classifier whose class weights are the teacher's mean vectors.",
        low=0.0,
        added=True,
    )
    distill_labels: float = setting(
        1.0,
        "The share of recipe.loss's gradient that reaches the network under a teacher; 0 makes the classifier a probe.",
        low=0.0,
        high=100.0,
        added=True,
    )
    weight_averaging: float = setting(
        0.0,
        "The decay per step of a moving average of weights and batch statistics, used for testing; 0 is off.",
        low=0.0,
        high=0.99999,
        source="Polyak and Juditsky, 1992; start corrected as in Adam, Kingma and Ba, 2015",
        added=True,
    )
    precision: str = setting(
        "float32",
        "The compute precision in training; parameters, BatchNorm, losses and testing stay float32. "
        "bfloat16 is for accelerators; it is slower on a CPU.",
        choices=PRECISIONS,
        source="Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019",
        added=True,
    )
    class_sampling: float = setting(
        1.0,
        "The share of the classes used in each step: those in the batch, and random others; 1 uses all.",
        low=1e-6,
        high=1.0,
        unit="fraction",
        source="Partial FC: An et al., CVPR 2022",
        added=True,
    )

    def __post_init__(self) -> None:
        check_fields(self, "recipe")

    @property
    def distills(self) -> bool:
        """Whether it uses a teacher."""
        return bool(self.distill_cosine or self.distill_relation or self.distill_centres)


def select_effective(recipe: RecipeSpec) -> dict[str, Any]:
    """Return the values that training reads, each with its declared type: 1 and 1.0 are the same rate."""
    unread = {"name"} | {name for group in LOSS_SETTINGS.values() for name in group}
    unread -= set(LOSSES[recipe.loss].settings)
    if recipe.distill_centres:
        unread -= {"scale", "label_smoothing"}
    if not recipe.distills:
        unread.add("distill_labels")
    if recipe.schedule != "exponential":
        unread.add("decay")
    if recipe.schedule != "one_cycle":
        unread.add("warmup_fraction")
    if recipe.optimizer != "sgd" or not recipe.momentum:
        unread.add("nesterov")
    kinds = {f.name: f.type for f in dataclasses.fields(recipe)}
    used = select_used(recipe).items()
    return {name: float(v) if kinds[name] == "float" else v for name, v in used if name not in unread}
