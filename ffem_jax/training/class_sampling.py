"""Sampled softmax: each step uses the classifier's weights for a subset of the classes, which includes the batch's.

The logits and the gradient cover the sampled classes only. The columns of all other classes and their entries in the
optimiser's state do not change: neither momentum nor weight decay moves a class that was not sampled, as in the
authors' code. The sample depends only on (seed, epoch, step), and all devices draw the same one.

The classifier's parameters come first in the vector of all parameters, as rows of `num_classes` numbers: the bias, if
there is one, then one row per embedding dimension. A class is a column of these rows.

References:
    An et al., Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC,
    CVPR 2022, https://arxiv.org/abs/2203.15565; `PartialFC_V2` in insightface, where the ratio is `sample_rate`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ffem_jax.models.vectors import cut
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.recipe import RecipeSpec

# `predict` scans all classes in at most this many parts: many small products take longer than few large ones.
MOST_PARTS = 16
# Folded into a step's key; distinct from the numbers that augment_images folds in.
_DRAW = 1000


def count_sampled(recipe: RecipeSpec, num_classes: int) -> int:
    """Return the number of classes per step: the ratio's, but at least the batch size and at most all classes."""
    return min(num_classes, max(_count_asked(recipe, num_classes), recipe.batch_size))


def _count_asked(recipe: RecipeSpec, num_classes: int) -> int:
    # Rounded first: 0.29 * 100 is 28.999999999999996.
    return int(round(recipe.class_sampling * num_classes, 6))


class ClassSampling:
    """Chooses the classes of a step, and reads and writes their columns in the vector of all parameters.

    Args:
        recipe: sets the ratio, `class_sampling`.
        params: shapes of a FaceClassifier's parameters.
        num_classes: the number of classes in training.

    Attributes:
        count: classes per step.
        shapes: the shapes of `params` within a step, with `count` classes.

    Raises:
        SpecError: the classifier has more parameters than an int32 index can address.
    """

    def __init__(self, recipe: RecipeSpec, params: Any, num_classes: int):
        self.num_classes = num_classes
        self.count = count_sampled(recipe, num_classes)
        self.samples = self.count < num_classes
        leaves = jax.tree.leaves(params["classifier"])
        assert jax.tree.leaves(params)[0] is leaves[0]
        self._rows = sum(leaf.size for leaf in leaves) // num_classes
        self._size = sum(leaf.size for leaf in jax.tree.leaves(params))
        if self.samples and self._rows * num_classes > np.iinfo(np.int32).max:
            raise SpecError(
                f"recipe.class_sampling: a classifier of {num_classes} classes with {self._rows} weights each is too "
                "large; use fewer identities or a smaller arch.embedding_dim"
            )
        self.shapes = jax.tree.map_with_path(
            lambda path, leaf: _resize(leaf, self.count) if path[0].key == "classifier" else leaf, params
        )

    def draw(self, step_key: jax.Array, labels: jax.Array, axis_name: str) -> jax.Array | None:
        """Draw the classes of a step, int32 [count], in ascending order; None means all.

        Args:
            step_key: the step's key, the same on all devices.
            labels: the labels of this device's images, [N].
            axis_name: the mesh axis that the batch is split over.
        """
        if not self.samples:
            return None
        draws = jax.random.uniform(jax.random.fold_in(step_key, _DRAW), (self.num_classes,))
        draws = draws.at[lax.all_gather(labels, axis_name, tiled=True)].set(2.0)
        return jnp.sort(lax.top_k(draws, self.count)[1])

    def renumber(self, labels: jax.Array, classes: jax.Array | None) -> jax.Array:
        """Labels among all classes -> labels among the classes of the step."""
        return labels if classes is None else jnp.searchsorted(classes, labels)

    def take(self, tree: Any, classes: jax.Array | None) -> Any:
        """Return `tree` with each full parameter vector reduced to the columns of `classes`; other leaves unchanged."""
        if classes is None:
            return tree
        return jax.tree.map(lambda leaf: self._take(leaf, classes) if self._is_vector(leaf) else leaf, tree)

    def put(self, tree: Any, part: Any, classes: jax.Array | None) -> Any:
        """Return `tree` with `part` written back: the changed result of `take`."""
        if classes is None:
            return part
        return jax.tree.map(lambda old, new: self._put(old, new, classes) if self._is_vector(old) else new, tree, part)

    def _is_vector(self, leaf: jax.Array) -> bool:
        return leaf.shape == (self._size,)

    def _places(self, classes: jax.Array) -> jax.Array:
        return (jnp.arange(self._rows)[:, None] * self.num_classes + classes).reshape(-1)

    def _take(self, vector: jax.Array, classes: jax.Array) -> jax.Array:
        return jnp.concatenate([self._take_columns(vector, classes), vector[self._rows * self.num_classes :]])

    def _take_columns(self, vector: jax.Array, classes: jax.Array) -> jax.Array:
        return vector.at[self._places(classes)].get(mode="promise_in_bounds", indices_are_sorted=True)

    def _put(self, vector: jax.Array, part: jax.Array, classes: jax.Array) -> jax.Array:
        columns, rest = jnp.split(part, [self._rows * len(classes)])
        vector = vector.at[self._places(classes)].set(
            columns, mode="promise_in_bounds", indices_are_sorted=True, unique_indices=True
        )
        return lax.dynamic_update_slice(vector, rest, (self._rows * self.num_classes,))

    def predict(
        self, classify: Callable[[Any], jax.Array], vector: jax.Array, logits: jax.Array, classes: jax.Array
    ) -> jax.Array:
        """Return the class with the largest logit among all classes; unsampled logits are computed in parts.

        Args:
            classify: the classifier's parameters for [class] classes -> logits [N, class].
            vector: all parameters, before or after the step: the unsampled columns are the same.
            logits: [N, count], of the sampled classes.
            classes: the sampled classes.

        Returns:
            int32 [N]; the lowest class of equal logits.
        """
        size = max(self.count, -(-self.num_classes // MOST_PARTS))
        shapes = jax.tree.map(lambda leaf: _resize(leaf, size), self.shapes["classifier"])
        sampled = jnp.zeros(self.num_classes, bool).at[classes].set(True)

        def look(part: Any, best: Any) -> Any:
            # The last part starts early enough to have the full size; classes seen twice change nothing.
            seen = jnp.minimum(part * size, self.num_classes - size) + jnp.arange(size)
            others = jnp.where(sampled[seen], -jnp.inf, classify(cut(self._take_columns(vector, seen), shapes)))
            highest, at = others.max(axis=1), seen[jnp.argmax(others, axis=1)]
            better = (highest > best[0]) | ((highest == best[0]) & (at < best[1]))
            return jnp.where(better, highest, best[0]), jnp.where(better, at, best[1])

        own = logits.max(axis=1), classes[jnp.argmax(logits, axis=1)]
        return lax.fori_loop(0, -(-self.num_classes // size), look, own)[1]


def _resize(leaf: Any, count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*leaf.shape[:-1], count), leaf.dtype)


def warn_of_full(recipe: RecipeSpec, num_classes: int) -> None:
    """Warn if a step takes more classes than the ratio specifies, because a batch may contain that many."""
    asked, taken = _count_asked(recipe, num_classes), count_sampled(recipe, num_classes)
    if taken > asked:
        warnings.warn(
            f"recipe.class_sampling={recipe.class_sampling} of {num_classes} classes is {asked}, but a batch may "
            f"contain {taken}: each step uses {taken}",
            stacklevel=2,
        )
