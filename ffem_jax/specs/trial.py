"""What decides a trial: frozen specs, checked when they are made, and the key they hash to.

The same dataclasses are Hydra's structured configs (see `conf/`), so an unknown key or a
wrong type is refused by OmegaConf and a value outside its choices by `__post_init__` here.
No JAX, no Hydra, no file is touched.

`trial_key` hashes the network as it is built (multipliers, placement and kernel rule resolved) and the faces as they
are (pixels, labels, order). So two spellings of one network are one trial. Moving a data set, renaming a config or
changing a cache folder changes no key. Another image, crop or alignment is another trial, even under the same name. A
field that is `added` to a spec stands in the key only where it is used, so that what was recorded before it came is
still found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffem_jax.specs.architecture import ArchSpec, resolve_network
from ffem_jax.specs.data import DataSpec
from ffem_jax.specs.fields import SpecError, check_fields, get_added_defaults, select_used, setting, to_plain
from ffem_jax.specs.protocol import ProtocolSpec, select_effective_protocol
from ffem_jax.specs.recipe import LOSSES, RecipeSpec, select_effective
from ffem_jax.specs.run import PRECISIONS, SEED_MAX, RunSpec
from ffem_jax.specs.teacher import TeacherSpec

# A trial is imported from here, with its parts.
__all__ = [
    "KEY_VERSION",
    "PRECISIONS",
    "DataSpec",
    "PretrainSpec",
    "ProtocolSpec",
    "RecipeSpec",
    "RunSpec",
    "TeacherSpec",
    "TrialSpec",
    "get_added_defaults",
    "list_decisive",
    "select_effective",
    "select_effective_protocol",
    "select_used",
    "to_plain",
    "trial_key",
]

# Raised by one whenever the same spec would train to a different result, so that old
# records are not mistaken for today's.
KEY_VERSION = 1
# Of data.unlabelled: the protocols that test nobody who trains.
UNLABELLED_PROTOCOLS = ("open_set", "bins")


@dataclass(frozen=True)
class PretrainSpec:
    """What a network is trained on before the trial itself, which then starts from its weights.

    It is a trial of the same network, with its own record and key; its classifier and the state of its optimiser are
    left behind.
    """

    name: str = setting("none", "A label; `none` pretrains nothing, whatever the rest says.")
    data: DataSpec = setting(factory=DataSpec)  # noqa: RUF009
    protocol: ProtocolSpec = setting(factory=ProtocolSpec)  # noqa: RUF009
    recipe: RecipeSpec = setting(factory=RecipeSpec)  # noqa: RUF009
    seed: int = setting(0, "The seed of the pretraining, which all seeds of the trial share.", low=0, high=SEED_MAX)

    def __post_init__(self) -> None:
        check_fields(self, "pretrain")


@dataclass(frozen=True)
class TrialSpec:
    """Everything that decides a trial's result, but for the faces themselves."""

    arch: ArchSpec = setting(factory=ArchSpec)  # noqa: RUF009
    data: DataSpec = setting(factory=DataSpec)  # noqa: RUF009
    protocol: ProtocolSpec = setting(factory=ProtocolSpec)  # noqa: RUF009
    recipe: RecipeSpec = setting(factory=RecipeSpec)  # noqa: RUF009
    seed: int = setting(
        0, "The seed of weights, of the order of images and of their augmentation.", low=0, high=SEED_MAX
    )
    pretrain: PretrainSpec = setting(  # noqa: RUF009
        factory=PretrainSpec, added=True, used=lambda trial: trial.pretraining is not None
    )
    teacher: TeacherSpec = setting(  # noqa: RUF009
        factory=TeacherSpec, added=True, used=lambda trial: trial.teacher.name != "none"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.pretraining and self.pretrain.data.resolution != self.data.resolution:
            raise SpecError(
                f"pretrain.data.resolution={self.pretrain.data.resolution} is not data.resolution="
                f"{self.data.resolution}; weights are learnt at one resolution, set both alike"
            )
        self._check_teacher()
        self._check_unlabelled()
        stride = resolve_network(self.arch).total_stride
        if self.data.resolution < stride:
            raise SpecError(
                f"data.resolution={self.data.resolution} is too small for this network's total stride of {stride}; "
                f"take at least {stride}, or arch.stem_stride=1"
            )

    def _check_teacher(self) -> None:
        taught = self.teacher.name != "none"
        if self.recipe.distills and not taught:
            raise SpecError(f"recipe={self.recipe.name} distils without a teacher; set teacher=vectors|onnx|ffem")
        if taught and not self.recipe.distills:
            raise SpecError(
                f"recipe={self.recipe.name} has no use for teacher={self.teacher.name}; set recipe=distill, or one of "
                "recipe.distill_cosine, recipe.distill_relation, recipe.distill_centres"
            )

    def _check_unlabelled(self) -> None:
        if not self.data.unlabelled:
            return
        given, recipe = f"data.unlabelled={self.data.unlabelled}", self.recipe
        if not recipe.distills or recipe.distill_labels or recipe.distill_centres:
            raise SpecError(
                f"{given} has no labels to learn, only a teacher's vectors; set recipe=distill and teacher=..., with "
                "recipe.distill_labels=0 and recipe.distill_centres=0"
            )
        if self.protocol.name not in UNLABELLED_PROTOCOLS:
            raise SpecError(
                f"{given} is of people nobody knows, and protocol={self.protocol.name} tests people who train; set "
                f"protocol={'|'.join(UNLABELLED_PROTOCOLS)}"
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


def trial_key(
    trial: TrialSpec, data_fingerprint: str = "", pretraining_fingerprint: str = "", teaching_fingerprint: str = ""
) -> str:
    """A 16-digit hexadecimal hash of all that decides a result: see `list_decisive`. A pretraining enters by its own
    key, `pretraining_fingerprint` standing for its faces; a teacher by what it says of these images,
    `teaching_fingerprint`, or where that is not known by its settings."""
    decides = list_decisive(trial, data_fingerprint)
    if trial.teacher.name != "none":
        decides["teaching"] = teaching_fingerprint or select_used(trial.teacher)
    if trial.pretraining:
        decides["pretraining"] = trial_key(trial.pretraining, pretraining_fingerprint)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def list_decisive(trial: TrialSpec, data_fingerprint: str = "") -> dict[str, Any]:
    """All that decides a trial's result but its pretraining, as the key hashes it.

    The network enters as it is built and not as it is named, so a kernel rule that yields
    the same kernels, or a placement spelt another way, is the same trial. `data_fingerprint`
    (`data.Faces.fingerprint`, and `Split.digest` after it where the split has one) stands for the
    faces: their pixels, labels and order. Without it the data spec does, good enough to name a folder.
    A loss of somebody's own enters with the file that defines it.
    """
    own_code = LOSSES[trial.recipe.loss].own_code
    # The faces are the same; how many of them an epoch takes is not.
    epoch = {"images_per_epoch": trial.data.images_per_epoch} if trial.data.images_per_epoch else {}
    return epoch | {
        "version": KEY_VERSION,
        "network": select_used(resolve_network(trial.arch)),
        "resolution": trial.data.resolution,
        "data": data_fingerprint or {k: v for k, v in select_used(trial.data).items() if k != "cache_dir"},
        "protocol": select_effective_protocol(trial.protocol),
        "recipe": select_effective(trial.recipe) | ({"own_code": own_code} if own_code else {}),
        "seed": trial.seed,
    }
