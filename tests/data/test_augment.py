"""Augmentation against every outcome it may have: all shifts, both mirrors, SciPy's turns, a square and no more."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ffem_jax.data.augment import augment_images, turn_and_zoom
from ffem_jax.specs.trial import RecipeSpec

SIDE = 12
augment_compiled = jax.jit(augment_images, static_argnums=2)
turn_compiled = jax.jit(turn_and_zoom)


def make_images(count: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def augment(images: np.ndarray, seed: int = 0, **choices) -> np.ndarray:
    recipe = RecipeSpec(**{"flip": False, **choices})
    found = augment_compiled(jax.random.key(seed), images, recipe)
    assert found.shape == images.shape
    assert found.dtype == jnp.float32
    return np.asarray(found)


def test_with_everything_off_the_pixels_are_the_same_as_floats():
    images = make_images()
    np.testing.assert_array_equal(augment(images), images.astype(np.float32))


def test_flip_gives_the_image_or_its_mirror_and_both_occur():
    images = make_images()
    found = augment(images, flip=True)
    same = (found == images).all(axis=(1, 2, 3))
    mirrored = (found == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 8 <= mirrored.sum() <= 40  # 48 fair coins stay within this but for 1 in a million


def test_crop_is_a_shift_within_the_bound_of_the_image_with_its_border_repeated():
    images = make_images()
    found = augment(images, crop_padding=1 / 6)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    shifts = [(row, column) for row in range(5) for column in range(5)]
    matches = np.asarray(
        [(found == padded[:, row : row + SIDE, column : column + SIDE]).all(axis=(1, 2, 3)) for row, column in shifts]
    )
    assert (matches.sum(axis=0) == 1).all()
    rows, columns = np.asarray(shifts)[matches.argmax(axis=0)].T
    assert set(rows) == set(columns) == {0, 1, 2, 3, 4}
    assert (rows != columns).any()


def test_crop_padding_below_half_a_pixel_is_none():
    images = make_images(4)
    np.testing.assert_array_equal(augment(images, crop_padding=0.04), images)


def test_light_changes_images_and_stays_within_the_range_of_bytes():
    images = make_images()
    found = augment(images, brightness=0.5, contrast=0.5)
    assert found.min() >= 0
    assert found.max() <= 255
    assert (found != images).any(axis=(1, 2, 3)).all()


def test_brightness_moves_every_pixel_alike_by_at_most_its_share_of_the_range():
    grey = np.full((48, SIDE, SIDE, 3), 128, np.uint8)
    moved = augment(grey, brightness=0.2) - 128
    np.testing.assert_allclose(np.ptp(moved, axis=(1, 2, 3)), 0, atol=1e-4)
    assert np.abs(moved).max() <= 0.2 * 255 + 1e-3
    assert moved.min() < -10
    assert moved.max() > 10


def test_contrast_stretches_about_the_mean_by_at_most_its_share():
    images = make_images() // 4 + 96  # room on both sides, so that nothing is cut off
    found = augment(images, contrast=0.2)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3)), rtol=1e-4)
    gains = found.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert 0.8 - 1e-4 <= gains.min() < 0.9
    assert 1.1 < gains.max() <= 1.2 + 1e-4


@pytest.mark.parametrize("erase", [0.25, 0.5])
def test_erase_greys_a_rectangle_no_larger_than_the_stated_square(erase):
    images = make_images(200)
    found = augment(images, erase=erase)
    assert found.min() >= 0
    assert found.max() <= 255
    erased = (found == 127.5).all(axis=-1)  # no byte is 127.5
    np.testing.assert_array_equal(found[~erased], images[~erased])
    rows, columns = erased.any(axis=2), erased.any(axis=1)
    np.testing.assert_array_equal(erased, rows[:, :, None] & columns[:, None, :])
    assert max(rows.sum(axis=1).max(), columns.sum(axis=1).max()) == round(erase * SIDE)
    assert erased.mean(axis=(1, 2)).max() <= erase**2
    assert len({tuple(mask.ravel()) for mask in erased}) > 50


# -------------------------------------------------------------------------------- turn and zoom


def turn(images: np.ndarray, degrees: float, scale: float = 1.0) -> np.ndarray:
    ones = np.ones((len(images), 1, 1), np.float32)
    return np.asarray(turn_compiled(images, np.deg2rad(degrees) * ones, scale * ones))


def test_no_turn_and_a_quarter_turn_are_exact():
    images = make_images(3)
    np.testing.assert_allclose(turn(images, 0), images, atol=1e-3)
    np.testing.assert_allclose(turn(images, 90), np.rot90(images, -1, axes=(1, 2)), atol=1e-2)


@pytest.mark.parametrize(("degrees", "scale"), [(10, 1), (-37, 1), (0, 1.25), (0, 0.8), (180, 1), (15, 0.9)])
def test_a_turn_with_zoom_is_scipys_affine_transform_with_its_edge_repeated(degrees, scale):
    images = make_images(3)
    angle = np.deg2rad(degrees)
    back = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    middle = np.full(2, (SIDE - 1) / 2)
    for image, found in zip(images, turn(images, degrees, scale), strict=True):
        for channel in range(3):
            wanted = ndimage.affine_transform(
                image[..., channel].astype(float), back, middle - back @ middle, order=1, mode="nearest"
            )
            np.testing.assert_allclose(found[..., channel], wanted, atol=0.02)


def test_a_zoom_above_one_enlarges():
    spot = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    spot[:, 4:8, 4:8] = 200
    assert turn(spot, 0, 1.5).sum() > 1.5 * spot.sum()
    assert turn(spot, 0, 0.7).sum() < 0.7 * spot.sum()


def test_turns_and_zooms_stay_within_their_bounds_and_reach_out_to_them():
    # Of a picture that is a plane, the slope tells the turn and the scale.
    plane = np.broadcast_to(10 * np.arange(SIDE)[:, None, None] + 60, (200, SIDE, SIDE, 3)).astype(np.uint8)
    found = augment(plane, rotation=20.0, zoom=0.2)[:, 4:8, 4:8, 0]  # the middle, which no edge reaches
    down, across = np.diff(found, axis=1).mean(axis=(1, 2)) / 10, np.diff(found, axis=2).mean(axis=(1, 2)) / 10
    angles, scales = np.rad2deg(np.arctan2(-across, down)), 1 / np.hypot(across, down)
    assert np.abs(angles).max() <= 20 + 1e-2
    assert np.abs(scales - 1).max() <= 0.2 + 1e-3
    assert angles.min() < -18
    assert angles.max() > 18
    assert scales.min() < 0.82
    assert scales.max() > 1.18
    assert abs(np.corrcoef(angles, scales)[0, 1]) < 0.3


@pytest.mark.parametrize("off", ["rotation", "zoom"])
def test_a_turn_alone_keeps_the_scale_and_a_zoom_alone_the_direction(off):
    plane = np.broadcast_to(10 * np.arange(SIDE)[:, None, None] + 60, (50, SIDE, SIDE, 3)).astype(np.uint8)
    found = augment(plane, **({"zoom": 0.2} if off == "rotation" else {"rotation": 20.0}))[:, 4:8, 4:8, 0]
    down, across = np.diff(found, axis=1).mean(axis=(1, 2)) / 10, np.diff(found, axis=2).mean(axis=(1, 2)) / 10
    np.testing.assert_allclose(across if off == "rotation" else np.hypot(across, down), off != "rotation", atol=1e-3)


def test_the_other_draws_are_the_same_with_a_turn_and_without():
    grey = np.full((48, SIDE, SIDE, 3), 128, np.uint8)
    light = {"brightness": 0.2}
    np.testing.assert_allclose(augment(grey, rotation=20.0, **light), augment(grey, **light), atol=1e-3)


EVERYTHING = {
    "flip": True, "crop_padding": 0.1, "rotation": 10.0, "zoom": 0.1, "brightness": 0.2, "contrast": 0.2, "erase": 0.4
}  # fmt: skip


def test_the_same_key_gives_the_same_images_and_another_key_others():
    images = make_images()
    first = augment(images, seed=1, **EVERYTHING)
    np.testing.assert_array_equal(first, augment(images, seed=1, **EVERYTHING))
    assert (first != augment(images, seed=2, **EVERYTHING)).any(axis=(1, 2, 3)).all()


def test_images_of_one_batch_are_drawn_apart():
    images = np.repeat(make_images(1), 48, axis=0)
    found = augment(images, brightness=0.2)
    assert len(np.unique(found[:, 0, 0, 0])) > 40


def test_several_seeds_drawn_as_one_program_are_those_drawn_apart():
    images, recipe = jnp.asarray(make_images()), RecipeSpec(**EVERYTHING)
    keys = jnp.stack([jax.random.key(1), jax.random.key(2)])
    together = jax.jit(jax.vmap(partial(augment_images, recipe=recipe), in_axes=(0, None)))(keys, images)
    for seed, found in zip((1, 2), together, strict=True):
        np.testing.assert_allclose(augment(images, seed=seed, **EVERYTHING), found, atol=1e-3)


@pytest.mark.slow
def test_parts_of_a_batch_are_augmented_as_the_whole_is():
    images = jnp.asarray(make_images())
    recipe = RecipeSpec(**{**EVERYTHING, "crop_padding": 0.2, "erase": 0.5})
    whole = augment_images(jax.random.key(3), images, recipe)
    halves = [augment_images(jax.random.key(3), images[first : first + 24], recipe, 48, first) for first in (0, 24)]
    np.testing.assert_allclose(np.concatenate(halves), whole, rtol=1e-6, atol=1e-4)
