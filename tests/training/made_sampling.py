"""Noise of more people than a step takes classes, and the recipes that take some of them and all."""

import dataclasses

import numpy as np
from made_trainers import SIDE

from ffem_jax.specs.recipe import RecipeSpec

PEOPLE, PER_PERSON = 20, 3
RECIPE = RecipeSpec(epochs=2, batch_size=4, class_sampling=0.4, flip=False, scale=8.0)
WHOLE = dataclasses.replace(RECIPE, class_sampling=1.0)


def draw_people(people=PEOPLE):
    """Noise, a different mean per person; the last image of each is not trained on."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), PER_PERSON)
    means = random.integers(0, 200, (people, SIDE, SIDE, 3))
    images = np.clip(means[labels] + random.normal(0, 30, (len(labels), SIDE, SIDE, 3)), 0, 255)
    test = np.arange(PER_PERSON - 1, len(labels), PER_PERSON)
    return images.astype(np.uint8), labels, np.setdiff1d(np.arange(len(labels)), test), test
