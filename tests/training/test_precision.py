"""bfloat16: what computes in it, and that nothing else does; on all kinds of networks, by shapes and types alone."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from made_trainers import NETWORK, RECIPE, draw_faces, measure_drawn_faces
from made_trials import TRIAL, run

from ffem_jax.cost.liveness import walk_equations
from ffem_jax.kernels import calls
from ffem_jax.models.blocks import build_block
from ffem_jax.models.convolutions import list_forms, use_convolution_form
from ffem_jax.records.record import read_records
from ffem_jax.specs.architecture import ACTIVATIONS, ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.specs.attention import ATTENTIONS, AttentionKind, register_attention
from ffem_jax.specs.block import BLOCKS, BlockKind, register_block
from ffem_jax.specs.recipe import PRECISIONS, RecipeSpec
from ffem_jax.specs.trial import TrialSpec, to_plain, trial_key
from ffem_jax.training.classifier import compute_loss
from ffem_jax.training.precision import warn_of_slow
from ffem_jax.training.step import BATCH_AXIS, PureClassifier
from ffem_jax.training.trainer import Trainer
from ffem_jax.training.weights import load_trial

SMALL = ArchSpec(
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 2, 2)),
    head_channels=16,
    embedding_dim=6,
    activation="prelu",
)
# Each choice at least once.
NETWORKS = {
    **{f"activation-{name}": dataclasses.replace(SMALL, activation=name) for name in ACTIVATIONS},
    **{
        f"attention-{kind}-{position}-{fusion}": dataclasses.replace(
            SMALL, attention=AttentionSpec(kind, "all", position, fusion, reduction=2)
        )
        for kind in ATTENTIONS.names
        if kind != "none"
        for position, fusion in (("depthwise", "residual"), ("projection", "scale"))
    },
    **{f"block-{kind}": dataclasses.replace(SMALL, block=kind) for kind in BLOCKS.names},
    "global-depthwise": dataclasses.replace(SMALL, pooling="global_depthwise"),
    "embedding-norm": dataclasses.replace(SMALL, embedding_norm=True, head_channels=0),
    "stem-max-pool": dataclasses.replace(SMALL, stem_extra="max_pool"),
    "stem-depthwise": dataclasses.replace(SMALL, stem_extra="depthwise"),
}
BF16 = RecipeSpec(precision="bfloat16", epochs=2, batch_size=8, loss="arcface")
CLASSES, SIDE = 5, 16


def trace(arch, recipe, form, *, train=True):
    """The jaxpr of a step's loss and gradients, the shapes of what it gives, and the model."""
    model = PureClassifier(resolve_network(arch), SIDE, CLASSES, recipe)

    def compute(params, statistics, pixels, labels):
        def loss_fn(params):
            embeddings, logits, statistics_after = model.apply(params, statistics, pixels, train=train)
            loss = compute_loss(logits, labels, jnp.float32(0.1), recipe)
            return loss, (embeddings, logits, statistics_after)

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    mesh = Mesh(np.asarray(jax.devices()[:1]), (BATCH_AXIS,))
    whole = PartitionSpec()
    compute = jax.shard_map(compute, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
    images = jax.ShapeDtypeStruct((4, SIDE, SIDE, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((4,), jnp.int32)
    with use_convolution_form(form):
        traced = jax.make_jaxpr(compute, return_shape=True)(model.params, model.statistics, images, labels)
    return *traced, model


def list_products(jaxpr):
    """The types of the operands of each product and convolution."""
    return [
        tuple(v.aval.dtype.name for v in equation.invars[:2])
        for equation in walk_equations(jaxpr.jaxpr)
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]


FAST = ("activation-prelu", "attention-cbam-depthwise-residual")


@pytest.mark.parametrize("form", list_forms())
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_a_network_computes_in_bfloat16_and_learns_in_float32(name, form):
    jaxpr, (values, grads), model = trace(NETWORKS[name], BF16, form)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((values, grads))} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves((model.params, model.statistics))} == {"float32"}
    products = list_products(jaxpr)
    # The layer of the embedding and the classifier, forward and to either operand: all else is bfloat16.
    assert products.count(("float32", "float32")) == 6
    assert set(products) == {("float32", "float32"), ("bfloat16", "bfloat16")}
    called = [e for e in walk_equations(jaxpr.jaxpr) if e.primitive.name == "ffi_call"]
    assert not [v for e in called for v in e.invars if v.aval.dtype == jnp.bfloat16]


@pytest.mark.parametrize("name", ["activation-prelu", pytest.param("block-shuffle", marks=pytest.mark.slow)])
def test_testing_and_a_float32_recipe_know_no_bfloat16(name):
    for recipe, train in ((BF16, False), (RecipeSpec(), True)):
        jaxpr, _, _ = trace(NETWORKS[name], recipe, "xla", train=train)
        assert "bf16" not in str(jaxpr)


def test_batch_norm_s_statistics_are_summed_in_float32():
    """A mean of 300 with a deviation of 1: bfloat16 could not tell the values apart, nor add them up."""
    jaxpr, _, _ = trace(SMALL, BF16, "xla")
    sums = [e for e in walk_equations(jaxpr.jaxpr) if e.primitive.name == "reduce_sum"]
    over_maps = [e for e in sums if len(e.params["axes"]) == 3]
    assert over_maps
    assert {v.aval.dtype.name for e in over_maps for v in e.invars} == {"float32"}


@pytest.mark.slow
@pytest.mark.parametrize("form", list_forms())
def test_its_loss_and_gradients_are_float32_s_within_its_rounding(form):
    images, labels, *_ = draw_faces()
    chosen = np.arange(0, len(labels), 2)
    pixels, labels = images[chosen].astype(np.float32), labels[chosen]

    def compute(precision):
        recipe = RecipeSpec(precision=precision)
        model = PureClassifier(NETWORK, SIDE, CLASSES, recipe)
        params, statistics = model.init(jax.random.key(0))

        def loss_fn(params):
            _, logits, _ = model.apply(params, statistics, pixels, train=True)
            return compute_loss(logits, labels, jnp.float32(0), recipe)

        whole = PartitionSpec()
        mesh = Mesh(np.asarray(jax.devices()[:1]), (BATCH_AXIS,))
        mapped = jax.shard_map(jax.value_and_grad(loss_fn), mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        with use_convolution_form(form):
            loss, grads = jax.jit(mapped)(params)
        return float(loss), jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(grads)])

    (loss, grads), (wanted, exact) = compute("bfloat16"), compute("float32")
    assert loss == pytest.approx(wanted, rel=0.02)
    assert loss != wanted
    cosine = jnp.vdot(grads, exact) / jnp.linalg.norm(grads) / jnp.linalg.norm(exact)
    assert cosine > 0.99
    assert float(jnp.linalg.norm(grads)) == pytest.approx(float(jnp.linalg.norm(exact)), rel=0.05)


