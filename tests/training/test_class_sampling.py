"""Sampled softmax: which classes a step takes, their columns, the losses on them, and the setting."""

import dataclasses
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from made_losses import compute_focal
from made_sampling import PEOPLE, RECIPE, WHOLE
from made_trainers import assert_same

from ffem_jax.models.vectors import cut, join
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.recipe import LOSSES, RecipeSpec, register_loss
from ffem_jax.specs.trial import TrialSpec, to_plain, trial_key
from ffem_jax.training.class_sampling import ClassSampling, count_sampled, warn_of_full
from ffem_jax.training.classifier import IdentityClassifier, compute_loss
from ffem_jax.training.step import BATCH_AXIS

DIM = 5


def make_params(recipe, people=PEOPLE):
    """A classifier's parameters, and something behind them on the vector, as the network is."""
    classifier = IdentityClassifier(DIM, people, recipe, rngs=nnx.Rngs(3))
    params = nnx.to_pure_dict(nnx.state(classifier, nnx.Param))
    return {"classifier": params, "network": {"kernel": jnp.arange(6.0)}}


def on_devices(function, devices, *arguments, split=()):
    """`function` under shard_map; arguments whose number is in `split` are split over the devices, results stacked."""
    mesh = Mesh(np.asarray(jax.devices()[:devices]), (BATCH_AXIS,))
    specs = tuple(PartitionSpec(BATCH_AXIS) if n in split else PartitionSpec() for n in range(len(arguments)))
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(BATCH_AXIS), check_vma=False)
    )(*arguments)


# ------------------------------------------------------------------------------ which classes


@pytest.mark.parametrize(
    ("ratio", "people", "batch", "count"),
    [
        (0.1, 1000, 32, 100),
        (0.29, 100, 8, 29),  # 28.999999999999996
        (0.1, 30, 2, 3),  # 3.0000000000000004
        (0.199, 10, 2, 2),  # up to the ratio, not over it
        (0.1, 300, 64, 64),  # as many as a batch may have
        (0.1, 52, 64, 52),
        (1e-6, 100, 8, 8),
        (1.0, 100, 8, 100),
        (0.999, 100, 8, 99),
    ],
)
def test_a_step_takes_the_ratio_or_what_its_batch_may_have(ratio, people, batch, count):
    assert count_sampled(RecipeSpec(class_sampling=ratio, batch_size=batch), people) == count


@pytest.mark.parametrize("devices", [1, 2])
def test_the_sample_holds_the_batch_and_is_the_same_on_all_devices(devices):
    sampling = ClassSampling(RECIPE, make_params(RECIPE), PEOPLE)
    draw = partial(sampling.draw, axis_name=BATCH_AXIS)
    labels = np.array([3, 19, 3, 0])
    for step in range(5):
        key = jax.random.fold_in(jax.random.key(0), step)
        rows = np.asarray(on_devices(lambda k, y: draw(k, y)[None], devices, key, labels, split=(1,)))
        assert rows.shape == (devices, 8)
        assert (rows == rows[0]).all()
        chosen = rows[0].tolist()
        assert chosen == sorted(set(chosen))
        assert {0, 3, 19} <= set(chosen) <= set(range(PEOPLE))
        wanted = np.asarray(on_devices(lambda k, y: draw(k, y)[None], 1, key, labels, split=(1,)))
        assert (rows[0] == wanted[0]).all()


def test_all_others_are_as_likely_and_each_step_draws_anew():
    sampling = ClassSampling(RECIPE, make_params(RECIPE), PEOPLE)
    labels, steps = np.array([3, 19, 3, 0]), 2000
    keys = jax.vmap(lambda step: jax.random.fold_in(jax.random.key(1), step))(jnp.arange(steps))

    def draw(keys, labels):
        return jax.vmap(lambda key: sampling.draw(key, labels, BATCH_AXIS))(keys)

    chosen = np.asarray(on_devices(draw, 1, keys, labels))
    shares = np.bincount(chosen.ravel(), minlength=PEOPLE) / steps
    others = np.setdiff1d(np.arange(PEOPLE), labels)
    assert (shares[[0, 3, 19]] == 1).all()
    # 5 of 17 others; a binomial's deviation is 0.0102.
    np.testing.assert_allclose(shares[others], 5 / 17, atol=5 * 0.0102)
    assert len({tuple(row) for row in chosen}) > 0.7 * steps


def test_a_label_becomes_its_place_in_the_sample():
    sampling = ClassSampling(RECIPE, make_params(RECIPE), PEOPLE)
    classes = jnp.array([0, 2, 3, 19])
    assert sampling.renumber(jnp.array([19, 0, 3]), classes).tolist() == [3, 0, 2]
    assert sampling.renumber(jnp.array([19, 0, 3]), None).tolist() == [19, 0, 3]


