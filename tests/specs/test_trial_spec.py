"""Specs: what they refuse, in one line that says what is right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from made_specs import FFEM_AM, SHUFFLE

from ffem_jax.specs.architecture import (
    FFEM_STAGES,
    ArchSpec,
    AttentionSpec,
    SpecError,
    StageSpec,
)
from ffem_jax.specs.trial import (
    DataSpec,
    PretrainSpec,
    ProtocolSpec,
    RecipeSpec,
    RunSpec,
    TrialSpec,
)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: AttentionSpec(kind="ghost"),
            "arch.attention.kind='ghost' is not known; choose one of: none, eca, se, cbam, coordinate",
        ),
        (
            lambda: AttentionSpec(placement="middle"),
            "arch.attention.placement='middle' is not known; choose one of: first, last, first_last, all",
        ),
        (
            lambda: AttentionSpec(placement=3),
            "choose one of: first, last, first_last, all, or a list of block indices such as [0,13]",
        ),
        (lambda: AttentionSpec(placement=["a"]), "or a list of block indices such as [0,13]"),
        (lambda: AttentionSpec(placement=[0.5]), "or a list of block indices such as [0,13]"),
        (lambda: AttentionSpec(placement=None), "or a list of block indices such as [0,13]"),
        (lambda: AttentionSpec(position="stem"), "choose one of: depthwise, projection"),
        (lambda: AttentionSpec(fusion="sum"), "choose one of: scale, residual"),
        (lambda: AttentionSpec(kernel="even"), "choose one of: adaptive, fixed, mobilenetv2"),
        (lambda: AttentionSpec(gamma=0.0), "arch.attention.gamma=0.0 must be above 0"),
        (lambda: AttentionSpec(gamma=math.nan), "arch.attention.gamma=nan must be finite"),
        (lambda: AttentionSpec(b=math.inf), "arch.attention.b=inf must be finite"),
        (lambda: AttentionSpec(kernel_size=4), "arch.attention.kernel_size=4 must be odd"),
        (lambda: AttentionSpec(kernel_size=-1), "arch.attention.kernel_size=-1 must be at least 1"),
        (lambda: AttentionSpec(reduction=0), "arch.attention.reduction=0 must be at least 1"),
        (
            lambda: ArchSpec(attention=AttentionSpec(kind="eca", placement=[0, 14])),
            "arch.attention.placement=[0, 14] contains bottleneck 14; this network has 14: 0 to 13",
        ),
        (lambda: StageSpec(stride=3), "arch.stages.stride=3 must be 1 or 2"),
        (lambda: StageSpec(repeats=0), "arch.stages.repeats=0 must be at least 1"),
        (lambda: ArchSpec(stages=()), "arch.stages is empty; a network needs at least one stage"),
        (lambda: ArchSpec(block="resnet"), "arch.block='resnet' is not known; choose one of: bottleneck, shuffle"),
        (
            lambda: replace(SHUFFLE, stages=(StageSpec(1, 57),)),
            "arch.stages.channels=57 must be a multiple of 2 with arch.block=shuffle",
        ),
        (lambda: ArchSpec(stem_extra="average"), "choose one of: none, max_pool, depthwise"),
        (lambda: ArchSpec(stem_stride=4), "arch.stem_stride=4 must be 1 or 2"),
        (lambda: ArchSpec(width_multiplier=0.0), "arch.width_multiplier=0.0 must be between 0.05 and 8.0"),
        (lambda: ArchSpec(depth_multiplier=math.nan), "arch.depth_multiplier=nan must be between 0.05 and 8.0"),
        (lambda: ArchSpec(head_channels=-1), "arch.head_channels=-1 must be at least 0"),
        (lambda: ArchSpec(pooling="max"), "choose one of: average, global_depthwise"),
        (lambda: ArchSpec(activation="gelu"), "choose one of: relu6, prelu, hard_swish"),
        (lambda: ArchSpec(embedding_dim=0), "arch.embedding_dim=0 must be at least 1"),
        (
            lambda: DataSpec(name="casia"),
            "data.name='casia' is not known; choose one of: lfw52, lfw, lfw_rest, folder, recordio, tfds, webdataset, "
            "parquet, synthetic",
        ),
        (lambda: DataSpec(resolution=8), "data.resolution=8 must be between 16 and 512"),
        (lambda: DataSpec(crop=1.5), "data.crop=1.5 must be between 0.05 and 1.0"),
        (lambda: ProtocolSpec(name="loo"), "choose one of: holdout, kfold"),
        (lambda: ProtocolSpec(folds=1), "protocol.folds=1 must be at least 2"),
        (lambda: ProtocolSpec(folds=5, fold=5), "protocol.fold=5 must be between 0 and 4"),
        (lambda: ProtocolSpec(sigma=1.5), "protocol.sigma=1.5 must be between 0.0 and 1.0"),
        (lambda: RecipeSpec(optimizer="lion"), "choose one of: sgd, adamw"),
        (lambda: RecipeSpec(schedule="step"), "choose one of: exponential, one_cycle, constant"),
        (lambda: RecipeSpec(batch_size=1), "recipe.batch_size=1 must be at least 2"),
        (lambda: RecipeSpec(learning_rate=math.nan), "recipe.learning_rate=nan must be at least 0.0"),
        (lambda: RecipeSpec(erase=1.0), "recipe.erase=1.0 must be between 0.0 and 0.9"),
        (lambda: RecipeSpec(loss="sphereface"), "choose one of: softmax, normalized_softmax, arcface, cosface"),
        (lambda: RecipeSpec(margin=2.0), "recipe.margin=2.0 must be between 0.0 and 1.0"),
        (lambda: RecipeSpec(rotation=-1.0), "recipe.rotation=-1.0 must be between 0.0 and 180.0"),
        (lambda: RecipeSpec(weight_averaging=1.0), "recipe.weight_averaging=1.0 must be between 0.0 and 0.99999"),
        (lambda: TrialSpec(seed=-1), "seed=-1 must be between 0 and 2147483647"),
        (
            lambda: TrialSpec(data=DataSpec(resolution=31)),
            "data.resolution=31 is too small for this network's total stride of 32; set at least 32, "
            "or arch.stem_stride=1",
        ),
        (
            lambda: TrialSpec(pretrain=PretrainSpec(name="small", data=DataSpec(resolution=48))),
            "pretrain.data.resolution=48 differs from data.resolution=96; weights are learnt at one resolution",
        ),
        (lambda: PretrainSpec(seed=-1), "pretrain.seed=-1 must be between 0 and 2147483647"),
        (lambda: RunSpec(cap_precision="int4"), "choose one of: float32, float16, int8"),
        (lambda: RunSpec(cap_mb=-1.0), "run.cap_mb=-1.0 must be at least 0.0"),
        (lambda: RunSpec(cap_mmacs=-1.0), "run.cap_mmacs=-1.0 must be at least 0.0"),
        (lambda: RunSpec(stop_epoch=-1), "run.stop_epoch=-1 must be at least 0"),
        (lambda: RunSpec(stop_epoch=2, checkpoint=False), "set run.checkpoint=true"),
        (lambda: RunSpec(seeds=(1, 1)), "run.seeds=[1, 1] contains a seed twice"),
    ],
)
def test_a_wrong_value_gets_one_line_that_says_what_is_right(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "macs", "excess", "words"),
    [
        (2_000_000, 3_000_000, 0.0, ""),
        (3_000_000, 3_000_000, 0.5, "3.00 MB is over the cap of 2 MB"),
        (1_000_000, 6_000_000, 0.5, "6.0 M MACs is over the cap of 4 M MACs"),
        (3_000_000, 12_000_000, 2.0, "12.0 M MACs is over the cap of 4 M MACs"),
        (1_000_000, 3_000_000, -0.25, ""),
    ],
)
def test_of_two_limits_the_nearer_counts(size: int, macs: int, excess: float, words: str) -> None:
    assert RunSpec(cap_mb=2.0, cap_mmacs=4.0).measure_excess(size, macs) == (excess, words)


def test_without_a_limit_of_macs_bytes_alone_count() -> None:
    assert RunSpec(cap_mb=2.0).measure_excess(1_000_000, 10**12) == (-0.5, "")
    assert RunSpec(cap_mb=0.0).measure_excess(1, 1) == (1.0, "0.00 MB is over the cap of 0 MB")


def test_specs_are_frozen_and_hashable_where_they_name_a_network() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ArchSpec().name = "other"  # type: ignore[misc]
    assert len({FFEM_AM, replace(FFEM_AM), ArchSpec()}) == 2
    assert ArchSpec().stages is FFEM_STAGES
    assert hash(AttentionSpec(placement=[0, 1])) == hash(AttentionSpec(placement=(0, 1)))
