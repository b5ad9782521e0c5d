"""Networks as specs: kernels, placements, multipliers, and what they resolve to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_specs import FFEM_AM, SHUFFLE, arch_strategy

from ffem_jax.specs.architecture import (
    PLACEMENTS,
    ArchSpec,
    AttentionSpec,
    StageSpec,
    resolve_network,
    scale_channels,
    scale_repeats,
)
from ffem_jax.specs.attention import compute_eca_kernel_size


def attended(arch: ArchSpec) -> list[int]:
    """The bottlenecks of `arch` that have attention."""
    return [index for index, block in enumerate(resolve_network(arch).blocks) if block.attention]


# -------------------------------------------------------------------------------- ECA kernels


@pytest.mark.parametrize(
    ("channels", "size"),
    [
        *[(channels, 3) for channels in (8, 16, 24, 32, 48, 64, 96)],
        *[(channels, 5) for channels in (128, 144, 192, 256, 384, 512, 576, 960, 1280)],
    ],
)
def test_the_adaptive_rule_gives_the_kernels_of_the_paper(channels: int, size: int) -> None:
    assert compute_eca_kernel_size(channels, AttentionSpec(kind="eca")) == size


@pytest.mark.parametrize(
    ("channels", "gamma", "b", "size"),
    [
        (128, 1.0, 0.0, 7),  # log2 = 7, odd
        (256, 1.0, 0.0, 9),  # log2 = 8, even: one up
        (32, 1.0, 0.0, 5),
        (32, 4.0, 1.0, 1),  # 6 / 4 is cut to 1
        (8, 8.0, 1.0, 1),  # 4 / 8 is cut to 0: one up, never an empty kernel
        (32, 2.0, -5.0, 1),
        (32, 2.0, -8.0, 1),  # the absolute value, of -3 / 2
        (960, 2.0, 3.0, 7),
    ],
)
def test_the_adaptive_rule_follows_gamma_and_b(channels: int, gamma: float, b: float, size: int) -> None:
    assert compute_eca_kernel_size(channels, AttentionSpec(kind="eca", gamma=gamma, b=b)) == size


@given(
    channels=st.integers(1, 4096),
    gamma=st.floats(0.25, 8).map(lambda value: round(value, 2)),
    b=st.floats(-8, 8).map(lambda value: round(value, 2)),
)
def test_an_adaptive_kernel_is_odd_and_within_one_of_the_formula(channels: int, gamma: float, b: float) -> None:
    size = compute_eca_kernel_size(channels, AttentionSpec(kind="eca", gamma=gamma, b=b))
    exact = abs((math.log2(channels) + b) / gamma)
    assert size % 2 == 1
    assert size >= 1
    assert exact - 1 < size <= exact + 1


def test_the_other_kernel_rules() -> None:
    fixed = AttentionSpec(kind="eca", kernel="fixed", kernel_size=9)
    released = AttentionSpec(kind="eca", kernel="mobilenetv2")
    assert [compute_eca_kernel_size(channels, fixed) for channels in (8, 96, 1280)] == [9, 9, 9]
    assert [compute_eca_kernel_size(channels, released) for channels in (16, 95, 96, 960)] == [1, 1, 3, 3]


# ---------------------------------------------------------------------------------- placement


@pytest.mark.parametrize(
    ("placement", "indices"),
    [
        ("first", [0]),
        ("last", [13]),
        ("first_last", [0, 13]),
        ("all", list(range(14))),
        ((0, 13), [0, 13]),
        ([13, 0, 0, -1, -14], [0, 13]),
        ([5], [5]),
        ([], []),
    ],
)
def test_a_placement_names_bottlenecks(placement: Any, indices: list[int]) -> None:
    assert attended(ArchSpec(attention=AttentionSpec(kind="eca", placement=placement))) == indices


@pytest.mark.parametrize("placement", [*PLACEMENTS, [0, 99]])
def test_no_attention_is_placed_nowhere(placement: Any) -> None:
    assert attended(ArchSpec(attention=AttentionSpec(kind="none", placement=placement))) == []


def test_first_and_last_of_one_bottleneck_are_the_same() -> None:
    stages = (StageSpec(1, 16, 1, 1),)
    for placement in PLACEMENTS:
        assert attended(ArchSpec(stages=stages, attention=AttentionSpec(kind="se", placement=placement))) == [0]


def test_last_follows_the_depth() -> None:
    arch = replace(FFEM_AM, depth_multiplier=2.0)
    assert arch.block_count == 28
    assert attended(arch) == [0, 27]


def test_attention_sees_the_channels_of_its_position() -> None:
    def sizes(kind: str, position: str, **values: Any) -> list[int]:
        attention = AttentionSpec(kind=kind, position=position, **values)
        blocks = resolve_network(ArchSpec(attention=attention)).blocks
        return [block.attention[3] for block in blocks if block.attention]

    # After the depthwise: 32 and 960 channels; after the projection: 16 and 320.
    assert sizes("eca", "depthwise") == [3, 5]
    assert sizes("eca", "projection") == [3, 5]
    assert sizes("eca", "depthwise", kernel="mobilenetv2") == [1, 3]
    assert sizes("se", "depthwise") == [2, 60]
    assert sizes("se", "projection") == [1, 20]
    assert sizes("se", "depthwise", reduction=4) == [8, 240]
    assert sizes("se", "depthwise", reduction=10**6) == [1, 1]


# ------------------------------------------------------------------------ width, depth, stages


def make_divisible(value: float, divisor: int = 8) -> int:
    """The rounding of the MobileNetV2 reference code, as its paper's authors describe it."""
    nearest = max(divisor, divisor * math.floor((value + divisor / 2) / divisor))
    return nearest + divisor if nearest < 0.9 * value else nearest


