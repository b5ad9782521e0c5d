"""The spec of a trial: frozen, validated on creation, and hashed to the trial's key.

The same dataclasses are Hydra's structured configs (see `conf/`), so OmegaConf rejects an unknown key or a
wrong type, and `__post_init__` here rejects an invalid value. No JAX, no Hydra, no file access.

`trial_key` hashes the resolved network (multipliers, placement and kernel rule applied) and the contents of the faces
(pixels, labels, order). Two spellings of one network are therefore one trial. Moving a data set, renaming a config or
changing a cache folder does not change the key. A different image, crop or alignment is a different trial, even under
the same name. A field `added` to a spec is part of the key only if it is used, so that earlier records are still found.
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

# Re-exports the parts of a trial.
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

# Increment whenever the same spec would train to a different result, so that old
# records are not mistaken for current ones.
KEY_VERSION = 1
# For data.unlabelled: the protocols whose test people do not train.
UNLABELLED_PROTOCOLS = ("open_set", "bins")


@dataclass(frozen=True)
class PretrainSpec:
    """A first training whose weights the trial starts from.

    It is a trial of the same network, with its own record and key; its classifier and optimiser state are discarded.
    """

    name: str = setting("none", "A label; `none` disables pretraining, regardless of the other settings.")
    data: DataSpec = setting(factory=DataSpec)  # noqa: RUF009
    protocol: ProtocolSpec = setting(factory=ProtocolSpec)  # noqa: RUF009
    recipe: RecipeSpec = setting(factory=RecipeSpec)  # noqa: RUF009
    seed: int = setting(0, "The seed of the pretraining, shared by all seeds of the trial.", low=0, high=SEED_MAX)

    def __post_init__(self) -> None:
        check_fields(self, "pretrain")


@dataclass(frozen=True)
class TrialSpec:
    """Everything that decides a trial's result, except the faces themselves."""

    arch: ArchSpec = setting(factory=ArchSpec)  # noqa: RUF009
    data: DataSpec = setting(factory=DataSpec)  # noqa: RUF009
    protocol: ProtocolSpec = setting(factory=ProtocolSpec)  # noqa: RUF009
    recipe: RecipeSpec = setting(factory=RecipeSpec)  # noqa: RUF009
    seed: int = setting(0, "The seed of the weights, the order of images and their augmentation.", low=0, high=SEED_MAX)
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
                f"pretrain.data.resolution={self.pretrain.data.resolution} differs from data.resolution="
                f"{self.data.resolution}; weights are learnt at one resolution, set both to the same"
            )
        self._check_teacher()
        self._check_unlabelled()
        stride = resolve_network(self.arch).total_stride
        if self.data.resolution < stride:
            raise SpecError(
                f"data.resolution={self.data.resolution} is too small for this network's total stride of {stride}; "
                f"set at least {stride}, or arch.stem_stride=1"
            )

    def _check_teacher(self) -> None:
        taught = self.teacher.name != "none"
        if self.recipe.distills and not taught:
            raise SpecError(f"recipe={self.recipe.name} distils without a teacher; set teacher=vectors|onnx|ffem")
        if taught and not self.recipe.distills:
            raise SpecError(
                f"recipe={self.recipe.name} does not use teacher={self.teacher.name}; set recipe=distill, or one of "
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
                f"{given} has no identities, and protocol={self.protocol.name} tests people who train; set "
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
        """Return this trial with each of `seeds`, or unchanged without seeds: see `RunSpec.seeds`."""
        return [dataclasses.replace(self, seed=seed) for seed in seeds or (self.seed,)]


def trial_key(
    trial: TrialSpec, data_fingerprint: str = "", pretraining_fingerprint: str = "", teaching_fingerprint: str = ""
) -> str:
    """Hash everything that decides a result to 16 hexadecimal digits: see `list_decisive`. A pretraining enters by its
    own key, with `pretraining_fingerprint` for its faces; a teacher by its vectors for these images,
    `teaching_fingerprint`, or by its settings if these are unknown."""
    decides = list_decisive(trial, data_fingerprint)
    if trial.teacher.name != "none":
        decides["teaching"] = teaching_fingerprint or select_used(trial.teacher)
    if trial.pretraining:
        decides["pretraining"] = trial_key(trial.pretraining, pretraining_fingerprint)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def list_decisive(trial: TrialSpec, data_fingerprint: str = "") -> dict[str, Any]:
    """Return everything that decides a trial's result except its pretraining, in the form that the key hashes.

    The resolved network enters, not its name, so a kernel rule that yields
    the same kernels, or another spelling of a placement, is the same trial. `data_fingerprint`
    (`data.Faces.fingerprint`, followed by `Split.digest` if the split has one) represents the
    faces: their pixels, labels and order. Without it the data spec does, which suffices to name a folder.
    A user-defined loss enters with the file that defines it.
    """
    own_code = LOSSES[trial.recipe.loss].own_code
    # The faces are the same; the number used per epoch is not.
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
