"""Distillation losses from a teacher's vectors: cosine, relations within a batch, class centres.

Every loss takes the student's vectors in the teacher's space, [N, feature], of any norm, and L2-normalised targets, and
returns a scalar.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.training.losses import compute_cross_entropy, normalize


def compute_cosine_loss(vectors: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean of 1 - cosine between vectors [N, feature] and targets [N, feature], in 0 to 2."""
    return jnp.mean(1 - jnp.sum(normalize(vectors, axis=1) * targets, axis=1))


def compute_relation_loss(vectors: jax.Array, targets: jax.Array, axis_name: str) -> jax.Array:
    """Return the mean squared difference between the student's and the teacher's cosines over pairs of images.

    Args:
        vectors: [N, feature], this device's share of the batch.
        targets: [N, feature], of the same images.
        axis_name: the mesh axis that the batch is split over; pairs span the whole batch.

    References:
        Park et al., Relational Knowledge Distillation, CVPR 2019; Tung and Mori, Similarity-Preserving Knowledge
        Distillation, ICCV 2019.
    """
    own = normalize(vectors, axis=1)
    difference = own @ lax.all_gather(own, axis_name, tiled=True).T
    difference -= targets @ lax.all_gather(targets, axis_name, tiled=True).T
    # An image is not paired with itself: both cosines are 1 there, so only the count changes.
    return jnp.sum(difference**2) / (difference.size - difference.shape[0])


def compute_centre_loss(
    vectors: jax.Array, labels: jax.Array, centres: jax.Array, scale: float, label_smoothing: float
) -> jax.Array:
    """Return the cross-entropy of a classifier whose class weights are fixed to the teacher's class centres.

    Args:
        vectors: [N, feature].
        labels: [N], in 0 to num_classes - 1.
        centres: [num_classes, feature], L2-normalised mean of the teacher's vectors of each class.
        scale: the factor on the cosines.
        label_smoothing: as in `losses.compute_cross_entropy`.
    """
    return compute_cross_entropy(scale * normalize(vectors, axis=1) @ centres.T, labels, label_smoothing)


def compute_teaching_loss(
    vectors: jax.Array,
    targets: jax.Array,
    centres: jax.Array | None,
    labels: jax.Array,
    recipe: RecipeSpec,
    axis_name: str,
) -> jax.Array:
    """Return the weighted sum of the losses above, with the weights of `recipe`. A loss of weight 0 costs nothing."""
    loss = jnp.zeros(())
    if recipe.distill_cosine:
        loss += recipe.distill_cosine * compute_cosine_loss(vectors, targets)
    if recipe.distill_relation:
        loss += recipe.distill_relation * compute_relation_loss(vectors, targets, axis_name)
    if recipe.distill_centres:
        assert centres is not None
        smoothing = recipe.label_smoothing
        loss += recipe.distill_centres * compute_centre_loss(vectors, labels, centres, recipe.scale, smoothing)
    return loss


def compute_centres(targets: np.ndarray, labels: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return the L2-normalised mean target of each training class.

    Args:
        targets: [image, feature], L2-normalised.
        labels: [image], in 0 to num_classes - 1 for the training images.
        train: indices of the training images.

    Returns:
        float32 [num_classes, feature]; zeros for a class whose targets cancel.
    """
    sums = np.zeros((labels[train].max() + 1, targets.shape[1]))
    np.add.at(sums, labels[train], targets[train])
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)
