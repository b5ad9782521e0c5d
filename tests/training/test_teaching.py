"""What a teacher adds to the loss: against NumPy in float64, over one device and two, with its gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from made_specs import FFEM_AM

from ffem_jax.models.draws import plan_draws
from ffem_jax.specs.architecture import resolve_network
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.specs.trial import DataSpec, TeacherSpec, TrialSpec, trial_key
from ffem_jax.training.classifier import FaceClassifier, scale_gradient
from ffem_jax.training.teaching import (
    compute_centre_loss,
    compute_centres,
    compute_cosine_loss,
    compute_relation_loss,
    compute_teaching_loss,
)

TEACHER = TeacherSpec(name="vectors", path="t.npz")
DISTILL = RecipeSpec(distill_cosine=1.0, distill_relation=4.0, distill_centres=0.5)


def draw(images: int = 8, features: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a student and targets of unit length, [image, feature]."""
    random = np.random.default_rng(seed)
    vectors, targets = random.normal(size=(2, images, features))
    return vectors.astype(np.float32), unit(targets).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def on_devices(function, devices: int, *arrays):
    """`function` of arrays whose first axis is split over so many devices; the mean of what each gives."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def run(*parts):
        return jax.lax.pmean(function(*parts), "batch")

    parts = PartitionSpec("batch")
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=parts, out_specs=PartitionSpec(), check_vma=False))(*arrays)


def relate(vectors: np.ndarray, targets: np.ndarray) -> float:
    """The relation loss by its definition."""
    v, t = unit(vectors.astype(np.float64)), targets.astype(np.float64)
    pairs = [(v[i] @ v[j] - t[i] @ t[j]) ** 2 for i in range(len(v)) for j in range(len(v)) if i != j]
    return float(np.mean(pairs))


def test_the_cosine_loss_is_one_minus_the_cosine() -> None:
    vectors, targets = draw()
    wanted = np.mean(1 - (unit(vectors) * targets).sum(axis=1))
    assert float(compute_cosine_loss(vectors, targets)) == pytest.approx(wanted, abs=1e-6)
    assert float(compute_cosine_loss(3 * targets, targets)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_relations_are_those_of_the_whole_batch(devices: int) -> None:
    vectors, targets = draw()
    loss = partial(compute_relation_loss, axis_name="batch")
    assert float(on_devices(loss, devices, vectors, targets)) == pytest.approx(relate(vectors, targets), rel=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_gradient_of_the_relations_is_that_of_the_whole_batch(devices: int) -> None:
    vectors, targets = draw(4, 3)
    weights = np.eye(3, dtype=np.float32) + 0.1

    def loss(weights, vectors, targets):
        return compute_relation_loss(vectors @ weights, targets, "batch")

    found = on_devices(lambda v, t: jax.grad(loss)(weights, v, t), devices, vectors, targets)
    step = 1e-4
    for place in np.ndindex(3, 3):
        up, down = weights.astype(np.float64).copy(), weights.astype(np.float64).copy()
        up[place] += step
        down[place] -= step
        slope = (relate(vectors @ up, targets) - relate(vectors @ down, targets)) / (2 * step)
        assert float(found[place]) == pytest.approx(slope, abs=2e-4)


def test_the_centres_are_the_mean_targets_of_those_who_train() -> None:
    _, targets = draw(6)
    labels, train = np.array([0, 0, 1, 1, 7, 7]), np.array([0, 1, 2, 3])
    centres = compute_centres(targets, labels, train)
    assert centres.shape == (2, 5)
    assert np.allclose(centres, unit(np.array([targets[:2].sum(axis=0), targets[2:4].sum(axis=0)])), atol=1e-6)
    opposite = compute_centres(np.array([[1.0, 0], [-1.0, 0]], np.float32), np.array([0, 0]), np.array([0, 1]))
    assert opposite.tolist() == [[0, 0]]  # and no NaN


def test_the_classifier_of_centres_is_a_softmax_of_scaled_cosines() -> None:
    vectors, targets = draw()
    labels, centres = np.arange(8) % 3, targets[:3]
    logits = 16 * unit(vectors) @ centres.T
    wanted = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(8), labels])
    assert float(compute_centre_loss(vectors, jnp.asarray(labels), centres, 16.0, 0.0)) == pytest.approx(
        wanted, rel=1e-4
    )


@pytest.mark.parametrize("part", ["distill_cosine", "distill_relation", "distill_centres"])
def test_every_part_counts_by_its_weight_and_falls_as_it_is_followed(part: str) -> None:
    vectors, targets = draw()
    labels, centres = jnp.arange(8) % 3, unit(targets[:3] + 0.1)

    def loss(vectors, weight=1.0):
        recipe = RecipeSpec(**{part: weight}, label_smoothing=0.0)
        return on_devices(lambda v: compute_teaching_loss(v, targets, centres, labels, recipe, "batch"), 1, vectors)

    assert float(loss(vectors, 3.0)) == pytest.approx(3 * float(loss(vectors)), rel=1e-5)
    slope = jax.grad(loss)(vectors)
    assert np.isfinite(slope).all()
    assert loss(vectors - 0.05 * slope / np.abs(slope).max()) < loss(vectors)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 3.0])
def test_labels_pass_on_their_share_of_the_gradient(weight: float) -> None:
    values = jnp.arange(4.0)
    assert np.array_equal(scale_gradient(values, weight), values)
    slope = jax.grad(lambda v: jnp.sum(scale_gradient(v, weight) ** 2))(values)
    assert np.allclose(slope, weight * 2 * values)


@pytest.mark.parametrize(("features", "projects"), [(0, False), (128, False), (20, True)])
def test_a_projection_stands_where_the_teacher_s_vectors_have_another_length(features: int, projects: bool) -> None:
    network = resolve_network(FFEM_AM)

    model, _ = plan_draws(lambda keys: FaceClassifier(network, 64, 5, RecipeSpec(), features, rngs=keys))
    assert (model.projection is not None) == projects
    assert network.embedding_dim == 128


def test_a_recipe_and_a_teacher_go_together() -> None:
    with pytest.raises(SpecError, match=r"distils without a teacher; set teacher=vectors\|onnx\|ffem"):
        TrialSpec(recipe=DISTILL)
    with pytest.raises(SpecError, match=r"recipe=modern does not use teacher=vectors; set recipe=distill"):
        TrialSpec(teacher=TEACHER)
    with pytest.raises(SpecError, match=r"teacher=onnx needs teacher.path"):
        TeacherSpec(name="onnx")


def test_a_teacher_enters_the_key_by_what_it_says() -> None:
    plain = TrialSpec(data=DataSpec(name="synthetic"))
    assert "teacher" not in str(trial_key(plain))
    taught = TrialSpec(data=DataSpec(name="synthetic"), recipe=DISTILL, teacher=TEACHER)
    elsewhere = TrialSpec(data=DataSpec(name="synthetic"), recipe=DISTILL, teacher=TeacherSpec("vectors", "other.npz"))
    keys = [trial_key(one, "faces", "", "said") for one in (taught, elsewhere)]
    assert keys[0] == keys[1] != trial_key(taught, "faces", "", "said otherwise")
    assert trial_key(taught) != trial_key(elsewhere)  # as long as nobody has looked
