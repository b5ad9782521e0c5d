"""What a network is: frozen specs of the stage table and the attention, and the network they resolve to.

Checked when they are made: a value outside its choices is a SpecError that names them. No JAX.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.errors import FfemError

PLACEMENTS = ("first", "last", "first_last", "all")
ATTENTION_POSITIONS = ("depthwise", "projection")
FUSIONS = ("scale", "residual")
ECA_KERNELS = ("adaptive", "fixed", "mobilenetv2")
BLOCK_KINDS = ("bottleneck", "shuffle")
STEM_EXTRAS = ("none", "max_pool", "depthwise")
POOLINGS = ("average", "global_depthwise")
ACTIVATIONS = ("relu6", "prelu", "hard_swish", "relu")


class SpecError(FfemError):
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


def added(default: Any, used: Callable[[Any], bool] | None = None) -> Any:
    """A field that came after KEY_VERSION was last raised, with a default that does what was done before.

    Where it is not `used` by its spec (at its default, unless said otherwise) it stands neither in a key nor in a
    record, so that older records are still found.
    """
    return field(default=default, metadata={"added": used})


# ------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class StageSpec:
    """A row of the stage table: `repeats` blocks of `channels` out, the first of them with `stride`.

    expansion: a bottleneck's hidden channels, in multiples of those that go in; a shuffle unit's, in multiples of
        the half that its branch computes (1 in ShuffleNetV2).
    """

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
    """Which channel attention, in which blocks, and where inside them.

    kind: none, eca (Wang et al., CVPR 2020) or se (Hu et al., CVPR 2018).
    placement: first, last, first_last, all, or a list of block indices from 0
        (negative ones count from the end).
    position: after the `depthwise` (the paper's Fig. 4) or after the `projection`
        (the ECA authors' MobileNetV2). In a shuffle unit: of the branch that begins with a 1x1 convolution, after
        its depthwise BatchNorm or after the ReLU of its last convolution, so on half of the channels that come out.
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
        check_choice("arch.attention.kind", self.kind, tuple(ATTENTIONS))
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


@dataclass(frozen=True)
class AttentionKind:
    """What a kind of attention is, beside its module in `models/attention.py`.

    reads: the fields of an AttentionSpec that decide what it computes, placement among them; what it does not read
        tells no two networks apart. compute_size: (channels it sees, spec) -> the one number its module is built with.
    """

    reads: Callable[[AttentionSpec], tuple[str, ...]]
    compute_size: Callable[[int, AttentionSpec], int]


# The settings of ECA's kernel rules.
_KERNEL_FIELDS = {"adaptive": ("gamma", "b"), "fixed": ("kernel_size",), "mobilenetv2": ()}

ATTENTIONS = {
    "none": AttentionKind(lambda _: (), lambda channels, _: 0),
    "eca": AttentionKind(
        lambda spec: ("placement", "position", "fusion", "kernel", *_KERNEL_FIELDS[spec.kernel]),
        compute_eca_kernel_size,
    ),
    "se": AttentionKind(
        lambda _: ("placement", "position", "fusion", "reduction"),
        lambda channels, spec: max(1, channels // spec.reduction),
    ),
}
ATTENTION_KINDS = tuple(ATTENTIONS)


def get_attention_kind(name: str) -> AttentionKind:
    """The declaration of the kind `name`. Raises SpecError, naming those there are, where it is not declared."""
    check_choice("arch.attention.kind", name, tuple(ATTENTIONS))
    return ATTENTIONS[name]


def select_effective_attention(attention: AttentionSpec) -> dict[str, Any]:
    """The kind and the fields that it reads: equal for two specs of which neither could build another network."""
    fields = get_attention_kind(attention.kind).reads(attention)
    return {"kind": attention.kind, **{name: getattr(attention, name) for name in fields}}


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
    """A network of the family: stem, blocks by a stage table, head, pooling, embedding.

    name: a label for tables and figures; it decides nothing.
    block: what the stages are made of, `bottleneck` (MobileNetV2) or `shuffle` (ShuffleNetV2's unit).
    stem_extra: what follows the first convolution: `max_pool`, 3x3 of stride 2 (ShuffleNetV2), `depthwise`, a 3x3
        convolution of stride 1 (MobileFaceNet), or `none`.
    width_multiplier: scales the channels, rounded to multiples of 8 (MobileNetV2); the head
        is widened by it but never narrowed, as in MobileNetV2.
    depth_multiplier: scales each stage's repeats, rounded up.
    head_channels: the 1x1 convolution before pooling; 0 for none.
    pooling: `average`, or `global_depthwise` (MobileFaceNet: a depthwise convolution over the
        whole map, with BatchNorm, no activation).
    embedding_norm: BatchNorm after the embedding, in place of its bias (MobileFaceNet).
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
    block: str = added("bottleneck")
    stem_extra: str = added("none")
    embedding_norm: bool = added(False)

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
        check_choice("arch.block", self.block, BLOCK_KINDS)
        check_choice("arch.stem_extra", self.stem_extra, STEM_EXTRAS)
        odd = [stage.channels for stage in self.stages if stage.channels % 2]
        if self.block == "shuffle" and odd:
            raise SpecError(f"arch.stages.channels={odd[0]} must be even with arch.block=shuffle, which halves them")
        self.attention.indices(self.block_count)

    @property
    def block_count(self) -> int:
        """How many blocks the network has, depth multiplier applied."""
        return sum(scale_repeats(stage.repeats, self.depth_multiplier) for stage in self.stages)


@dataclass(frozen=True)
class BlockSpec:
    """One block, all multipliers and rules resolved. `attention` is kind, position, fusion, size; size is ECA's
    kernel or SE's hidden width. None where the block has no attention."""

    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int
    activation: str
    attention: tuple[str, str, str, int] | None
    kind: str = added("bottleneck")


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
    stem_extra: str = added("none")
    embedding_norm: bool = added(False)

    @property
    def stem_total_stride(self) -> int:
        """Input pixels a side to one pixel of what the stem makes."""
        return self.stem_stride * (2 if self.stem_extra == "max_pool" else 1)

    @property
    def total_stride(self) -> int:
        """Input pixels a side to one pixel of the last feature map."""
        return self.stem_total_stride * math.prod(block.stride for block in self.blocks)

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
            # A shuffle unit computes half of what comes out.
            computed = out_channels // 2 if arch.block == "shuffle" else out_channels
            hidden = stage.expansion * (computed if arch.block == "shuffle" else channels)
            attention = None
            if len(blocks) in attended:
                a = arch.attention
                seen = hidden if a.position == "depthwise" else computed
                size = get_attention_kind(a.kind).compute_size(seen, a)
                attention = (a.kind, a.position, a.fusion, size)
            stride = stage.stride if repeat == 0 else 1
            blocks.append(BlockSpec(channels, hidden, out_channels, stride, arch.activation, attention, arch.block))
            channels = out_channels
    head = scale_channels(arch.head_channels, max(1.0, arch.width_multiplier)) if arch.head_channels else 0
    return NetworkSpec(
        stem_channels,
        arch.stem_stride,
        tuple(blocks),
        head,
        arch.pooling,
        arch.activation,
        arch.embedding_dim,
        arch.stem_extra,
        arch.embedding_norm,
    )
