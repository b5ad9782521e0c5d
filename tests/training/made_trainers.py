"""A small network, faces that it tells apart in seconds, and how well a training on drawn faces does."""

import jax
import numpy as np

from ffem_jax.data import load_faces
from ffem_jax.metrics.identification import compute_closed_set_hits
from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.specs.trial import DataSpec, RecipeSpec
from ffem_jax.training.trainer import Trainer

NETWORK = resolve_network(
    ArchSpec(
        stem_channels=8,
        stages=(StageSpec(1, 8, 1, 1), StageSpec(2, 8, 1, 2)),
        head_channels=0,
        embedding_dim=8,
        attention=AttentionSpec(kind="eca", placement="all"),
    )
)
# Mirrored, two of the four people would be the other two.
RECIPE = RecipeSpec(epochs=15, batch_size=8, flip=False)
SHORT = RecipeSpec(epochs=2, batch_size=12)
PEOPLE, PER_PERSON, SIDE = 4, 12, 16


def draw_faces():
    """Four people, told apart by the place of a bright square; noise on everything."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(PEOPLE), PER_PERSON)
    images = random.integers(0, 120, (len(labels), SIDE, SIDE, 3))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 + 8 * (label // 2), 4 + 8 * (label % 2)
        image[row - 3 : row + 3, column - 3 : column + 3] += 120
    test = np.arange(0, len(labels), 4)
    return images.astype(np.uint8), labels, np.setdiff1d(np.arange(len(labels)), test), test


def assert_same(left, right):
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def measure_drawn_faces(people, images_per_person, recipe):
    """The share of test images whose nearest training image shows the same person, of two seeds."""
    spec = DataSpec(name="synthetic", people=people, images_per_person=images_per_person, resolution=32)
    faces = load_faces(spec)
    everyone = np.arange(len(faces.labels))
    test = everyone[everyone % images_per_person < 2]
    train = np.setdiff1d(everyone, test)
    network = resolve_network(
        ArchSpec(
            stem_channels=8,
            stem_stride=2,
            stages=(StageSpec(1, 8, 1, 1), StageSpec(4, 16, 2, 2)),
            head_channels=16,
            embedding_dim=32,
            activation="prelu",
        )
    )
    trainer = Trainer(network, recipe, [0, 1], faces.images, faces.labels, train, test[:0])
    vectors, _ = trainer.embed(trainer.fit().state, everyone)
    hits = [compute_closed_set_hits(one[test], faces.labels[test], one[train], faces.labels[train]) for one in vectors]
    return float(np.mean(hits))
