"""bfloat16 for the arithmetic of a network while it trains; what it learns and what is measured stay float32.

Kernels are rounded to bfloat16 where they are used, and so are the maps between layers; the gradient of a rounding is
the identity, so that parameters, gradients and the optimiser are float32. BatchNorm takes its sums and normalises in
float32 and rounds what it gives, as mixed precision does in Flax's linen and in PyTorch's autocast. The last layer,
which makes the embedding, is float32 as in insightface: it costs little, and a loss multiplies its errors by
recipe.scale.

References:
    Micikevicius et al., Mixed Precision Training, ICLR 2018; Kalamkar et al., 2019, for bfloat16, whose range needs no
    scaling of the loss.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models.normalization import PReLU

# Modules whose parameters stay float32: each multiplies or adds to every position of a map, so that its gradient is a
# sum over all of them.
_FINE = (nnx.BatchNorm, PReLU)
# The layer that makes the embedding.
_LAST = ("network", "head", "embedding")


class Precision:
    """How the network in a FaceClassifier computes while it trains.

    Args:
        name: one of `specs.recipe.PRECISIONS`.
        model: a FaceClassifier; shapes in place of arrays will do.
        params: its parameters, or their shapes.
    """

    def __init__(self, name: str, model: nnx.Module, params: Any):
        self.dtype: Any = jnp.dtype(name)
        fine = {path for path, module in nnx.iter_modules(model) if isinstance(module, _FINE)} | {_LAST}
        self._rounded = jax.tree.map_with_path(
            lambda path, _: path[0].key == "network" and tuple(part.key for part in path[:-1]) not in fine, params
        )

    def round_params(self, params: Any) -> Any:
        """`params` with the network's kernels in this precision; the classifier's stay as they are."""
        if self.dtype == jnp.float32:
            return params
        return jax.tree.map(lambda leaf, rounded: leaf.astype(self.dtype) if rounded else leaf, params, self._rounded)

    def prepare(self, model: Any) -> None:
        """Make each BatchNorm of a FaceClassifier compute in float32 and give this precision, the last one float32."""
        if self.dtype == jnp.float32:
            return
        model.set_attributes(nnx.BatchNorm, dtype=self.dtype, promote_dtype=_keep_types)
        if model.network.head.norm is not None:
            model.network.head.norm.dtype = jnp.float32


def _keep_types(values: Any, dtype: Any) -> Any:
    """In place of Flax's own, which rounds the statistics too."""
    return values


def warn_of_slow(name: str) -> None:
    """Say that `name` is slower where it is: no CPU kernel of ours takes it."""
    if name != "float32" and jax.default_backend() == "cpu":
        warnings.warn(
            f"recipe.precision={name} is slower than float32 on a CPU: the compiled kernels compute in float32 alone, "
            "and plain JAX stands in for them",
            stacklevel=2,
        )
