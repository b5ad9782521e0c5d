"""Random crop, mirror, rotation, zoom, light and erasing on the device, drawn per image."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ffem_jax.specs.trial import RecipeSpec


def augment_images(
    key: jax.Array, images: jax.Array, recipe: RecipeSpec, batch: int | None = None, first: jax.Array | int = 0
) -> jax.Array:
    """Augment images according to `recipe`. Disabled augmentations are not compiled.

    A part of a batch is augmented exactly as within the complete batch.

    Args:
        images: uint8 [N, R, R, 3], a complete batch or the part that starts at its image `first`.
        batch: number of images in the complete batch; None for N.

    Returns:
        float32 [N, R, R, 3] in 0 to 255.

    References:
        Erasing: Zhong et al., Random Erasing, AAAI 2020, with a square of uniform grey.
    """
    count, side = images.shape[:2]

    def draw(sample, *shape, **options):
        """Return this part's rows of the random numbers that `sample` draws for the batch."""
        return lax.dynamic_slice_in_dim(sample(shape=(batch or count, *shape), **options), first, count)

    crop_key, flip_key, light_key, erase_key = jax.random.split(key, 4)
    padding = round(recipe.crop_padding * side)
    if padding:
        # Edge pixels are repeated: black borders would be a feature that no test image has.
        padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="edge")
        corners = draw(partial(jax.random.randint, crop_key), 2, minval=0, maxval=2 * padding + 1)
        images = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (*corner, 0), (side, side, 3)))(
            padded, corners
        )
    if recipe.flip:
        mirrored = draw(partial(jax.random.bernoulli, flip_key), 1, 1, 1)
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    pixels = images.astype(jnp.float32)
    if recipe.rotation or recipe.zoom:
        # A separate key, so that the draws from the four keys above do not change.
        turn_key, zoom_key = jax.random.split(jax.random.fold_in(key, 4))
        angle = jnp.deg2rad(recipe.rotation) * draw(partial(jax.random.uniform, turn_key), 1, 1, minval=-1.0)
        scale = 1 + recipe.zoom * draw(partial(jax.random.uniform, zoom_key), 1, 1, minval=-1.0)
        pixels = turn_and_zoom(images, angle, scale)
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


def turn_and_zoom(images: jax.Array, angle: jax.Array, scale: jax.Array) -> jax.Array:
    """Rotate each image about its centre and scale it, by bilinear interpolation.

    Pixels outside the image repeat the nearest edge pixel.

    Args:
        images: [N, R, R, 3].
        angle: [N, 1, 1], in radians, clockwise on the screen.
        scale: [N, 1, 1], the magnification.

    Returns:
        float32 [N, R, R, 3].
    """
    count, side = images.shape[:2]
    middle = (side - 1) / 2
    rows, columns = (jnp.arange(side) - middle)[:, None], (jnp.arange(side) - middle)[None, :]
    # The source of each pixel, by the inverse transform.
    cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    row = jnp.clip(middle + cosine * rows - sine * columns, 0, side - 1)
    column = jnp.clip(middle + sine * rows + cosine * columns, 0, side - 1)
    top = jnp.minimum(jnp.floor(row).astype(jnp.int32), side - 2)
    left = jnp.minimum(jnp.floor(column).astype(jnp.int32), side - 2)
    down, right = (row - top)[..., None], (column - left)[..., None]
    flat = images.reshape(count, side * side, 3)

    def take(i, j):
        places = ((top + i) * side + left + j).reshape(count, -1, 1)
        return jnp.take_along_axis(flat, places, axis=1, mode="promise_in_bounds").reshape(images.shape)

    upper = (1 - right) * take(0, 0) + right * take(0, 1)
    lower = (1 - right) * take(1, 0) + right * take(1, 1)
    return (1 - down) * upper + down * lower
