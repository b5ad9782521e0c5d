"""One suite over every declared attention, and CBAM and coordinate attention against what their papers say."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ffem_jax.config.presets import PRESETS
from ffem_jax.cost.cost import compute_cost
from ffem_jax.cost.topology import count_bytes
from ffem_jax.export import FORMATS, load_format
from ffem_jax.export.fold import LayerGraph
from ffem_jax.export.layers import INPUT_NAME, OUTPUT_NAME, Flatten, GlobalAveragePool, LayerList
from ffem_jax.export.reference import run_layers
from ffem_jax.export.tfjs import find_node_packages
from ffem_jax.models import build_model
from ffem_jax.models.attention import apply_attention, build_attention
from ffem_jax.models.convolutions import list_forms, use_convolution_form
from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.architecture import (
    ArchSpec,
    AttentionSpec,
    SpecError,
    StageSpec,
    resolve_attention,
    resolve_network,
    select_effective_attention,
)
from ffem_jax.specs.attention import ATTENTIONS, COMMON_SETTINGS, AttentionKind, register_attention

CHANNELS = 24
# Every setting that a kind may read, with two values that change a size where it does.
VALUES = {
    "kernel": ("adaptive", "mobilenetv2"),
    "gamma": (2.0, 0.9),
    "b": (1.0, 6.0),
    "kernel_size": (3, 7),
    "reduction": (2, 1),
    "spatial_kernel": (7, 3),
}


class AffineGate(nnx.Module):
    """A kind that somebody else might write: the suite covers it as soon as it is registered."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * nnx.sigmoid(self.scale[...] * x.mean(axis=(1, 2), keepdims=True) + self.bias[...])

    def fold(self, graph, x, name):
        means = graph.average(f"{name}/mean", x)
        own = {"bias": self.bias[...], "activation": nnx.sigmoid}
        return graph.multiply(f"{name}/scale", x, graph.depthwise(f"{name}/gate", means, self.scale[None, None], **own))


@pytest.fixture(params=[*(name for name in ATTENTIONS.names if name != "none"), "plug_in"])
def kind(request):
    """The name of a declared kind; the last is declared here."""
    if request.param == "plug_in":
        register_attention(AttentionKind("plug_in", AffineGate))
        yield "plug_in"
        ATTENTIONS.kinds.pop("plug_in")
    else:
        yield request.param


@functools.cache
def draw(sizes: tuple[Any, ...], channels: int):
    """A module of `sizes` in two parts: what it is made of, and its values moved off their defaults."""
    graph, state = nnx.split(build_attention(sizes, channels, rngs=nnx.Rngs(0)))
    generator = np.random.default_rng(4)

    def move(leaf):
        return jax.device_put(np.asarray(leaf) + generator.uniform(0.05, 0.3, leaf.shape).astype(leaf.dtype))

    return graph, jax.tree.map(move, state)


def build(kind: str, channels: int = CHANNELS, **settings):
    """A module of `kind` with parameters and statistics moved off their defaults, in evaluation."""
    sizes = resolve_attention(ATTENTIONS[kind], AttentionSpec(kind=kind, **{"reduction": 2, **settings}), channels)
    module = nnx.merge(*draw(sizes, channels), copy=True)
    module.eval()
    return module


def apply(module, x: np.ndarray) -> np.ndarray:
    """What `module` makes of a map, as one program."""
    return np.asarray(jax.jit(lambda x: module(x))(x))


def make_maps(rows: int = 6, columns: int = 6, channels: int = CHANNELS) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(3, rows, columns, channels)).astype(np.float32)


def fold(module, shape) -> LayerGraph:
    graph = LayerGraph(shape)
    graph.fold(module, INPUT_NAME, "attention")
    return graph