# ------------------------------------------------------------------------------ modules of people's own


class FineAttention(nnx.Module):
    """Computes in float32 whatever it is given, with a BatchNorm and a kernel of its own."""

    def __init__(self, channels, *, rngs):
        self.kernel = nnx.Param(jnp.eye(channels))
        self.norm = nnx.BatchNorm(channels, rngs=rngs)

    def __call__(self, x):
        return nnx.sigmoid(self.norm(x) @ self.kernel[...]) * x * jnp.ones((), jnp.float32)


class FineBlock(nnx.Module):
    """The same, of a block: its layers take what comes, and it gives float32."""

    def __init__(self, spec, *, rngs):
        self.inner = build_block(dataclasses.replace(spec, kind="bottleneck"), rngs=rngs)
        self.norm = nnx.BatchNorm(spec.out_channels, rngs=rngs)
        self.mix = nnx.Conv(spec.out_channels, spec.out_channels, (1, 1), rngs=rngs)

    def __call__(self, x):
        return self.mix(self.norm(self.inner(x))) * jnp.ones((), jnp.float32)


@pytest.fixture
def fine():
    register_attention(AttentionKind("fine", FineAttention))
    register_block(BlockKind("fine", FineBlock))
    yield
    ATTENTIONS.kinds.pop("fine")
    BLOCKS.kinds.pop("fine")


