"""Our side of the contests: training steps through `Trainer`, and calls of the jitted network."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.contest import PEOPLE, Call, Cell, make_faces, repeat
from benchmarks.contests import DECAY, MOMENTUM, RATE
from ffem_jax.machine.devices import make_batch_mesh, use_cpu_cores
from ffem_jax.specs.trial import RecipeSpec
from ffem_jax.training.classifier import FaceClassifier
from ffem_jax.training.trainer import Trainer

EPOCHS = 1000  # length of the recipe's schedule, which is then repeated

# Here, because it must be set before JAX's first computation.
use_cpu_cores()


def make_steps(trainer: Trainer, state: Any, epoch: int, first: int, last: int) -> Any:
    """Run steps `first` to `last` of an epoch with the call that `Trainer.fit` makes about once per second."""
    state, metrics = trainer.run_steps(state, trainer.zero_metrics(), epoch, first, last)
    jax.device_get(metrics)
    return state


def train(cell: Cell, folder: Path) -> Call:
    """Return calls of training steps on random faces, with the compiled program that `Trainer.fit` uses."""
    recipe = RecipeSpec(
        name="benchmark", epochs=EPOCHS, batch_size=cell.batch, optimizer="sgd", learning_rate=RATE, momentum=MOMENTUM,
        nesterov=True, schedule="constant", weight_decay=DECAY, loss="softmax", label_smoothing=0.0, flip=False,
    )  # fmt: skip
    images, people = make_faces(cell.resolution)
    trainer = Trainer(cell.spec, recipe, [0], images, people, np.arange(len(images)), np.arange(PEOPLE))
    state, epoch = trainer.init(), 0

    def call(steps: int) -> None:
        nonlocal state, epoch
        while steps:
            last = min(steps, trainer.steps_per_epoch)
            state = make_steps(trainer, state, epoch, 0, last)
            epoch, steps = (epoch + 1) % EPOCHS, steps - last

    return call


def build_classifier(cell: Cell) -> FaceClassifier:
    """Build our classifier with reproducible weights, and batch statistics as after some training."""
    classifier = FaceClassifier(cell.spec, cell.resolution, PEOPLE, RecipeSpec(loss="softmax"), rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for _, module in nnx.iter_graph(classifier):
        if isinstance(module, nnx.BatchNorm):
            size = module.mean.shape
            module.scale[...] = draw.uniform(1.0, 2.0, size).astype(np.float32)
            module.bias[...] = draw.normal(0.0, 0.2, size).astype(np.float32)
            module.mean[...] = draw.normal(0.0, 0.1, size).astype(np.float32)
            module.var[...] = draw.uniform(0.2, 1.0, size).astype(np.float32)
    return classifier


def embed(cell: Cell, folder: Path) -> Call:
    """Return calls of the deployed network, jitted; a batch is split over the cores where that is faster."""
    network = build_classifier(cell).network
    network.eval()
    graph, weights = nnx.split(network)
    mesh = make_batch_mesh("batch", cell.batch)
    whole, split = PartitionSpec(), PartitionSpec("batch")
    placed = jax.device_put(nnx.as_pure(weights), NamedSharding(mesh, whole))

    def apply(weights, images):
        return nnx.merge(graph, weights)(images)

    compiled = jax.jit(jax.shard_map(apply, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False))
    return repeat(lambda images: np.asarray(compiled(placed, images)), cell)


def write_weights(cell: Cell, folder: Path) -> None:
    """Write our weights in the format of each installed peer."""
    classifier = build_classifier(cell)
    for peer in ("torch_network", "keras_network"):
        with contextlib.suppress(ImportError):
            importlib.import_module(f"benchmarks.peers.{peer}").write_weights(classifier, cell, folder)
