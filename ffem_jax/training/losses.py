"""What training minimises, and the margins that some losses ask for."""

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


def add_margin(cosines: jax.Array, labels: jax.Array, margin: jax.Array | float, loss: str) -> jax.Array:
    """Cosines [N, people] of which each image's own person's, by labels [N], is made harder to keep large.

    arcface: cos(angle + margin), margin in radians (Deng et al., CVPR 2019). Where angle + margin is more than pi it
    is cosine - margin * sin(margin), the authors' way to keep it falling. cosface: cosine - margin (Wang et al.,
    CVPR 2018). A margin of 0 changes nothing.
    """
    own = jnp.take_along_axis(cosines, labels[:, None], axis=1)
    if loss == "arcface":
        # The sine's slope has no bound towards a cosine of 1. It is stopped there, an angle of 0.001, where a cosine
        # in float32 tells no more; nowhere is the result wrong by more than 0.001.
        sine = jnp.sqrt(jnp.maximum(1 - own**2, 1e-6))
        turned = own * jnp.cos(margin) - sine * jnp.sin(margin)
        harder = jnp.where(own > -jnp.cos(margin), turned, own - margin * jnp.sin(margin))
    else:
        harder = own - margin
    return jnp.where(jax.nn.one_hot(labels, cosines.shape[1], dtype=bool), harder, cosines)


def normalize(vectors: jax.Array, axis: int) -> jax.Array:
    """Vectors along `axis` at unit length; one that is all zeros stays so, with a gradient that is finite."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=axis, keepdims=True) + 1e-12)
