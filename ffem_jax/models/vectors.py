"""A tree of arrays as one vector and back: memory copies by the compiled kernels if these are used."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ffem_jax.kernels import calls
from ffem_jax.models.convolutions import get_convolution_form


def join(tree: Any) -> jax.Array:
    """Return the leaves of `tree`, float32, concatenated into one vector."""
    return calls.join(jax.tree.leaves(tree)) if get_convolution_form() == "kernels" else ravel_pytree(tree)[0]


def cut(vector: jax.Array, shapes: Any) -> Any:
    """Return the inverse of `join`: a tree shaped like `shapes`, which holds arrays or their shapes."""
    leaves, structure = jax.tree.flatten(shapes)
    if get_convolution_form() == "kernels":
        return jax.tree.unflatten(structure, calls.split(vector, [leaf.shape for leaf in leaves]))
    parts = jnp.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
