"""PyTorch, started from the same weights, makes the same steps: loss by loss, and the network that they end in."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from ffem_jax.specs.architecture import ArchSpec, AttentionSpec, StageSpec, resolve_network
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.classifier import FaceClassifier
from ffem_jax.training.trainer import Trainer

PEOPLE, PER_PERSON, RESOLUTION, STEPS = 4, 6, 32, 6
ARCH = ArchSpec(
    stem_channels=8,
    stages=(StageSpec(1, 8, 1, 1), StageSpec(4, 12, 2, 2), StageSpec(4, 16, 2, 1)),
    head_channels=48,
    embedding_dim=16,
)
# A batch is all images, whose order then decides nothing; decay is off, since ours leaves biases out.
RECIPE = RecipeSpec(
    epochs=STEPS,
    batch_size=PEOPLE * PER_PERSON,
    learning_rate=0.1,
    schedule="constant",
    weight_decay=0.0,
    loss="softmax",
    label_smoothing=0.1,
    flip=False,
)


def merge(network, state):
    model = FaceClassifier(network, RESOLUTION, PEOPLE, RECIPE, rngs=nnx.Rngs(0))
    return nnx.merge(nnx.split(model, nnx.Param, ...)[0], state.params, state.statistics)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "eca", "se"])
def test_training_makes_the_steps_that_pytorch_makes(kind):
    torch = pytest.importorskip("torch", reason="the extra `bench` brings PyTorch")
    from benchmarks.peers import torch_network

    network = resolve_network(ArchSpec(**{**vars(ARCH), "attention": AttentionSpec(kind=kind, reduction=4)}))
    images = np.random.default_rng(0).integers(0, 256, (PEOPLE * PER_PERSON, RESOLUTION, RESOLUTION, 3), np.uint8)
    people = np.arange(len(images)) % PEOPLE
    everything = np.arange(len(images))
    trainer = Trainer(network, RECIPE, [0], images, people, everything, everything)

    peer = torch_network.FaceClassifier(network, RESOLUTION, PEOPLE)
    torch_network.copy_weights(merge(network, jax.device_get(trainer.init())), peer)
    optimizer = torch.optim.SGD(peer.parameters(), RECIPE.learning_rate, momentum=RECIPE.momentum, nesterov=True)
    pixels = torch_network.normalize_pixels(torch.from_numpy(images))
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        _, logits = peer(pixels)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(people), label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    training = trainer.fit()
    np.testing.assert_allclose([epoch[0] for epoch in training.history.loss], losses, rtol=2e-3)
    assert abs(losses[-1] - losses[0]) > 0.02  # it moved: equal losses of steps that do nothing say nothing
    with torch.inference_mode():
        found = peer.train().embed(pixels).numpy()  # in training mode: running variances are unbiased there, not here
    ours = merge(network, jax.tree.map(jax.numpy.asarray, jax.device_get(training.state)))
    ours.train()
    np.testing.assert_allclose(np.asarray(ours(images)[0]), found, atol=2e-2 * np.abs(found).max())
    assert np.std(found, axis=0).max() > 0.01  # they tell the images apart
