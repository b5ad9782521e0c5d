"""Every form of a network is one network: values, gradients and running statistics, in training and in evaluation."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_modules import draw_parts

from ffem_jax.kernels import calls
from ffem_jax.models import build_model
from ffem_jax.models.convolutions import depthwise_conv, get_convolution_form, list_forms, use_convolution_form
from ffem_jax.models.draws import build_at_once, plan_draws
from ffem_jax.specs.architecture import ATTENTION_POSITIONS, ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.specs.attention import ATTENTIONS

SMALL = ArchSpec(
    stem_channels=4,
    stages=(StageSpec(1, 4, 1, 1), StageSpec(3, 6, 2, 2)),
    head_channels=0,
    embedding_dim=4,
)
SHUFFLE = dataclasses.replace(
    SMALL,
    block="shuffle",
    stem_extra="max_pool",
    stages=(StageSpec(1, 8, 2, 2), StageSpec(2, 4, 1, 1)),
    activation="relu",
)
ATTENDED = [
    AttentionSpec(kind, "all", position, fusion, reduction=2)
    for kind in ATTENTIONS.names
    if kind != "none"
    for position, fusion in zip(ATTENTION_POSITIONS, ("scale", "residual"), strict=True)
]
# Each choice at least once, several at a time: a compilation each.
VARIANTS = {
    "relu6": (SMALL, 16),
    "odd-resolution-prelu": (dataclasses.replace(SMALL, activation="prelu", pooling="global_depthwise"), 13),
    "hard-swish": (dataclasses.replace(SMALL, stages=(StageSpec(2, 4, 2, 1),), activation="hard_swish"), 16),
    **{f"{a.kind}-{a.position}-{a.fusion}": (dataclasses.replace(SMALL, attention=a), 16) for a in ATTENDED},
    "stem-depthwise": (dataclasses.replace(SMALL, stem_extra="depthwise", activation="prelu"), 16),
    "shuffle": (SHUFFLE, 32),
    "shuffle-odd-resolution-prelu": (
        dataclasses.replace(SHUFFLE, stem_extra="none", activation="prelu", attention=ATTENDED[-1]),
        13,
    ),
}


def move_off_defaults(path, leaf):
    """Scales, biases, slopes and running statistics away from 0 and 1, where mistakes would hide."""
    random = np.random.default_rng(sum(map(ord, jax.tree_util.keystr(path))))
    return np.float32(leaf + 0.1 + 0.2 * random.uniform(size=leaf.shape))


def prepare(arch, resolution):
    """A network's parts and images, in float32."""
    graph, *states = draw_parts(lambda keys: build_model(arch, resolution, rngs=keys))
    states = [jax.tree_util.tree_map_with_path(move_off_defaults, nnx.as_pure(state)) for state in states]
    images = np.random.default_rng(1).normal(size=(8, resolution, resolution, 3)).astype(np.float32)
    return graph, *states, images


def compute(graph, params, rest, x, form, dtype):
    params, rest, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, rest, x))

    def apply(model, x):
        x = model.stem(x)
        for block in model.blocks:
            x = block(x)
        return model.head(x)

    def loss(params, x):
        model = nnx.merge(graph, params, rest)
        model.eval()
        evaluated = apply(model, x)
        model.train()
        out = apply(model, x)
        return jnp.sum(jnp.sin(out)) + jnp.sum(jnp.cos(evaluated)), (out, evaluated, nnx.state(model, nnx.BatchStat))

    with use_convolution_form(form):
        lowered = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(params, x)
    return lowered.compile({"xla_backend_optimization_level": 0})(params, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_all_forms_are_one_network(name):
    prepared = prepare(*VARIANTS[name])
    with jax.enable_x64(True):
        wanted = compute(*prepared, "xla", jnp.float64)
        shifted = compute(*prepared, "shifted", jnp.float64)
    for (path, left), right in zip(jax.tree.leaves_with_path(shifted), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-7, atol=1e-8, err_msg=jax.tree_util.keystr(path))
    if not calls.are_there():
        pytest.skip("no compiled kernels")
    found = compute(*prepared, "kernels", jnp.float32)
    for (path, left), right in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        scale = np.abs(right).max()
        np.testing.assert_allclose(left, right, rtol=5e-4, atol=1e-4 * scale, err_msg=jax.tree_util.keystr(path))


def test_the_kernels_are_taken_on_a_cpu_and_float64_is_not_given_to_them():
    assert get_convolution_form() == ("kernels" if calls.are_there() else "shifted")
    if not calls.are_there():
        pytest.skip("no compiled kernels")
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 2)))
        jaxpr = str(jax.make_jaxpr(lambda x: depthwise_conv(x, jnp.ones((3, 3, 1, 2)), 1))(x))
        assert "ffi_call" not in jaxpr
        assert "ffi_call" in str(
            jax.make_jaxpr(lambda x: depthwise_conv(x, jnp.ones((3, 3, 1, 2), jnp.float32), 1))(x.astype(jnp.float32))
        )


