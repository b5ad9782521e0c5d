"""Trainings by sampled softmax: what a step moves and what it leaves, its accuracy and its memory."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from made_sampling import RECIPE, WHOLE, draw_people
from made_trainers import NETWORK, SIDE, assert_same, measure_drawn_faces

from ffem_jax.models.vectors import join
from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.training.program import build_program
from ffem_jax.training.recipes import Schedule
from ffem_jax.training.step import BATCH_AXIS, EpochMetrics, TrainingFaces
from ffem_jax.training.trainer import Trainer


@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_a_step_moves_the_sampled_columns_alone_their_momentum_and_decay_too(optimizer):
    recipe = dataclasses.replace(RECIPE, epochs=1, optimizer=optimizer, learning_rate=0.01, schedule="constant")
    trainer = Trainer(NETWORK, recipe, [0], *draw_people())
    before = jax.tree.map(np.asarray, trainer.init())
    # Momentum that would move every column, if it were let.
    vector = np.random.default_rng(0).normal(size=join(before.params).size).astype(np.float32)
    optimizer_state = jax.tree.map(
        lambda leaf: np.abs(vector) if leaf.shape == vector.shape else leaf, before.optimizer
    )
    start = before._replace(optimizer=optimizer_state)
    state, _ = trainer.run_steps(
        jax.device_put(start, jax.tree.leaves(trainer.init())[0].sharding), trainer.zero_metrics(), 0, 0, 1
    )
    kernel, old = (np.asarray(s.params["classifier"]["kernel"]) for s in (state, before))
    moved = (kernel != old).any(axis=0)
    assert moved.sum() == 8
    assert (kernel != old)[:, moved].all()
    everyone = jax.tree.leaves(before.params)
    assert kernel.size == everyone[0].size
    for leaf in jax.tree.leaves(state.optimizer):
        if leaf.shape == vector.shape:
            changed = (np.asarray(leaf) != np.abs(vector))[: kernel.size].reshape(kernel.shape)
            np.testing.assert_array_equal(changed.any(axis=0), moved)
    # The network moves whatever was sampled.
    assert (np.asarray(state.params["network"]["head"]["embedding"]["kernel"]) != everyone[-1].flat[0]).all()


def fit(recipe, seeds=(0,), **options):
    return Trainer(NETWORK, recipe, list(seeds), *draw_people(), **options).fit()


@pytest.fixture(scope="module")
def sampled():
    return fit(RECIPE)


def test_a_training_repeats_itself_and_differs_from_the_full_one(sampled):
    assert fit(RECIPE).history == sampled.history
    assert fit(WHOLE).history.loss != sampled.history.loss
    assert np.isfinite(sampled.history.loss).all()


def test_a_training_that_goes_on_makes_the_same_steps(sampled):
    trainer = Trainer(NETWORK, RECIPE, [0], *draw_people())
    kept = []
    trainer.fit(stop_epoch=1, on_epoch=lambda _, *what: kept.append(copy.deepcopy(what)))
    resumed = trainer.fit(restored=(1, *kept[0]))
    assert_same(resumed.state, sampled.state)


@pytest.mark.slow
def test_images_a_batch_at_a_time_and_seeds_side_by_side_train_alike(sampled):
    fed = fit(RECIPE, feed=True)
    np.testing.assert_allclose(fed.history.loss, sampled.history.loss, rtol=1e-4)
    together = fit(RECIPE, seeds=(0, 1))
    np.testing.assert_allclose(together.history.loss[0][0], sampled.history.loss[0][0], rtol=1e-3)
    assert together.history.loss[0][0] != together.history.loss[0][1]


@pytest.mark.slow
def test_any_number_of_devices_trains_alike(monkeypatch):
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=8, optimizer="sgd", learning_rate=0.02)

    def train(cores):
        monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:cores])
        trainer = Trainer(NETWORK, recipe, [0], *draw_people())
        assert trainer.device_count == cores
        return trainer.fit()

    one, two = train(1), train(2)
    np.testing.assert_allclose(one.history.loss, two.history.loss, rtol=1e-4)
    np.testing.assert_allclose(one.history.train_accuracy, two.history.train_accuracy, atol=0.03)
    for left, right in zip(jax.tree.leaves(one.state.params), jax.tree.leaves(two.state.params), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_the_training_accuracy_is_among_all_people():
    """With a rate of 0 a sampled training sees the very networks that a full one does."""
    still = dataclasses.replace(RECIPE, learning_rate=0.0, epochs=1)
    accuracies = [
        fit(dataclasses.replace(still, class_sampling=ratio)).history.train_accuracy for ratio in (0.2, 0.4, 1.0)
    ]
    assert accuracies[0] == accuracies[1] == accuracies[2]


@pytest.mark.slow
def test_a_teacher_s_centres_are_sampled_too():
    images, labels, train, test = draw_people()
    targets = np.random.default_rng(2).normal(size=(len(labels), 6)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    recipe = dataclasses.replace(RECIPE, epochs=1, distill_centres=1.0, distill_relation=1.0)
    training = Trainer(NETWORK, recipe, [0], images, labels, train, test, targets).fit()
    whole = Trainer(
        NETWORK, dataclasses.replace(recipe, class_sampling=1.0), [0], images, labels, train, test, targets
    ).fit()
    assert 0 < training.history.loss[0][0] < whole.history.loss[0][0]


@pytest.mark.slow
def test_on_drawn_faces_half_of_the_people_per_step_are_enough():
    """Where the sample is hardly more than the batch the accuracy is less: docs/large-sets.md says so."""
    recipe = RecipeSpec(epochs=20, batch_size=20)
    found, wanted = (
        measure_drawn_faces(100, 8, dataclasses.replace(recipe, class_sampling=ratio)) for ratio in (0.5, 1.0)
    )
    # Chance is 0.01; 400 test images: 0.1 is three deviations of the difference.
    assert min(found, wanted) > 0.1
    assert found == pytest.approx(wanted, abs=0.1)


# ------------------------------------------------------------------------------ memory


def trace_steps(people, recipe):
    """The traced program of a training on `people`, on one device."""
    mesh = Mesh(np.asarray(jax.devices()[:1]), (BATCH_AXIS,))
    program = build_program(NETWORK, SIDE, people, recipe, mesh)
    key = jax.random.key(0)
    indices = jax.ShapeDtypeStruct((64,), jnp.int32)
    faces = TrainingFaces(jax.ShapeDtypeStruct((64, SIDE, SIDE, 3), jnp.uint8), indices, indices, 64)
    schedule = Schedule(*[jax.ShapeDtypeStruct((64 // recipe.batch_size,), jnp.float32)] * 3)
    state = jax.eval_shape(program.init, key)
    return program.train_steps.trace(state, EpochMetrics.zero(), key, faces, schedule, 0, 0, 2)


def test_no_logits_of_all_people_are_computed():
    for recipe, computes in ((WHOLE, True), (RECIPE, False)):
        text = str(trace_steps(3000, recipe).jaxpr)
        assert (f"f32[{recipe.batch_size},3000]" in text) == computes
    assert f"f32[{RECIPE.batch_size},1200]" in text


@pytest.mark.slow
def test_a_step_needs_memory_for_the_sample_and_not_for_all():
    """Beyond the state itself: logits and gradient are of the sample, of the state a copy on one vector is made."""
    people = 50_000
    needed = [
        trace_steps(people, dataclasses.replace(WHOLE, class_sampling=ratio, batch_size=32))
        .lower()
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for ratio in (1.0, 0.02)
    ]
    classifier, logits = 4 * people * NETWORK.embedding_dim, 4 * people * 32
    # On one vector, and what the smaller things of a step take.
    assert needed[1] < classifier + logits / 2
    assert needed[0] - needed[1] > 2 * classifier + 2 * logits
