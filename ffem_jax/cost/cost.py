"""The cost of a network on the phone, computed from an abstract trace of its one definition, without running it.

A network is traced part by part (stem, each block, head), and parts are cached: networks of one search space share
most of them, so the costs of a thousand networks take seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.cost.liveness import Jaxpr, compute_peak_bytes, walk_equations
from ffem_jax.cost.topology import HARD_SWISH, INTERLEAVING, MAX_POOL, SUM, count_bytes
from ffem_jax.models import compute_map_sizes, head_arguments, stem_arguments
from ffem_jax.models.blocks import Bottleneck, Branch, Head, ShuffleUnit, Stem, build_block
from ffem_jax.models.convolutions import max_pool, use_convolution_form
from ffem_jax.specs.architecture import ArchSpec, NetworkSpec, resolve_network
from ffem_jax.specs.own_code import compute_code_digest

# Bytes in the topology file of `ffem export --format tfjs`: fixed; per kernel with its operation; per vector; extra per
# weight in float16; extra per kernel in 8 bits, for scale and zero point. topology.py has the operations without
# weights. tests/export checks the sums against the files.
TOPOLOGY_BYTES = 900
TOPOLOGY_BYTES_PER_KERNEL = 337
TOPOLOGY_BYTES_PER_VECTOR = 112
TOPOLOGY_BYTES_FLOAT16 = 35
TOPOLOGY_BYTES_INT8 = 90


@dataclass(frozen=True)
class Cost:
    """Cost of one network at one resolution: sums over its parts, but the maximum for the peak.

    params: trainable, as built: weights and BatchNorm scale and bias, without the training classifier.
    macs: MACs of convolutions and matrix products for one image; elementwise work is not counted.
    kernel_params, vector_params: as deployed, with BatchNorm folded into the layer before it (its scale into the
        kernel, the rest into a bias); vectors are biases and PReLU slopes.
    kernels, vectors: their numbers. part_bytes: bytes in the topology file for operations without weights.
    peak_activation_bytes: the largest size of all live activations in float32 at batch 1, with operations in written
        order, elementwise operations in place, and weights not counted.
    """

    params: int = 0
    macs: int = 0
    kernel_params: int = 0
    vector_params: int = 0
    kernels: int = 0
    vectors: int = 0
    part_bytes: int = 0
    peak_activation_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        total = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)}
        peak = max(self.peak_activation_bytes, other.peak_activation_bytes)
        return Cost(**{**total, "peak_activation_bytes": peak})

    @property
    def topology_bytes(self) -> int:
        """Bytes of the topology file of a model in float32."""
        own = TOPOLOGY_BYTES_PER_KERNEL * self.kernels + TOPOLOGY_BYTES_PER_VECTOR * self.vectors
        return TOPOLOGY_BYTES + own + self.part_bytes

    @property
    def bytes_float32(self) -> int:
        """Bytes of the weights in float32 and the topology file."""
        return 4 * (self.kernel_params + self.vector_params) + self.topology_bytes

    @property
    def bytes_float16(self) -> int:
        """Bytes of the weights in float16 and the topology file."""
        entries = TOPOLOGY_BYTES_FLOAT16 * (self.kernels + self.vectors)
        return 2 * (self.kernel_params + self.vector_params) + self.topology_bytes + entries

    @property
    def bytes_int8(self) -> int:
        """Bytes of kernels in 8 bits with one scale each, vectors in float32, and the topology file."""
        return self.kernel_params + 4 * self.vector_params + self.topology_bytes + TOPOLOGY_BYTES_INT8 * self.kernels

    def get_bytes(self, precision: str) -> int:
        """Return the bytes at `precision`, one of spec.PRECISIONS."""
        return int(getattr(self, f"bytes_{precision}"))

    def to_dict(self) -> dict[str, int]:
        """Return the fields of a record."""
        names = ("params", "macs", "bytes_float32", "bytes_float16", "bytes_int8", "peak_activation_bytes")
        return {name: int(getattr(self, name)) for name in names}


def compute_cost(arch: ArchSpec | NetworkSpec, resolution: int) -> Cost:
    """Return the cost of `arch` on square images of `resolution` pixels per side."""
    network = resolve_network(arch) if isinstance(arch, ArchSpec) else arch
    sizes = compute_map_sizes(network, resolution)
    total = _trace_part(Stem, stem_arguments(network), 3, sizes[0])
    for block, size in zip(network.blocks, sizes[1:], strict=False):
        total += _trace_part(build_block, (block,), block.in_channels, size)
    return total + _trace_part(Head, head_arguments(network, sizes[-1]), network.blocks[-1].out_channels, sizes[-1])


class _OneKey:
    """Stands in for nnx.Rngs if only shapes are needed: it saves the key arithmetic, half of the tracing time."""

    def params(self) -> jax.Array:
        return jax.random.key(0)


@lru_cache(maxsize=100_000)
def _trace_part(kind: Callable[..., nnx.Module], arguments: tuple[Any, ...], channels: int, size: int) -> Cost:
    return trace_cost(_build_abstract(kind, arguments), (1, size, size, channels))


@lru_cache(maxsize=100_000)
def _build_abstract(kind: Callable[..., nnx.Module], arguments: tuple[Any, ...]) -> nnx.Module:
    return nnx.eval_shape(lambda: kind(*arguments, rngs=_OneKey()))


def trace_cost(module: nnx.Module, input_shape: tuple[int, ...]) -> Cost:
    """Return the cost of an abstract `module` (`nnx.eval_shape`) on a float32 input of `input_shape`, by tracing it."""
    module.eval()
    graph, state = nnx.split(module)
    # XLA's own convolutions on any backend, so that the trace shows each as one operation.
    with use_convolution_form("xla"):
        closed = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(
            state, jax.ShapeDtypeStruct(input_shape, jnp.float32)
        )
    weights = [leaf.shape for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]
    norms = [node.num_features for _, node in nnx.iter_graph(module) if isinstance(node, nnx.BatchNorm)]
    # ECA's kernel [tap, 1, 1] is never quantised, so it counts as a vector.
    kernels = [shape for shape in weights if len(shape) in (2, 4)]
    params = sum(math.prod(shape) for shape in weights)
    kernel_params = sum(math.prod(shape) for shape in kernels)
    return Cost(
        params=params,
        macs=_count_macs(closed.jaxpr),
        kernel_params=kernel_params,
        # A norm's scale is folded into the kernel before it; its bias stays as that layer's bias.
        vector_params=params - kernel_params - sum(norms),
        kernels=len(kernels),
        vectors=len(weights) - len(kernels) - len(norms),
        part_bytes=_count_part_bytes(module, input_shape[-1]),
        peak_activation_bytes=compute_peak_bytes(closed.jaxpr, closed.jaxpr.invars[-1]),
    )


def _count_part_bytes(module: nnx.Module, channels: int) -> int:
    if compute_code_digest(type(module)):  # a user's own block
        return count_bytes(module, channels)
    return sum(_count_node_bytes(path, node) for path, node in nnx.iter_graph(module))


def _count_node_bytes(path: tuple[Any, ...], node: Any) -> int:
    if "attention" in path:  # counted with its branch
        return 0
    total = 0
    if isinstance(node, Branch) and node.attention is not None:
        seen = node.depthwise if node.position == "depthwise" else node.project
        total += count_bytes(node.attention, seen.norm.num_features)
    if isinstance(node, ShuffleUnit):
        total += INTERLEAVING
    if isinstance(node, Bottleneck) and node.shortcut:
        total += SUM
    if isinstance(node, Stem) and node.extra is max_pool:
        total += MAX_POOL
    if getattr(node, "activation", None) is nnx.hard_swish:
        total += HARD_SWISH
    return total


def _count_macs(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in walk_equations(jaxpr):
        if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
            continue
        left, right, out = (v.aval.shape for v in (*equation.invars[:2], equation.outvars[0]))  # type: ignore[attr-defined]
        numbers = equation.params["dimension_numbers"]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = numbers
            total += math.prod(out) * math.prod(left[axis] for axis in contracted)
        else:
            total += math.prod(out) * math.prod(right) // right[numbers.rhs_spec[0]]
    return total
