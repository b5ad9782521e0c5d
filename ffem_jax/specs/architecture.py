"""Architecture specs: frozen specs of the stage table and the attention, and the network they resolve to.

They are validated on creation: an invalid value raises a SpecError that lists the choices. No JAX.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

from ffem_jax.specs.attention import ATTENTIONS, AttentionKind, get_attention_kind, select_effective_attention
from ffem_jax.specs.block import BLOCKS
from ffem_jax.specs.fields import SpecError, added, check_choice, check_fields, check_range, setting
from ffem_jax.specs.own_code import compute_code_digest

__all__ = [
    "ArchSpec",
    "AttentionSpec",
    "BlockSpec",
    "NetworkSpec",
    "SpecError",
    "StageSpec",
    "added",
    "check_choice",
    "check_range",
    "get_attention_kind",
    "resolve_network",
    "select_effective_attention",
]

PLACEMENTS = ("first", "last", "first_last", "all")
ATTENTION_POSITIONS = ("depthwise", "projection")
FUSIONS = ("scale", "residual")
ECA_KERNELS = ("adaptive", "fixed", "mobilenetv2")
STEM_EXTRAS = ("none", "max_pool", "depthwise")
POOLINGS = ("average", "global_depthwise")
ACTIVATIONS = ("relu6", "prelu", "hard_swish", "relu")


# ------------------------------------------------------------------------------- the network


@dataclass(frozen=True)
class StageSpec:
    """A row of the stage table: `repeats` blocks with `channels` output channels, the first with `stride`."""

    expansion: int = setting(
        6,
        "Hidden channels of a block as a multiple of its input channels; for a shuffle unit, of half of them.",
        low=1,
    )
    channels: int = setting(16, "Output channels of each block in the stage.", low=1)
    repeats: int = setting(1, "Number of blocks in the stage, before the depth multiplier.", low=1)
    stride: int = setting(1, "Stride of the stage's first block; the others have stride 1.", choices=(1, 2))

    def __post_init__(self) -> None:
        check_fields(self, "arch.stages")


@dataclass(frozen=True)
class AttentionSpec:
    """Which attention, in which blocks, and where inside them.

    placement: first, last, first_last, all, or a list of block indices from 0 (negative ones count from the end).
    position: after the `depthwise` (the paper's Fig. 4) or after the `projection` (the ECA authors' MobileNetV2). In a
        shuffle unit: in the branch that starts with a 1x1 convolution, after its depthwise BatchNorm or after the ReLU
        of its last convolution, so on half of the output channels.
    fusion: `scale` uses the attention's output, x * a; `residual` adds it to the input, x + x * a.
    """

    kind: str = setting("none", "Which attention.", choices=lambda: ATTENTIONS.names)
    placement: Any = setting(  # noqa: RUF009
        "first_last",
        "The blocks with attention: first, last, first_last, all, or a list of indices from 0, such as [0,13].",
    )
    position: str = setting("depthwise", "The convolution of the block that it follows.", choices=ATTENTION_POSITIONS)
    fusion: str = setting("scale", "Whether its output replaces its input or is added to it.", choices=FUSIONS)
    kernel: str = setting(
        "adaptive",
        "ECA's kernel size: from the channels, fixed, or that of the authors' released MobileNetV2.",
        choices=ECA_KERNELS,
        source="Wang et al., CVPR 2020",
    )
    gamma: float = setting(2.0, "The divisor of ECA's adaptive rule; above 0.", source="Wang et al., CVPR 2020, Eq. 3")
    b: float = setting(
        1.0, "The term that ECA's adaptive rule adds to log2(channels).", source="Wang et al., CVPR 2020, Eq. 3"
    )
    kernel_size: int = setting(3, "ECA's fixed kernel size, odd.", low=1, unit="channels")
    reduction: int = setting(
        16, "SE, CBAM and coordinate attention compute their gates in channels // reduction.", low=1
    )
    spatial_kernel: int = setting(
        7,
        "Size of the convolution of CBAM's spatial gate, odd.",
        low=1,
        unit="pixels",
        source="Woo et al., ECCV 2018, Eq. 3",
        added=True,
    )
    options: dict[str, Any] = setting(  # noqa: RUF009
        factory=dict,
        meaning="Settings of a user-defined kind, by name, such as arch.attention.options.width=4.",
        added=True,
        used=lambda attention: bool(attention.options),
    )

    def __post_init__(self) -> None:
        kind = get_attention_kind(self.kind)
        check_fields(self, "arch.attention")
        object.__setattr__(self, "options", kind.read_options(self.options))
        # The authors take the absolute value, so a negative gamma, a typing mistake, would act as its opposite.
        if self.gamma <= 0:
            raise SpecError(f"arch.attention.gamma={self.gamma} must be above 0")
        for name in ("kernel_size", "spatial_kernel"):
            if getattr(self, name) % 2 == 0:
                raise SpecError(f"arch.attention.{name}={getattr(self, name)} must be odd")
        if isinstance(self.placement, str):
            check_choice("arch.attention.placement", self.placement, PLACEMENTS)
        else:
            try:
                indices = tuple(operator.index(index) for index in self.placement)
            except TypeError:
                raise SpecError(
                    f"arch.attention.placement={self.placement!r} is not known; choose one of: "
                    f"{', '.join(PLACEMENTS)}, or a list of block indices such as [0,13]"
                ) from None
            object.__setattr__(self, "placement", indices)

    def indices(self, blocks: int) -> tuple[int, ...]:
        """Return the sorted block indices of this placement in a network of `blocks` blocks.

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
                f"arch.attention.placement={list(self.placement)} contains bottleneck {outside[0]}; "
                f"this network has {blocks}: 0 to {blocks - 1}"
            )
        return tuple(sorted({index % blocks for index in self.placement}))


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
    """A network of the family: stem, blocks by a stage table, head, pooling, embedding."""

    name: str = setting("ffem", "A label for tables and figures; it does not affect results.")
    stem_channels: int = setting(32, "Channels of the first convolution, before the width multiplier.", low=1)
    stem_stride: int = setting(2, "Stride of the first convolution.", choices=(1, 2))
    stages: tuple[StageSpec, ...] = setting(FFEM_STAGES, "The stage table, one row per stage.")
    width_multiplier: float = setting(
        1.0,
        "Scales the channels, to multiples of 8; the head may grow but never shrinks.",
        low=0.05,
        high=8.0,
        source="Sandler et al., CVPR 2018",
    )
    depth_multiplier: float = setting(
        1.0, "Scales the repeats of each stage, rounded up.", low=0.05, high=8.0, source="Tan and Le, ICML 2019"
    )
    head_channels: int = setting(1280, "Channels of the 1x1 convolution before pooling; 0 for none.", low=0)
    pooling: str = setting(
        "average",
        "How the last feature map becomes a vector: its mean, or a depthwise convolution of the same size.",
        choices=POOLINGS,
        source="global_depthwise: Chen et al., CCBR 2018",
    )
    activation: str = setting("relu6", "The activation after each convolution that has one.", choices=ACTIVATIONS)
    embedding_dim: int = setting(128, "Length of the vector that represents a face.", low=1)
    attention: AttentionSpec = field(default_factory=AttentionSpec)
    block: str = setting(
        "bottleneck",
        "The kind of block in the stages.",
        choices=lambda: BLOCKS.names,
        source="see specs/block.py",
        added=True,
    )
    stem_extra: str = setting(
        "none",
        "The layer after the first convolution: a 3x3 max pooling of stride 2 (ShuffleNetV2), a 3x3 depthwise "
        "convolution (MobileFaceNet), or nothing.",
        choices=STEM_EXTRAS,
        added=True,
    )
    embedding_norm: bool = setting(
        False, "BatchNorm after the embedding, in place of its bias (MobileFaceNet).", added=True
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        kind = BLOCKS[self.block]
        check_fields(self, "arch")
        if not self.stages:
            raise SpecError("arch.stages is empty; a network needs at least one stage")
        odd = [stage.channels for stage in self.stages if stage.channels % kind.divisor]
        if odd:
            raise SpecError(
                f"arch.stages.channels={odd[0]} must be a multiple of {kind.divisor} with arch.block={kind.name}"
            )
        self.attention.indices(self.block_count)

    @property
    def block_count(self) -> int:
        """The number of blocks, with the depth multiplier applied."""
        return sum(scale_repeats(stage.repeats, self.depth_multiplier) for stage in self.stages)


@dataclass(frozen=True)
class BlockSpec:
    """One block, with all multipliers and rules resolved. `attention` is kind, position, fusion and the sizes that its
    class is built with (AttentionKind.compute_sizes); None if the block has no attention."""

    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int
    activation: str
    attention: tuple[Any, ...] | None
    kind: str = added("bottleneck")


@dataclass(frozen=True)
class NetworkSpec:
    """A resolved network: the input of `models.build_model` and of a trial's key.

    own_code: digests of the user files that implement its kinds of attention and block: a changed file is a different
        network.
    """

    stem_channels: int
    stem_stride: int
    blocks: tuple[BlockSpec, ...]
    head_channels: int
    pooling: str
    activation: str
    embedding_dim: int
    stem_extra: str = added("none")
    embedding_norm: bool = added(False)
    own_code: str = added("")

    @property
    def stem_total_stride(self) -> int:
        """Input pixels per side for one pixel of the stem's output."""
        return self.stem_stride * (2 if self.stem_extra == "max_pool" else 1)

    @property
    def total_stride(self) -> int:
        """Input pixels per side for one pixel of the last feature map."""
        return self.stem_total_stride * math.prod(block.stride for block in self.blocks)

    @property
    def trunk_channels(self) -> int:
        """Input channels of the pooling."""
        return self.head_channels or self.blocks[-1].out_channels


def scale_channels(channels: int, multiplier: float) -> int:
    """Round `channels * multiplier` to the nearest multiple of 8, but not below 90 % of it (MobileNetV2).

    A multiplier of 1 leaves the channels unchanged.
    """
    if multiplier == 1.0:
        return channels
    scaled = channels * multiplier
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scale_repeats(repeats: int, multiplier: float) -> int:
    """Return `repeats * multiplier`, rounded up (EfficientNet), so that a stage never disappears."""
    return max(1, math.ceil(round(repeats * multiplier, 6)))


def resolve_network(arch: ArchSpec) -> NetworkSpec:
    """Apply the multipliers, the placement and the kernel rule.

    Two specs that build the same network resolve to equal NetworkSpecs, so a sweep does not train it twice.
    """
    attended = set(arch.attention.indices(arch.block_count))
    kind, attention = BLOCKS[arch.block], get_attention_kind(arch.attention.kind)
    channels = stem_channels = scale_channels(arch.stem_channels, arch.width_multiplier)
    blocks: list[BlockSpec] = []
    for stage in arch.stages:
        outputs = scale_channels(stage.channels, arch.width_multiplier)
        for repeat in range(scale_repeats(stage.repeats, arch.depth_multiplier)):
            hidden, projected = kind.compute_channels(channels, outputs, stage.expansion)
            seen = hidden if arch.attention.position == "depthwise" else projected
            own = resolve_attention(attention, arch.attention, seen) if len(blocks) in attended else None
            stride = stage.stride if repeat == 0 else 1
            blocks.append(BlockSpec(channels, hidden, outputs, stride, arch.activation, own, arch.block))
            channels = outputs
    head = scale_channels(arch.head_channels, max(1.0, arch.width_multiplier)) if arch.head_channels else 0
    used = [kind.implementation, *([attention.implementation] if attended else [])]
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
        " ".join(filter(None, map(compute_code_digest, used))),
    )


def resolve_attention(kind: AttentionKind, spec: AttentionSpec, channels: int) -> tuple[Any, ...]:
    """Return BlockSpec.attention for an attention over `channels`.

    Raises:
        SpecError: the kind returns invalid sizes.
    """
    sizes = kind.compute_sizes(channels, spec)
    if not isinstance(sizes, tuple) or not all(map(_is_size, sizes)):
        raise SpecError(
            f"arch.attention.kind={kind.name}: compute_sizes returns {sizes!r} for {channels} channels; it must return "
            "a tuple of whole numbers of at least 1, finite floats, texts, true or false"
        )
    return (kind.name, spec.position, spec.fusion, *sizes)


def _is_size(size: Any) -> bool:
    if isinstance(size, bool | str):
        return True
    return (isinstance(size, int) and size >= 1) or (isinstance(size, float) and math.isfinite(size))
