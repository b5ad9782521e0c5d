"""Images that come a batch at a time train the very network that images on the device train."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from made_trainers import NETWORK, SHORT, draw_faces

from ffem_jax.data.read_ahead import StreamError
from ffem_jax.specs.architecture import SpecError
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training import feed as feed_module
from ffem_jax.training.feed import fits_device
from ffem_jax.training.trainer import Trainer


def make_trainer(recipe: RecipeSpec = SHORT, seeds: Any = (0,), **settings: Any) -> Trainer:
    return Trainer(NETWORK, recipe, seeds, *draw_faces(), **settings)


@pytest.fixture(scope="module")
def fed() -> Trainer:
    return make_trainer(feed=True)


def assert_same(left: Any, right: Any) -> None:
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_fed_training_is_the_training_to_the_last_bit(fed: Trainer) -> None:
    held = make_trainer()
    expected, found = held.fit(), fed.fit()
    assert found.history == expected.history
    assert_same(found.state, expected.state)
    assert expected.data_wait_fraction is None
    assert found.data_wait_fraction is not None
    assert 0 <= found.data_wait_fraction <= 1
    for a, b in zip(held.embed(expected.state, np.arange(45)), fed.embed(expected.state, np.arange(45)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_each_seed_takes_its_own_batches() -> None:
    found = make_trainer(seeds=(0, 7), feed=True).fit().history.loss
    np.testing.assert_allclose(found, make_trainer(seeds=(0, 7)).fit().history.loss, rtol=1e-5)


@pytest.mark.slow
def test_a_teacher_is_heard_too() -> None:
    random = np.random.default_rng(0)
    targets = random.standard_normal((48, 5)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    recipe = dataclasses.replace(SHORT, distill_cosine=1.0, distill_relation=1.0, distill_centres=1.0)
    for seeds in ((0,), (0, 3)):
        losses = [make_trainer(recipe, seeds, targets=targets, feed=feed).fit().history.loss for feed in (False, True)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_it_goes_on_at_the_very_image(fed: Trainer) -> None:
    """From the end of an epoch, as checkpoints do, and from the middle of one."""
    whole = fed.fit()
    kept: list[Any] = []
    fed.fit(stop_epoch=1, on_epoch=lambda *done: kept.append(jax.tree.map(np.array, done[:2])))
    (epochs, state), history = kept[0], dataclasses.replace(whole.history)
    history = dataclasses.replace(
        history,
        loss=history.loss[:1], train_accuracy=history.train_accuracy[:1],
        validation_accuracy=history.validation_accuracy[:1],
    )  # fmt: skip
    again = make_trainer(feed=True).fit(restored=(int(epochs), jax.tree.map(jax.numpy.asarray, state), history))
    assert again.history == whole.history
    assert_same(again.state, whole.state)
    assert fed._feed is not None
    fresh = make_trainer(feed=True)
    assert fresh._feed is not None
    taken = [fed._feed.take(1, step).images for step in range(3)]
    np.testing.assert_array_equal(fresh._feed.take(1, 2).images, taken[2])
    fed.close()
    fresh.close()


def test_an_epoch_is_a_permutation_and_its_part_differs_from_epoch_to_epoch() -> None:
    images, labels, train, test = draw_faces()
    images = np.broadcast_to(np.arange(len(images), dtype=np.uint8)[:, None, None, None], images.shape).copy()
    trainer = Trainer(NETWORK, SHORT, (0,), images, labels, train, test, feed=True, images_per_epoch=24)
    assert trainer.steps_per_epoch == 2
    assert trainer._feed is not None
    epochs = [
        np.concatenate([np.asarray(trainer._feed.take(epoch, step).images)[:, 0, 0, 0] for step in range(2)])
        for epoch in range(2)
    ]
    trainer.close()
    for taken in epochs:
        assert len(set(taken.tolist()) & set(train.tolist())) == 24
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())


def test_images_per_epoch_shortens_an_epoch_and_more_than_there_are_is_all() -> None:
    assert make_trainer(images_per_epoch=25).steps_per_epoch == 2
    assert make_trainer(images_per_epoch=1000).steps_per_epoch == 3
    with pytest.raises(SpecError, match=r"data\.images_per_epoch=11 is less than a batch"):
        make_trainer(images_per_epoch=11)


def test_a_broken_image_says_at_which_step(fed: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fed._feed is not None

    class Breaking:
        def __init__(self) -> None:
            self.left = 16

        def __getitem__(self, index: int) -> np.ndarray:
            self.left -= 1
            if self.left < 0:
                raise StreamError(f"image {index} can no longer be read")
            return images[index]

    images = draw_faces()[0]
    monkeypatch.setattr(fed._feed, "images", Breaking())
    with pytest.raises(StreamError, match=r"epoch 1, step 2: image \d+ can no longer be read"):
        fed.fit()
    assert fed._feed._batches is None  # nothing reads on


def test_what_an_accelerator_cannot_hold_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        platform = "gpu"

        def __init__(self, limit: int) -> None:
            self.limit = limit

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": self.limit, "bytes_in_use": 1_000}

    assert fits_device(np.zeros(10_000, np.uint8))
    for devices in ([Device(3_000)], [Device(9_000), Device(3_000)]):
        monkeypatch.setattr(jax, "local_devices", lambda devices=devices: devices)
        assert fits_device(np.zeros(1_000, np.uint8))
        assert not fits_device(np.zeros(1_001, np.uint8))


def test_a_batch_is_split_over_the_devices(fed: Trainer) -> None:
    """Each holds its own rows alone, in the order of the epoch."""
    assert fed._feed is not None
    taken = fed._feed.take(0, 0)
    fed.close()
    assert fed.device_count == 2
    for rows in (taken.images, taken.labels):
        assert [shard.data.shape[0] for shard in rows.addressable_shards] == [6, 6]
    np.testing.assert_array_equal(
        np.concatenate([shard.data for shard in taken.images.addressable_shards]), taken.images
    )


def test_epochs_are_read_as_one_as_far_as_their_order_is_known_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    read = feed_module.read_batches
    monkeypatch.setattr(feed_module, "read_batches", lambda *words: begun.append(len(words[1])) or read(*words))
    expected = make_trainer(feed=True).fit()
    assert begun == [3 * SHORT.epochs], "no thread starts anew between two epochs"
    begun.clear()
    monkeypatch.setattr(feed_module, "IMAGES_AHEAD", 1)
    found = make_trainer(feed=True).fit()
    assert begun == [3] * SHORT.epochs
    assert found.history == expected.history
    assert_same(found.state, expected.state)
