"""What training adds to a network: a dense layer over its people, and a loss. Deployment drops both."""

from __future__ import annotations

import jax
from flax import nnx

from ffem_jax.models import build_model
from ffem_jax.models.draws import kernel_init
from ffem_jax.specs.architecture import NetworkSpec
from ffem_jax.specs.trial import MARGIN_LOSSES, RecipeSpec
from ffem_jax.training.losses import add_margin, compute_cross_entropy, normalize


class PeopleClassifier(nnx.Linear):
    """Embeddings [N, embedding_dim] -> logits [N, people]: a dense layer with bias for a plain softmax, else cosines
    times recipe.scale."""

    def __init__(self, embedding_dim: int, people: int, recipe: RecipeSpec, *, rngs: nnx.Rngs):
        self.scale = None if recipe.loss == "softmax" else recipe.scale
        super().__init__(embedding_dim, people, use_bias=self.scale is None, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, embeddings: jax.Array) -> jax.Array:  # type: ignore[override]
        if self.scale is None:
            return super().__call__(embeddings)
        return self.scale * normalize(embeddings, axis=1) @ normalize(self.kernel[...], axis=0)


class FaceClassifier(nnx.Module):
    """The network and the classifier over the people who train."""

    def __init__(self, network: NetworkSpec, resolution: int, people: int, recipe: RecipeSpec, *, rngs: nnx.Rngs):
        self.network = build_model(network, resolution, rngs=rngs)
        self.classifier = PeopleClassifier(network.embedding_dim, people, recipe, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pixels [N, R, R, 3] -> embeddings [N, embedding_dim], logits [N, people]."""
        embeddings = self.network(pixels)
        return embeddings, self.classifier(embeddings)


def compute_loss(logits: jax.Array, labels: jax.Array, margin: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """The loss of `recipe` for a classifier's logits [N, people] and labels [N], a scalar in nats."""
    if recipe.loss in MARGIN_LOSSES:
        logits = recipe.scale * add_margin(logits / recipe.scale, labels, margin, recipe.loss)
    return compute_cross_entropy(logits, labels, recipe.label_smoothing)