def list_calls(arch, form, is_training, change=lambda model: None):
    """The kernels that a network of 16 pixels is traced to, each as often as it is called."""
    graph, params, rest = draw_parts(lambda keys: build_model(arch, 16, rngs=keys))

    def apply(params, rest, x):
        model = nnx.merge(graph, params, rest)
        model.train() if is_training else model.eval()
        change(model)
        for block in model.blocks:
            x = block(x)
        return x

    x = jax.ShapeDtypeStruct((2, 8, 8, arch.stem_channels), jnp.float32)
    with use_convolution_form(form):
        return Counter(re.findall(r"ffem_\w+", str(jax.make_jaxpr(apply)(params, rest, x))))


def replace_activation(model):
    for block in model.blocks:
        if block.expand is not None:
            block.expand.activation = nnx.swish


@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
@pytest.mark.parametrize("attention", [None, "depthwise", "projection"])
@pytest.mark.parametrize("is_training", [True, False])
def test_an_expansion_and_the_depthwise_convolution_behind_it_are_one_call_of_the_kernels(attention, is_training):
    arch = SMALL
    if attention is not None:
        arch = dataclasses.replace(SMALL, attention=AttentionSpec("eca", "all", attention, reduction=2))
    expands = sum(block.hidden_channels != block.in_channels for block in resolve_network(arch).blocks)
    fused, alone = ("batch_norm_depthwise", "batch_norm") if is_training else ("normalize_depthwise", "normalize")
    found = list_calls(arch, "kernels", is_training)
    assert 0 < expands < len(resolve_network(arch).blocks)
    assert found[f"ffem_{fused}"] == expands
    assert found["ffem_depthwise"] == len(resolve_network(arch).blocks) - expands
    assert found[f"ffem_{alone}"] == 2 * len(resolve_network(arch).blocks)
    assert not list_calls(arch, "xla", is_training)
    # An activation that the kernels do not know comes between.
    found = list_calls(arch, "kernels", is_training, replace_activation)
    assert f"ffem_{fused}" not in found
    assert found["ffem_depthwise"] == len(resolve_network(arch).blocks)


@functools.cache
def draw_one_by_one():
    """What builds a network, a key, and the parameters that are drawn with it, each by itself."""
    arch = dataclasses.replace(SMALL, activation="prelu", pooling="global_depthwise", attention=ATTENDED[-1])
    key = jax.random.key(7)

    def build(rngs):
        return build_model(arch, 16, rngs=rngs)

    return build, key, nnx.as_pure(nnx.state(build(nnx.Rngs(params=key)), nnx.Param))


@pytest.mark.slow
@pytest.mark.parametrize("form", list_forms())
def test_kernels_drawn_at_once_are_those_drawn_one_by_one(form):
    build, key, wanted = draw_one_by_one()
    draws = plan_draws(build)[1]
    with use_convolution_form(form):
        found = jax.jit(lambda key: nnx.as_pure(nnx.state(build_at_once(build, key, draws), nnx.Param)))(key)
    for (path, left), right in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
        # Those of attention, drawn by themselves, are rounded otherwise where they are compiled.
        np.testing.assert_allclose(left, right, rtol=1e-6, err_msg=jax.tree_util.keystr(path))