@given(channels=st.integers(1, 2048), multiplier=st.floats(0.05, 8).filter(lambda value: value != 1.0))
def test_width_rounds_as_mobilenetv2_does(channels: int, multiplier: float) -> None:
    scaled = scale_channels(channels, multiplier)
    assert scaled == make_divisible(channels * multiplier)
    assert scaled % 8 == 0
    assert scaled >= max(8, 0.9 * channels * multiplier)


@pytest.mark.parametrize(
    ("channels", "multiplier", "scaled"),
    [(32, 0.5, 16), (16, 0.35, 8), (24, 0.5, 16), (24, 0.75, 24), (320, 1.4, 448), (96, 0.35, 32), (18, 0.05, 8)],
)
def test_width_by_hand(channels: int, multiplier: float, scaled: int) -> None:
    assert scale_channels(channels, multiplier) == scaled


@given(channels=st.integers(1, 4096))
def test_width_one_leaves_channels_as_written(channels: int) -> None:
    assert scale_channels(channels, 1.0) == channels


@pytest.mark.parametrize(
    ("repeats", "multiplier", "scaled"),
    [(3, 1.0, 3), (3, 0.5, 2), (2, 0.5, 1), (1, 0.05, 1), (3, 1.4, 5), (3, 4 / 3, 4), (10, 1.1, 11), (3, 2.0, 6)],
)
def test_depth_rounds_up_and_never_to_nothing(repeats: int, multiplier: float, scaled: int) -> None:
    assert scale_repeats(repeats, multiplier) == scaled


def test_ffem_resolves_to_table_1() -> None:
    network = resolve_network(ArchSpec())
    rows = [(block.in_channels, block.hidden_channels, block.out_channels, block.stride) for block in network.blocks]
    assert rows == [
        # in, hidden, out, stride
        (32, 32, 16, 1),
        (16, 96, 24, 2),
        (24, 144, 24, 1),
        (24, 144, 32, 2),
        (32, 192, 32, 1),
        (32, 192, 64, 2),
        (64, 384, 64, 1),
        (64, 384, 64, 1),
        (64, 384, 96, 1),
        (96, 576, 96, 1),
        (96, 576, 160, 2),
        (160, 960, 160, 1),
        (160, 960, 160, 1),
        (160, 960, 320, 1),
    ]
    assert (network.stem_channels, network.head_channels, network.embedding_dim) == (32, 1280, 128)
    assert network.total_stride == 32
    assert resolve_network(ArchSpec(stem_stride=1)).total_stride == 16


def test_the_head_is_widened_but_never_narrowed_and_may_be_left_out() -> None:
    assert resolve_network(ArchSpec(width_multiplier=0.5)).head_channels == 1280
    assert resolve_network(ArchSpec(width_multiplier=1.4)).head_channels == 1792
    bare = resolve_network(ArchSpec(head_channels=0))
    assert (bare.head_channels, bare.trunk_channels) == (0, 320)
    assert resolve_network(ArchSpec()).trunk_channels == 1280


def test_a_shuffle_unit_computes_half_of_what_comes_out() -> None:
    network = resolve_network(SHUFFLE)
    rows = [(b.in_channels, b.hidden_channels, b.out_channels, b.stride, b.kind) for b in network.blocks]
    assert rows == [
        (24, 58, 116, 2, "shuffle"),
        (116, 58, 116, 1, "shuffle"),
        (116, 58, 58, 1, "shuffle"),
    ]
    assert (network.stem_stride, network.stem_total_stride, network.total_stride) == (2, 4, 8)


def test_attention_in_a_shuffle_unit_sees_its_branch_alone() -> None:
    def sizes(position: str) -> list[int]:
        attention = AttentionSpec(kind="se", placement="all", position=position, reduction=1)
        return [
            block.attention[3]
            for block in resolve_network(replace(SHUFFLE, attention=attention)).blocks
            if block.attention
        ]

    assert sizes("depthwise") == [58, 58, 58]
    assert sizes("projection") == [58, 58, 29]


@given(multiplier=st.floats(0.05, 8), channels=st.integers(1, 300).map(lambda half: 2 * half))
def test_a_shuffle_unit_s_channels_stay_even_at_every_width(multiplier: float, channels: int) -> None:
    arch = replace(SHUFFLE, width_multiplier=multiplier, stages=(StageSpec(1, channels, 2, 2),))
    assert all(block.out_channels % 2 == 0 for block in resolve_network(arch).blocks)


@given(arch=arch_strategy)
def test_any_network_hangs_together(arch: ArchSpec) -> None:
    network = resolve_network(arch)
    assert len(network.blocks) == arch.block_count
    channels = network.stem_channels
    for block in network.blocks:
        assert block.in_channels == channels
        assert block.hidden_channels % block.in_channels == 0
        channels = block.out_channels
    downsampling = sum(stage.stride == 2 for stage in arch.stages)
    assert network.total_stride == arch.stem_stride * 2**downsampling
    assert attended(arch) == list(arch.attention.indices(arch.block_count))
