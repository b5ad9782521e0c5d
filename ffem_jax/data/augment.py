"""Random crop, mirror, light and erasing, on the device, one draw an image."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ffem_jax.spec import RecipeSpec


def augment_images(
    key: jax.Array, images: jax.Array, recipe: RecipeSpec, batch: int | None = None, first: jax.Array | int = 0
) -> jax.Array:
    """Augment uint8 [N, R, R, 3] as `recipe` says -> float32 [N, R, R, 3] in 0 to 255.

    `images` may be the part of a batch of `batch` images that begins with its image `first`: each part of a batch is
    augmented as the whole would be. What the recipe leaves at 0 or off is not compiled in.
    """
    count, side = images.shape[:2]

    def draw(sample, *shape, **options):
        """This part's rows of what `sample` draws for the batch."""
        return lax.dynamic_slice_in_dim(sample(shape=(batch or count, *shape), **options), first, count)

    crop_key, flip_key, light_key, erase_key = jax.random.split(key, 4)
    padding = round(recipe.crop_padding * side)
    if padding:
        # The border is repeated outwards: black edges would be a feature that no test image has.
        padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="edge")
        corners = draw(partial(jax.random.randint, crop_key), 2, minval=0, maxval=2 * padding + 1)
        images = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), (side, side, 3)))(
            padded, corners
        )
    if recipe.flip:
        mirrored = draw(partial(jax.random.bernoulli, flip_key), 1, 1, 1)
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    pixels = images.astype(jnp.float32)
    if recipe.contrast or recipe.brightness:
        gain_key, shift_key = jax.random.split(light_key)
        gain = 1 + recipe.contrast * draw(partial(jax.random.uniform, gain_key), 1, 1, 1, minval=-1.0)
        shift = 255 * recipe.brightness * draw(partial(jax.random.uniform, shift_key), 1, 1, 1, minval=-1.0)
        mean = jnp.mean(pixels, axis=(1, 2, 3), keepdims=True)
        pixels = jnp.clip((pixels - mean) * gain + mean + shift, 0, 255)
    if recipe.erase:
        size_key, corner_key = jax.random.split(erase_key)
        size = draw(partial(jax.random.uniform, size_key), 1, 1, maxval=recipe.erase * side)
        corner = jax.random.uniform(corner_key, (2, batch or count, 1, 1), maxval=side)
        row, column = lax.dynamic_slice_in_dim(corner, first, count, axis=1)
        rows, columns = jnp.arange(side)[None, :, None], jnp.arange(side)[None, None, :]
        erased = (abs(rows - row) < size / 2) & (abs(columns - column) < size / 2)
        pixels = jnp.where(erased[..., None], 127.5, pixels)
    return pixels