def test_a_map_keeps_its_shape_and_every_parameter_has_a_gradient(kind):
    module, x = build(kind), make_maps(5, 7)
    module.train()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    direction = np.random.default_rng(0).normal(size=x.shape).astype(x.dtype)

    def compute(params, x):
        y = nnx.merge(graph, params, rest, copy=True)(x)
        return jnp.sum(y * direction), y

    (grads, dx), y = jax.jit(jax.grad(compute, (0, 1), has_aux=True))(params, x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert not np.allclose(y, x)
    for path, leaf in [*jax.tree.leaves_with_path(grads), ((), dx)]:
        assert np.isfinite(leaf).all(), path
        assert np.any(np.asarray(leaf)), path


def test_every_form_computes_the_same(kind):
    x, outputs = make_maps(5, 7), []
    for form in list_forms():
        with use_convolution_form(form):
            outputs.append(apply(build(kind), x))
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6), (5, 7), (1, 1)])
def test_the_layers_compute_what_the_module_does(kind, shape):
    module, x = build(kind), make_maps(*shape)
    graph = fold(module, (*shape, CHANNELS))
    found = run_layers(LayerList(0, tuple(graph.layers)), x)[graph.layers[-1].name]
    np.testing.assert_allclose(found, apply(module, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_computes_what_the_module_does(kind, name, tmp_path):
    """An attention by itself on three channels, its means for the embedding."""
    if name == "tfjs" and (find_node_packages() is None or not shutil.which("node")):
        pytest.skip("TensorFlow.js is not installed for Node: npm install in ffem_jax/export/node")
    pytest.importorskip({"onnx": "onnxruntime", "tflite": "ai_edge_litert", "tfjs": "numpy"}[name])
    module, x = build(kind, 3), make_maps(8, 8, 3)
    graph = fold(module, (8, 8, 3))
    last = (GlobalAveragePool("pool", (graph.layers[-1].name,)), Flatten(OUTPUT_NAME, ("pool",)))
    network = LayerList(8, (*graph.layers, *last))
    expected = apply(module, x).mean(axis=(1, 2))
    for dtype in load_format(name, "float32").DTYPES:
        load_format(name, dtype).write(network, dtype, tmp_path)
        found, _ = load_format(name, dtype).run(tmp_path, x)
        close = {"float32": 1e-5, "float16": 2e-3}.get(dtype, 0.03)
        np.testing.assert_allclose(found, expected, atol=close * np.abs(expected).max(), err_msg=dtype)


def test_the_cost_counts_every_parameter_and_the_export_stores_them(kind):
    arch = dataclasses.replace(
        PRESETS["ffem"],
        stages=(StageSpec(1, 16, 1, 2), StageSpec(2, CHANNELS, 1, 1)),
        attention=AttentionSpec(kind=kind, placement="all", reduction=2),
    )
    plain = dataclasses.replace(arch, attention=AttentionSpec())
    module, _ = plan_draws(lambda keys: build_model(arch, 32, rngs=keys))
    cost, without = compute_cost(arch, 32), compute_cost(plain, 32)
    params = [leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]
    assert cost.params == sum(params) > without.params
    assert cost.bytes_float32 > cost.bytes_float16 > cost.bytes_int8 > without.bytes_int8
    own = build(kind)
    stored = sum(
        values.size for _, _, values in LayerList(0, tuple(fold(own, (6, 6, CHANNELS)).layers)).iterate_weights()
    )
    norms = sum(node.num_features for _, node in nnx.iter_graph(own) if isinstance(node, nnx.BatchNorm))
    assert stored == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(own, nnx.Param))) - norms
    assert count_bytes(own, CHANNELS) > 0


def test_a_setting_changes_the_network_exactly_where_the_kind_reads_it(kind):
    def resolve(**settings):
        spec = AttentionSpec(kind=kind, placement="all", **settings)
        return resolve_network(ArchSpec(attention=spec)), select_effective_attention(spec)

    for name, (first, second) in VALUES.items():
        for base in ({"kernel": "adaptive"}, {"kernel": "fixed"}):
            before, after = (resolve(**{**base, name: value}) for value in (first, second))
            read = name in before[1] or name in after[1]
            assert (before[0] != after[0]) == read, name
    assert set(COMMON_SETTINGS) <= set(resolve()[1])


def test_it_has_a_name_and_words_for_its_sizes(kind):
    declared = ATTENTIONS[kind]
    _, _, _, *sizes = resolve_attention(declared, AttentionSpec(kind=kind), CHANNELS)
    assert declared.title.strip()
    assert len(declared.size_names) == len(sizes)
    assert declared.describe_sizes(tuple(sizes)).count(" ") >= len(sizes)


@pytest.mark.parametrize("name", ATTENTIONS.names)
def test_the_guide_lists_it_and_a_config_chooses_it(name):
    root = Path(__file__).parents[2]
    assert f"| `{name}` |" in (root / "docs/guide.md").read_text()
    assert f"kind: {name}\n" in (root / f"conf/attention/{name}.yaml").read_text()
    declared = ATTENTIONS[name]
    assert declared.summary.endswith(".")
    assert name == "none" or declared.source


# ------------------------------------------------------------------- what the papers say, by itself


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def normalize(norm: nnx.BatchNorm, x: np.ndarray) -> np.ndarray:
    mean, var, scale, bias = (np.asarray(v[...]) for v in (norm.mean, norm.var, norm.scale, norm.bias))
    return (x - mean) / np.sqrt(var + norm.epsilon) * scale + bias


