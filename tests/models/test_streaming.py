"""The streamed form of stem and bottlenecks is the plain one: values, gradients in float64, running statistics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from ffem_jax.arch import ATTENTION_POSITIONS, ArchSpec, AttentionSpec, StageSpec
from ffem_jax.models import build_model, convolutions, streaming
from ffem_jax.models.attention import ATTENTIONS
from ffem_jax.models.convolutions import use_convolution_form
from ffem_jax.models.streaming import ROWS_AT_LEAST, WHOLE_BYTES_AT_MOST, choose_images, stream_trunk

# A bottleneck without expansion, with one, with a stride, with a shortcut: 8, 8, 4 and 4 rows, several passes each.
SMALL = ArchSpec(
    stem_channels=4,
    stages=(StageSpec(1, 4, 1, 1), StageSpec(3, 6, 2, 2)),
    head_channels=0,
    embedding_dim=4,
)
ATTENDED = [
    AttentionSpec(kind, "all", position, fusion, reduction=2)
    for kind in ATTENTIONS
    for position, fusion in zip(ATTENTION_POSITIONS, ("scale", "residual"), strict=True)
]
# A unit of two branches, a unit that splits its input, and one that changes the channels at stride 1.
SHUFFLE = dataclasses.replace(
    SMALL,
    block="shuffle",
    stem_extra="max_pool",
    stages=(StageSpec(1, 8, 2, 2), StageSpec(2, 4, 1, 1)),
    activation="relu",
)
# Each choice at least once, several at a time: a compilation each.
VARIANTS = {
    "relu6": (SMALL, 16),
    "odd-resolution-prelu": (dataclasses.replace(SMALL, activation="prelu"), 13),
    "first-expands-hard-swish": (
        dataclasses.replace(SMALL, stages=(StageSpec(2, 4, 2, 1),), activation="hard_swish"),
        16,
    ),
    "first-shortcut": (dataclasses.replace(SMALL, stages=(StageSpec(1, 4, 2, 1),)), 16),
    **{f"{a.kind}-{a.position}-{a.fusion}": (dataclasses.replace(SMALL, attention=a), 16) for a in ATTENDED},
    "stem-depthwise": (dataclasses.replace(SMALL, stem_extra="depthwise", activation="prelu"), 16),
    "shuffle": (SHUFFLE, 32),
    "shuffle-odd-resolution-prelu": (
        dataclasses.replace(SHUFFLE, stem_extra="none", activation="prelu", attention=ATTENDED[-1]),
        13,
    ),
}


def apply_trunk(model, x, form):
    if form == "streamed":
        return stream_trunk(model.stem, model.blocks, x)
    with use_convolution_form("xla"):
        x = model.stem(x)
        for block in model.blocks:
            x = block(x)
        return x


def move_off_defaults(path, leaf):
    """Scales, biases, slopes and running statistics away from 0 and 1, where mistakes would hide."""
    seed = sum(map(ord, jax.tree_util.keystr(path)))
    return leaf.astype(jnp.float64) + 0.1 + 0.2 * jax.random.uniform(jax.random.key(seed), leaf.shape, jnp.float64)


# A variant takes ten seconds of compiling and more: this one is fast enough for every run; the slow tests have all.
FAST = ("shuffle-odd-resolution-prelu", 10**9)


# Maps this small are taken whole, all 8 images at once, unless nothing is small enough.
@pytest.mark.parametrize(
    ("arch", "resolution", "whole_bytes"),
    [
        pytest.param(*v, whole, id=f"{k}-{name}", marks=[] if (k, whole) == FAST else pytest.mark.slow)
        for k, v in VARIANTS.items()
        for whole, name in ((0, "several-passes"), (10**9, "whole"))
    ],
)
def test_streamed_is_plain_in_float64(arch, resolution, whole_bytes, monkeypatch):
    monkeypatch.setattr(streaming, "WHOLE_BYTES_AT_MOST", whole_bytes)
    monkeypatch.setattr(convolutions, "IMAGES_UNROLLED", 7)
    with jax.enable_x64(True):
        graph, params, rest = nnx.split(build_model(arch, resolution, rngs=nnx.Rngs(0)), nnx.Param, ...)
        params, rest = (jax.tree_util.tree_map_with_path(move_off_defaults, nnx.as_pure(s)) for s in (params, rest))
        x = jax.random.normal(jax.random.key(1), (8, resolution, resolution, 3), jnp.float64)

        def compute(form):
            def loss(params, x):
                model = nnx.merge(graph, params, rest)
                model.eval()
                evaluated = apply_trunk(model, x, form)
                model.train()
                out = apply_trunk(model, x, form)
                return jnp.sum(jnp.sin(out)), (out, evaluated, nnx.as_pure(nnx.state(model, nnx.BatchStat)))

            lowered = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True)).lower(params, x)
            return lowered.compile({"xla_backend_optimization_level": 0})(params, x)

        streamed, plain = compute("streamed"), compute("xla")
        for (path, left), right in zip(jax.tree.leaves_with_path(streamed), jax.tree.leaves(plain), strict=True):
            assert left.dtype == jnp.float64
            np.testing.assert_allclose(left, right, rtol=1e-7, atol=1e-8, err_msg=jax.tree_util.keystr(path))
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), streamed[0][1][2], rest)
        assert all(jax.tree.leaves(moved))


@given(st.integers(1, 128), st.integers(1, 112), st.integers(1, 10_000_000))
def test_images_at_a_time_divide_the_batch(batch, rows, image_bytes):
    images = choose_images(batch, rows, image_bytes)
    assert batch % images == 0
    assert (images == batch) >= (batch * image_bytes <= WHOLE_BYTES_AT_MOST)
    few = images == 1 or (images - 1) * rows < ROWS_AT_LEAST or images * image_bytes <= 400_000
    assert few or batch * image_bytes <= WHOLE_BYTES_AT_MOST


def test_nothing_but_the_depthwise_result_is_kept():
    """No expanded map of the whole batch is an intermediate of the streamed gradient; of the plain one, many are."""
    arch = dataclasses.replace(SMALL, stages=(StageSpec(1, 4, 1, 1), StageSpec(6, 6, 1, 2)))
    graph, state = nnx.split(build_model(arch, 32, rngs=nnx.Rngs(0)))
    x = jnp.zeros((64, 32, 32, 3))
    expanded = 64 * 16 * 16 * 24

    def count(form):
        def loss(state):
            model = nnx.merge(graph, state)
            model.train()
            return jnp.sum(apply_trunk(model, x, form))

        jaxpr = jax.make_jaxpr(jax.grad(loss, allow_int=True))(state)
        return sum(getattr(v.aval, "size", 0) >= expanded for e in jaxpr.jaxpr.eqns for v in e.outvars)

    assert count("streamed") == 0
    assert count("xla") > 5
