"""Random crop, mirror, light and erasing, on the device, one draw an image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ffem_jax.spec import RecipeSpec


def augment_images(key: jax.Array, images: jax.Array, recipe: RecipeSpec) -> jax.Array:
    """Augment uint8 [N, R, R, 3] as `recipe` says -> float32 [N, R, R, 3] in 0 to 255.

    What the recipe leaves at 0 or off is not compiled in.
    """
    count, side = images.shape[:2]
    crop_key, flip_key, light_key, erase_key = jax.random.split(key, 4)
    padding = round(recipe.crop_padding * side)
    if padding:
        # The border is repeated outwards: black edges would be a feature that no test image has.
        padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="edge")
        corners = jax.random.randint(crop_key, (count, 2), 0, 2 * padding + 1)
        images = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), (side, side, 3)))(
            padded, corners
        )
    if recipe.flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    pixels = images.astype(jnp.float32)
    if recipe.contrast or recipe.brightness:
        gain_key, shift_key = jax.random.split(light_key)
        gain = 1 + recipe.contrast * jax.random.uniform(gain_key, (count, 1, 1, 1), minval=-1.0)
        shift = 255 * recipe.brightness * jax.random.uniform(shift_key, (count, 1, 1, 1), minval=-1.0)
        mean = jnp.mean(pixels, axis=(1, 2, 3), keepdims=True)
        pixels = jnp.clip((pixels - mean) * gain + mean + shift, 0, 255)
    if recipe.erase:
        size_key, corner_key = jax.random.split(erase_key)
        size = jax.random.uniform(size_key, (count, 1, 1), maxval=recipe.erase * side)
        row, column = jax.random.uniform(corner_key, (2, count, 1, 1), maxval=side)
        rows, columns = jnp.arange(side)[None, :, None], jnp.arange(side)[None, None, :]
        erased = (abs(rows - row) < size / 2) & (abs(columns - column) < size / 2)
        pixels = jnp.where(erased[..., None], 127.5, pixels)
    return pixels