# ------------------------------------------------------------------------------ the columns


@pytest.mark.parametrize("loss", ["softmax", "arcface"])
def test_columns_are_taken_and_put_back_and_nothing_else_moves(loss):
    recipe = dataclasses.replace(RECIPE, loss=loss)
    params = make_params(recipe)
    sampling = ClassSampling(recipe, params, PEOPLE)
    classes = jnp.array([1, 4, 5, 8, 9, 10, 18, 19])
    vector = join(params)
    state = {"momentum": 2 * vector, "count": jnp.int32(7)}
    part, part_state = sampling.take((vector, state), classes)
    tree = cut(part, sampling.shapes)
    for name, leaf in params["classifier"].items():
        np.testing.assert_array_equal(tree["classifier"][name], leaf[..., classes])
    np.testing.assert_array_equal(tree["network"]["kernel"], params["network"]["kernel"])
    np.testing.assert_array_equal(part_state["momentum"], 2 * part)
    assert part_state["count"] == 7

    after, after_state = sampling.put((vector, state), (part + 1, {"momentum": -part, "count": jnp.int32(8)}), classes)
    moved = cut(after - vector, params)
    wanted = np.zeros(PEOPLE)
    wanted[classes] = 1
    for leaf in moved["classifier"].values():
        np.testing.assert_allclose(leaf, np.broadcast_to(wanted, leaf.shape), atol=1e-6)
    np.testing.assert_allclose(moved["network"]["kernel"], 1)
    momentum = cut(after_state["momentum"], params)["classifier"]["kernel"]
    np.testing.assert_array_equal(
        momentum, np.where(wanted == 1, -params["classifier"]["kernel"], 2 * params["classifier"]["kernel"])
    )
    assert after_state["count"] == 8


def test_a_recipe_that_takes_all_takes_the_very_arrays():
    sampling = ClassSampling(WHOLE, make_params(WHOLE), PEOPLE)
    vector = jnp.arange(9.0)
    assert sampling.draw(jax.random.key(0), jnp.arange(4), "no axis") is None
    assert sampling.take(vector, None) is vector
    assert sampling.put(jnp.zeros(9), vector, None) is vector


@pytest.mark.parametrize(
    ("people", "count"),
    [(20, 8), (7, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(50, 2), (16, 2), (17, 2)])],
)
def test_the_largest_logit_is_found_among_all_classes(people, count):
    recipe = dataclasses.replace(RECIPE, batch_size=2, class_sampling=count / people)
    params = make_params(recipe, people)
    sampling = ClassSampling(recipe, params, people)
    assert sampling.count == count
    embeddings = jax.random.normal(jax.random.key(0), (30, DIM))
    classes = jnp.sort(jax.random.permutation(jax.random.key(1), people)[:count])
    wanted = embeddings @ params["classifier"]["kernel"]

    def predict(scale, logits):
        return sampling.predict(lambda own: scale * embeddings @ own["kernel"], join(params), logits, classes)

    np.testing.assert_array_equal(predict(1, wanted[:, classes]), jnp.argmax(wanted, axis=1))
    # The sampled ones' logits are those that were given, whatever their columns are by now.
    lower = jnp.full((30, count), -100.0)
    np.testing.assert_array_equal(predict(1, lower), jnp.argmax(wanted.at[:, classes].set(-100.0), axis=1))
    # Of equal ones the first, as argmax has it.
    assert not predict(0, jnp.zeros((30, count))).any()


# ------------------------------------------------------------------------------ losses


@pytest.fixture(
    params=["arcface", "focal", *(pytest.param(n, marks=pytest.mark.slow) for n in LOSSES.names if n != "arcface")]
)
def loss(request):
    """Each loss, and one that somebody registered."""
    if request.param == "focal":
        register_loss("focal", source="Lin et al., ICCV 2017")(compute_focal)
    yield request.param
    LOSSES.kinds.pop("focal", None)


