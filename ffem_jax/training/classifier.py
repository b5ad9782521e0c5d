"""The parts that only training needs: a dense layer over the classes, and a loss. Deployment drops both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ffem_jax.models import build_model
from ffem_jax.models.draws import kernel_init
from ffem_jax.specs.architecture import NetworkSpec
from ffem_jax.specs.fields import SpecError
from ffem_jax.specs.recipe import LOSSES, RecipeSpec
from ffem_jax.specs.registry import resolve
from ffem_jax.training.losses import normalize


class IdentityClassifier(nnx.Linear):
    """Embeddings [N, embedding_dim] -> logits [N, num_classes], one class per training identity.

    For a loss that reads recipe.scale, the logits are cosines times the scale; otherwise it is a dense layer with bias.
    """

    def __init__(self, embedding_dim: int, num_classes: int, recipe: RecipeSpec, *, rngs: nnx.Rngs):
        self.scale = recipe.scale if LOSSES[recipe.loss].has_scale else None
        super().__init__(embedding_dim, num_classes, use_bias=self.scale is None, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, embeddings: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.scale is None:
            return super().__call__(embeddings)
        return self.scale * normalize(embeddings, axis=1) @ normalize(self.kernel[...], axis=0)


class FaceClassifier(nnx.Module):
    """The network, the classifier over the training identities, and for some teachers a projection.

    The projection maps embeddings to the teacher's dimension if the two dimensions differ.

    Args:
        teacher_features: the dimension of the teacher's vectors; 0 without a teacher.
    """

    def __init__(
        self,
        network: NetworkSpec,
        resolution: int,
        num_classes: int,
        recipe: RecipeSpec,
        teacher_features: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        self.network = build_model(network, resolution, rngs=rngs)
        self.classifier = IdentityClassifier(network.embedding_dim, num_classes, recipe, rngs=rngs)
        projects = teacher_features not in (0, network.embedding_dim)
        self.projection = (
            nnx.Linear(network.embedding_dim, teacher_features, use_bias=False, kernel_init=kernel_init, rngs=rngs)
            if projects
            else None
        )
        self.labels_weight = recipe.distill_labels if teacher_features else 1.0

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixels [N, R, R, 3] -> embeddings [N, embedding_dim], logits [N, num_classes]."""
        # The network may compute in lower precision than its parameters; the loss does not.
        embeddings = self.network(pixels).astype(self.classifier.kernel.dtype)
        return embeddings, self.classifier(scale_gradient(embeddings, self.labels_weight))

    def project(self, embeddings: jax.Array) -> jax.Array:
        """Embeddings [N, embedding_dim] -> vectors [N, feature] in the teacher's space."""
        return embeddings if self.projection is None else self.projection(embeddings)


def scale_gradient(values: jax.Array, weight: float) -> jax.Array:
    """Return `values` unchanged, with their gradient multiplied by `weight`."""
    return values if weight == 1.0 else weight * values + (1.0 - weight) * jax.lax.stop_gradient(values)


def compute_loss(logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """Return the loss of `recipe` for a classifier's logits.

    Args:
        logits: [N, num_classes].
        labels: [N], in 0 to num_classes - 1.
        margin: this step's margin, a scalar; read by losses with a margin.

    Returns:
        A scalar, in nats.

    Raises:
        SpecError: the function registered for the loss does not return a float scalar.
    """
    loss = resolve(LOSSES[recipe.loss].function)(logits, labels, margin, recipe)
    if not (isinstance(loss, jax.Array) and loss.shape == () and jnp.issubdtype(loss.dtype, jnp.floating)):
        found = f"{loss.dtype}{list(loss.shape)}" if isinstance(loss, jax.Array) else repr(loss)
        raise SpecError(
            f"recipe.loss={recipe.loss} returns {found} for logits {list(logits.shape)}; it must return one float, "
            "such as the mean over images"
        )
    return loss
