"""What a teacher's vectors add to the loss: the cosine to them, their relations within a batch, their class centres.

Every function takes vectors of the student in the teacher's space, [N, feature], of any length, and targets of unit
length, and gives a scalar.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ffem_jax.specs.recipe import RecipeSpec
from ffem_jax.training.losses import compute_cross_entropy, normalize


def compute_cosine_loss(vectors: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean of 1 - cosine between vectors [N, feature] and targets [N, feature], in 0 to 2."""
    return jnp.mean(1 - jnp.sum(normalize(vectors, axis=1) * targets, axis=1))


def compute_relation_loss(vectors: jax.Array, targets: jax.Array, axis_name: str) -> jax.Array:
    """The mean square of the differences between the student's and the teacher's cosines of two images.

    Args:
        vectors: [N, feature], this device's share of the batch.
        targets: [N, feature], of the same images.
        axis_name: the mesh axis that the batch is split over: pairs are those of the whole batch.

    References:
        Park et al., Relational Knowledge Distillation, CVPR 2019; Tung and Mori, Similarity-Preserving Knowledge
        Distillation, ICCV 2019.
    """
    own = normalize(vectors, axis=1)
    difference = own @ lax.all_gather(own, axis_name, tiled=True).T
    difference -= targets @ lax.all_gather(targets, axis_name, tiled=True).T
    # An image with itself is no pair; the two cosines are 1 there.
    return jnp.sum(difference**2) / (difference.size - difference.shape[0])


def compute_centre_loss(
    vectors: jax.Array, labels: jax.Array, centres: jax.Array, scale: float, label_smoothing: float
) -> jax.Array:
    """The cross-entropy of a classifier whose class weights are the teacher's, and stay so.

    Args:
        vectors: [N, feature].
        labels: [N], of 0 to num_classes - 1.
        centres: [num_classes, feature], of unit length: the mean of the teacher's vectors of each person.
        scale: what cosines are multiplied by.
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
    """The parts that `recipe` asks for, by their weights; see the functions above. A part of weight 0 costs nothing."""
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
    """The mean target of each person who trains, at unit length.

    Args:
        targets: [image, feature], of unit length.
        labels: [image], of 0 to num_classes - 1 among the images that train.
        train: indices of those.

    Returns:
        float32 [num_classes, feature]; zeros for a person whose targets cancel.
    """
    sums = np.zeros((labels[train].max() + 1, targets.shape[1]))
    np.add.at(sums, labels[train], targets[train])
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)).astype(np.float32)
