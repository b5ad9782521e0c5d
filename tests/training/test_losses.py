"""The loss against NumPy's log-sum-exp; margins against arccos; unit vectors with gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ffem_jax.training.losses import (
    add_margin,
    add_to_angle,
    compute_cross_entropy,
    normalize,
    subtract_from_cosine,
)

HARDEN = {"arcface": add_to_angle, "cosface": subtract_from_cosine}


def make_logits(scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return (scale * random.normal(size=(6, 5))).astype(np.float32), np.asarray([0, 1, 2, 3, 4, 0])


def compute_log_probabilities(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("scale", [3.0, 1e3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_equals_numpy(scale, smoothing):
    logits, labels = make_logits(scale)
    log_probabilities = compute_log_probabilities(logits)
    own = log_probabilities[np.arange(6), labels]
    wanted = -np.mean((1 - smoothing) * own + smoothing * log_probabilities.mean(axis=1))
    found = compute_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing)
    assert found.shape == ()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_knowing_nothing_costs_the_logarithm_of_the_number_of_people():
    labels = jnp.arange(7)
    for smoothing in (0.0, 0.3):
        np.testing.assert_allclose(compute_cross_entropy(jnp.zeros((7, 7)), labels, smoothing), np.log(7), rtol=1e-6)


def test_the_gradient_is_probability_less_target():
    logits, labels = make_logits()
    gradient = jax.grad(compute_cross_entropy)(jnp.asarray(logits), jnp.asarray(labels), 0.1)
    targets = 0.9 * np.eye(5)[labels] + 0.1 / 5
    wanted = (np.exp(compute_log_probabilities(logits)) - targets) / 6
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-7)


# ------------------------------------------------------------------------------------ margins


def make_cosines() -> tuple[np.ndarray, np.ndarray]:
    """Own cosines from nearly -1 to nearly 1, on both sides of angle + margin = pi."""
    cosines = np.random.default_rng(2).uniform(-0.9, 0.9, (9, 4))
    labels = np.arange(9) % 4
    cosines[np.arange(9), labels] = [-0.999, -0.97, -0.9, -0.5, 0.0, 0.3, 0.7, 0.95, 0.999]
    return cosines, labels


def add_margin_plainly(cosines: np.ndarray, labels: np.ndarray, margin: float, loss: str) -> np.ndarray:
    found = cosines.copy()
    for row, label in enumerate(labels):
        angle = np.arccos(cosines[row, label])
        if loss == "cosface":
            found[row, label] -= margin
        elif angle + margin <= np.pi:
            found[row, label] = np.cos(angle + margin)
        else:
            found[row, label] -= margin * np.sin(margin)
    return found


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_a_margin_is_that_of_its_definition(float64, loss, margin):
    cosines, labels = make_cosines()
    found = add_margin(jnp.asarray(cosines), jnp.asarray(labels), margin, HARDEN[loss])
    np.testing.assert_allclose(found, add_margin_plainly(cosines, labels, margin, loss), rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_a_margin_in_float32_is_that_of_float64(loss):
    cosines, labels = make_cosines()
    found = add_margin(jnp.asarray(cosines, jnp.float32), jnp.asarray(labels), jnp.float32(0.4), HARDEN[loss])
    np.testing.assert_allclose(found, add_margin_plainly(cosines, labels, 0.4, loss), rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_the_gradient_of_a_loss_with_a_margin_is_that_of_finite_differences(float64, loss):
    cosines, labels = map(jnp.asarray, make_cosines())

    def compute(cosines):
        return compute_cross_entropy(8 * add_margin(cosines, labels, 0.3, HARDEN[loss]), labels, 0.1)

    check_grads(jax.jit(compute), (cosines,), order=1, modes=["fwd", "rev"], eps=1e-7, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_a_margin_of_nothing_changes_neither_cosine_nor_gradient(loss):
    cosines, labels = (jnp.asarray(array) for array in make_cosines())

    def compute(cosines, margin):
        judged = cosines if margin is None else add_margin(cosines, labels, margin, HARDEN[loss])
        return compute_cross_entropy(8 * judged, labels)

    assert compute(cosines, 0.0) == compute(cosines, None)
    np.testing.assert_array_equal(jax.grad(compute)(cosines, 0.0), jax.grad(compute)(cosines, None))


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 0.9])
def test_a_margin_lowers_the_own_cosine_and_keeps_the_order(loss, margin):
    own = np.linspace(-1, 1, 2001)[:, None]
    found = add_margin(jnp.asarray(own), jnp.zeros(2001, int), margin, HARDEN[loss])[:, 0]
    assert (found <= own[:, 0] + 1e-6).all()
    assert (np.diff(found) >= -1e-6).all() if loss == "cosface" or not margin else (np.diff(found[:-2]) > 0).all()


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
@pytest.mark.parametrize("turn", [0.0, 1e-8, 1e-5, 1e-3, np.pi])
def test_an_embedding_on_its_person_s_vector_has_a_small_finite_gradient(loss, turn):
    """Along the person's vector, next to it and against it: as the training step has it, in float32."""
    person = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    embedding = jnp.asarray([[np.cos(turn), np.sin(turn)]], jnp.float32) * 7

    def compute(embedding):
        cosines = normalize(embedding, 1) @ person.T
        return compute_cross_entropy(16 * add_margin(cosines, jnp.asarray([0]), 0.5, HARDEN[loss]), jnp.asarray([0]))

    gradient = jax.grad(compute)(embedding)
    assert np.isfinite(gradient).all()
    assert float(jnp.linalg.norm(gradient)) < 16


# ------------------------------------------------------------------------------- unit vectors


@pytest.mark.parametrize("axis", [0, 1])
def test_normalize_keeps_the_direction_at_unit_length(axis):
    vectors = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32) * 50
    found = normalize(jnp.asarray(vectors), axis)
    np.testing.assert_allclose(found, vectors / np.linalg.norm(vectors, axis=axis, keepdims=True), rtol=1e-5)


def test_normalize_leaves_a_zero_vector_with_a_finite_gradient():
    vectors = jnp.asarray([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(normalize(vectors, 1), [[0, 0], [0.6, 0.8]], rtol=1e-6)
    gradient = jax.grad(lambda v: normalize(v, 1).sum())(vectors)
    assert np.isfinite(gradient).all()
    # Along itself a unit vector does not change.
    assert float(gradient[1] @ vectors[1]) == pytest.approx(0, abs=1e-5)
