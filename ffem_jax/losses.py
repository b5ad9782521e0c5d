"""What training minimises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def compute_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Mean softmax cross-entropy. logits [N, people], labels [N] -> a scalar, in nats.

    label_smoothing spreads that share of each target evenly over all people (Szegedy et al., CVPR 2016).
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def normalize(vectors: jax.Array, axis: int) -> jax.Array:
    """Vectors along `axis` at unit length; one that is all zeros stays so, with a gradient that is finite."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=axis, keepdims=True) + 1e-12)
