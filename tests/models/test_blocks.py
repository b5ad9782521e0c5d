"""One suite over every declared block; the last is declared here, as somebody else would."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_modules import draw_parts

from ffem_jax.cost.cost import compute_cost, trace_cost
from ffem_jax.export import ExportError
from ffem_jax.export.fold import LayerGraph
from ffem_jax.export.layers import INPUT_NAME, LayerList
from ffem_jax.export.reference import run_layers
from ffem_jax.models.blocks import build_block
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.models.draws import plan_draws
from ffem_jax.models.layers import Depthwise, Pointwise
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, SpecError, StageSpec, resolve_network
from ffem_jax.specs.block import BLOCKS, BlockKind, register_block


class Separable(nnx.Module):
    """A depthwise convolution and a 1x1 convolution: MobileNet's block."""

    def __init__(self, spec, *, rngs):
        self.depthwise = Depthwise(spec.in_channels, spec.stride, spec.activation, rngs=rngs)
        self.project = Pointwise(spec.in_channels, spec.out_channels, spec.activation, rngs=rngs)

    def __call__(self, x):
        return self.project(self.depthwise(x))

    def fold(self, graph, x, name):
        y = graph.fold(self.depthwise, x, f"{name}/depthwise")
        return graph.fold(self.project, y, f"{name}/project")


@pytest.fixture(params=[*BLOCKS.names, "separable"])
def arch(request):
    """A network of two stages of the block: strides 2 and 1, channels that change and that stay."""
    if request.param == "separable":
        register_block(BlockKind("separable", Separable, compute_channels=lambda inputs, outputs, _: (inputs, outputs)))
    yield ArchSpec(stem_channels=8, stages=(StageSpec(1, 12, 2, 2), StageSpec(2, 16, 2, 1)), block=request.param)
    if request.param == "separable":
        BLOCKS.kinds.pop("separable")


def build(spec):
    module = nnx.merge(*draw_parts(lambda keys: build_block(spec, rngs=keys)))
    module.eval()
    return module


def make_map(spec) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 7, 7, spec.in_channels)).astype(np.float32)


def test_its_shape_is_that_of_its_spec_and_its_layers_compute_the_same(arch):
    for spec in resolve_network(arch).blocks:
        module, x = build(spec), make_map(spec)
        y = jax.jit(lambda x, module=module: module(x))(x)
        size = -(-7 // spec.stride)
        assert y.shape == (2, size, size, spec.out_channels)
        graph = LayerGraph((7, 7, spec.in_channels))
        last = graph.fold(module, INPUT_NAME, "block")
        assert graph.get_shape(last) == y.shape[1:]
        found = run_layers(LayerList(7, tuple(graph.layers)), x)[last]
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient(arch):
    spec = resolve_network(arch).blocks[0]
    graph, params, rest = draw_parts(lambda keys: build_block(spec, rngs=keys))
    x = make_map(spec)
    size = -(-7 // spec.stride)
    direction = np.random.default_rng(0).normal(size=(2, size, size, spec.out_channels)).astype(np.float32)
    with use_convolution_form("xla"):
        grads = jax.jit(jax.grad(lambda params: jnp.sum(nnx.merge(graph, params, rest, copy=True)(x) * direction)))(
            params
        )
    for path, leaf in jax.tree.leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.any(np.asarray(leaf)), path


def test_the_cost_counts_every_parameter(arch):
    network, total = resolve_network(arch), 0
    for spec in network.blocks:
        module, _ = plan_draws(lambda keys, spec=spec: build_block(spec, rngs=keys))
        params = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
        assert trace_cost(module, (1, 8, 8, spec.in_channels)).params == params
        total += params
    assert compute_cost(arch, 32).params > total


def test_its_channels_must_be_a_multiple_of_its_divisor():
    with pytest.raises(SpecError, match="arch.stages.channels=15 must be a multiple of 2 with arch.block=shuffle"):
        ArchSpec(block="shuffle", stages=(StageSpec(1, 15, 1, 1),))


def test_a_block_that_is_not_declared_is_refused():
    with pytest.raises(SpecError, match="arch.block='imagined' is not known; choose one of: bottleneck, shuffle"):
        ArchSpec(block="imagined")
    spec = dataclasses.replace(resolve_network(ArchSpec()).blocks[0], kind="imagined")
    with pytest.raises(SpecError, match="arch.block='imagined' is not known"):
        build_block(spec, rngs=nnx.Rngs(0))


def test_an_attention_that_cannot_be_exported_says_what_it_lacks():
    spec = resolve_network(ArchSpec(attention=AttentionSpec(kind="se", placement="first"))).blocks[0]
    module = build(spec)

    class Whirl(nnx.Module):
        pass

    module.attention = Whirl()
    with pytest.raises(ExportError, match=r"does not know Whirl \(block0/attention\); give it a method fold"):
        LayerGraph((7, 7, spec.in_channels)).fold(module, INPUT_NAME, "block0")