@pytest.mark.parametrize("form", list_forms())
@pytest.mark.parametrize("part", ["block", "attention"])
def test_what_somebody_s_own_module_gives_in_float32_goes_on_in_bfloat16(fine, form, part):
    arch = dataclasses.replace(SMALL, **{part: "fine" if part == "block" else AttentionSpec("fine", "all")})
    jaxpr, (values, grads), _ = trace(arch, BF16, form)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((values, grads))} == {"float32"}
    products = list_products(jaxpr)
    assert products.count(("float32", "float32")) == 6
    assert set(products) == {("float32", "float32"), ("bfloat16", "bfloat16")}


# ------------------------------------------------------------------------------ trials


def test_what_a_trial_leaves_is_float32_and_says_how_it_was_trained(tmp_path):
    trial = dataclasses.replace(TRIAL, recipe=dataclasses.replace(TRIAL.recipe, precision="bfloat16"))
    with pytest.warns(UserWarning, match="recipe.precision=bfloat16 is slower than float32 on a CPU"):
        run(tmp_path, trial)
    (record,) = read_records(tmp_path / "records.jsonl")
    assert record.status == "done"
    assert record.spec["recipe"]["precision"] == "bfloat16"
    (path,) = (tmp_path / "trial").glob("weights-*.safetensors")
    assert {values.dtype.name for values in safetensors.numpy.load_file(path).values()} == {"float32"}
    finished = load_trial(tmp_path / "trial")
    embeddings = finished.classifier.network(np.zeros((2, 16, 16, 3), np.uint8))
    assert embeddings.dtype == jnp.float32


@pytest.mark.slow
def test_a_trainer_s_state_and_embeddings_are_float32():
    recipe = dataclasses.replace(RECIPE, epochs=1, precision="bfloat16", weight_averaging=0.9, optimizer="adamw")
    trainer = Trainer(NETWORK, recipe, [0], *draw_faces())
    state = trainer.fit().state
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(state)}
    assert kinds == {"float32", "int32"}  # Adam counts its steps
    vectors, logits = trainer.embed(state, np.arange(5))
    assert (vectors.dtype, logits.dtype) == (np.float32, np.float32)


def test_precision_is_a_setting_like_others_and_float32_is_what_was():
    trial = TrialSpec()
    keys = {
        name: trial_key(dataclasses.replace(trial, recipe=RecipeSpec(precision=name)), "faces") for name in PRECISIONS
    }
    assert keys["float32"] == trial_key(trial, "faces") != keys["bfloat16"]
    assert "precision" not in to_plain(trial)["recipe"]


def test_slowness_is_said_in_one_line_on_a_cpu_alone(monkeypatch):
    with pytest.warns(UserWarning, match="^recipe.precision=bfloat16 is slower than float32 on a CPU: ") as caught:
        warn_of_slow("bfloat16")
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings(action="error"):
        warn_of_slow("float32")
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        warn_of_slow("bfloat16")


@pytest.mark.skipif(not calls.are_there(), reason="no compiled kernels")
def test_the_kernels_are_left_to_float32():
    (products, wanted) = (
        str(trace(SMALL, RecipeSpec(precision=name), "kernels")[0]) for name in ("bfloat16", "float32")
    )
    assert "ffem_batch_norm" in wanted
    assert "ffem_batch_norm" not in products


@pytest.mark.slow
def test_on_drawn_faces_it_is_as_accurate_as_float32():
    recipe = RecipeSpec(epochs=25, batch_size=20)
    found, wanted = (
        measure_drawn_faces(20, 12, dataclasses.replace(recipe, precision=name)) for name in ("bfloat16", "float32")
    )
    # 80 test images: 0.2 is two and a half deviations of the difference.
    assert min(found, wanted) > 0.2
    assert found == pytest.approx(wanted, abs=0.2)