def test_under_every_loss_the_gradient_is_that_of_a_classifier_of_the_sample_alone(loss):
    recipe = dataclasses.replace(RECIPE, loss=loss, margin=0.3)
    params = make_params(recipe)
    sampling = ClassSampling(recipe, params, PEOPLE)
    embeddings, labels = jax.random.normal(jax.random.key(0), (4, DIM)), jnp.array([3, 19, 3, 0])
    graph = nnx.split(IdentityClassifier(DIM, PEOPLE, recipe, rngs=nnx.Rngs(0)), nnx.Param)[0]

    def compute(classifier, embeddings, labels):
        return compute_loss(nnx.merge(graph, classifier)(embeddings), labels, jnp.float32(0.3), recipe)

    def compute_both(classes):
        """Loss and gradients in the sampled parameters and the embeddings, as a step has them."""
        part = cut(sampling.take(join(params), classes), sampling.shapes)["classifier"]
        return jax.value_and_grad(compute, (0, 1))(part, embeddings, sampling.renumber(labels, classes))

    classes = np.array([0, 2, 3, 7, 11, 13, 15, 19])
    value, (grads, teaches) = compute_both(jnp.asarray(classes))
    # Written out: a classifier that has no other class.
    own = jax.tree.map(lambda leaf: leaf[..., classes], params["classifier"])
    wanted, (own_grads, own_teaches) = jax.value_and_grad(compute, (0, 1))(own, embeddings, jnp.array([2, 7, 2, 0]))
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    np.testing.assert_allclose(teaches, own_teaches, rtol=1e-5, atol=1e-6)
    for name, leaf in grads.items():
        np.testing.assert_allclose(leaf, own_grads[name], rtol=1e-5, atol=1e-6)
        assert np.abs(leaf).reshape(-1, 8).max(axis=0).all()

    # All classes as a sample: the full loss and gradient, to the last bit.
    sampling.shapes = params
    value, gradients = compute_both(jnp.arange(PEOPLE))
    wanted, own_gradients = jax.value_and_grad(compute, (0, 1))(params["classifier"], embeddings, labels)
    assert value == wanted
    assert_same(gradients, own_gradients)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "arcface"])
def test_the_mean_loss_over_samples_rises_with_the_ratio_to_the_full_one(loss):
    """A softmax over fewer classes is easier; it nears the full one as the sample grows."""
    recipe = dataclasses.replace(RECIPE, loss=loss, label_smoothing=0.0, batch_size=2)
    params, labels = make_params(recipe), jnp.array([3, 19])
    embeddings = jax.random.normal(jax.random.key(0), (2, DIM))
    graph = nnx.split(IdentityClassifier(DIM, PEOPLE, recipe, rngs=nnx.Rngs(0)), nnx.Param)[0]
    keys = jax.random.split(jax.random.key(5), 200)

    def average(ratio):
        sampling = ClassSampling(dataclasses.replace(recipe, class_sampling=ratio), params, PEOPLE)

        def compute(key, labels):
            classes = sampling.draw(key, labels, BATCH_AXIS)
            classifier = cut(sampling.take(join(params), classes), sampling.shapes)["classifier"]
            own = sampling.renumber(labels, classes)
            return compute_loss(nnx.merge(graph, classifier)(embeddings), own, jnp.float32(0.1), recipe)

        mapped = jax.vmap(compute, in_axes=(0, None))
        return float(on_devices(lambda keys, labels: mapped(keys, labels)[None], 1, keys, labels).mean())

    losses = [average(ratio) for ratio in (0.2, 0.5, 0.9, 1.0)]
    assert losses == sorted(losses)
    assert losses[2] == pytest.approx(losses[3], rel=0.1)
    assert losses[0] < 0.8 * losses[3]


# ------------------------------------------------------------------------------ the setting


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_a_ratio_is_more_than_0_and_at_most_1(ratio):
    with pytest.raises(SpecError, match="recipe.class_sampling=.* must be between 1e-06 and 1.0"):
        RecipeSpec(class_sampling=ratio)


def test_a_ratio_of_1_is_what_was_and_any_other_another_trial():
    trial = TrialSpec()
    assert "class_sampling" not in to_plain(trial)["recipe"]
    for ratio, same in ((1, True), (1.0, True), (0.5, False)):
        other = dataclasses.replace(trial, recipe=RecipeSpec(class_sampling=ratio))
        assert (trial_key(other, "faces") == trial_key(trial, "faces")) == same


def test_a_ratio_below_what_a_batch_may_have_is_said_in_one_line():
    with pytest.warns(
        UserWarning, match="of 52 classes is 5, but a batch may contain 32: each step uses 32$"
    ) as caught:
        warn_of_full(RecipeSpec(class_sampling=0.1), 52)
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings(action="error"):
        warn_of_full(RecipeSpec(class_sampling=0.1), 320)
        warn_of_full(RecipeSpec(class_sampling=0.29, batch_size=2), 100)
        warn_of_full(RecipeSpec(), 5)


def test_a_classifier_too_large_for_its_indices_is_refused():
    params = {"classifier": {"kernel": jax.ShapeDtypeStruct((512, 5_000_000), jnp.float32)}}
    with pytest.raises(SpecError, match="a classifier of 5000000 classes with 512 weights each is too large"):
        ClassSampling(RECIPE, params, 5_000_000)
    ClassSampling(WHOLE, params, 5_000_000)
