"""Every kind of block, declared once: its class, its channels, what it asks of a stage. No JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ffem_jax.specs.registry import Registry


@dataclass(frozen=True)
class BlockKind:
    """One kind of block.

    name: what it is called by in configs and records.
    implementation: its class, or `package.module:Class`. It is called as `Class(spec, rngs=rngs)` with a BlockSpec and
        gives a module [N, H, W, in_channels] -> [N, ceil(H / stride), ceil(W / stride), out_channels]. For export it
        has `fold(graph, x, name)`: see `models.graph.Graph`.
    summary, source: one sentence on what it is, and the paper.
    compute_channels: (channels in, channels out, expansion) -> hidden channels, and the channels that an attention
        after the projection sees.
    divisor: what the channels of a stage must be a multiple of.
    """

    name: str
    implementation: Any
    summary: str = ""
    source: str = ""
    compute_channels: Callable[[int, int, int], tuple[int, int]] = lambda inputs, outputs, expansion: (
        expansion * inputs,
        outputs,
    )
    divisor: int = 1


BLOCKS: Registry[BlockKind] = Registry("arch.block")


def register_block(kind: BlockKind) -> BlockKind:
    """Declare a kind of block; returns it. Raises SpecError where its name stands for another already."""
    BLOCKS.register(kind)
    return kind


register_block(
    BlockKind(
        "bottleneck",
        "ffem_jax.models.blocks:Bottleneck",
        summary="An inverted residual with a linear bottleneck.",
        source="Sandler et al., CVPR 2018",
    )
)
register_block(
    BlockKind(
        "shuffle",
        "ffem_jax.models.blocks:ShuffleUnit",
        summary="Two halves of the channels, one of them computed, interleaved.",
        source="Ma et al., ECCV 2018",
        # It computes half of what comes out.
        compute_channels=lambda inputs, outputs, expansion: (expansion * (outputs // 2), outputs // 2),
        divisor=2,
    )
)
