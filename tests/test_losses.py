"""The loss against NumPy's log-sum-exp; unit vectors with gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ffem_jax.losses import compute_cross_entropy, normalize


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
