"""Training losses, and the margins that some of them apply.

`specs/recipe.py` declares the losses and the settings that each reads.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ffem_jax.specs.recipe import RecipeSpec

# (cosines [N, 1] between images and their own class, margin) -> cosines that are harder to keep large.
Harden = Callable[[jax.Array, jax.Array | float], jax.Array]


def compute_softmax(logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """Return the cross-entropy of `logits` without a margin. Shapes as in `compute_cross_entropy`."""
    return compute_cross_entropy(logits, labels, recipe.label_smoothing)


def compute_arcface(logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """Return the cross-entropy with a margin on the angle, in radians; see `add_to_angle`.

    Args:
        logits: scaled cosines, [N, num_classes].
        labels: [N].
        margin: this step's margin, a scalar.

    Returns:
        A scalar, in nats.

    References:
        ArcFace: Deng et al., CVPR 2019.
    """
    return _compute_with_margin(logits, labels, margin, recipe, add_to_angle)


def compute_cosface(logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """Return the cross-entropy with a margin on the cosine. Arguments as in `compute_arcface`.

    References:
        CosFace: Wang et al., CVPR 2018.
    """
    return _compute_with_margin(logits, labels, margin, recipe, subtract_from_cosine)


def _compute_with_margin(
    logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec, harden: Harden
) -> jax.Array:
    cosines = add_margin(logits / recipe.scale, labels, margin, harden)
    return compute_cross_entropy(recipe.scale * cosines, labels, recipe.label_smoothing)


def compute_cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Return the mean softmax cross-entropy.

    Args:
        logits: [N, num_classes].
        labels: [N], in 0 to num_classes - 1.
        label_smoothing: the share of each target that is spread evenly over all classes.

    Returns:
        A scalar, in nats.

    References:
        Label smoothing: Szegedy et al., CVPR 2016.
    """
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def add_margin(cosines: jax.Array, labels: jax.Array, margin: jax.Array | float, harden: Harden) -> jax.Array:
    """Return cosines [N, num_classes] with `harden` applied to each image's own class, by labels [N].

    A margin of 0 changes nothing.
    """
    own = jnp.take_along_axis(cosines, labels[:, None], axis=1)
    harder = harden(own, margin)
    return jnp.where(jax.nn.one_hot(labels, cosines.shape[1], dtype=bool), harder, cosines)


def add_to_angle(cosines: jax.Array, margin: jax.Array | float) -> jax.Array:
    """Return cos(angle + margin), the margin in radians.

    If angle + margin exceeds pi, return cosine - margin * sin(margin), which keeps it decreasing, as in the authors'
    code.

    References:
        ArcFace: Deng et al., CVPR 2019.
    """
    # The slope of the sine is unbounded near a cosine of 1. It is clipped at an angle of 0.001, the resolution of a
    # float32 cosine; the error of the result is at most 0.001.
    sine = jnp.sqrt(jnp.maximum(1 - cosines**2, 1e-6))
    turned = cosines * jnp.cos(margin) - sine * jnp.sin(margin)
    return jnp.where(cosines > -jnp.cos(margin), turned, cosines - margin * jnp.sin(margin))


def subtract_from_cosine(cosines: jax.Array, margin: jax.Array | float) -> jax.Array:
    """Return cosine - margin.

    References:
        CosFace: Wang et al., CVPR 2018.
    """
    return cosines - margin


def normalize(vectors: jax.Array, axis: int) -> jax.Array:
    """Return vectors L2-normalised along `axis`; a zero vector stays zero, with a finite gradient."""
    return vectors * jax.lax.rsqrt(jnp.sum(vectors**2, axis=axis, keepdims=True) + 1e-12)
