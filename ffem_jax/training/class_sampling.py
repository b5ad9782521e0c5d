"""Sampled softmax: in each step the classifier is that of some of the people, those of the batch among them.

The logits and the gradient are then of the sampled classes alone. The columns of all other people stay as they are, and
so do their entries of the optimiser's state: neither momentum nor weight decay moves what was not sampled, as in the
authors' code. The sample follows from (seed, epoch, step), and all devices draw the same.

The classifier's numbers lie first on the vector of all parameters, as rows of `num_classes` numbers: a bias, where
there is one, and a row for each number of the embedding. A class is a column of them.

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

# The parts that all classes are looked at in, at most: many small products take longer than few large ones.
MOST_PARTS = 16
# Folded into a step's key, beside the numbers that augment_images takes.
_DRAW = 1000


def count_sampled(recipe: RecipeSpec, num_classes: int) -> int:
    """How many classes a step takes: by the ratio, but as many as its images where that is more, and at most all."""
    return min(num_classes, max(_count_asked(recipe, num_classes), recipe.batch_size))


def _count_asked(recipe: RecipeSpec, num_classes: int) -> int:
    # Rounded first: 0.29 * 100 is 28.999999999999996.
    return int(round(recipe.class_sampling * num_classes, 6))


class ClassSampling:
    """Which classes a step takes, and their columns on the vector of all parameters.

    Args:
        recipe: with the ratio.
        params: shapes of a FaceClassifier's parameters.
        num_classes: how many people train.

    Attributes:
        count: classes in a step.
        shapes: `params` as a step has them, with `count` classes.

    Raises:
        SpecError: the classifier has more numbers than an index can tell apart.
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
                f"recipe.class_sampling: a classifier of {num_classes} people with {self._rows} numbers each is too "
                "large; take fewer people or a shorter arch.embedding_dim"
            )
        self.shapes = jax.tree.map_with_path(
            lambda path, leaf: _resize(leaf, self.count) if path[0].key == "classifier" else leaf, params
        )

    def draw(self, step_key: jax.Array, labels: jax.Array, axis_name: str) -> jax.Array | None:
        """The classes of a step, int32 [count], in ascending order; None for all.

        Args:
            step_key: of the step, on all devices the same.
            labels: of this device's images, [N].
            axis_name: the mesh axis that the batch is split over.
        """
        if not self.samples:
            return None
        draws = jax.random.uniform(jax.random.fold_in(step_key, _DRAW), (self.num_classes,))
        draws = draws.at[lax.all_gather(labels, axis_name, tiled=True)].set(2.0)
        return jnp.sort(lax.top_k(draws, self.count)[1])

    def renumber(self, labels: jax.Array, classes: jax.Array | None) -> jax.Array:
        """Labels among all classes -> labels among those of the step."""
        return labels if classes is None else jnp.searchsorted(classes, labels)

    def take(self, tree: Any, classes: jax.Array | None) -> Any:
        """`tree` of vectors of all parameters, each with the columns of `classes` alone; other leaves as they are."""
        if classes is None:
            return tree
        return jax.tree.map(lambda leaf: self._take(leaf, classes) if self._is_vector(leaf) else leaf, tree)

    def put(self, tree: Any, part: Any, classes: jax.Array | None) -> Any:
        """`tree` with `part` in it, which has been `take`n from it and changed."""
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
        """The class of the largest logit among all, for which the others' are computed some classes at a time.

        Args:
            classify: a classifier's parameters for [class] classes -> logits [N, class].
            vector: all parameters, before the step or after it: those of the others are the same.
            logits: [N, count], of the sampled classes.
            classes: the sampled ones.

        Returns:
            int32 [N], the first of equal ones.
        """
        size = max(self.count, -(-self.num_classes // MOST_PARTS))
        shapes = jax.tree.map(lambda leaf: _resize(leaf, size), self.shapes["classifier"])
        sampled = jnp.zeros(self.num_classes, bool).at[classes].set(True)

        def look(part: Any, best: Any) -> Any:
            # The last part begins early enough to be whole; what it sees again changes nothing.
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
    """Say where a step takes more classes than the ratio says, since its images may be of so many people."""
    asked, taken = _count_asked(recipe, num_classes), count_sampled(recipe, num_classes)
    if taken > asked:
        warnings.warn(
            f"recipe.class_sampling={recipe.class_sampling} of {num_classes} people is {asked}, and a batch may "
            f"have {taken}: each step takes {taken}",
            stacklevel=2,
        )
