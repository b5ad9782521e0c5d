"""Specs: what they refuse, what they resolve to, and when two of them are the same trial."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.arch import (
    ATTENTION_KINDS,
    ATTENTION_POSITIONS,
    FFEM_STAGES,
    FUSIONS,
    PLACEMENTS,
    ArchSpec,
    AttentionSpec,
    SpecError,
    StageSpec,
    compute_eca_kernel_size,
    resolve_network,
    scale_channels,
    scale_repeats,
)
from ffem_jax.spec import (
    DataSpec,
    PretrainSpec,
    ProtocolSpec,
    RecipeSpec,
    RunSpec,
    TrialSpec,
    select_used,
    to_plain,
    trial_key,
)

FFEM_AM = ArchSpec(name="ffem_am", attention=AttentionSpec(kind="eca"))
# Of ShuffleNetV2's units: two stages, the first of them as in its 1.0x.
SHUFFLE = ArchSpec(
    block="shuffle", stem_channels=24, stem_extra="max_pool", stages=(StageSpec(1, 116, 2, 2), StageSpec(2, 58, 1, 1))
)


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
        (32, -2.0, 1.0, 3),  # the absolute value
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


stages_strategy = st.lists(
    st.builds(
        StageSpec,
        expansion=st.integers(1, 8),
        channels=st.integers(1, 400),
        repeats=st.integers(1, 4),
        stride=st.sampled_from((1, 2)),
    ),
    min_size=1,
    max_size=5,
).map(tuple)
attention_strategy = st.builds(
    AttentionSpec,
    kind=st.sampled_from(ATTENTION_KINDS),
    placement=st.sampled_from(PLACEMENTS),
    position=st.sampled_from(ATTENTION_POSITIONS),
    fusion=st.sampled_from(FUSIONS),
    reduction=st.integers(1, 64),
)
arch_strategy = st.builds(
    ArchSpec,
    stem_channels=st.integers(1, 64),
    stem_stride=st.sampled_from((1, 2)),
    stages=stages_strategy,
    width_multiplier=st.sampled_from((0.25, 0.5, 1.0, 1.4)),
    depth_multiplier=st.sampled_from((0.3, 0.5, 1.0, 2.0)),
    head_channels=st.sampled_from((0, 320, 1280)),
    attention=attention_strategy,
)


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


# ------------------------------------------------------------------------- one network, one key

TRIAL = TrialSpec(arch=FFEM_AM)


def change(trial: TrialSpec, path: str, value: Any) -> TrialSpec:
    """`trial` with the field at the dotted `path` set to `value`."""

    def walk(spec: Any, parts: list[str]) -> Any:
        head, *rest = parts
        return replace(spec, **{head: walk(getattr(spec, head), rest) if rest else value})

    changed = walk(trial, path.split("."))
    assert isinstance(changed, TrialSpec)
    return changed


def test_the_key_is_the_same_in_every_process_and_release() -> None:
    # If this fails, results recorded before are no longer found: raise KEY_VERSION on purpose, or undo the change.
    assert (trial_key(TRIAL), trial_key(TRIAL, "0123456789abcdef")) == ("a9b262c8f6e1b892", "27d57138058c8419")
    script = (
        "from ffem_jax.arch import ArchSpec, AttentionSpec\nfrom ffem_jax.spec import TrialSpec, trial_key\n"
        "print(trial_key(TrialSpec(arch=ArchSpec(name='ffem_am', attention=AttentionSpec(kind='eca')))))\n"
    )
    command = [sys.executable, "-c", script]
    repository = Path(__file__).resolve().parent.parent
    assert subprocess.run(command, capture_output=True, text=True, cwd=repository).stdout == "a9b262c8f6e1b892\n"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("arch.name", "renamed"),
        ("recipe.name", "renamed"),
        ("data.cache_dir", "elsewhere"),
        ("arch.attention.placement", (0, 13)),
        ("arch.attention.placement", [-1, 0]),
        ("arch.attention.reduction", 4),  # SE's, and this is ECA
        ("arch.attention.kernel_size", 9),  # the kernel is adaptive
        ("arch.attention.gamma", 2.1),  # the same kernels at 32 and at 960 channels
        ("arch.depth_multiplier", 0.999),  # rounds up to the same repeats
        ("protocol.folds", 7),  # holdout has none
    ],
)
def test_what_decides_nothing_leaves_the_key(path: str, value: Any) -> None:
    changed = change(TRIAL, path, value)
    assert changed != TRIAL
    assert trial_key(changed) == trial_key(TRIAL)
    assert trial_key(changed, "faces") == trial_key(TRIAL, "faces")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("arch.attention.kind", "none"),
        ("arch.attention.kind", "se"),
        ("arch.attention.placement", "all"),
        ("arch.attention.position", "projection"),
        ("arch.attention.fusion", "residual"),
        ("arch.attention.gamma", 1.0),
        ("arch.stem_stride", 1),
        ("arch.width_multiplier", 0.5),
        ("arch.depth_multiplier", 0.5),
        ("arch.head_channels", 0),
        ("arch.pooling", "global_depthwise"),
        ("arch.activation", "prelu"),
        ("arch.block", "shuffle"),
        ("arch.stem_extra", "max_pool"),
        ("arch.embedding_norm", True),
        ("arch.embedding_dim", 64),
        ("data.resolution", 64),
        ("protocol.test_per_person", 3),
        ("protocol.split_seed", 1),
        ("protocol.name", "kfold"),
        ("protocol.name", "view2"),
        ("protocol.validation_per_person", 1),
        ("recipe.epochs", 31),
        ("recipe.learning_rate", 0.05),
        ("recipe.flip_test", True),
    ],
)
def test_what_decides_a_result_changes_the_key(path: str, value: Any) -> None:
    assert trial_key(change(TRIAL, path, value)) != trial_key(TRIAL)
    assert trial_key(change(TRIAL, path, value), "faces") != trial_key(TRIAL, "faces")


def test_every_recipe_field_but_the_name_decides() -> None:
    choices = {"optimizer": "adamw", "schedule": "constant", "loss": "softmax"}
    for field in dataclasses.fields(RecipeSpec):
        now = getattr(TRIAL.recipe, field.name)
        if field.name in choices:
            other: Any = choices[field.name]
        elif isinstance(now, bool):
            other = not now
        elif isinstance(now, int):
            other = now + 1
        elif isinstance(now, float):
            other = now / 2 or 0.5
        else:
            assert field.name == "name"
            continue
        # decay is read by its own schedule alone, and a margin by its own losses.
        base = change(TRIAL, "recipe.schedule", "exponential") if field.name == "decay" else TRIAL
        base = change(TRIAL, "recipe.loss", "arcface") if field.name.startswith("margin") else base
        assert trial_key(change(base, f"recipe.{field.name}", other)) != trial_key(base), field.name


@pytest.mark.parametrize(
    ("chosen", "value", "unused", "other"),
    [
        ("loss", "softmax", "scale", 30.0),
        ("loss", "softmax", "margin", 0.4),
        ("loss", "normalized_softmax", "margin_rise", 0.4),
        ("schedule", "one_cycle", "decay", 0.5),
        ("schedule", "constant", "warmup_fraction", 0.5),
        ("optimizer", "adamw", "nesterov", False),
        ("learning_rate", 1.0, "learning_rate", 1),
    ],
)
def test_what_a_recipe_does_not_read_does_not_decide(chosen: str, value: Any, unused: str, other: Any) -> None:
    base = change(TRIAL, f"recipe.{chosen}", value)
    assert trial_key(change(base, f"recipe.{unused}", other)) == trial_key(base)


PRETRAINED = replace(TRIAL, pretrain=PretrainSpec(name="rest", data=DataSpec(name="lfw_rest")))


def test_a_pretraining_decides_by_what_it_is() -> None:
    key = trial_key(PRETRAINED)
    assert key != trial_key(TRIAL)
    for path, value in (
        ("pretrain.seed", 1),
        ("pretrain.recipe.epochs", 31),
        ("pretrain.protocol.test_people", 9),
        ("pretrain.data.min_images", 3),
        ("arch.width_multiplier", 0.5),
        ("seed", 1),
    ):
        assert trial_key(change(PRETRAINED, path, value)) != key, path
    for path, other in (
        ("pretrain.name", "renamed"),
        ("pretrain.recipe.name", "renamed"),
        ("pretrain.data.cache_dir", "a"),
    ):
        assert trial_key(change(PRETRAINED, path, other)) == key, path
    # Its faces are those there are, wherever they lie.
    moved = change(PRETRAINED, "pretrain.data.root", "elsewhere")
    assert trial_key(moved, "faces", "other people") == trial_key(PRETRAINED, "faces", "other people")
    assert trial_key(PRETRAINED, "faces", "others again") != trial_key(PRETRAINED, "faces", "other people")
    # What none would train on is no matter.
    off = change(PRETRAINED, "pretrain.name", "none")
    assert off.pretraining is None
    assert trial_key(off, "faces") == trial_key(TRIAL, "faces")


def test_a_pretraining_is_a_trial_of_the_same_network() -> None:
    first = PRETRAINED.pretraining
    assert first == TrialSpec(arch=TRIAL.arch, data=PRETRAINED.pretrain.data)
    assert trial_key(change(PRETRAINED, "seed", 7).pretraining or TRIAL) == trial_key(first)


def test_the_number_of_people_tested_decides_under_holdout_alone() -> None:
    assert trial_key(change(TRIAL, "protocol.test_people", 5)) != trial_key(TRIAL)
    kfold = change(TRIAL, "protocol.name", "kfold")
    assert trial_key(change(kfold, "protocol.test_people", 5)) == trial_key(kfold)


def test_the_fold_decides_under_kfold_alone() -> None:
    kfold = change(TRIAL, "protocol.name", "kfold")
    assert trial_key(change(kfold, "protocol.fold", 1)) != trial_key(kfold)
    assert trial_key(change(kfold, "protocol.test_per_person", 5)) == trial_key(kfold)


def test_view2_is_known_by_its_fold_and_what_is_held_out_by_its_seed() -> None:
    view2 = change(TRIAL, "protocol", ProtocolSpec(name="view2", folds=10))
    assert trial_key(change(view2, "protocol.fold", 9)) != trial_key(view2)
    for unread, value in (("split_seed", 1), ("sigma", 0.1), ("far_target", 0.1), ("test_per_person", 5)):
        assert trial_key(change(view2, f"protocol.{unread}", value)) == trial_key(view2)
    held = change(view2, "protocol.validation_per_person", 1)
    assert trial_key(held) != trial_key(view2)
    assert trial_key(change(held, "protocol.split_seed", 1)) != trial_key(held)


@pytest.mark.parametrize(
    ("path", "value"), [("data.root", "another/folder"), ("data.name", "folder"), ("data.people", 5)]
)
def test_the_faces_fingerprint_stands_for_the_faces(path: str, value: Any) -> None:
    changed = change(TRIAL, path, value)
    assert trial_key(changed, "faces") == trial_key(TRIAL, "faces")
    assert trial_key(changed) != trial_key(TRIAL)
    assert trial_key(TRIAL, "faces") != trial_key(TRIAL, "other faces")


@given(arch=arch_strategy)
def test_the_kernel_rule_matters_only_by_its_kernels(arch: ArchSpec) -> None:
    adaptive = replace(arch, attention=AttentionSpec(kind="eca", placement=[0]))
    (kind, position, fusion, size) = resolve_network(adaptive).blocks[0].attention or ("", "", "", 0)
    fixed = replace(arch, attention=AttentionSpec(kind=kind, placement="first", kernel="fixed", kernel_size=size))
    assert (position, fusion) == ("depthwise", "scale")
    assert resolve_network(fixed) == resolve_network(adaptive)
    data = DataSpec(resolution=512)
    assert trial_key(TrialSpec(arch=fixed, data=data)) == trial_key(TrialSpec(arch=adaptive, data=data))


@given(first=arch_strategy, second=arch_strategy)
def test_keys_are_equal_exactly_where_networks_are(first: ArchSpec, second: ArchSpec) -> None:
    data = DataSpec(resolution=512)
    keys = [trial_key(TrialSpec(arch=arch, data=data)) for arch in (first, second)]
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert (keys[0] == keys[1]) == (resolve_network(first) == resolve_network(second))


def test_every_field_of_the_network_decides() -> None:
    # A field added to NetworkSpec or BlockSpec enters the key by itself: this holds that it stays so.
    network = resolve_network(FFEM_AM)
    for spec in (network, network.blocks[0]):
        for field in dataclasses.fields(spec):
            other: Any = replace(spec, **{field.name: "another value"})
            assert select_used(other) != select_used(spec), field.name
    assert select_used(resolve_network(ArchSpec()))["blocks"][0]["attention"] is None


def test_a_field_that_was_added_later_is_in_no_old_key() -> None:
    plain = select_used(resolve_network(SHUFFLE))
    added = {"stem_extra": "max_pool"}
    assert {name: plain.pop(name) for name in added} == added
    assert {block.pop("kind") for block in plain["blocks"]} == {"shuffle"}
    old = select_used(resolve_network(FFEM_AM))
    assert (set(plain), set(plain["blocks"][0])) == (set(old), set(old["blocks"][0]))


def test_a_spec_as_plain_json_keeps_every_field() -> None:
    plain = to_plain(change(TRIAL, "arch.attention.placement", [0, 13]))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["arch"]["attention"]["placement"] == [0, 13]
    assert plain["arch"]["stages"][0] == {"expansion": 1, "channels": 16, "repeats": 1, "stride": 1}
    assert set(plain) == {field.name for field in dataclasses.fields(TrialSpec)} - {"pretrain"}
    assert set(plain["data"]) == {field.name for field in dataclasses.fields(DataSpec)}


def test_a_field_added_later_is_kept_only_where_it_is_used() -> None:
    # So that records of before and of after, of one trial, say the same.
    later = {"margin", "margin_warmup", "margin_rise", "rotation", "zoom", "weight_averaging"}
    assert {field.name for field in dataclasses.fields(RecipeSpec)} - set(to_plain(RecipeSpec())) == later
    used = to_plain(RecipeSpec(loss="cosface", rotation=5.0))
    assert (used["margin"], used["rotation"]) == (0.2, 5.0)
    assert "zoom" not in used
    assert "test_people" not in to_plain(ProtocolSpec())
    assert to_plain(ProtocolSpec(test_people=9))["test_people"] == 9
    assert to_plain(PRETRAINED)["pretrain"]["data"]["name"] == "lfw_rest"
    assert "pretrain" not in to_plain(change(PRETRAINED, "pretrain.name", "none"))


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AttentionSpec(kind="cbam"), "arch.attention.kind='cbam' is not known; choose one of: none, eca, se"),
        (
            lambda: AttentionSpec(placement="middle"),
            "arch.attention.placement='middle' is not known; choose one of: first, last, first_last, all",
        ),
        (
            lambda: AttentionSpec(placement=3),
            "choose one of: first, last, first_last, all, or a list of bottleneck indices such as [0,13]",
        ),
        (lambda: AttentionSpec(placement=["a"]), "or a list of bottleneck indices such as [0,13]"),
        (lambda: AttentionSpec(placement=[0.5]), "or a list of bottleneck indices such as [0,13]"),
        (lambda: AttentionSpec(placement=None), "or a list of bottleneck indices such as [0,13]"),
        (lambda: AttentionSpec(position="stem"), "choose one of: depthwise, projection"),
        (lambda: AttentionSpec(fusion="sum"), "choose one of: scale, residual"),
        (lambda: AttentionSpec(kernel="even"), "choose one of: adaptive, fixed, mobilenetv2"),
        (lambda: AttentionSpec(gamma=0.0), "arch.attention.gamma=0.0 must be finite and not 0"),
        (lambda: AttentionSpec(gamma=math.nan), "arch.attention.gamma=nan must be finite and not 0"),
        (lambda: AttentionSpec(b=math.inf), "arch.attention.b=inf must be finite"),
        (lambda: AttentionSpec(kernel_size=4), "arch.attention.kernel_size=4 must be odd"),
        (lambda: AttentionSpec(kernel_size=-1), "arch.attention.kernel_size=-1 must be at least 1"),
        (lambda: AttentionSpec(reduction=0), "arch.attention.reduction=0 must be at least 1"),
        (
            lambda: ArchSpec(attention=AttentionSpec(kind="eca", placement=[0, 14])),
            "arch.attention.placement=[0, 14] names bottleneck 14; this network has 14: 0 to 13",
        ),
        (lambda: StageSpec(stride=3), "arch.stages.stride=3 must be 1 or 2"),
        (lambda: StageSpec(repeats=0), "arch.stages.repeats=0 must be at least 1"),
        (lambda: ArchSpec(stages=()), "arch.stages is empty; a network needs at least one stage"),
        (lambda: ArchSpec(block="resnet"), "arch.block='resnet' is not known; choose one of: bottleneck, shuffle"),
        (
            lambda: replace(SHUFFLE, stages=(StageSpec(1, 57),)),
            "arch.stages.channels=57 must be even with arch.block=shuffle",
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
            "data.name='casia' is not known; choose one of: lfw52, lfw, lfw_rest, folder, synthetic",
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
            "data.resolution=31 is too small for this network's total stride of 32; take at least 32, "
            "or arch.stem_stride=1",
        ),
        (
            lambda: TrialSpec(pretrain=PretrainSpec(name="small", data=DataSpec(resolution=48))),
            "pretrain.data.resolution=48 is not data.resolution=96; weights are learnt at one resolution",
        ),
        (lambda: PretrainSpec(seed=-1), "pretrain.seed=-1 must be between 0 and 2147483647"),
        (lambda: RunSpec(cap_precision="int4"), "choose one of: float32, float16, int8"),
        (lambda: RunSpec(cap_mb=-1.0), "run.cap_mb=-1.0 must be at least 0.0"),
        (lambda: RunSpec(seeds=(1, 1)), "run.seeds=[1, 1] names a seed twice"),
    ],
)
def test_a_wrong_value_gets_one_line_that_says_what_is_right(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_specs_are_frozen_and_hashable_where_they_name_a_network() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ArchSpec().name = "other"  # type: ignore[misc]
    assert len({FFEM_AM, replace(FFEM_AM), ArchSpec()}) == 2
    assert ArchSpec().stages is FFEM_STAGES
    assert hash(AttentionSpec(placement=[0, 1])) == hash(AttentionSpec(placement=(0, 1)))
