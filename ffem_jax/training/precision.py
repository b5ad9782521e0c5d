"""bfloat16 arithmetic for a network in training; parameters and metrics stay float32.

Kernels are rounded to bfloat16 where they are used, and so are the maps between layers. The gradient of rounding is the
identity, so parameters, gradients and the optimiser are float32. BatchNorm sums and normalises in float32 and rounds
its output, like mixed precision in Flax's linen and PyTorch's autocast. The last layer, which computes the embedding,
is float32 as in insightface: it costs little, and the loss multiplies its errors by recipe.scale.

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

# Modules whose parameters stay float32: each parameter acts on every position of a map, so its gradient is a sum over
# all of them.
_FINE = (nnx.BatchNorm, PReLU)
# The layer that computes the embedding.
_LAST = ("network", "head", "embedding")


class Precision:
    """The arithmetic precision of a FaceClassifier's network in training.

    Args:
        name: one of `specs.recipe.PRECISIONS`.
        model: a FaceClassifier; it may hold shapes in place of arrays.
        params: its parameters, or their shapes.
    """

    def __init__(self, name: str, model: nnx.Module, params: Any):
        self.dtype: Any = jnp.dtype(name)
        fine = {path for path, module in nnx.iter_modules(model) if isinstance(module, _FINE)} | {_LAST}
        self._rounded = jax.tree.map_with_path(
            lambda path, _: path[0].key == "network" and tuple(part.key for part in path[:-1]) not in fine, params
        )

    def round_params(self, params: Any) -> Any:
        """Return `params` with the network's kernels in this precision; the classifier's are unchanged."""
        if self.dtype == jnp.float32:
            return params
        return jax.tree.map(lambda leaf, rounded: leaf.astype(self.dtype) if rounded else leaf, params, self._rounded)

    def prepare(self, model: Any) -> None:
        """Make each BatchNorm of a FaceClassifier compute in float32 and return this precision; the last, float32."""
        if self.dtype == jnp.float32:
            return
        model.set_attributes(nnx.BatchNorm, dtype=self.dtype, promote_dtype=_keep_types)
        if model.network.head.norm is not None:
            model.network.head.norm.dtype = jnp.float32


def _keep_types(values: Any, dtype: Any) -> Any:
    """Replace Flax's own promotion, which rounds the batch statistics too."""
    return values


def warn_of_slow(name: str) -> None:
    """On a CPU, warn that `name` is slower than float32: our kernels support float32 only."""
    if name != "float32" and jax.default_backend() == "cpu":
        warnings.warn(
            f"recipe.precision={name} is slower than float32 on a CPU: the compiled kernels support float32 only, "
            "so plain JAX is used instead",
            stacklevel=2,
        )
