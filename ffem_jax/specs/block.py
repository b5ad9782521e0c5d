"""Declares every kind of block once: its class, its channels, its requirements on a stage. No JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ffem_jax.specs.registry import Registry


@dataclass(frozen=True)
class BlockKind:
    """One kind of block.

    name: its name in configs and records.
    implementation: its class, or `package.module:Class`. It is called as `Class(spec, rngs=rngs)` with a BlockSpec and
        returns a module [N, H, W, in_channels] -> [N, ceil(H / stride), ceil(W / stride), out_channels]. For export it
        has `fold(graph, x, name)`: see `models.graph.Graph`.
    summary, source: a one-sentence description, and the paper.
    compute_channels: (input channels, output channels, expansion) -> hidden channels, and the channels that an
        attention after the projection sees.
    divisor: the channels of a stage must be a multiple of it.
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
    """Declare a kind of block and return it. Raises SpecError if the name is taken."""
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
        # It computes half of the output channels.
        compute_channels=lambda inputs, outputs, expansion: (expansion * (outputs // 2), outputs // 2),
        divisor=2,
    )
)
