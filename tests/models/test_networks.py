"""Golden counts of the paper's Table 1, and one conformance suite over every preset, attention, position and choice."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from made_modules import draw_parts

from ffem_jax.config.presets import PRESETS
from ffem_jax.models import build_model
from ffem_jax.models.attention import apply_attention, build_attention
from ffem_jax.models.blocks import build_block
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.architecture import (
    ACTIVATIONS,
    ATTENTION_POSITIONS,
    FUSIONS,
    POOLINGS,
    STEM_EXTRAS,
    ArchSpec,
    AttentionSpec,
    StageSpec,
    resolve_network,
)
from ffem_jax.specs.attention import ATTENTIONS
from ffem_jax.training.program import UNOPTIMIZED

SMALL = ArchSpec(
    name="small",
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(3, 12, 2, 2), StageSpec(2, 16, 1, 2)),
    head_channels=24,
    embedding_dim=16,
)


def count_params(module: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def abstract(arch: ArchSpec, resolution: int = 96):
    return plan_draws(lambda keys: build_model(arch, resolution, rngs=keys))[0]


def test_cumulative_parameters_are_those_of_the_papers_table():
    network = abstract(PRESETS["ffem"])
    parts = [network.stem, *network.blocks]
    cumulative = np.cumsum([count_params(part) for part in parts])
    # Stem, then after the bottlenecks of 16, 24, 32, 64, 96, 160 and 320 channels.
    ends = np.cumsum([0, 1, 2, 2, 3, 2, 3, 1])
    assert cumulative[ends].tolist() == [928, 1_824, 15_792, 40_640, 170_240, 355_136, 1_150_400, 1_624_320]
    assert cumulative[-1] + count_params(network.head.conv) == 2_036_480
    assert count_params(network) == 2_200_448


@pytest.mark.parametrize(
    ("arch", "params"),
    [
        (PRESETS["ffem"], 2_200_448),
        (PRESETS["ffem_am"], 2_200_456),
        (PRESETS["ffem_se"], 2_200_448 + 116_382),
        (dataclasses.replace(PRESETS["ffem_se"], attention=AttentionSpec(kind="se", reduction=4)), 2_663_000),
        (dataclasses.replace(PRESETS["mobilenetv2"], embedding_dim=1000), 3_504_872),
        # As published, with 1,000 classes in the embedding's place.
        (dataclasses.replace(PRESETS["shufflenetv2_0_5"], embedding_dim=1000), 1_366_792),
        (dataclasses.replace(PRESETS["shufflenetv2"], embedding_dim=1000), 2_278_604),
        (dataclasses.replace(PRESETS["shufflenetv2_1_5"], embedding_dim=1000), 3_503_624),
        # Of a calibration run in PyTorch, written independently.
        (dataclasses.replace(PRESETS["ffem"], width_multiplier=0.5, head_channels=0), 450_240),
    ],
)
def test_golden_parameter_counts(arch, params):
    assert count_params(abstract(arch)) == params


def test_ffem_am_attends_in_32_and_960_channels():
    network = abstract(PRESETS["ffem_am"])
    attended = [index for index, block in enumerate(network.blocks) if block.attention is not None]
    assert attended == [0, 13]
    assert [network.blocks[index].attention.conv.kernel.shape[0] for index in attended] == [3, 5]


SHUFFLE = dataclasses.replace(
    SMALL, block="shuffle", activation="relu", stages=(StageSpec(1, 8, 2, 1), StageSpec(2, 12, 2, 2))
)

VARIANTS = {
    **{
        f"attention-{kind}-{position}-{fusion}": (
            dataclasses.replace(SMALL, attention=AttentionSpec(kind, "all", position, fusion, reduction=2)),
            16,
        )
        for kind in ATTENTIONS.names
        if kind != "none"
        for position in ATTENTION_POSITIONS
        for fusion in FUSIONS
    },
    **{f"activation-{name}": (dataclasses.replace(SMALL, activation=name), 16) for name in ACTIVATIONS},
    **{f"pooling-{name}": (dataclasses.replace(SMALL, pooling=name, head_channels=0), 24) for name in POOLINGS},
    **{f"stem-{name}": (dataclasses.replace(SMALL, stem_extra=name), 16) for name in STEM_EXTRAS},
    **{
        f"shuffle-{kind}-{position}": (
            dataclasses.replace(SHUFFLE, attention=AttentionSpec(kind, "all", position, reduction=1)),
            16,
        )
        for kind in ATTENTIONS.names
        for position in ATTENTION_POSITIONS
    },
    "embedding-norm": (dataclasses.replace(SMALL, embedding_norm=True), 16),
    "stem-stride-1": (dataclasses.replace(SMALL, stem_stride=1), 16),
    "odd-resolution": (SMALL, 23),
}
# Several choices at a time: they take seconds each. One by one they are looked at by `make test-slow`.
TOGETHER = {
    "attention, embedding norm, odd resolution": (
        dataclasses.replace(
            SMALL, attention=AttentionSpec("eca", "all", "projection", "scale", reduction=2), embedding_norm=True
        ),
        23,
    ),
    "shuffle": VARIANTS["shuffle-none-depthwise"],
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "shuffle" else []) for name in TOGETHER]
)
def test_conformance_of_choices_together(name):
    arch, resolution = TOGETHER[name]
    with use_convolution_form("xla"):
        check_conformance(arch, resolution, compiled=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_conformance(name):
    arch, resolution = VARIANTS[name]
    with use_convolution_form("xla"):
        check_conformance(arch, resolution, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_conformance_of_presets(name):
    check_conformance(PRESETS[name], 32, compiled=True)


def check_conformance(arch, resolution, *, compiled):
    """Shape, finiteness, sensitivity to each image, running statistics that move, a gradient everywhere, and, where
    it is compiled, one compilation for two calls. Many small networks go operation by operation, in the plain form:
    their operations are compiled once for all variants. test_forms.py holds the other forms equal to it."""
    if compiled:
        graph, params, rest = draw_parts(lambda keys: build_model(arch, resolution, rngs=keys))
    else:
        graph, params, rest = nnx.split(build_model(arch, resolution, rngs=nnx.Rngs(0)), nnx.Param, ...)
    # Compiling is nearly all of what it takes.
    transform = partial(jax.jit, compiler_options=UNOPTIMIZED) if compiled else (lambda function: function)
    pixels = jax.device_put(np.random.default_rng(0).integers(0, 256, (4, resolution, resolution, 3), np.uint8))

    @transform
    def compute(params, rest, pixels):
        def loss(params):
            model = nnx.merge(graph, params, rest, copy=True)
            model.train()
            embeddings = model(pixels)
            # A random direction: the sum itself has no gradient behind a BatchNorm.
            direction = np.random.default_rng(1).normal(size=embeddings.shape).astype(np.float32)
            return jnp.sum(embeddings * direction), (embeddings, nnx.state(model, nnx.BatchStat))

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (embeddings, moved)), grads = compute(params, rest, pixels)
    assert embeddings.shape == (4, arch.embedding_dim)
    assert embeddings.dtype == jnp.float32
    assert np.isfinite(embeddings).all()
    assert not np.allclose(embeddings[0], embeddings[1], atol=1e-4)
    before = jax.tree.leaves(nnx.filter_state(rest, nnx.BatchStat))
    assert all(not np.array_equal(old, new) for old, new in zip(before, jax.tree.leaves(moved), strict=True))
    dead = [jax.tree_util.keystr(path) for path, g in jax.tree.leaves_with_path(grads) if not np.any(np.asarray(g))]
    assert not dead
    if compiled:
        compute(params, rest, pixels + 1)
        assert compute._cache_size() == 1


def test_a_split_unit_keeps_its_first_half_and_interleaves_it_with_what_it_computes():
    unit = nnx.merge(*draw_parts(lambda keys: build_block(resolve_network(SHUFFLE).blocks[0], rngs=keys)))
    x = np.random.default_rng(2).normal(size=(2, 4, 4, 8)).astype(np.float32)
    unit.eval()
    out, second = map(np.asarray, jax.jit(lambda x: (unit(x), unit.second(x[..., 4:])))(x))
    np.testing.assert_array_equal(out[..., ::2], x[..., :4])
    np.testing.assert_allclose(out[..., 1::2], second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["eca", "se"])
def test_attention_scales_channels_by_a_gate_between_0_and_1(kind):
    attention = build_attention((kind, "depthwise", "scale", 3), 12, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 12)), jnp.float32)
    gate = np.asarray(attention(x) / x)
    assert np.ptp(gate, axis=(1, 2)).max() < 1e-5  # one number a channel and image
    assert (gate > 0).all()
    assert (gate < 1).all()
    np.testing.assert_allclose(apply_attention(attention, "residual", x), x + x * gate, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(apply_attention(attention, "scale", x), x * gate, rtol=1e-5, atol=1e-6)


def test_eca_is_a_convolution_across_channels_with_zeros_beyond():
    attention = build_attention(("eca", "depthwise", "scale", 3), 4, rngs=nnx.Rngs(0))
    attention.conv.kernel[...] = jnp.asarray([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    means = np.asarray([0.01, 0.02, 0.03, 0.04], np.float32)
    x = jnp.broadcast_to(means, (1, 2, 2, 4))
    padded = np.concatenate([[0], means, [0]])
    wanted = [padded[c] + 10 * padded[c + 1] + 100 * padded[c + 2] for c in range(4)]
    np.testing.assert_allclose(attention(x)[0, 0, 0] / means, 1 / (1 + np.exp(-np.asarray(wanted))), rtol=1e-5)