def test_cbam_is_the_paper_s_equations_2_and_3():
    module, x = build("cbam"), make_maps(5, 7)

    def mlp(pooled):
        hidden = np.maximum(pooled @ module.reduce.kernel[...] + module.reduce.bias[...], 0)
        return hidden @ module.expand.kernel[...] + module.expand.bias[...]

    y = x * sigmoid(mlp(x.mean(axis=(1, 2))) + mlp(x.max(axis=(1, 2))))[:, None, None]
    maps = np.stack([y.mean(axis=-1), y.max(axis=-1)], axis=-1)
    padded = np.pad(maps, ((0, 0), (3, 3), (3, 3), (0, 0)))
    kernel = np.asarray(module.kernel[...])
    logits = np.zeros((*maps.shape[:3], 1))
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            window = padded[:, row : row + 7, column : column + 7]
            logits[:, row, column, 0] = (window * kernel[..., 0]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(apply(module, x), y * sigmoid(normalize(module.norm, logits)), rtol=1e-4, atol=1e-5)


def test_coordinate_attention_is_the_paper_s_equations_4_to_8():
    module, x = build("coordinate"), make_maps(5, 7)
    gates = []
    for image in x:
        rows, columns = image.mean(axis=1), image.mean(axis=0)
        means = np.concatenate([rows, columns]) @ module.reduce.conv.kernel[...]
        hidden = normalize(module.reduce.norm, means)
        hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
        by_row = sigmoid(hidden[:5] @ module.rows.kernel[...] + module.rows.bias[...])
        by_column = sigmoid(hidden[5:] @ module.columns.kernel[...] + module.columns.bias[...])
        gates.append(by_row[:, None] * by_column[None])
    np.testing.assert_allclose(apply(module, x), x * np.stack(gates), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "params", "macs"),
    [
        # In FFEM's first and last bottleneck, of 32 channels at 48 x 48 and of 960 at 3 x 3 pixels.
        # CBAM: two dense layers with biases, a 7x7 convolution of two maps, a BatchNorm of one channel.
        (
            "cbam",
            {"reduction": 16},
            (32 * 2 + 2 + 2 * 32 + 32 + 98 + 2) + (960 * 60 + 60 + 60 * 960 + 960 + 98 + 2),
            2 * (32 * 2 + 2 * 32) + 98 * 48 * 48 + 2 * (960 * 60 + 60 * 960) + 98 * 9,
        ),
        # Coordinate attention: a 1x1 convolution with BatchNorm over rows and columns, then one with bias for each.
        (
            "coordinate",
            {"reduction": 32},
            (32 * 8 + 2 * 8 + 2 * (8 * 32 + 32)) + (960 * 30 + 2 * 30 + 2 * (30 * 960 + 960)),
            96 * 32 * 8 + 2 * 48 * 8 * 32 + 6 * 960 * 30 + 2 * 3 * 30 * 960,
        ),
    ],
)
def test_golden_parameters_and_macs(kind, settings, params, macs):
    arch = dataclasses.replace(PRESETS["ffem"], attention=AttentionSpec(kind=kind, **settings))
    found, plain = compute_cost(arch, 96), compute_cost(PRESETS["ffem"], 96)
    assert (found.params - plain.params, found.macs - plain.macs) == (params, macs)


# --------------------------------------------------------------------------------- what is refused


class Stretching(nnx.Module):
    def __init__(self, channels, *, rngs):
        pass

    def __call__(self, x):
        return x[:, ::2]


class Forgetful(Stretching):
    def __call__(self, x):
        return None


class Demanding(Stretching):
    def __call__(self, x, mask):
        return x


class Unnamed(nnx.Module):
    def __init__(self, dims, heads, *, rngs):
        pass


@pytest.mark.parametrize(
    ("made_by", "told"),
    [
        (Stretching, r"Stretching returns float32\[1, 2, 4, 6\] for a map float32\[1, 4, 4, 6\]"),
        (Forgetful, "Forgetful returns NoneType"),
        (Demanding, "Demanding cannot be called with a map alone: missing a required argument: 'mask'"),
        (Unnamed, r"Unnamed\(channels, rngs=rngs\): missing a required argument: 'heads'"),
    ],
)
def test_a_class_that_breaks_the_contract_is_refused_in_one_line(made_by, told):
    register_attention(AttentionKind("broken", made_by))
    try:
        with pytest.raises(SpecError, match=told) as raised:
            apply_attention(
                build_attention(("broken", "depthwise", "scale"), 6, rngs=nnx.Rngs(0)), "scale", jnp.zeros((1, 4, 4, 6))
            )
        assert "\n" not in str(raised.value)
    finally:
        ATTENTIONS.kinds.pop("broken")


@pytest.mark.parametrize("sizes", [[3], (0,), (float("nan"),), (None,), 3])
def test_sizes_that_cannot_be_told_apart_or_built_are_refused(sizes):
    declared = AttentionKind("odd", AffineGate, compute_sizes=lambda channels, spec: sizes)
    with pytest.raises(SpecError, match="must return a tuple of whole numbers"):
        resolve_attention(declared, AttentionSpec(), 8)


def test_a_kind_that_is_not_declared_is_refused_wherever_it_is_asked_for():
    from ffem_jax.records.view import read_arch

    for use in (
        lambda: AttentionSpec(kind="imagined"),
        lambda: ATTENTIONS["imagined"],
        lambda: build_attention(("imagined", "depthwise", "scale", 3), 8, rngs=nnx.Rngs(0)),
        lambda: read_arch({"attention": {"kind": "imagined"}}),
    ):
        with pytest.raises(SpecError, match=r"kind='imagined' is not known; choose one of: none, eca, se"):
            use()
